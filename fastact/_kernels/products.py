"""Products of several numbers whose intermediate results neither over- nor underflow.

Each factor is multiplied by a power of 2 that brings it near 1. The powers are collected as one
exponent, and multiplied last.
"""

from typing import Any, NamedTuple

import numpy as np

from fastact._kernels.elementary import EXP
from fastact._kernels.vocabulary import (
    PerFormat,
    at_most,
    fma,
    like,
    magnitude,
    muladd,
    pick,
    pow2,
    scalar,
)


class _Classes(NamedTuple):
    """Numbers are large, small, or near 1."""

    large: Any  # numbers from here on are large
    small: Any  # numbers below are small
    exponent: Any  # of the power of 2 for small ones
    up: Any  # that power
    down: Any  # for large numbers
    lowest: Any  # a number near 1 times 2 to a lower exponent rounds to 0
    highest: Any  # and is infinite times 2 to a higher one


def _classes(number: Any, limit: int, exponent: int, lowest: int, highest: int) -> _Classes:
    values = 2.0**limit, 2.0**-limit, exponent, 2.0**exponent, 2.0**-exponent, lowest, highest
    return _Classes(*map(number, values))


_CLASSES = PerFormat(
    single=_classes(np.float32, 46, 90, -220, 300),
    double=_classes(float, 350, 700, -1500, 2400),
)


@scalar
def towards_one(a):
    """(factor, n), where `factor` is 2^-n and brings `a` near 1.

    Two such numbers can be multiplied, also without an fma, and their product brought near 1 again.
    """
    c = pick(_CLASSES, a)
    large = magnitude(a) >= c.large
    small = magnitude(a) < c.small
    factor = c.down if large else like(a, 1)
    n = c.exponent if large else like(a, 0)
    return c.up if small else factor, -c.exponent if small else n


@scalar
def near_one(high, low):
    """(high, low, n): a sum divided by 2^n, so that it is near 1."""
    factor, n = towards_one(high)
    return high * factor, low * factor, n


@scalar
def product_near_one(a, b):
    """(high, low, n) with a * b = 2^n (high + low)."""
    a_factor, a_n = towards_one(a)
    b_factor, b_n = towards_one(b)
    a = a * a_factor
    b = b * b_factor
    p = a * b
    p, p_low, n = near_one(p, fma(a, b, -p))
    return p, p_low, n + (a_n + b_n)


@scalar
def times_pow2(y, n):
    """2^n y for `y` near 1. Nothing is subnormal before the last product, nor where n is lowest."""
    c = pick(_CLASSES, y)
    zero = like(y, 0)
    shift = pick(EXP, y).shift
    gone = n < c.lowest
    n = at_most(zero if gone else n, c.highest)
    # Three factors that are normal numbers.
    third = muladd(n, like(n, 1 / 3), shift) - shift
    s = pow2(third, 0)
    t = pow2(n - third - third, 0)
    return y * s * s * (zero if gone else t)


def rounded_product(a, b):
    """The product, rounded once."""
    return a * b
