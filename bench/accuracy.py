"""Measure errors in ulp: over all inputs of 16- and 32-bit formats, over samples of float64.

Derivatives have two operands. In 32 bits they are sampled too. In 16 bits every significand of the
gradient is combined with every value that the activation may have saved.

The reference is computed without this package and in higher precision: for the narrow formats it is
the declared formula in NumPy's float64, for float64 the same formula in MPFR through gmpy2. Where
all numbers of a range are tested, polynomials replace the formula as far as they agree with it.
"""

import argparse
import concurrent.futures
import ctypes
import functools
import itertools
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import gmpy2
import numba
import numpy as np
from numpy.polynomial import chebyshev
from tabulate import tabulate
from tqdm import tqdm

import fastact
from fastact._declarations.declare import ufunc_of
from fastact._declarations.records import ACTIVATIONS, DERIVATIVES, FAST, Activation, Derivative

from .references import FOR_ARRAYS

PRECISION = {
    "float16": (11, -14),
    "bfloat16": (8, -126),
    "float32": (24, -126),
    "float64": (53, -1022),
}
"""Bits of the significand, and exponent of the smallest normal number, of each format."""


@dataclass(frozen=True)
class Report:
    """The outcome of a sweep: `ulp` is the largest error, `worst` the inputs where it occurs."""

    ulp: float = 0.0
    worst: tuple[float, ...] = ()
    count: int = 0
    decreases: int = 0  # pairs of neighbouring inputs whose results are in the wrong order
    wrong: int = 0  # NaN where there should be a number, or the reverse

    def __or__(self, other: "Report") -> "Report":
        larger = self if self.ulp >= other.ulp else other
        return replace(
            larger,
            count=self.count + other.count,
            decreases=self.decreases + other.decreases,
            wrong=self.wrong + other.wrong,
        )


# Each loop is a separate function, since LLVM does not vectorise them within one function (11.6 ns
# a value instead of 4). They work on blocks that stay in the core's caches.
_compiled = numba.njit(nogil=True, cache=True, error_model="numpy")
_BLOCK = 1 << 12


@_compiled
def _largest_error(x, y, reference, bits, lowest):
    """Return (ulp, index, decreases, wrong) of the results `y` against the wider `reference`."""
    ulp, most, index, decreases, wrong = 0.0, 0, 0, 0, 0
    errors = np.empty(_BLOCK)
    for start in range(0, len(y), _BLOCK):
        end = min(start + _BLOCK, len(y))
        x_block, y_block, wants = x[start:end], y[start:end], reference[start:end]
        _find_errors(x_block, y_block, wants, bits, lowest, errors)
        highest = _highest(errors.view(np.int64)[: end - start])
        if highest > most:
            most = highest
            index = start + np.argmax(errors[: end - start])
            ulp = errors[index - start]
        before = max(start - 1, 0)
        decreases += _decreases(x[before:end], y[before:end], reference[before:end])
        wrong += _wrong(x_block, y_block, wants)
    return ulp, index, decreases, wrong


@_compiled
def _find_errors(x, y, reference, bits, lowest, errors):
    largest = (2.0 - 2.0 ** (1 - bits)) * 2.0 ** (1 - lowest)
    overflow = largest + 2.0 ** (1 - lowest - bits)  # the least number that rounds to infinity
    exponents, ulps = reference.view(np.int64), errors.view(np.int64)
    for i in range(len(y)):
        exponent = max((exponents[i] >> 52 & 0x7FF) - 1023, lowest)
        ulps[i] = (1023 + bits - 1 - exponent) << 52  # the bit pattern of 1 / ulp
    for i in range(len(y)):
        got, want = y[i], reference[i]
        error = abs(got - want) * errors[i]
        beyond, infinite = abs(want) >= overflow, abs(got) == np.inf
        both = beyond & infinite & (got * want > 0)
        error = (0.0 if both else np.inf) if beyond | infinite else error
        # Results for infinite x are declared as special values, which other tests check.
        counts = (abs(x[i]) != np.inf) & (got == got) & (want == want)
        errors[i] = error if counts else 0.0


@_compiled
def _highest(patterns):
    highest = 0
    for i in range(len(patterns)):  # the bit patterns of positive numbers are in the same order
        highest = max(highest, patterns[i])
    return highest


@_compiled
def _decreases(x, y, reference):
    count = 0
    for i in range(1, len(y)):
        finite = (abs(x[i]) < np.inf) & (reference[i] == reference[i])
        count += finite & (x[i] > x[i - 1]) & (y[i] < y[i - 1])
    return count


