"""Measure errors in ulp: over all inputs of 16- and 32-bit formats, over samples of float64.

Derivatives have two operands. In 32 bits they are sampled too. In 16 bits every significand of the
gradient is combined with every value that the activation may have saved.

The reference is computed without this package and in higher precision: for the narrow formats it is
the declared formula in NumPy's float64, for float64 the same formula in MPFR through gmpy2.
"""

import argparse
import concurrent.futures
import functools
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import gmpy2
import numba
import numpy as np
from tabulate import tabulate
from tqdm import tqdm

import fastact
from fastact._declarations.records import ACTIVATIONS, DERIVATIVES, Derivative

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
    function: Callable, reference: Callable, x: np.ndarray | Sequence[np.ndarray], name: str
) -> Report:
    """Return the errors of `function` on `x` in the 16- or 32-bit format `name`.

    `x` is an array, or a sequence with an array for each operand.
    """
    return narrow_reports([function], reference, x, name)[0]


def narrow_reports(
    functions: Sequence[Callable],
    reference: Callable,
    x: np.ndarray | Sequence[np.ndarray],
    name: str,
    nondecreasing: bool = False,
) -> list[Report]:
    """Return a report for each of several functions, with one call of the reference.

    The reference returns one result for all functions, or one for each of them. If it is
    `nondecreasing`, and equal results for all inputs have the same ulp everywhere, the error is
    largest at the least or the greatest input. Then only these two are compared, which saves
    work wherever a function is saturated.
    """
    operands = _operands(x)
    count = len(operands[0])
    reports = []
    with np.errstate(all="ignore"):  # the formula overflows; casts warn of signalling NaN
        results = [function(*operands) for function in functions]
        if nondecreasing and np.isfinite(operands[0]).all() and all(map(_is_constant, results)):
            ends = np.array([operands[0].min(), operands[0].max()])
            exponents = np.frexp(reference(np, ends.astype(np.float64)))[1]
            if exponents[0] == exponents[1]:
                operands = [ends]
                results = [result[:1].repeat(2) for result in results]
        wide = [operand.astype(np.float64) for operand in operands]
        want = np.asarray(reference(np, *wide), np.float64)
        results = [result.astype(np.float64) for result in results]
    places = wide[0] if len(wide) == 1 else np.where(np.isinf(wide).any(axis=0), np.inf, 0.0)
    wants = want if want.ndim > 1 else itertools.repeat(want, len(results))
    for got, want in zip(results, wants, strict=True):
        ulp, index, decreases, wrong = _largest_error(places, got, want, *PRECISION[name])
        worst = tuple(float(operand[index]) for operand in wide)
        reports.append(Report(float(ulp), worst, count, int(decreases), int(wrong)))
    return reports


def _is_constant(result: np.ndarray) -> bool:
    return result.min() == result.max()  # not if it has a NaN


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
    for start in range(0, total, chunk):
        first = max(start - 1, 0)
        yield np.arange(first, min(start + chunk, total), dtype=np.uint64).astype(bits).view(dtype)


def exhaustive(
    function: Callable,
    reference: Callable,
    name: str,
    progress: Callable = iter,
    nondecreasing: bool = False,
) -> Report:
    """Return the report over every value of the format `name`, computed on all cores."""
    return exhaustive_reports([function], reference, name, progress, nondecreasing)[0]


def exhaustive_reports(
    functions: Sequence[Callable],
    reference: Callable,
    name: str,
    progress: Callable = iter,
    nondecreasing: bool = False,
) -> list[Report]:
    """Return a report for each of several functions, as `narrow_reports` does."""
    chunks = every_pattern(dtype_of(name))
    return _on_all_cores(functions, reference, name, chunks, progress, nondecreasing)


def _on_all_cores(
    functions: Sequence[Callable],
    reference: Callable,
    name: str,
    chunks: Iterator,
    progress: Callable,
    nondecreasing: bool = False,
) -> list[Report]:
    totals = [Report() for _ in functions]
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        measure = functools.partial(
            narrow_reports, functions, reference, name=name, nondecreasing=nondecreasing
        )
        for reports in progress(_bounded_map(pool, measure, chunks, 2 * workers)):
            totals = [total | report for total, report in zip(totals, reports, strict=True)]
    return totals


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
    function: Callable, reference: Callable, x: np.ndarray | Sequence[np.ndarray]
) -> Report:
    """Return the errors of `function` on float64 arrays, one per operand.

    The reference is computed by MPFR with 120 bits.
    """
    operands = _operands(x)
    y = function(*operands)
    bits, lowest = PRECISION["float64"]
    total = Report(count=len(y))
    if len(operands) == 1:
        order = np.argsort(operands[0], kind="stable")
        total = replace(total, decreases=int((np.diff(y[order]) < 0).sum()))
    with gmpy2.context(precision=120):
        one = gmpy2.mpfr(1)  # one * number takes 0.1 us, mpfr(number) 1.8 us
        for *values, got in zip(*(v.tolist() for v in (*operands, y)), strict=True):
            want = one * reference(gmpy2, *map(one.__mul__, values))
            exponent = max(gmpy2.get_exp(want) - 1, lowest) if want != 0 else lowest
            error = abs(float((want - got) * gmpy2.exp2(bits - 1 - exponent)))
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
    known = {name: a for name, a in ACTIVATIONS.items() if a.nin == 1}
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
        function, declared = getattr(fastact, name), known[name]
        for form in options.formats:
            bar = functools.partial(tqdm, desc=f"{name} {form}", unit="chunk", leave=False)
            if isinstance(declared, Derivative):
                report = derivative_report(declared, form, function, options.samples, progress=bar)
            elif form == "float64":
                chunks = bar(range(0, options.samples, 50_000))
                reports = (
                    float64_report(function, declared.reference, samples64(50_000, seed))
                    for seed in chunks
                )
                report = functools.reduce(Report.__or__, reports)
            else:
                report = exhaustive(function, declared.reference, form, bar, declared.nondecreasing)
            worst = ", ".join(f"{value:.9g}" for value in report.worst) if report.ulp else ""
            order = report.decreases if function.nin == 1 else ""
            rows.append((name, form, report.count, report.ulp, worst, order))
    headers = ("function", "format", "inputs", "max ulp", "at", "order violations")
    print(tabulate(rows, headers, tablefmt="github", floatfmt=".4f", disable_numparse=[2, 4, 5]))


if __name__ == "__main__":
    main()
