"""Branch-free parts of log for binary32 and binary64.

The argument is 2^k (1 + f) with 1 + f between the square roots of 1/2 and 2. No division is needed,
and results are relative to log(1 + f) where k is 0.
"""

from collections.abc import Callable, Sequence
from math import sqrt
from typing import Any, NamedTuple

import numpy as np

from fastact._kernels.elementary import Fit
from fastact._kernels.vocabulary import (
    PerFormat,
    exponent,
    horner,
    like,
    muladd,
    pick,
    scalar,
    significand,
)


class Log(NamedTuple):
    least: Any  # the least normal number
    up: Any  # multiplies smaller numbers
    up_exponent: Any  # up is 2 to this power
    root: Any  # the square root of 1/2
    ln2_high: Any  # short enough that k * ln2_high is exact for every k that occurs
    ln2_low: Any
    tail: tuple[Any, ...]  # (log1p(f) - f) / f^2, for an error relative to log1p(f)


def _log(number: Callable[[float], Any], tail: Sequence[float], **fields: float) -> Log:
    return Log(
        root=number(sqrt(0.5)),
        tail=tuple(number(c) for c in tail),
        **{name: number(value) for name, value in fields.items()},
    )


LOG = PerFormat(
    single=_log(
        np.float32,
        [
            *(-0.49999988079071045, 0.33333322405815125, -0.25001609325408936),
            *(0.2000219225883484, -0.1660856008529663, 0.14177359640598297),
            *(-0.1324329525232315, 0.12933102250099182, -0.07655365020036697),
        ],
        least=2.0**-126,
        up=2.0**32,
        up_exponent=32,
        ln2_high=0.693145751953125,
        ln2_low=1.428606765330187e-06,
    ),
    double=_log(
        float,
        [
            *(-0.5000000000000004, 0.3333333333333307, -0.24999999999972652),
            *(0.20000000000072032, -0.16666666671626792, 0.14285714281136233),
            *(-0.12499999589276577, 0.1111111101005998, -0.10000018382551112),
            *(0.09090930405836754, -0.08332857671301347, 0.0769137518489592),
            *(-0.07149962129558261, 0.06686585269191705, -0.06194860306569917),
            *(0.05655242275074927, -0.056716069991759606, 0.06536064321837307),
            *(-0.06029594261468012, 0.02632881304070283),
        ],
        least=2.0**-1022,
        up=2.0**64,
        up_exponent=64,
        ln2_high=0.6931471805598903,
        ln2_low=5.497923018708371e-14,
    ),
)


# The same, plus 1/2.
_CUBIC = PerFormat(
    single=(np.float32(LOG.single.tail[0] + 0.5), *LOG.single.tail[1:]),
    double=(LOG.double.tail[0] + 0.5, *LOG.double.tail[1:]),
)


def _tail(m, f):
    return (m.log1p(f) - f) / f**2


FITS = {
    "log": Fit(
        PerFormat(LOG.single.tail, LOG.double.tail),
        _tail,
        (sqrt(0.5) - 1 - 1e-4, sqrt(2) - 1 + 1e-4),
        abs,  # the error relative to f
        PerFormat(2.0**-27.6, 2.0**-56.5),
    ),
}


@scalar
def binary_exponent(x):
    """k with x / 2^k between the square roots of 1/2 and 2, for positive normal numbers."""
    return exponent(x, pick(LOG, x).root)


@scalar
def log_positive(x):
    """log(x) as (high, low) for positive finite `x`, also for subnormal ones."""
    c = pick(LOG, x)
    small = x < c.least
    x = x * c.up if small else x
    k = binary_exponent(x)
    f = significand(x, c.root) - like(x, 1)
    k = k - c.up_exponent if small else k
    return accurate_log_of_product(k, f)


@scalar
def accurate_log_of_product(k, f):
    """log(2^k (1 + f)) as (high, low), with -f^2 / 2 and its rounding error.

    Within f^2 p(f), as in :func:`log_of_product`, roundings cost up to 0.5 ulp of a product with
    the logarithm, where f is almost sqrt(2) - 1.
    """
    c = pick(LOG, f)
    square, half = f * f, like(f, 0.5)
    base = muladd(k, c.ln2_high, f)
    high = muladd(square, -half, base)
    low = (f - muladd(k, -c.ln2_high, base)) + muladd(square, -half, base - high)
    return high, low + muladd(k, c.ln2_low, square * horner(f, pick(_CUBIC, f)))


@scalar
def over_one_plus(f_low, f):
    """f_low / (1 + f) to a hundredth of it: what f_low adds to log(1 + f)."""
    return muladd(-f, muladd(-f, muladd(-f, f_low, f_low), f_low), f_low)


@scalar
def log_of_product(k, f, rest):
    """log(2^k (1 + f)) + rest as (high, low), for `rest` up to an ulp of f.

    `high` is the sum of f and most of k ln(2), with its rounding error in `low`, which is up to a
    quarter of `high`. Where k is 0, `high` is f itself.
    """
    c = pick(LOG, f)
    low = muladd(k, c.ln2_low, muladd(f * f, horner(f, c.tail), rest))
    high = muladd(k, c.ln2_high, f)
    return high, (f - muladd(k, -c.ln2_high, high)) + low
