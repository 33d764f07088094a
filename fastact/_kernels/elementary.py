"""Branch-free parts of exp and log1p for binary32 and binary64.

Functions return unrounded results, as terms to be added, so that a kernel rounds only once, at
its end. ``high + low`` stands for one value whose rounded sum is about ``high``.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastact._kernels.vocabulary import (
    PerFormat,
    copysign,
    fma,
    horner,
    like,
    magnitude,
    muladd,
    number_at_least,
    pick,
    pow2_of_sum,
    scalar,
)


class Exp(NamedTuple):
    log2_e: Any
    shift: Any  # 1.5 * 2**(p-1): adding it rounds to an integer
    biased: Any  # `shift` plus the exponent bias, for pow2_of_sum
    ln2_high: Any  # short enough that n * ln2_high is exact for every n that occurs
    ln2_low: Any
    tail: tuple[Any, ...]  # (e^r - 1 - r) / r^2, for an error relative to e^r - 1
    short_tail: tuple[Any, ...]  # the same for an error relative to e^r, of one degree less


class Log(NamedTuple):
    ln2_high: Any
    ln2_low: Any
    tail: tuple[Any, ...]  # (f - log(1+f)) / f^2


def _single(*values: float) -> tuple[Any, ...]:
    return tuple(np.float32(value) for value in values)


EXP = PerFormat(
    single=Exp(  # type: ignore[misc] # mypy does not know how many values `_single` returns
        *_single(1.4426950216293335, 12582912.0, 12583039.0),
        *_single(0.693145751953125, 1.428606765330187e-06),
        tail=_single(
            0.5,
            0.1666666716337204,
            0.04166647419333458,
            0.008333192206919193,
            0.0013934156158939004,
            0.00019958300981670618,
        ),
        short_tail=_single(
            0.5,
            0.16666512191295624,
            0.04166645184159279,
            0.008369608782231808,
            0.0013936202740296721,
        ),
    ),
    double=Exp(
        *(1.4426950408889634, 6755399441055744.0, 6755399441056767.0),
        *(0.6931471805598903, 5.497923018708371e-14),
        tail=(
            0.5,
            0.16666666666666677,
            0.04166666666666668,
            0.008333333333321365,
            0.0013888888888877382,
            0.00019841269886906586,
            2.4801587340871775e-05,
            2.755724332974583e-06,
            2.7557258882392667e-07,
            2.510937266266743e-08,
            2.0919631730932317e-09,
        ),
        short_tail=(
            0.5000000000000013,
            0.16666666666666685,
            0.04166666666651043,
            0.00833333333331586,
            0.0013888888948373212,
            0.00019841269899046086,
            2.480148848304065e-05,
            2.755723237889518e-06,
            2.763181991126487e-07,
            2.5112855797095033e-08,
        ),
    ),
)

LOG = PerFormat(
    single=Log(  # type: ignore[misc] # as above
        *_single(0.6931471824645996, -1.9046542121259336e-09),
        tail=_single(
            0.4999999701976776,
            -0.33333340287208557,
            0.25000402331352234,
            -0.19999900460243225,
            0.16649895906448364,
            -0.14263050258159637,
            0.1275850087404251,
            -0.11833551526069641,
            0.09245337545871735,
            -0.03787750378251076,
        ),
    ),
    double=Log(
        *(0.6931471805599453, 2.3190468138462996e-17),
        tail=(
            0.49999999999999994,
            -0.3333333333333323,
            0.25000000000003875,
            -0.20000000000044568,
            0.1666666666597064,
            -0.14285714278610712,
            0.12500000049754456,
            -0.11111111670096131,
            0.0999999858458063,
            -0.0909088513902523,
            0.08333330108423878,
            -0.07692869174733377,
            0.07144003257426486,
            -0.06660337268802867,
            0.06223469869143321,
            -0.058920960790895864,
            0.05784494762040134,
            -0.05668870365591832,
            0.04722905630611277,
            -0.026520344033883418,
            0.0070404867623549095,
        ),
    ),
)


class Range(NamedTuple):
    """The arguments of exp that matter, and how results near the subnormals are scaled."""

    # At and below this argument, e^x is 0. It would be enough for e^x to be less than half the
    # smallest subnormal, but here pow2(n, split) is 0 as well, so that no intermediate result is
    # subnormal: masked entries of -1e9 or -inf would take ten times as long.
    lowest: Any
    enough: Any  # above, 1 + e^-x is 1
    # Results near the subnormals are computed 2**split times too large. The square of 2**-split
    # is not subnormal.
    split: Any
    upsplit: Any  # 2**split
    unsplit: Any  # 2**-split: the product with it rounds once if the result is subnormal


RANGE = PerFormat(
    single=Range(*_single(-129.6, 40.0, 60.0, 2.0**60, 2.0**-60)),
    double=Range(-1055.7, 40.0, 500.0, 2.0**500, 2.0**-500),
)


# The lowest input of softplus_backward. It is lower than for exp, because a large factor can bring
# the result back into range. Below it, the result counts as 0: only a float64 factor above 2**970
# could make it anything else, and that would be subnormal.
LOWEST_SLOPE = PerFormat(np.float32(-192.5), -1418.5)


class Scales(NamedTuple):
    """How factors are scaled for products whose rounding errors are computed."""

    large: Any  # a factor from here on is large
    up: Any  # scales a large factor
    down: Any  # scales it back
    small_up: Any  # the same for other factors
    small_down: Any


SCALES = PerFormat(
    single=Scales(*_single(2.0**50, 2.0**-25, 2.0**25, 2.0**60, 2.0**-60)),
    double=Scales(2.0**450, 2.0**-225, 2.0**225, 2.0**500, 2.0**-500),
)


class Shares(NamedTuple):
    """How softmax keeps the terms of its sums away from the subnormals."""

    # If |max(x)| is at least this, x - max(x) is exact wherever e^(x - max(x)) is not 0, since
    # both are within a factor of two (P. H. Sterbenz). Below, nothing is subtracted: the argument
    # of exp need not be small.
    exact: Any
    # e^x counts as 0 in every sum of shares if its exponent is `zero` below that of e^max(x). Terms
    # are computed 2**(zero - bias) times too large, so that pow2_of_sum returns 0 for it.
    zero: Any
    above: Any  # larger than every term


SHARES = PerFormat(
    single=Shares(*_single(212.0, 152.0, 2.0**26)),
    double=Shares(1494.0, 1077.0, 2.0**55),
)


class Fit(NamedTuple):
    """How a polynomial was derived, so that ``tools/minimax.py`` can derive it again."""

    coefficients: PerFormat
    function: Callable[..., Any]  # called with a module m like mpmath.mp, and the argument
    interval: tuple[float, float]
    weight: Callable[..., Any]
    error: PerFormat  # the largest weight * |polynomial - function|


def _exp_tail(m, r):
    return (m.exp(r) - 1 - r) / r**2


# |r| in exp_reduced is at most ln(2)/2, and a little more because n is rounded.
_R = (-0.3472, 0.3472)

FITS = {
    "exp": Fit(
        PerFormat(EXP.single.tail, EXP.double.tail),
        _exp_tail,
        _R,
        abs,  # the error relative to e^r - 1
        PerFormat(2.0**-30.9, 2.0**-61.6),
    ),
    "exp, short": Fit(
        PerFormat(EXP.single.short_tail, EXP.double.short_tail),
        _exp_tail,
        _R,
        lambda r: r * r,  # the error of e^r itself
        PerFormat(2.0**-28.0, 2.0**-57.9),
    ),
    "log": Fit(
        PerFormat(LOG.single.tail, LOG.double.tail),
        lambda m, f: (f - m.log1p(f)) / f**2,
        (-0.2502, 0.5002),
        abs,  # the error relative to log(1+f)
        PerFormat(2.0**-29.5, 2.0**-59.1),
    ),
}


@scalar
def exp_reduced(x):
    """(n, r, r_low) with e^x = 2^n e^(r + r_low) and |r| <= ln(2)/2.

    Cody and Waite's reduction: n ln(2) is subtracted in two parts, the first exactly; `r_low`
    is the rounding error of the second, up to half an ulp of r.
    """
    c = pick(EXP, x)
    n = muladd(x, c.log2_e, c.shift) - c.shift
    r, r_low = exp_remainder(n, x)
    return n, r, r_low


@scalar
def exp_scaled(x):
    """(2^n, r, r_low) as in :func:`exp_reduced`, for x > -87; 2^n is a number even if x is NaN."""
    c = pick(EXP, x)
    total = muladd(x, c.log2_e, c.biased)
    r, r_low = exp_remainder(total - c.biased, x)
    return pow2_of_sum(number_at_least(total, c.biased - like(x, 126))), r, r_low


@scalar
def exp_remainder(n, x):
    """x - n ln(2) as two terms; see :func:`exp_reduced`."""
    c = pick(EXP, x)
    exact = muladd(n, -c.ln2_high, x)
    r = muladd(n, -c.ln2_low, exact)
    return r, muladd(n, -c.ln2_low, exact - r)


@scalar
def expm1_reduced(n, x):
    """e^(x - n ln(2)) - 1 to 1/4 ulp of e^r, where n is x / ln(2) rounded.

    The low part of n ln(2) is added to the tail, so that only the last rounding matters.
    """
    c = pick(EXP, x)
    high = fma(n, -c.ln2_high, x)
    low = n * -c.ln2_low
    r = high + low
    return high + muladd(r * r, horner(r, c.short_tail), low)


@scalar
def exp_tail(r, low):
    """e^r - 1 - r + low for |r| <= ln(2)/2."""
    return muladd(r * r, horner(r, pick(EXP, r).tail), low)


@scalar
def exp_short_tail(r):
    """e^r - 1 - r for |r| <= ln(2)/2, for sums that include the 1."""
    return r * r * horner(r, pick(EXP, r).short_tail)


@scalar
def logistic(n, r, smaller):
    """(q, c) with q (1 + c) 2^-max(n, 0) = 1 / (1 + e^-x), for n and r of exp_reduced(-x).

    `smaller` is -2^-|n|; if that is between 0 and -ulp(1), any number between them will do.
    """
    # The denominator is computed negative: its residual then needs no change of sign, which would
    # change the sign of NaN.
    one = like(r, 1)
    w = exp_short_tail(r)
    b = -one if n > like(n, 0) else smaller
    # The denominator is -(d + d_low), a sum of 1, 2^-|n|, b r and b w.
    d = muladd(b, r, smaller - one)
    d_low = muladd(b, w, muladd(b, r, (-one - d) + smaller))
    q = -one / (d + d_low)
    return q, muladd(q, d_low, fma(q, d, one))


@scalar
def log1p_rest(f, low):
    """log(1 + f + low) - f for f in [-1/4, 1/2] and `low` below an ulp of f."""
    return muladd(-(f * f), horner(f, pick(LOG, f).tail), muladd(-f, low, low))


@scalar
def two_sum(a, b):
    """a + b as (high, low), exact (D. E. Knuth, "The Art of Computer Programming", vol. 2)."""
    high = a + b
    b_part = high - a
    return high, (a - (high - b_part)) + (b - b_part)


@scalar
def add_product(a, b, c):
    """a + b*c as (high, low): T. J. Dekker's sum (1971) with a fused product.

    Exact if b*c is exact (b is a power of two) and either a is 0 or |a| >= |b*c|.
    """
    high = muladd(b, c, a)
    return high, muladd(b, c, a - high)


@scalar
def scales(a):
    """(up, down), powers of 2 whose product is 1, for products of `a` with numbers up to 2^17.

    Products of a * up do not overflow even if the fma is emulated. They are subnormal only if
    `down` makes them 0.
    """
    limits = pick(SCALES, a)
    small = magnitude(a) < limits.large
    return limits.small_up if small else limits.up, limits.small_down if small else limits.down


@scalar
def product(a, high, low):
    """a * (high + low) as (high, low), for `low` 0 or far below an ulp of `high`."""
    p = a * high
    return p, muladd(a, low, fma(a, high, -p))


@scalar
def rounded(y, p):
    """The product p + rest, from `p` and `y` = |p + rest|.

    It has the sign of `p`. It is `p` if that is 0, infinite or NaN, where the rest is meaningless.
    """
    y = copysign(y, p)
    y = y if y == y else p
    return y if magnitude(p) > like(p, 0) else p
