"""Derive the tables of ``fastact/_kernels/tables.py``; ``test_coefficients.py`` compares them.

Each row holds a centre and a polynomial in the distance from it. Among several thousand binary32
numbers near the middle of the interval, the centre is the one where the function and its slope are
closest to binary32 numbers, so that rounding the first two coefficients costs almost nothing:
S. Gal, "An accurate elementary mathematical library for the IEEE floating point standard", ACM
TOMS 17 (1991). ``minimax.fit`` computes the polynomial.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from mpmath import mp, mpf
from scipy import special

from fastact._kernels.tables import (
    COMMON,
    ERF,
    ERFC,
    GELU,
    MISH,
    NDTR,
    TANH,
    TANHSHRINK,
    Bell,
    Octaves,
    Spread,
)
from fastact._kernels.vocabulary import ENTRIES
from tools import minimax

BITS = 24
MARGIN = 1e-5  # on both sides of an interval, since a rounded product decides the row


class Derivation(NamedTuple):
    """An odd function from 0 to 1, and where its centres are searched: near what, within what."""

    function: Callable  # in mpmath
    arrays: Callable
    slope: Callable
    per_unit: float
    degree: int
    # Below the middle of the second row, where the relative error of rounding is larger.
    second: tuple[float, float]
    within: float
    # From this row on, the function has few binary32 values, far apart: the interval is wide.
    flat: int
    wide: float


DERIVATIONS = {
    "TANH": Derivation(
        *(mp.tanh, np.tanh, lambda x: 1 / np.cosh(x) ** 2),
        *(float(TANH.per_unit), 6),
        *((0.233, 0.002), 0.004, 20, 0.36),
    ),
    "ERF": Derivation(
        *(mp.erf, special.erf, lambda x: 2 / np.sqrt(np.pi) * np.exp(-x * x)),
        *(float(ERF.per_unit), 5),
        *((0.101, 0.001), 0.002, 26, 0.15),
    ),
}


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


def interval(of: Derivation, k: int) -> tuple[float, float]:
    return max(k - 0.5, 0) / of.per_unit, (k + 0.5) / of.per_unit


def centre(of: Derivation, k: int) -> float:
    find = partial(accurate_centre, of.arrays, of.slope)
    if k == 0:
        return 0.0
    if k == 1:
        return find(*of.second, 4001)
    if k < of.flat:
        return find(k / of.per_unit, of.within, 4001)
    return find(k / of.per_unit, of.wide, 200_001)


def value(of: Derivation, k: int, centre: float) -> tuple[Callable, tuple[float, float]]:
    """Return the function of the distance from the centre that a row approximates, and where."""
    low, high = interval(of, k)
    if k == 0:  # `row` subtracts 1
        return lambda t: of.function(t) / t, (0.0, high)
    return lambda t: of.function(centre + t), (low - MARGIN - centre, high + MARGIN - centre)


def row(of: Derivation, k: int) -> tuple[float, ...]:
    """Return centre and coefficients; those of the first row are 0, then those of f(x)/x - 1."""
    place = centre(of, k)
    function, ends = value(of, k, place)
    if k == 0:
        slope = minimax.fit(lambda t: function(t) - 1, ends, of.degree - 1, lambda t: 1, BITS)
        return place, 0.0, *slope
    return place, *minimax.fit(function, ends, of.degree, lambda t: 1 / function(t), BITS)


class BellDerivation(NamedTuple):
    """A function e^(-rate a^2) f(a) of a >= 0, and how it is divided into pieces."""

    function: Callable  # e^(-rate a^2) f(a), in mpmath
    arrays: Callable  # f, in SciPy
    bell: Bell
    near: Callable  # the same as `function`, for pieces up to `Bell.near`
    near_arrays: Callable


def _tail(a):
    return mp.erfc(a / mp.sqrt(2)) / 2


def _tail_array(a):
    return special.erfcx(a / np.sqrt(2)) / 2


BELLS = {
    "GELU": BellDerivation(
        lambda a: a * _tail(a),
        lambda a: a * _tail_array(a),
        GELU,
        lambda a: -a * mp.erf(a / mp.sqrt(2)) / 2,
        lambda a: -a * special.erf(a / np.sqrt(2)) / 2 * np.exp(a * a / 2),
    ),
    "NDTR": BellDerivation(_tail, _tail_array, NDTR, _tail, _tail_array),
    "ERFC": BellDerivation(mp.erfc, special.erfcx, ERFC, mp.erfc, special.erfcx),
}


def octaves(k: int) -> tuple[float, float]:
    """Return the ends of row k, of rows by the exponent and three bits."""
    low, high = (2.0 ** (j // 8) * (1 + j % 8 / 8) for j in (k, k + 1))
    return low, high


def bell_interval(of: BellDerivation, k: int) -> tuple[float, float]:
    """Where `a` is in row k."""
    low, high = octaves(k)
    return (low - 1) / float(of.bell.scale), (high - 1) / float(of.bell.scale)


def bell_values(of: BellDerivation, k: int) -> tuple[Callable, Callable]:
    """Return what the pieces hold as a function of `a`, in mpmath and for arrays.

    It is the function divided by the powers of 2 and by e^(-c rate n L) of :class:`Bell`.
    """
    near = bell_interval(of, k)[1] * float(of.bell.scale) + 1 <= of.bell.near
    function = of.near if near else of.function
    arrays = of.near_arrays if near else of.arrays
    exponent = mp.log(2) / 4 / mpf(float(of.bell.step))
    rate = 1 if of.bell is ERFC else mpf(1) / 2
    rest = float(exponent - rate)
    return (
        lambda a: function(a) * mp.exp(exponent * a * a) / mpf(COMMON),
        lambda a: arrays(a) * np.exp(rest * a * a) / COMMON,
    )


def bell_row(of: BellDerivation, k: int) -> tuple[float, ...]:
    """Return centre and coefficients. Those of the last row are 0, for arguments with result 0."""
    degree = len(of.bell.pieces.slope)
    if k == ENTRIES - 1:
        return (0.0,) * (degree + 2)
    function, arrays = bell_values(of, k)
    low, high = bell_interval(of, k)
    margin = MARGIN * (1 + high)
    if k == 0 and of.bell is GELU:  # which is 0 there, and so is its slope
        terms = minimax.fit(
            lambda t: function(t) / t**2, (0.0, high + margin), degree - 2, lambda t: t, BITS
        )
        return 0.0, 0.0, 0.0, *terms
    near = high * float(of.bell.scale) + 1 <= of.bell.near
    place = accurate_value(arrays, (low + high) / 2, (high - low) / 25)
    return place, *minimax.fit(
        lambda t: function(place + t),
        (low - margin - place, high + margin - place),
        degree,
        # What results are relative to: half the argument, or the function.
        lambda t: 1 / ((place + t) if near else function(place + t)),
        BITS,
    )


class OctaveDerivation(NamedTuple):
    function: Callable  # in mpmath
    arrays: Callable
    tables: Octaves


OCTAVES: dict[str, OctaveDerivation] = {
    "TANHSHRINK": OctaveDerivation(lambda a: a - mp.tanh(a), lambda a: a - np.tanh(a), TANHSHRINK),
}


def octave_interval(of: OctaveDerivation, k: int) -> tuple[float, float]:
    """Where `a` is in row k."""
    low, high = octaves(k)
    return low / float(of.tables.scale), high / float(of.tables.scale)


def octave_row(of: OctaveDerivation, k: int) -> tuple[float, ...]:
    """Return centre and coefficients."""
    low, high = octave_interval(of, k)
    margin = high * 2.0**-22  # since the product with the scale is rounded
    place = accurate_value(of.arrays, (low + high) / 2, (high - low) / 25)
    return place, *minimax.fit(
        lambda t: of.function(place + t),
        (low - margin - place, high + margin - place),
        len(of.tables.pieces.slope),
        lambda t: 1 / of.function(place + t),
        BITS,
    )


class SpreadDerivation(NamedTuple):
    function: Callable  # in mpmath
    arrays: Callable
    less_argument: Callable  # f(x) - x for arrays, where nothing cancels
    tables: Spread


def _mish(x):
    n = mp.exp(x)
    return x * n * (n + 2) / (n * (n + 2) + 2)


def _mish_array(x):
    n = np.exp(x)
    return x * n * (n + 2) / (n * (n + 2) + 2)


def _mish_less_argument(x):
    n = np.exp(x)
    return -2 * x / (n * (n + 2) + 2)


SPREADS: dict[str, SpreadDerivation] = {
    "MISH": SpreadDerivation(_mish, _mish_array, _mish_less_argument, MISH),
}


def spread_number(of: SpreadDerivation, k: int) -> int:
    """The row as an integer of any sign, for its place `k` in the table."""
    first = math.floor(float(of.tables.lowest) * float(of.tables.per_unit) + 0.5)
    return k if k < first + ENTRIES else k - ENTRIES


def spread_interval(of: SpreadDerivation, k: int) -> tuple[float, float]:
    """Where x is in row k."""
    number = spread_number(of, k)
    low, high = ((number + side) / float(of.tables.per_unit) for side in (-0.5, 0.5))
    return low, high


def spread_value(of: SpreadDerivation, k: int) -> Callable:
    """What row k holds, as a function of x in mpmath."""
    share = mpf(of.tables.share.values[k])
    return lambda x: of.function(x) - share * x


def spread_row(of: SpreadDerivation, k: int) -> tuple[float, ...]:
    """Return centre and coefficients. In row 0, both of the first ones are -0.0."""
    degree = len(of.tables.pieces.slope)
    low, high = spread_interval(of, k)
    low, high = low - MARGIN, high + MARGIN
    rest, share = spread_value(of, k), of.tables.share.values[k]
    if k == 0:
        slope = minimax.fit(
            lambda x: rest(x) / x, (low, high), degree - 1, lambda x: x / of.function(x), BITS
        )
        return -0.0, -0.0, *slope
    arrays = of.less_argument if share == 1 else lambda x: of.arrays(x) - share * x
    place = accurate_value(arrays, (low + high) / 2, (high - low - 2 * MARGIN) / 25)
    return place, *minimax.fit(
        lambda t: rest(place + t),
        (low - place, high - place),
        degree,
        lambda t: 1 / abs(of.function(place + t)),
        BITS,
    )


def accurate_value(function: Callable, near: float, within: float) -> float:
    """Return the binary32 number where the function is closest to another one."""
    x = np.linspace(near - within, near + within, 20_001).astype(np.float32)
    x = np.unique(x).astype(np.float64)
    y = function(x)
    single = y.astype(np.float32)
    return float(x[np.argmin(np.abs(y - single) / np.spacing(np.abs(single)))])


if __name__ == "__main__":
    of_kinds = ((DERIVATIONS, row), (BELLS, bell_row), (OCTAVES, octave_row), (SPREADS, spread_row))
    for derivations, derive in of_kinds:
        for name, of in derivations.items():
            print(f"{name} = (")
            for k in range(ENTRIES):
                print(f"    ({', '.join(str(np.float32(c)) for c in derive(of, k))}),")
            print(")")
