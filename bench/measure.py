"""Measure one workload in several libraries: check results, measure errors, then time calls."""

import dataclasses
import functools

import numpy as np

from fastact._declarations.records import ACTIVATIONS

from . import bounds, timing
from .peers import PEERS
from .peers.base import ROWS, Call, Factory, Library, Unsupported
from .problems import Problem
from .results import Cell, Row, quartiles
from .workloads import Workload

FLOAT64_SAMPLE = 2_000  # MPFR computes these in about 10 ms
SECONDS = 4.0  # limit for a workload whose calls take long

TOLERANCE = {"float16": (1e-2, 1e-3), "float32": (1e-3, 1e-5), "float64": (1e-6, 1e-9)}
"""Relative and absolute; they are loose, since some libraries are inaccurate far from 0."""


class WrongResult(Exception):
    """A library did not compute the function."""


def factory_of(library: Library, workload: Workload) -> Factory | None:
    """Return the factory of the call of `library`, or None if it lacks the function."""
    if workload.dense:
        return library.dense.get(workload.function)
    if workload.shape:
        return library.arrays.get(workload.function)
    # With a function for arrays alone, `checked` reports that scalars are not supported.
    function = library.scalars.get(workload.function, library.arrays.get(workload.function))
    return function and (lambda scalars, _: functools.partial(function, *scalars))


def checked(name: str, library: Library, case: Problem) -> tuple[Call, np.ndarray]:
    """Return the call to time and its results, after checking these.

    Parameters
    ----------
    name : str
        Key of :data:`PEERS`.
    library : Library
        The imported library.
    case : Problem
        A workload whose function the library has.

    Raises
    ------
    Unsupported
        If the library cannot compute it for the dtype or layout.
    WrongResult
        If the results are wrong.
    """
    workload = case.workload
    if workload.layout not in PEERS[name].layouts:
        raise Unsupported(f"does not accept operands without a conversion: {workload.layout}")
    call = factory_of(library, workload)(case.inputs, case.out)
    case.forget()  # else results of the previous library could pass for those of this one
    got = PEERS[name].result(call(), case.out)
    if (got.dtype, got.shape) != (workload.dtype, case.want.shape):
        expected = f"{workload.dtype}{case.want.shape}"
        raise WrongResult(f"expected {expected}, got {got.dtype}{got.shape}")
    relative, absolute = TOLERANCE[workload.dtype]
    wide = got.astype(np.float64)
    bad = ~np.isclose(wide, case.want, relative, absolute, equal_nan=True)
    if bad.any():
        i = np.unravel_index(bad.argmax(), bad.shape)
        raise WrongResult(
            f"{bad.sum()} of {bad.size} results differ; at {tuple(map(int, i))} "
            f"expected {case.want[i]:.9g}, got {wide[i]:.9g}"
        )
    return call, got


def largest_error(case: Problem, got: np.ndarray) -> float | None:
    """Return the largest error in ulp of the results `got`, for float64 of a sample of them.

    Return None for layouts, which do not change results, for dense layers, and for rows of float64,
    whose reference has no higher precision.
    """
    from . import accuracy  # needs gmpy2, which timing alone does not

    workload = case.workload
    if workload.dense or workload.layout not in ("contiguous", ROWS):
        return None
    x, *others = case.inputs
    if got.dtype != np.float64:
        x, y, want = x.ravel(), got.ravel(), case.want.ravel()
        return accuracy.narrow_report(lambda _: y, lambda *_: want, x, got.dtype.name).ulp
    if workload.layout == ROWS:
        return None
    some = np.linspace(0, len(x) - 1, min(len(x), FLOAT64_SAMPLE)).astype(int)
    rest = iter(
        zip(*(np.broadcast_to(other, x.shape)[some].tolist() for other in others), strict=True)
    )
    activation = ACTIVATIONS[workload.function]

    def reference(m, value):  # called for one value after another
        return activation.reference(m, value, *(next(rest) if others else ()))

    return accuracy.float64_report(lambda _: got[some], reference, x[some]).ulp


