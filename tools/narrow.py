"""Derive the coefficients of the short formulas for 16-bit formats.

    python -m tools.narrow

The formulas are computed in binary32, whose error is about a thousandth of an ulp of float16. So
only the few inputs count whose exact result is nearly halfway between two numbers of a format. The
search starts from fitted coefficients and moves some of them by a few ulp at a time, at random but
reproducibly, until all these inputs are rounded correctly, with fused and with separate multiply
and add. Then it tries every input of both formats. `test_narrow.py` runs it again and compares.
"""

import functools
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from mpmath import mp
from numpy.polynomial.polynomial import polyval  # mpmath 1.4 changed the order of its own

from bench.references import FOR_ARRAYS
from fastact._declarations.records import ACTIVATIONS
from fastact._kernels import vocabulary
from tools import minimax

FORMATS = (np.float16, ml_dtypes.bfloat16)
CRITICAL = 6e-4  # inputs count whose result is less than this from a midpoint, in ulp
BITS = 24


def _fused(a: Any, b: Any, c: Any) -> Any:
    # Rounded to double first, and the product of two floats is exact there. That differs from an
    # fma about once in 2^29 results.
    return np.float32(np.float64(a) * np.float64(b) + np.float64(c))


def _separate(a: Any, b: Any, c: Any) -> Any:
    return np.float32(a * b) + c


