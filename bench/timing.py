"""Samples of calls, on one core.

To make times comparable, all calls use one thread on one core, and medians are compared. Libraries
are interleaved in random order within each repetition, so that a slow moment of the machine affects
all of them. Work that a library does once for a shape (compiling, binding) is not timed; work that
it does in each call is timed.
"""

import contextlib
import gc
import itertools
import os
import random
import time
from collections.abc import Callable, Iterator

import threadpoolctl

from .peers.base import Call

SAMPLE_NS = 2_000_000  # long compared with the resolution of the clock and with interruptions
LEAST = 3  # samples, even if they take long

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}


@contextlib.contextmanager
def one_thread(core: int | None = None) -> Iterator[int | None]:
    """Restrict this thread to one core, and libraries imported in the block to one thread.

    If they start threads nevertheless, these inherit the core.

    Parameters
    ----------
    core : int, optional
        The last by default, since the first serves more interrupts.

    Yields
    ------
    core : int or None
        The core, or None if the system has no call to choose it.
    """
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_setaffinity") else set()
    os.environ.update(ONE_THREAD)
    os.environ["XLA_FLAGS"] = f"{before['XLA_FLAGS'] or ''} {ONE_THREAD['XLA_FLAGS']}".strip()
    if cores:
        core = max(cores) if core is None else core
        os.sched_setaffinity(0, {core})
    try:
        # NumPy's BLAS has started already and did not see the environment above. With its second
        # thread on the same core, a layer would take 32 ms instead of 70 us.
        with threadpoolctl.threadpool_limits(1):
            yield core if cores else None
    finally:
        if cores:
            os.sched_setaffinity(0, cores)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def nothing() -> None:
    """Do nothing, for calls that need no preparation."""


def sample(call: Call, count: int, prepare: Call = nothing) -> float:
    """Return the nanoseconds per call, over `count` calls after one that is not timed."""
    prepare()
    call()  # loads data into the caches that other libraries evicted
    start = time.perf_counter_ns()
    for _ in itertools.repeat(None, count):
        call()
    return (time.perf_counter_ns() - start) / count


def warm_up(call: Call, seconds: float, prepare: Call = nothing) -> None:
    """Repeat a call for `seconds` without timing; for 0, do not call at all."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        prepare()
        call()


def calls_per_sample(call: Call, prepare: Call = nothing) -> int:
    """Return how many calls fill a sample. Finding this out is also a warm-up."""
    count = 1
    while (elapsed := sample(call, count, prepare) * count) < SAMPLE_NS / 4:
        count *= 2
    return max(1, round(count * SAMPLE_NS / elapsed))


def interleaved(
    calls: dict[str, Call],
    counts: dict[str, int],
    repetitions: int,
    prepare: Callable[[], None] = nothing,
    seconds: float = float("inf"),
) -> dict[str, list[float]]:
    """Take samples of each call, in nanoseconds per call.

    Parameters
    ----------
    calls : dict
        By name of the library.
    counts : dict
        How many calls make a sample.
    repetitions : int
        Samples of each call.
    prepare : callable
        Called before each sample.
    seconds : float
        No repetition begins after this time, except the first ``LEAST``.

    Returns
    -------
    dict
        The samples by name, as many for each.
    """
    samples: dict[str, list[float]] = {name: [] for name in calls}
    order = random.Random(0)
    collecting = gc.isenabled()
    gc.disable()
    start = time.perf_counter()
    try:
        for done in range(repetitions):
            if done >= LEAST and time.perf_counter() - start > seconds:
                break
            for name in order.sample(list(calls), len(calls)):
                samples[name].append(sample(calls[name], counts[name], prepare))
    finally:
        if collecting:
            gc.enable()
    return samples
