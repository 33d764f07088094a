"""Errors in ulp, measured: exhaustively for 16- and 32-bit formats, by samples for float64.

The reference is never this package and never the same precision. For the narrow formats it is
the declared formula in NumPy's float64; for float64 the same formula in MPFR through gmpy2.
"""

import argparse
import concurrent.futures
import functools
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import gmpy2
import numba
import numpy as np
from tabulate import tabulate
from tqdm import tqdm

import fastact
from fastact._declare import ACTIVATIONS

PRECISION = {
    "float16": (11, -14),
    "bfloat16": (8, -126),
    "float32": (24, -126),
    "float64": (53, -1022),
}
"""Bits of the significand and exponent of the smallest normal number, by format."""


@dataclass(frozen=True)
class Report:
    """The outcome of a sweep: `ulp` is the largest error, `worst` the input where it is."""

    ulp: float = 0.0
    worst: float = 0.0
    count: int = 0
    decreases: int = 0  # neighbouring inputs whose results are in the wrong order
    wrong: int = 0  # NaN where there should be a number, or the reverse

    def __or__(self, other: "Report") -> "Report":
        larger = self if self.ulp >= other.ulp else other
        return replace(
            larger,
            count=self.count + other.count,
            decreases=self.decreases + other.decreases,
            wrong=self.wrong + other.wrong,
        )


@numba.njit(nogil=True, cache=True)
def _largest_error(x, y, reference, bits, lowest):
    """(ulp, index, decreases, wrong) of the results `y` against the wider `reference`."""
    ulp, index, decreases, wrong = 0.0, 0, 0, 0
    largest = (2.0 - 2.0 ** (1 - bits)) * 2.0 ** (1 - lowest)
    overflow = largest + 2.0 ** (1 - lowest - bits)  # rounds to infinity from here on
    for i in range(len(y)):
        got, want = y[i], reference[i]
        if np.isinf(x[i]):
            continue  # declared as special values, and tested as such
        if np.isnan(want) or np.isnan(got):
            wrong += np.isnan(want) != np.isnan(got)
            continue
        if i and x[i] > x[i - 1] and got < y[i - 1]:
            decreases += 1
        if np.isinf(got) or abs(want) >= overflow:
            error = 0.0 if np.isinf(got) and abs(want) >= overflow and got * want > 0 else np.inf
        else:
            exponent = max(math.frexp(want)[1] - 1, lowest) if want != 0 else lowest
            error = abs(got - want) / 2.0 ** (exponent - bits + 1)
        if error > ulp:
            ulp, index = error, i
    return ulp, index, decreases, wrong


def narrow_report(function: Callable, reference: Callable, x: np.ndarray, name: str) -> Report:
    """Errors of `function` on `x`, of the 16- or 32-bit format `name`."""
    with np.errstate(all="ignore"):  # the formula overflows; casts warn of signalling NaN
        wide = x.astype(np.float64)
        want = np.asarray(reference(np, wide), np.float64)
        got = function(x).astype(np.float64)
    ulp, index, decreases, wrong = _largest_error(wide, got, want, *PRECISION[name])
    return Report(float(ulp), float(wide[index]), len(x), int(decreases), int(wrong))


def every_pattern(dtype: np.dtype, chunk: int = 1 << 22) -> Iterator[np.ndarray]:
    """All values of a 16- or 32-bit float dtype by ascending bit pattern, in chunks.

    Consecutive chunks share one value, so that order is checked across their border.
    """
    bits = np.dtype(f"u{dtype.itemsize}")
    total = 1 << (8 * dtype.itemsize)
    for start in range(0, total, chunk):
        first = max(start - 1, 0)
        yield np.arange(first, min(start + chunk, total), dtype=np.uint64).astype(bits).view(dtype)


def exhaustive(
    function: Callable, reference: Callable, name: str, progress: Callable = iter
) -> Report:
    """The report over every value of the format `name`, on all cores."""
    if name == "bfloat16":
        import ml_dtypes

        dtype = np.dtype(ml_dtypes.bfloat16)
    else:
        dtype = np.dtype(name)
    total = Report()
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        measure = functools.partial(narrow_report, function, reference, name=name)
        for report in progress(_bounded_map(pool, measure, every_pattern(dtype), 2 * workers)):
            total |= report
    return total


def _bounded_map(pool, function, items, ahead):
    """`pool.map` that takes at most `ahead` items before their results are used."""
    waiting = []
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) >= ahead:
            yield waiting.pop(0).result()
    for future in waiting:
        yield future.result()


def float64_report(function: Callable, reference: Callable, x: np.ndarray) -> Report:
    """Errors of `function` on the float64 array `x`, against MPFR with 120 bits."""
    y = function(x)
    bits, lowest = PRECISION["float64"]
    total = Report(count=len(x))
    order = np.argsort(x, kind="stable")
    total = replace(total, decreases=int((np.diff(y[order]) < 0).sum()))
    with gmpy2.context(precision=120):
        for value, got in zip(x.tolist(), y.tolist(), strict=True):
            want = gmpy2.mpfr(reference(gmpy2, gmpy2.mpfr(value)))
            exponent = max(gmpy2.get_exp(want) - 1, lowest) if want != 0 else lowest
            error = abs(float((gmpy2.mpfr(got) - want) * gmpy2.exp2(bits - 1 - exponent)))
            if error > total.ulp:
                total = replace(total, ulp=error, worst=value)
    return total


def samples64(count: int, seed: int) -> np.ndarray:
    """Finite float64 inputs where activations are neither trivial nor saturated, and some."""
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


def main(arguments: list[str] | None = None) -> None:
    """Print the table of errors; ``python -m bench.accuracy --help`` says more."""
    unary = {name: a for name, a in ACTIVATIONS.items() if a.nin == 1}
    parser = argparse.ArgumentParser(prog="python -m bench.accuracy", description=__doc__)
    parser.add_argument("functions", nargs="*", choices=[*unary, []], metavar="function",
                        help=f"any of {', '.join(unary)}; all by default")  # fmt: skip
    parser.add_argument("--formats", nargs="+", choices=PRECISION, default=list(PRECISION))
    parser.add_argument("--samples", type=int, default=1_000_000,
                        help="inputs for float64 (default: %(default)s)")  # fmt: skip
    options = parser.parse_args(arguments)
    rows = []
    for name in options.functions or unary:
        function, reference = getattr(fastact, name), unary[name].reference
        for form in options.formats:
            bar = functools.partial(tqdm, desc=f"{name} {form}", unit="chunk", leave=False)
            if form == "float64":
                chunks = bar(range(0, options.samples, 50_000))
                reports = (
                    float64_report(function, reference, samples64(50_000, seed)) for seed in chunks
                )
                report = functools.reduce(Report.__or__, reports)
            else:
                report = exhaustive(function, reference, form, bar)
            worst = f"{report.worst:.9g}" if report.ulp else ""
            rows.append((name, form, report.count, report.ulp, worst, report.decreases))
    headers = ("function", "format", "inputs", "max ulp", "at", "order violations")
    print(tabulate(rows, headers, tablefmt="github", floatfmt=".4f", disable_numparse=[2, 4]))


if __name__ == "__main__":
    main()