class Measurement:
    """A workload, the libraries that compute it correctly, and the samples of their times so far.

    The calls that libraries prepare, for example sessions with threads, exist only while samples
    are taken.

    Parameters
    ----------
    case : Problem
        What to compute.
    libraries : dict
        The loaded libraries by name.
    with_ulp : bool
        Whether to measure errors, which needs gmpy2.
    with_bounds : bool
        Whether to measure what the machine allows.
    """

    def __init__(
        self, case: Problem, libraries: dict[str, Library], with_ulp: bool, with_bounds: bool = True
    ) -> None:
        # A process that waits for its turn should not keep the expected results in memory.
        self._case = dataclasses.replace(case, want=np.empty(0))
        self._libraries = libraries
        self._ulp: dict[str, float | None] = {}
        self._failed: dict[str, Cell] = {}
        self._counts: dict[tuple[str, str], int] = {}
        self._with_bounds = with_bounds
        with np.errstate(all="ignore"):  # steps of other libraries overflow
            for name, library in libraries.items():
                if factory_of(library, case.workload) is None:
                    continue
                try:
                    _, got = checked(name, library, case)
                    self._ulp[name] = largest_error(case, got) if with_ulp else None
                except Unsupported as reason:
                    self._failed[name] = Cell("unsupported", str(reason))
                except WrongResult as reason:
                    self._failed[name] = Cell("wrong", str(reason))
                except Exception as reason:  # one broken library must not end the run
                    self._failed[name] = Cell("error", f"{type(reason).__name__}: {reason}")
        self._samples: dict[tuple[str, str], list[float]] = {}

    def collect(self, repetitions: int, seconds: float = SECONDS, warm_up: float = 0) -> None:
        """Time every library that computed the workload.

        Parameters
        ----------
        repetitions : int
            Samples per library; fewer if they take long.
        seconds : float
            No repetition begins after this time, except the first ``timing.LEAST``.
        warm_up : float
            Seconds of calls of each library before the first sample.
        """
        case = self._case
        prepare = case.prepare
        with np.errstate(all="ignore"):
            timed: dict[tuple[str, str], Call] = {}
            for name in self._ulp:
                factory = factory_of(self._libraries[name], case.workload)
                timed["library", name] = factory(case.inputs, case.out)
            limits = bounds.calls(case) if self._with_bounds else {}
            timed |= {("bound", name): call for name, (call, _) in limits.items()}
            for key, call in timed.items():
                timing.warm_up(call, warm_up, prepare)
                if key not in self._counts:
                    self._counts[key] = timing.calls_per_sample(call, prepare)
            new = timing.interleaved(timed, self._counts, repetitions, prepare, seconds)
        for key, samples in new.items():
            factor = limits[key[1]][1] if key[0] == "bound" else 1
            self._samples.setdefault(key, []).extend(factor * ns for ns in samples)

    def row(self) -> Row:
        """Return a row with a cell for each library that has the function."""
        cells = dict(self._failed)
        for name, ulp in self._ulp.items():
            key = ("library", name)
            if key in self._samples:  # else the run was interrupted before the first sample
                cells[name] = Cell(
                    "measured", "", quartiles(self._samples[key]), self._counts[key], ulp
                )
        found = {
            name: quartiles(samples)
            for (kind, name), samples in self._samples.items()
            if kind == "bound"
        }
        ordered = {name: cells[name] for name in self._libraries if name in cells}
        done = max(map(len, self._samples.values()), default=0)
        return Row(self._case.workload, ordered, found, done)


def measure(
    case: Problem,
    libraries: dict[str, Library],
    repetitions: int,
    with_ulp: bool,
    with_bounds: bool = True,
) -> Row:
    """Check and time every library that has the function; see :class:`Measurement`."""
    measurement = Measurement(case, libraries, with_ulp, with_bounds)
    measurement.collect(repetitions)
    return measurement.row()
