"""Time per element, and error, of one function in several libraries.

What makes the times comparable: one thread on one core; the same input and output arrays, on
cache lines, for every library; results checked before anything is timed; libraries interleaved
in random order within each repetition, so that a slow moment of the machine meets them all;
medians. What a library does once for a shape (compiling, binding) is not timed; what it does
per call is.
"""

import contextlib
import gc
import itertools
import os
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fastact._declare import Activation

from .peers import PEERS, Call, Library, Unsupported

SAMPLE_NS = 2_000_000  # long against the clock and interruptions of the timed loop
FLOAT64_SAMPLE = 2_000  # inputs that MPFR computes within some 10 ms

TOLERANCE = {"float16": (1e-2, 1e-3), "float32": (1e-3, 1e-5), "float64": (1e-6, 1e-9)}
"""Relative and absolute; loose, since some libraries are inaccurate far from 0."""

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}


class WrongResult(Exception):
    """A library did not compute the function."""


@dataclass(frozen=True)
class Problem:
    """A function with inputs, and where to put and what to expect for the results."""

    declared: Activation
    inputs: Sequence[np.ndarray]
    want: np.ndarray
    out: np.ndarray

    def head(self, size: int) -> "Problem":
        """The same with the first `size` inputs only."""
        inputs = [x[:size] for x in self.inputs]
        return Problem(self.declared, inputs, self.want[:size], self.out[:size])


@dataclass(frozen=True)
class Cell:
    """What was measured of one library.

    Attributes
    ----------
    status : {"measured", "unsupported", "wrong", "error"}
    note : str
        The reason, where nothing was measured.
    ns : tuple of float, optional
        Lower quartile, median and upper quartile of the nanoseconds per element.
    calls : int
        Calls per sample.
    ulp : float, optional
        Largest error in ulp.
    """

    status: str
    note: str = ""
    ns: tuple[float, float, float] | None = None
    calls: int = 0
    ulp: float | None = None


@dataclass(frozen=True)
class Row:
    """One function, dtype and size: a cell for each library that has the function."""

    function: str
    dtype: str
    size: int
    cells: dict[str, Cell]


