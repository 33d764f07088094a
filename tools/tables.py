"""Derive the tables of ``fastact/_kernels/tables.py``; ``test_coefficients.py`` compares them.

Each row holds a centre and a polynomial in the distance from it. Among several thousand binary32
numbers near the middle of the interval, the centre is the one where the function and its slope are
closest to binary32 numbers, so that rounding the first two coefficients costs almost nothing:
S. Gal, "An accurate elementary mathematical library for the IEEE floating point standard", ACM
TOMS 17 (1991). ``minimax.fit`` computes the polynomial.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from mpmath import mp

from fastact._kernels.tables import TANH
from fastact._kernels.vocabulary import ENTRIES
from tools import minimax

DEGREE = 6
BITS = 24
MARGIN = 1e-5  # on both sides of an interval, since a rounded product decides the row
LN2 = float(np.log(2.0))
PER_UNIT = float(TANH.per_unit)


def accurate_centre(
    function: Callable, slope: Callable, near: float, within: float, candidates: int
) -> float:
    """Return the best of about `candidates` binary32 numbers `within` a distance of `near`."""
    x = np.linspace(near - within, near + within, candidates).astype(np.float32)
    x = np.unique(x).astype(np.float64)

    def misfit(y):
        single = y.astype(np.float32)
        return np.abs(y - single) / np.spacing(np.abs(single)).astype(np.float64)

    return float(x[np.argmin(np.maximum(2 * misfit(function(x)), misfit(slope(x))))])


def interval_of_tanh(k: int) -> tuple[float, float]:
    return max(k - 0.5, 0) / PER_UNIT, (k + 0.5) / PER_UNIT


def centre_of_tanh(k: int) -> float:
    find = partial(accurate_centre, np.tanh, lambda x: 1 / np.cosh(x) ** 2)
    if k == 0:
        return 0.0
    if k == 1:  # below the middle, where the relative error of rounding is larger
        return find(0.233, 0.002, 4001)
    if k < 20:
        return find(k / PER_UNIT, 0.004, 4001)
    # tanh is so near to 1 that it has few binary32 values here, far apart: search a wide interval.
    return find(k / PER_UNIT, 0.36, 200_001)


def value_of_tanh(k: int, centre: float) -> tuple[Callable, tuple[float, float]]:
    """Return the function of the distance from the centre that a row approximates, and where."""
    low, high = interval_of_tanh(k)
    if k == 0:  # `row_of_tanh` subtracts 1
        return lambda t: mp.tanh(t) / t, (0.0, high)
    return lambda t: mp.tanh(centre + t), (low - MARGIN - centre, high + MARGIN - centre)


def row_of_tanh(k: int) -> tuple[float, ...]:
    """Return centre and coefficients; those of the first row are 0, then tanh(x)/x - 1."""
    centre = centre_of_tanh(k)
    value, ends = value_of_tanh(k, centre)
    if k == 0:
        slope = minimax.fit(lambda t: value(t) - 1, ends, DEGREE - 1, lambda t: 1, BITS)
        return centre, 0.0, *slope
    return centre, *minimax.fit(value, ends, DEGREE, lambda t: 1 / value(t), BITS)


def _sigmoid(k: int) -> tuple[Callable, Callable]:
    """Return the function of row `k`, and its slope."""
    last = k == ENTRIES - 1

    def function(x, exp=np.exp):
        return 2**k * exp(x) if last else 2**k / (1 + exp(-x))

    return function, lambda x: function(x) if last else function(x) / (1 + np.exp(x))


def value_of_sigmoid(k: int, centre: float) -> tuple[Callable, tuple[float, float]]:
    """The same as :func:`value_of_tanh`, for sigmoid."""
    function, _ = _sigmoid(k)
    low, high = -(k + 0.5) * LN2 - MARGIN, min(-(k - 0.5) * LN2 + MARGIN, 0.0)
    return lambda t: function(centre + t, mp.exp), (low - centre, high - centre)


def row_of_sigmoid(k: int) -> tuple[float, ...]:
    """Return centre and coefficients of sigmoid * 2^k, in the last row of e^x * 2^k."""
    centre = accurate_centre(*_sigmoid(k), -k * LN2, 0.004, 4001) if k else 0.0
    value, ends = value_of_sigmoid(k, centre)
    return centre, *minimax.fit(value, ends, DEGREE, lambda t: 1 / value(t), BITS)


if __name__ == "__main__":
    for name, row_of in (("TANH", row_of_tanh), ("SIGMOID", row_of_sigmoid)):
        print(f"{name} = (")
        for k in range(ENTRIES):
            print(f"    ({', '.join(str(np.float32(c)) for c in row_of(k))}),")
        print(")")