@_compiled
def _wrong(x, y, reference):
    count = 0
    for i in range(len(y)):
        count += (abs(x[i]) != np.inf) & ((y[i] == y[i]) != (reference[i] == reference[i]))
    return count


def narrow_report(
    function: Callable,
    reference: Callable,
    x: np.ndarray | Sequence[np.ndarray],
    name: str,
    cancelling: Callable | None = None,
) -> Report:
    """Return the errors of `function` on `x` in the 16- or 32-bit format `name`.

    `x` is an array, or a sequence with an array for each operand. Where a term of the result,
    ``cancelling(m, *x)``, is cancelled by others, errors are in units of 2^-p of this term.
    """
    return narrow_reports([function], reference, x, name, cancelling=cancelling)[0]


def narrow_reports(
    functions: Sequence[Callable],
    reference: Callable,
    x: np.ndarray | Sequence[np.ndarray],
    name: str,
    consecutive: bool = False,
    cancelling: Callable | None = None,
) -> list[Report]:
    """Return a report for each of several functions, with one call of the reference.

    The reference returns one result for all functions, or one for each of them.

    If the inputs are `consecutive` numbers, all results are the same, or are the inputs times one
    power of 2, and an ulp is the same for all, or if all results are NaN, then they are compared
    for the first input, the last, and every 1,024th. The reference is a smooth function, and
    changes by very little from one of these to the next. So work is saved where a function is
    saturated or linear, which are six of seven numbers. Elsewhere `_smooth` replaces the reference
    if it can.
    """
    operands = _operands(x)
    count = len(operands[0])
    reports = []
    with np.errstate(all="ignore"):  # the formula overflows; casts warn of signalling NaN
        results = [function(*operands) for function in functions]
        simple = consecutive and all(_is_simple(result, operands[0]) for result in results)
        if simple and _has_one_ulp(reference, operands[0][[0, -1]]):
            chosen = np.unique(np.append(np.arange(0, count, 1024), count - 1))
            operands = [operand[chosen] for operand in operands]
            results = [result[chosen] for result in results]
        wide = [operand.astype(np.float64) for operand in operands]
        want = _smooth(reference, wide[0], *PRECISION[name]) if consecutive and not simple else None
        if want is None:
            want = np.asarray(reference(FOR_ARRAYS, *wide), np.float64)
        results = [result.astype(np.float64) for result in results]
        if cancelling is not None:
            term = cancelling(FOR_ARRAYS, *wide)
            results = [_with_less_error(y, want, term, *PRECISION[name]) for y in results]
    places = wide[0] if len(wide) == 1 else np.where(np.isinf(wide).any(axis=0), np.inf, 0.0)
    wants = want if want.ndim > 1 else itertools.repeat(want, len(results))
    for got, want in zip(results, wants, strict=True):
        ulp, index, decreases, wrong = _largest_error(places, got, want, *PRECISION[name])
        worst = tuple(float(operand[index]) for operand in wide)
        reports.append(Report(float(ulp), worst, count, int(decreases), int(wrong)))
    return reports


def _with_less_error(
    y: np.ndarray, want: np.ndarray, term: np.ndarray, bits: int, lowest: int
) -> np.ndarray:
    """Results with as many ulp of error as `y` has units of 2^-bits of `term`, if these are less.

    `want` has one result for each of `y`.
    """
    _, exponents = np.frexp(want)
    ulp = np.exp2(np.maximum(exponents - 1, lowest) - (bits - 1.0))
    less = want + (y - want) * np.minimum(1, ulp / (2.0**-bits * np.abs(term)))
    return np.where(np.isfinite(less), less, y)


def _is_simple(y: np.ndarray, x: np.ndarray) -> bool:
    """Whether all results are the same, or the inputs times a power of 2, or all are NaN.

    The inputs have to be finite, and results other than NaN, too.
    """
    if not np.isfinite(x[[0, -1]]).all():
        return False
    least, most = y.min(), y.max()
    if not np.isfinite([least, most]).all():
        return bool(np.isnan(y).all())
    if least == most:
        return True
    first = float(y[0]) / float(x[0]) if x[0] else 0.0
    return abs(math.frexp(first)[0]) == 0.5 and bool((y == x * y.dtype.type(first)).all())


def _at(reference: Callable, x: np.ndarray) -> np.ndarray:
    return np.asarray(reference(FOR_ARRAYS, x.astype(np.float64)), np.float64)


