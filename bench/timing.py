"""Samples of calls, on one core.

What makes times comparable: one thread on one core; libraries interleaved in random order
within each repetition, so that a slow moment of the machine meets them all; medians. What a
library does once for a shape (compiling, binding) is not timed; what it does per call is.
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

SAMPLE_NS = 2_000_000  # long against the clock and interruptions of the timed loop
LEAST = 3  # samples, however long they take

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}


@contextlib.contextmanager
def one_thread(core: int | None = None) -> Iterator[int | None]:
    """Keep this thread on one core, and libraries imported meanwhile to one thread.

    Threads that those start nevertheless inherit the core.

    Parameters
    ----------
    core : int, optional
        The last by default, since the first has more interrupts to serve.

    Yields
    ------
    core : int or None
        The core, None where the system cannot be told.
    """
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_setaffinity") else set()
    os.environ.update(ONE_THREAD)
    os.environ["XLA_FLAGS"] = f"{before['XLA_FLAGS'] or ''} {ONE_THREAD['XLA_FLAGS']}".strip()
    if cores:
        core = max(cores) if core is None else core
        os.sched_setaffinity(0, {core})
    try:
        # NumPy's BLAS has started already, and did not see the environment above. Its second
        # thread on the same core would make a layer of 70 us take 32 ms.
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
    """For calls that need no preparation."""


def sample(call: Call, count: int, prepare: Call = nothing) -> float:
    """Nanoseconds per call, over `count` calls after one that is not timed."""
    prepare()
    call()  # brings back what other libraries drove out of the caches
    start = time.perf_counter_ns()
    for _ in itertools.repeat(None, count):
        call()
    return (time.perf_counter_ns() - start) / count


def warm_up(call: Call, seconds: float, prepare: Call = nothing) -> None:
    """Call for so long without timing, and no time at all for 0."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        prepare()
        call()


def calls_per_sample(call: Call, prepare: Call = nothing) -> int:
    """How many calls fill a sample; finding out warms up as well."""
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
    """Samples of each call, in nanoseconds per call.

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
        Stop after a repetition that ends later than this, but not before ``LEAST`` of them.

    Returns
    -------
    dict
        As many samples for each name.
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