@contextlib.contextmanager
def one_thread() -> Iterator[int | None]:
    """Keep this thread on one core, and libraries imported meanwhile to one thread.

    Threads that those start nevertheless inherit the core.

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
        os.sched_setaffinity(0, {max(cores)})
    try:
        yield max(cores, default=None)
    finally:
        if cores:
            os.sched_setaffinity(0, cores)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def problem(declared: Activation, dtype: str, size: int) -> Problem:
    """Make inputs from the normal distribution with standard deviation 4.

    Parameters
    ----------
    declared : Activation
        The function.
    dtype : str
        Name of the dtype of inputs and output.
    size : int
        Number of elements.

    Returns
    -------
    Problem
        All its arrays touched, so that no page is mapped within a sample.
    """
    rng = np.random.default_rng(0)
    inputs = [_on_cache_line(dtype, size) for _ in range(declared.nin)]
    for x in inputs:
        x[:] = rng.standard_normal(size) * 4
    with np.errstate(all="ignore"):
        want = declared.reference(np, *(x.astype(np.float64) for x in inputs))
    out = _on_cache_line(dtype, size)
    out.fill(0)
    return Problem(declared, inputs, want, out)


def _on_cache_line(dtype: str, size: int) -> np.ndarray:
    """An empty array that begins where a cache line does, else that is left to chance."""
    nbytes = size * np.dtype(dtype).itemsize
    raw = np.empty(nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + nbytes].view(dtype)


def measure(
    case: Problem, libraries: dict[str, Library], repetitions: int, with_ulp: bool
) -> dict[str, Cell]:
    """Check, then time every library that has the function.

    Parameters
    ----------
    case : Problem
        What to compute.
    libraries : dict
        The loaded libraries by name.
    repetitions : int
        Samples per library.
    with_ulp : bool
        Whether to measure errors, which needs gmpy2.

    Returns
    -------
    dict
        A :class:`Cell` by library name.
    """
    calls, ulp, cells = {}, {}, {}
    with np.errstate(all="ignore"):  # steps of other libraries overflow
        for name, library in libraries.items():
            if case.declared.name not in library.factories:
                continue
            try:
                calls[name], got = _checked(name, library.factories[case.declared.name], case)
                ulp[name] = _largest_error(case, got) if with_ulp else None
            except Unsupported as reason:
                cells[name] = Cell("unsupported", str(reason))
            except WrongResult as reason:
                cells[name] = Cell("wrong", str(reason))
            except Exception as reason:  # one broken library must not end the run
                cells[name] = Cell("error", f"{type(reason).__name__}: {reason}")
        counts = {name: calls_per_sample(call) for name, call in calls.items()}
        samples = interleaved(calls, counts, repetitions)
    for name, values in samples.items():
        quartiles = np.quantile(values, [0.25, 0.5, 0.75]) / len(case.out)
        cells[name] = Cell("measured", "", tuple(quartiles.tolist()), counts[name], ulp[name])
    return {name: cells[name] for name in libraries if name in cells}


def _checked(name: str, factory, case: Problem) -> tuple[Call, np.ndarray]:
    """The call to time, and its results once they are seen to be right."""
    call = factory(case.inputs, case.out)
    case.out.fill(np.nan)  # else the results of the library before might pass for this one's
    got = PEERS[name].result(call(), case.out)
    if (got.dtype, got.shape) != (case.out.dtype, case.out.shape):
        raise WrongResult(f"{got.dtype}{got.shape} for {case.out.dtype}{case.out.shape}")
    relative, absolute = TOLERANCE[got.dtype.name]
    wide = got.astype(np.float64)
    bad = ~np.isclose(wide, case.want, relative, absolute, equal_nan=True)
    if bad.any():
        i = bad.argmax()
        x = ", ".join(f"{x[i]:.9g}" for x in case.inputs)
        raise WrongResult(
            f"{bad.sum()} of {bad.size} results, such as {wide[i]:.9g} for "
            f"{case.declared.name}({x}) = {case.want[i]:.9g}"
        )
    return call, got


def _largest_error(case: Problem, got: np.ndarray) -> float:
    """Largest error in ulp of the results `got`; of a sample of them for float64."""
    from . import accuracy  # needs gmpy2, which times alone do without

    x, *others = case.inputs
    if got.dtype != np.float64:
        report = accuracy.narrow_report(lambda _: got, lambda *_: case.want, x, got.dtype.name)
        return report.ulp
    some = np.linspace(0, len(x) - 1, min(len(x), FLOAT64_SAMPLE)).astype(int)
    rest = iter(zip(*(other[some].tolist() for other in others), strict=True))

    def reference(m, value):  # is asked for one value after another
        return case.declared.reference(m, value, *(next(rest) if others else ()))

    return accuracy.float64_report(lambda _: got[some], reference, x[some]).ulp


def _sample(call: Call, count: int) -> float:
    """Nanoseconds per call, over `count` calls."""
    call()  # brings back what other libraries drove out of the caches
    start = time.perf_counter_ns()
    for _ in itertools.repeat(None, count):
        call()
    return (time.perf_counter_ns() - start) / count


def calls_per_sample(call: Call) -> int:
    """How many calls fill a sample; finding out warms up as well."""
    count = 1
    while (elapsed := _sample(call, count) * count) < SAMPLE_NS / 4:
        count *= 2
    return max(1, round(count * SAMPLE_NS / elapsed))


def interleaved(
    calls: dict[str, Call], counts: dict[str, int], repetitions: int
) -> dict[str, list[float]]:
    """Samples of each call, in nanoseconds per call."""
    samples = {name: [] for name in calls}
    order = random.Random(0)
    collecting = gc.isenabled()
    gc.disable()
    try:
        for _ in range(repetitions):
            for name in order.sample(list(calls), len(calls)):
                samples[name].append(_sample(calls[name], counts[name]))
    finally:
        if collecting:
            gc.enable()
    return samples