def _has_one_ulp(reference: Callable, ends: np.ndarray) -> bool:
    """Whether an ulp of the reference is the same at both ends of some inputs, or both are NaN."""
    values = _at(reference, ends)
    first, last = np.frexp(values)[1].T
    return bool(np.all(first == last)) or bool(np.isnan(values).all())


_LONG = 1 << 15  # so many numbers repay the work for a polynomial
_DEGREE = 15
_NODES = chebyshev.chebpts1(_DEGREE + 1)
_FIT = np.linalg.inv(chebyshev.chebvander(_NODES, _DEGREE))
_POWERS = np.transpose(
    [np.pad(chebyshev.cheb2poly([0] * k + [1]), (0, _DEGREE - k)) for k in range(_DEGREE + 1)]
)  # from coefficients of Chebyshev polynomials to those of powers


def _smooth(reference: Callable, x: np.ndarray, bits: int, lowest: int) -> np.ndarray | None:
    """The reference at consecutive numbers `x` from polynomials, or None if that is not accurate.

    The polynomial of degree 15 through the reference at the Chebyshev nodes of the interval is
    compared with the reference at the first number, the last, and every 509th. It replaces the
    reference only if it differs nowhere by more than 2**-16 ulp, which a bend, a jump or rounding
    errors of the formula prevent. A value takes 1 ns instead of 3 to 80.
    """
    first, last = float(x[0]), float(x[-1])
    if len(x) < _LONG or not (0 < first < last < math.inf or -math.inf < last < first < 0):
        return None
    middle, half = (first + last) / 2, (last - first) / 2
    chosen = np.append(np.arange(0, len(x), 509), len(x) - 1)
    places = np.concatenate([[middle], middle + half * _NODES, x[chosen]])
    values = np.atleast_2d(np.asarray(reference(FOR_ARRAYS, places), np.float64))
    magnitudes = abs(values).T
    # Near a zero, the error of the polynomial would be many ulps of the small results.
    if not (np.isfinite(values).all() and (magnitudes.max(0) <= 1024 * magnitudes.min(0)).all()):
        return None
    found = np.empty((len(values), len(x)))
    for row, out in zip(values, found, strict=True):
        base, nodes, want = row[0], row[1 : 1 + len(_NODES)], row[1 + len(_NODES) :]
        _evaluate(x, middle, 1 / half, base, _POWERS @ (_FIT @ (nodes - base)), out)
        exponents = np.maximum(np.frexp(want)[1] - 1, lowest)
        if (abs(out[chosen] - want) > np.ldexp(2.0**-16, exponents - bits + 1)).any():
            return None
    return found if len(found) > 1 else found[0]


@numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
def _evaluate(x, middle, scale, base, coefficients, out):
    for i in range(len(x)):
        t = (x[i] - middle) * scale
        total = coefficients[_DEGREE]
        for k in range(_DEGREE - 1, -1, -1):
            total = total * t + coefficients[k]
        out[i] = base + total


def _operands(x: np.ndarray | Sequence[np.ndarray]) -> Sequence[np.ndarray]:
    return [x] if isinstance(x, np.ndarray) else x


def every_pattern(dtype: np.dtype, chunk: int = 1 << 17) -> Iterator[np.ndarray]:
    """All values of a 16- or 32-bit float dtype by ascending bit pattern, in chunks.

    Consecutive chunks share one value, so that the order of results is checked across their
    border. Chunks eight times as large do not stay in the caches: sigmoid takes 27 ns a value
    instead of 18.
    """
    bits = np.dtype(f"u{dtype.itemsize}")
    total = 1 << (8 * dtype.itemsize)
    counted = np.arange(chunk + 1).astype(bits)
    for start in range(0, total, chunk):
        first = max(start - 1, 0)
        yield (counted[: min(start + chunk, total) - first] + bits.type(first)).view(dtype)


def exhaustive(
    function: Callable,
    reference: Callable,
    name: str,
    progress: Callable = iter,
) -> Report:
    """Return the report over every value of the format `name`, computed on all cores."""
    return exhaustive_reports([function], reference, name, progress)[0]


def exhaustive_reports(
    functions: Sequence[Callable],
    reference: Callable,
    name: str,
    progress: Callable = iter,
) -> list[Report]:
    """Return a report for each of several functions, as `narrow_reports` does."""
    chunks = every_pattern(dtype_of(name))
    return _on_all_cores(functions, reference, name, chunks, progress, consecutive=True)