def _operations(muladd: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    """The vocabulary of narrow kernels for arrays of float32."""

    def horner(x: Any, coefficients: Sequence[Any]) -> Any:
        *lower, result = coefficients
        for coefficient in reversed(lower):
            result = muladd(result, x, coefficient)
        return result

    def pow2_of_sum(total: Any) -> Any:
        return (total.view(np.uint32) << np.uint32(23)).view(np.float32)

    return {
        "at_least": np.maximum,
        "at_most": np.minimum,
        "copysign": np.copysign,
        "horner": horner,
        "like": lambda x, value: np.float32(value),
        "magnitude": np.abs,
        "muladd": muladd,
        "number_at_least": np.maximum,
        "pick": lambda table, x: table.single,
        "pow2": lambda n, shift: np.ldexp(np.float32(1), n.astype(np.int32) + shift),
        "pow2_of_sum": pow2_of_sum,
    }


def for_arrays(
    kernel: Callable[..., Any], muladd: Callable[..., Any], **replaced: Any
) -> Callable[..., Any]:
    """`kernel` for arrays of float32, with some of its global names `replaced`."""
    names = {**kernel.__globals__, **_operations(muladd), **replaced}
    for name in kernel.__code__.co_names:
        if names.get(name) in vocabulary.SCALAR_FUNCTIONS and not hasattr(vocabulary, name):
            names[name] = for_arrays(names[name], muladd, **replaced)
    return FunctionType(kernel.__code__, names, kernel.__name__)


class Inputs(NamedTuple):
    """Inputs of a format, and the correctly rounded results."""

    x: np.ndarray
    want: np.ndarray
    critical: np.ndarray

    def wrong(self, kernel: Callable[..., Any], where: Any = slice(None)) -> int:
        """How many results of `kernel` are rounded incorrectly."""
        with np.errstate(all="ignore"):
            got = kernel(self.x[where].astype(np.float32)).astype(self.want.dtype)
        return int((got != self.want[where]).sum())


def inputs(reference: Callable[..., Any], dtype: Any) -> Inputs:
    """Every finite input of a format."""
    x = np.arange(1 << 16, dtype=np.uint16).view(dtype)
    with np.errstate(all="ignore"):
        x = x[np.isfinite(x)]
        exact = np.asarray(reference(FOR_ARRAYS, x.astype(np.float64)), np.float64)
        want = exact.astype(dtype)
        distances = []
        for direction in (-np.inf, np.inf):
            other = np.nextafter(want, dtype(direction)).astype(np.float64)
            gap = np.abs(other - want.astype(np.float64))
            distances.append(np.abs(exact - (other + want.astype(np.float64)) / 2) / gap)
        critical = np.minimum(*distances) < CRITICAL
    return Inputs(x, want, critical)


class Search(NamedTuple):
    """The global names of a kernel that hold coefficients, and their start, lowest power first."""

    start: dict[str, Sequence[float]]
    scale: dict[str, float]  # factors that are powers of two
    seed: int = 0


def _terms(function: Callable[[Any], Any], interval: tuple[float, float], degree: int,
           weight: Callable[[Any], Any]) -> list[float]:  # fmt: skip
    return minimax.fit(function, interval, degree, weight, BITS)


def _exp(sign: int, degree: int) -> list[float]:
    """Coefficients of e^(sign x), the first of which is 1."""
    return [1.0, *_terms(
        lambda x: mp.expm1(sign * x) / x if x else mp.mpf(sign),
        (-0.3472, 0.3472),
        degree - 1,
        lambda x: abs(x) * mp.exp(-sign * x),
    )]  # fmt: skip


def _exp_tail(degree: int) -> list[float]:
    """Coefficients of (e^x - 1 - x) / x^2."""
    return _terms(
        lambda x: (mp.expm1(x) - x) / x**2 if x else mp.mpf(0.5),
        (-0.3472, 0.3472),
        degree,
        abs,
    )


def _log1p_rest(t: Any) -> Any:
    return (mp.log1p(t) / t - 1) / t if t else mp.mpf(-0.5)


def _rational_tanh(degree: int, end: float) -> tuple[list[float], list[float]]:
    """p and q with tanh(x) = x p(x^2) / q(x^2), by least squares that are weighted again and again.

    The residual of p - q tanh(x)/x is divided by the last q: H. L. Loeb's algorithm (1957).
    """
    with mp.workprec(300):
        points = [p for p in minimax.nodes(0.0, end, 8 * degree + 11) if p > 1e-3]
        want = [mp.tanh(x) / x for x in points]
        weights = [1 / w for w in want]
        q = [mp.mpf(1)] + [mp.mpf(0)] * degree
        for _ in range(20):
            scale = [w / polyval(x * x, q) for w, x in zip(weights, points, strict=True)]
            rows = mp.matrix(len(points), 2 * degree)
            rhs = mp.matrix(len(points), 1)
            for i, (x, y, s) in enumerate(zip(points, want, scale, strict=True)):
                for k in range(degree):
                    rows[i, k] = s * x ** (2 * k + 2)
                    rows[i, degree + k] = -s * y * x ** (2 * k + 2)
                rhs[i] = s * (y - 1)
            solution = mp.lu_solve(rows, rhs)
            p, q = ([mp.mpf(1), *solution[i : i + degree]] for i in (0, degree))
        return [minimax.round_to(c, BITS) for c in p], [minimax.round_to(c, BITS) for c in q]


@functools.cache
def searches() -> dict[str, Search]:
    """The searches by the name of the activation."""
    p, q = _rational_tanh(3, 4.55)
    log1p = _terms(_log1p_rest, (0.0, 1.0), 7, lambda t: t)
    softplus = Search(
        {"_NARROW_EXP": _exp(1, 6), "_NARROW_LOG1P": log1p}, {"_NARROW_EXP": 2.0**-40}
    )
    return {
        "elu": Search({"_NARROW_TAIL": _exp_tail(3)}, {}),
        "sigmoid": Search({"_NARROW_EXP": _exp(-1, 5)}, {}),
        "tanh": Search({"_NARROW_P": p, "_NARROW_Q": q}, {}),
        "softplus": softplus,
        "log_sigmoid": softplus,
    }


def found(name: str, search: Search, trials: int = 200_000) -> dict[str, list[float]] | None:
    """The first coefficients for which no result is rounded incorrectly, or None."""
    declared = ACTIVATIONS[name]
    kernel = vocabulary.variants_of(declared.kernel).narrow
    every = [inputs(declared.reference, dtype) for dtype in FORMATS]
    rng = np.random.default_rng(search.seed)

    def count(terms: dict[str, np.ndarray], all_inputs: bool) -> int:
        scaled = {k: tuple(v * np.float32(search.scale.get(k, 1))) for k, v in terms.items()}
        kernels = [for_arrays(kernel, muladd, **scaled) for muladd in (_fused, _separate)]
        where = (slice(None), slice(None)) if all_inputs else (e.critical for e in every)
        return sum(e.wrong(k, w) for e, w in zip(every, where, strict=True) for k in kernels)

    start = {k: np.array(v, np.float32) for k, v in search.start.items()}
    best, least = start, count(start, False)
    for _ in range(trials):
        if least == 0:
            if count(best, True) == 0:
                return {k: [float(c) for c in v] for k, v in best.items()}
            best, least = start, count(start, False)
        terms = {k: v.copy() for k, v in best.items()}
        for _ in range(rng.integers(1, 4)):
            chosen = terms[list(terms)[rng.integers(len(terms))]]
            i = rng.integers(len(chosen))
            step = np.int32(rng.integers(1, 3 + 2 * i) * rng.choice((-1, 1)))
            chosen.view(np.int32)[i] += step
        wrong = count(terms, False)
        if wrong <= least:
            best, least = terms, wrong
    return None


def main() -> None:
    """Print the coefficients."""
    for name, search in searches().items():
        for constant, terms in (found(name, search) or {}).items():
            print(f"{name} {constant} = {tuple(np.float32(c).item() for c in terms)}")
            print(", ".join(str(np.float32(c)) for c in terms))


if __name__ == "__main__":
    main()