def _on_all_cores(
    functions: Sequence[Callable],
    reference: Callable,
    name: str,
    chunks: Iterator,
    progress: Callable,
    consecutive: bool = False,
    cancelling: Callable | None = None,
) -> list[Report]:
    _keep_freed_memory()
    totals = [Report() for _ in functions]
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        measure = functools.partial(
            narrow_reports,
            functions,
            reference,
            name=name,
            consecutive=consecutive,
            cancelling=cancelling,
        )
        for reports in progress(_bounded_map(pool, measure, chunks, 2 * workers)):
            totals = [total | report for total, report in zip(totals, reports, strict=True)]
    return totals


@functools.cache
def _keep_freed_memory() -> None:
    """Tell glibc to reuse the memory of one chunk for the next.

    Otherwise it returns the memory to the system, and the pages of new arrays took half of the
    time: 20 ns a value instead of 7 for selu.
    """
    if sys.platform == "linux":
        tell = getattr(ctypes.CDLL(None), "mallopt", None)  # which other C libraries do not have
        for setting, size in ((_M_MMAP_THRESHOLD, 32 << 20), (_M_TRIM_THRESHOLD, 256 << 20)):
            if tell is not None:
                tell(setting, size)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # as in malloc.h


def dtype_of(name: str) -> np.dtype:
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


def _bounded_map(pool, function, items, ahead):
    """Like `pool.map`, but submit at most `ahead` items whose results are not used yet."""
    waiting = []
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) >= ahead:
            yield waiting.pop(0).result()
    for future in waiting:
        yield future.result()


def float64_report(
    function: Callable,
    reference: Callable,
    x: np.ndarray | Sequence[np.ndarray],
    cancelling: Callable | None = None,
) -> Report:
    """Return the errors of `function` on float64 arrays, one per operand.

    The reference is computed by MPFR with 120 bits. `cancelling` is that of `narrow_report`.
    """
    operands = _operands(x)
    y = function(*operands)
    bits, lowest = PRECISION["float64"]
    total = Report(count=len(y))
    if len(operands) == 1:
        ascending = y[np.argsort(operands[0], kind="stable")]
        total = replace(total, decreases=int((ascending[1:] < ascending[:-1]).sum()))
    with gmpy2.context(precision=120):
        # The least number that rounds to infinity.
        overflow = gmpy2.exp2(1 - lowest) * (2 - gmpy2.exp2(-bits))
        one = gmpy2.mpfr(1)  # one * number takes 0.1 us, mpfr(number) 1.8 us
        for *values, got in zip(*(v.tolist() for v in (*operands, y)), strict=True):
            want = one * reference(gmpy2, *map(one.__mul__, values))
            if abs(want) >= overflow and got == math.copysign(math.inf, want):
                continue
            if not math.isfinite(float(want)):  # NaN, or infinite
                if not (got == float(want) or (math.isnan(got) and gmpy2.is_nan(want))):
                    total = replace(total, ulp=math.inf, worst=tuple(values))
                continue
            exponent = max(gmpy2.get_exp(want) - 1, lowest) if want != 0 else lowest
            error = abs(float((want - got) * gmpy2.exp2(bits - 1 - exponent)))
            if cancelling is not None and (term := cancelling(gmpy2, *map(one.__mul__, values))):
                error = min(error, abs(float((want - got) / term * gmpy2.exp2(bits))))
            if not error <= total.ulp:
                total = replace(total, ulp=error, worst=tuple(values))
    return total


def samples64(count: int, seed: int) -> np.ndarray:
    """Return finite float64 inputs.

    Most are where activations are neither trivial nor saturated. An eighth is where results become
    subnormal, and an eighth has random bit patterns.
    """
    rng = np.random.default_rng(seed)
    pieces = [
        rng.uniform(-40, 40, count // 4),
        rng.uniform(-2, 2, count // 4),
        rng.standard_normal(count // 4) * 10.0 ** rng.integers(-15, 0, count // 4),
        rng.uniform(-746, -700, count // 8),
        rng.integers(0, 1 << 64, count // 8, dtype=np.uint64).view(np.float64),
    ]
    x = np.concatenate(pieces)
    return x[np.isfinite(x)]


def pairs(declared: Derivative, dtype: np.dtype, count: int, seed: int) -> list[np.ndarray]:
    """Return finite gradients, and values that the activation may have saved."""
    rng = np.random.default_rng(seed)

    def patterns(size):
        return rng.integers(0, 1 << 8 * dtype.itemsize, size, np.uint64)

    with np.errstate(all="ignore"):
        some = patterns(count // 4).astype(f"u{dtype.itemsize}").view(dtype)
        usual = [rng.standard_normal(count // 4), rng.uniform(1, 2, count // 4)]
        tiny = rng.standard_normal(count // 4) * 2.0 ** rng.uniform(-1074, 0, count // 4)
        gradient = np.concatenate([*usual, tiny.clip(-1e300, 1e300)]).astype(dtype)
        gradient = np.concatenate([gradient, some])
        x = samples64(count // 2, seed + 1)
        # Here only large gradients have results other than 0.
        x = np.concatenate([x, rng.uniform(-1410, -40, count // 8), x[: count // 8] / 2])
        x = np.resize(x, count).astype(dtype)
        rng.shuffle(gradient)
        rng.shuffle(x)
        if declared.saved == "output":
            x = getattr(fastact, declared.activation)(x)
            x[: count // 4] = rng.uniform(*declared.interval, count // 4).astype(dtype)
        size = min(len(gradient), len(x))
        finite = np.isfinite(gradient[:size]) & np.isfinite(x[:size])
    return [gradient[:size][finite], x[:size][finite]]


def every_pair(declared: Derivative, dtype: np.dtype, step: int = 1) -> Iterator[list[np.ndarray]]:
    """Yield each `step`-th 16-bit gradient in [1, 2) with every value that may be saved."""
    values = np.arange(1 << 16, dtype=np.uint16).view(dtype)
    with np.errstate(all="ignore"):
        values = values[np.isfinite(values)]
        if declared.saved == "output":
            values = np.unique(getattr(fastact, declared.activation)(values))
    one, two = np.array([1, 2], dtype).view(np.uint16)
    for significand in np.arange(one, two, step, np.uint16).view(dtype):
        yield [np.full(len(values), significand), values]


def has_several_inputs(declared: Activation) -> bool:
    """Whether an activation, or that of a derivative, has more than one input."""
    of = ACTIVATIONS[declared.activation] if isinstance(declared, Derivative) else declared
    return of.nin > 1


def operands(declared: Activation, dtype: np.dtype, count: int, seed: int) -> list[np.ndarray]:
    """Return finite operands of an activation with several inputs, or of its derivative.

    A parameter has its declared values, and others near them. Of other inputs, half are independent
    of the first, and half are nearly the first or its opposite, so that differences cancel.
    """
    rng = np.random.default_rng(seed)
    if isinstance(declared, Derivative):
        activation = ACTIVATIONS[declared.activation]
        inputs = operands(activation, dtype, count, seed + 1)
        size = len(inputs[0])
        with np.errstate(all="ignore"):
            usual = rng.standard_normal(size - size // 4)
            tiny = rng.standard_normal(size // 4) * 2.0 ** rng.uniform(-1074, 0, size // 4)
            gradient = rng.permutation(np.concatenate([usual, tiny])).astype(dtype)
            given = declared.operands(inputs, ufunc_of(declared.activation)(*inputs))
        return _finite([gradient, *given])
    first = rng.permutation(samples64(count, seed))
    found = []
    for name in declared.inputs:
        if not found:
            x = first
        elif name in declared.parameters:
            x = rng.choice(declared.parameters[name], len(first))
            x[: len(x) // 2] *= rng.uniform(0.5, 2, len(x) // 2)
        else:
            x = np.resize(rng.permutation(samples64(count, seed + len(found))), len(first))
            near = len(x) // 2
            x[:near] = first[:near] * rng.choice([-1, 1], near)
            x[:near] += rng.standard_normal(near) * 2.0 ** rng.integers(-60, 4, near)
        with np.errstate(all="ignore"):
            found.append(x.astype(dtype))
    return _finite(found)


def _finite(found: list[np.ndarray]) -> list[np.ndarray]:
    with np.errstate(all="ignore"):
        finite = np.logical_and.reduce([np.isfinite(x.astype(np.float64)) for x in found])
    return [x[finite] for x in found]


def every_input(declared: Activation, dtype: np.dtype) -> Iterator[list[np.ndarray]]:
    """Yield every 16-bit value of the first input with each declared value of the parameters.

    Inputs that are no parameters have a few values each.
    """
    values = np.arange(1 << 16, dtype=np.uint16).view(dtype)
    (values,) = _finite([values])
    _, *others = declared.inputs
    tried = [declared.parameters.get(name, (-3.0, -0.7, 0.1, 1.0, 20.0)) for name in others]
    for chosen in itertools.product(*tried):
        yield [values, *(np.full(len(values), number, dtype) for number in chosen)]


def several_report(
    declared: Activation,
    name: str,
    function: Callable,
    samples: int,
    seed: int = 0,
    progress: Callable = iter,
) -> list[Report]:
    """Return a report for each result of an activation with several inputs, or its derivative.

    Operands are sampled; in 16 bits, those of `every_input` follow for activations.
    """
    dtype, chunk = dtype_of(name), 50_000
    chunks = (
        operands(declared, dtype, min(chunk, samples - start), seed + start)
        for start in range(0, samples, chunk)
    )
    if dtype.itemsize == 2 and not isinstance(declared, Derivative):
        chunks = itertools.chain(every_input(declared, dtype), chunks)
    several = len(declared.results) > 1

    def nth(function: Callable, k: int) -> Callable:
        return (lambda *x: function(*x)[k]) if several else function

    numbers = range(len(declared.results))
    functions = [nth(function, k) for k in numbers]
    if name != "float64":
        return _on_all_cores(
            functions, declared.reference, name, chunks, progress, cancelling=declared.cancelling
        )
    totals = [Report() for _ in numbers]
    for x in progress(chunks):
        for k in numbers:
            totals[k] |= float64_report(
                functions[k], nth(declared.reference, k), x, declared.cancelling
            )
    return totals


def derivative_report(
    declared: Derivative,
    name: str,
    function: Callable,
    samples: int,
    step: int = 1,
    seed: int = 0,
    progress: Callable = iter,
) -> Report:
    """Return the report of `samples` pairs and, in 16 bits, of all pairs from `every_pair`.

    Pairs that differ only in the exponent of the gradient are sampled alone.
    """
    dtype, chunk = dtype_of(name), 50_000
    chunks = (
        pairs(declared, dtype, min(chunk, samples - start), seed + start)
        for start in range(0, samples, chunk)
    )
    if name == "float64":
        measure = functools.partial(float64_report, function, declared.reference)
        return functools.reduce(Report.__or__, map(measure, progress(chunks)))
    if dtype.itemsize == 2:
        chunks = itertools.chain(every_pair(declared, dtype, step), chunks)
    return _on_all_cores([function], declared.reference, name, chunks, progress)[0]


def main(arguments: list[str] | None = None) -> None:
    """Print the table of errors; ``python -m bench.accuracy --help`` says more."""
    known = ACTIVATIONS | FAST
    known |= {declared.name: declared for declared in DERIVATIVES.values()}
    parser = argparse.ArgumentParser(prog="python -m bench.accuracy", description=__doc__)
    parser.add_argument("functions", nargs="*", choices=[*known, []], metavar="function",
                        help=f"any of {', '.join(known)} (default: all)")  # fmt: skip
    parser.add_argument("--formats", nargs="+", choices=PRECISION, default=list(PRECISION))
    parser.add_argument("--samples", type=int, default=1_000_000,
                        help="number of inputs where not all are tested "
                        "(default: %(default)s)")  # fmt: skip
    options = parser.parse_args(arguments)
    rows = []
    for name in options.functions or known:
        function, declared = ufunc_of(name), known[name]
        for form in options.formats:
            bar = functools.partial(tqdm, desc=f"{name} {form}", unit="chunk", leave=False)
            if has_several_inputs(declared):
                reports = several_report(declared, form, function, options.samples, progress=bar)
                report = functools.reduce(Report.__or__, reports)
            elif isinstance(declared, Derivative):
                report = derivative_report(declared, form, function, options.samples, progress=bar)
            elif form == "float64":
                chunks = bar(range(0, options.samples, 50_000))
                reports = (
                    float64_report(function, declared.reference, samples64(50_000, seed))
                    for seed in chunks
                )
                report = functools.reduce(Report.__or__, reports)
            else:
                report = exhaustive(function, declared.reference, form, bar)
            worst = ", ".join(f"{value:.9g}" for value in report.worst) if report.ulp else ""
            order = report.decreases if function.nin == 1 else ""
            rows.append((name, form, report.count, report.ulp, worst, order))
    headers = ("function", "format", "inputs", "max ulp", "at", "order violations")
    print(tabulate(rows, headers, tablefmt="github", floatfmt=".4f", disable_numparse=[2, 4, 5]))


if __name__ == "__main__":
    main()
