"""Branch-free parts of exp and log1p for binary32 and binary64.

Functions return unrounded results, as terms to be added, so that a kernel rounds only once, at
its end. ``high + low`` stands for one value whose rounded sum is about ``high``.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastact._kernels.vocabulary import (
    PerFormat,
    at_least,
    at_most,
    copysign,
    fma,
    horner,
    horner_by_pairs,
    like,
    magnitude,
    muladd,
    pick,
    pow2,
    scalar,
)


class Exp(NamedTuple):
    log2_e: Any
    shift: Any  # 1.5 * 2**(p-1): adding it rounds to an integer
    ln2_high: Any  # short enough that n * ln2_high is exact for every n that occurs
    ln2_low: Any
    tail: tuple[Any, ...]  # (e^r - 1 - r) / r^2, for an error relative to e^r


def _single(*values: float) -> tuple[Any, ...]:
    return tuple(np.float32(value) for value in values)


EXP = PerFormat(
    single=Exp(  # type: ignore[misc] # mypy does not know how many values `_single` returns
        *_single(1.4426950216293335, 12582912.0),
        *_single(0.693145751953125, 1.428606765330187e-06),
        tail=_single(
            0.5,
            0.16666512191295624,
            0.04166645184159279,
            0.008369608782231808,
            0.0013936202740296721,
        ),
    ),
    double=Exp(
        *(1.4426950408889634, 6755399441055744.0),
        *(0.6931471805598903, 5.497923018708371e-14),
        tail=(
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

EXPM1_TAIL = (
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
)
"""The tail in binary64 for an error relative to e^r - 1, of one degree more."""


class Below(NamedTuple):
    """How e^x is reduced for x <= 0, where what it is subtracted from is at least as large."""

    lowest: Any  # at and below, e^x - 1 rounds to -1
    ln2: Any  # n ln(2) is subtracted in one step, which is exact where its error would matter
    ln2_low: Any  # 0 where the error of n ln(2) is small enough
    tail: tuple[Any, ...]


BELOW = PerFormat(
    single=Below(*_single(-17.4, 0.6931471805599453, 0.0), tail=EXP.single.tail),  # type: ignore[misc]
    double=Below(-37.5, 0.6931471805599453, 2.3190468138462996e-17, tail=EXPM1_TAIL),
)

# ln(2) without that of `BELOW`.
LN2_LOW = PerFormat(np.float32(-1.904654299957768e-09), BELOW.double.ln2_low)

EXPM1 = PerFormat(
    single=_single(
        0.5,
        0.1666666716337204,
        0.04166647419333458,
        0.008333192206919193,
        0.0013934156158939004,
        0.00019958300981670618,
    ),
    double=EXPM1_TAIL,
)
"""Tails for an error relative to e^r - 1."""

# q(t) = log1p(t)/t^2 - 1/t + 1/4 for t in [0, 1], as a polynomial in t - 1/2: the terms of one in t
# would cancel near 1, where the error of its value would be twice as large.
LOG1P = PerFormat(
    single=_single(
        -0.12813955545425415,
        0.1792248785495758,
        -0.09323205053806305,
        0.051089394837617874,
        -0.028902672231197357,
        0.016653573140501976,
        -0.010186831466853619,
        0.006940018851310015,
        -0.0033086780458688736,
    ),
    double=(
        -0.12813956756734246,
        0.17922493693603717,
        -0.09323036636367164,
        0.051083446105405356,
        -0.02894318316419799,
        0.01678874249083835,
        -0.009909900775169192,
        0.005929011577536765,
        -0.0035856646104668773,
        0.0021876472443424946,
        -0.00134453305753834,
        0.0008313468737911928,
        -0.0005165261467524289,
        0.00032343942994015516,
        -0.0002049316828252877,
        0.00012555636129133387,
        -7.097252363982574e-05,
        5.25104205628249e-05,
        -5.123155572641286e-05,
        2.55441450530179e-05,
    ),
)


# (x - tanh(x)) / x^3 for |x| <= 1.03, as c + t p(t) in t = x^2 - 1/2, with c as two terms. Terms of
# a polynomial in x^2 would cancel: the error would be 1.8 ulp instead of 0.9.
TANH_SERIES = PerFormat(
    single=_single(
        -0.09223751723766327,
        0.03102925419807434,
        -0.010454499162733555,
        0.0035227597691118717,
        -0.0011856298660859466,
        0.00040144537342712283,
        -0.00014369624841492623,
        4.43019307567738e-05,
    ),
    double=(
        -0.09223751778642146,
        0.03102924485493721,
        -0.010454406818231845,
        0.0035229851974441645,
        -0.0011872248049623287,
        0.00040008889778333584,
        -0.00013482804246302737,
        4.543639361535053e-05,
        -1.5311809118361598e-05,
        5.160113512303354e-06,
        -1.7392153308023767e-06,
        5.856029376422706e-07,
        -1.961628535685886e-07,
        6.733738038344653e-08,
        -2.5346162843345127e-08,
        7.324051131230357e-09,
    ),
)


def reflected(coefficients: tuple[Any, ...]) -> tuple[Any, ...]:
    """The coefficients of p(-x), given those of p(x)."""
    return tuple(-c if i % 2 else c for i, c in enumerate(coefficients))


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


def _log1p_rest(m, u):
    t = u + 0.5
    return ((m.log1p(t) / t - 1) / t if t else -0.5) + 0.25


def _tanh_series(m, t):
    def ratio(square):
        x = m.sqrt(square)
        return (x - m.tanh(x)) / x**3

    return (ratio(t + 0.5) - ratio(0.5)) / t


# |r| in exp_reduced is at most ln(2)/2, and a little more because n is rounded.
_R = (-0.3472, 0.3472)

FITS = {
    "exp": Fit(
        PerFormat(EXP.single.tail, EXP.double.tail),
        _exp_tail,
        _R,
        lambda r: r * r,  # the error of e^r itself
        PerFormat(2.0**-28.0, 2.0**-57.9),
    ),
    "expm1": Fit(
        EXPM1,
        _exp_tail,
        _R,
        abs,  # the error relative to e^r - 1
        PerFormat(2.0**-30.9, 2.0**-61.6),
    ),
    "log1p": Fit(
        LOG1P,
        _log1p_rest,
        (-0.5, 0.5),
        lambda u: u + 0.5,  # the error relative to t
        PerFormat(2.0**-27.2, 2.0**-56.3),
    ),
    "tanh series": Fit(
        TANH_SERIES,
        _tanh_series,
        (-0.5 + 2.0**-20, 0.561),
        abs,  # the error relative to x^3, which is at most 4.2 times the result
        PerFormat(2.0**-31.5, 2.0**-59.8),
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
def exp_reduced_sum(x, x_low):
    """`exp_reduced` for the argument x + x_low."""
    n, r, r_low = exp_reduced(x)
    low = r_low + x_low
    total = r + low
    return n, total, (r - total) + low


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

    The low part of n ln(2) is added to the tail, so that only the last rounding matters. Pairs
    shorten the chain of operations, which is the bound of softmax: the scheduler fills up.
    """
    c = pick(EXP, x)
    high = fma(n, -c.ln2_high, x)
    low = n * -c.ln2_low
    r = high + low
    square = r * r
    return high + muladd(square, horner_by_pairs(r, square, c.tail), low)


@scalar
def exp_as_sum(x):
    """(n, e, e_low) with e^x = 2^n (e + e_low), to about 1/16 ulp of e in all."""
    c = pick(EXP, x)
    one = like(x, 1)
    n = muladd(x, c.log2_e, c.shift) - c.shift
    high = muladd(n, -c.ln2_high, x)
    n_low = n * -c.ln2_low
    r = high + n_low
    w = muladd(r * r, horner(r, c.tail), n_low)
    base = one + high
    e = base + w
    return n, e, ((one - base) + high) + ((base - e) + w)


@scalar
def below_reduced(x):
    """(s, r, r_low) with e^x = s e^(r + r_low) for x <= 0, s = 2^n and |r| <= ln(2)/2.

    e^x is cut off below where e^x - 1 is -1. In binary32, `r_low` is 0.
    """
    limits = pick(BELOW, x)
    exp = pick(EXP, x)
    x = at_least(x, limits.lowest)
    n = muladd(x, exp.log2_e, exp.shift) - exp.shift
    return pow2(n, 0), muladd(n, -limits.ln2, x), n * -limits.ln2_low


@scalar
def exact_remainder(n, x):
    """x - n ln(2) as (r, r_low), where n is x / ln(2) rounded.

    The difference that is r is exact. In two steps, as in :func:`exp_remainder`, it would be
    rounded, which costs expm1 0.3 ulp.
    """
    limits = pick(BELOW, x)
    return fma(n, -limits.ln2, x), n * -pick(LN2_LOW, x)


@scalar
def exp_tail(r):
    """e^r - 1 - r for |r| <= ln(2)/2, for sums that include the 1."""
    return r * r * horner(r, pick(EXP, r).tail)


@scalar
def logistic(n, r, smaller):
    """(q, c) with q (1 + c) 2^-max(n, 0) = 1 / (1 + e^-x), for n and r of exp_reduced(-x).

    `smaller` is -2^-|n|; if that is between 0 and -ulp(1), any number between them will do.
    """
    return logistic_of_sum(n, r, exp_tail(r), smaller)


@scalar
def logistic_of_sum(n, r, w, smaller):
    """:func:`logistic` where e^-x = 2^n (1 + r + w)."""
    # The denominator is computed negative: its residual then needs no change of sign, which would
    # change the sign of NaN.
    one = like(r, 1)
    b = -one if n > like(n, 0) else smaller
    # The denominator is -(d + d_low), a sum of 1, 2^-|n|, b r and b w.
    d = muladd(b, r, smaller - one)
    d_low = muladd(b, w, muladd(b, r, (-one - d) + smaller))
    q = -one / (d + d_low)
    return q, muladd(q, d_low, fma(q, d, one))


@scalar
def two_sum(a, b):
    """a + b as (high, low), exact (D. E. Knuth, "The Art of Computer Programming", vol. 2)."""
    high = a + b
    b_part = high - a
    return high, (a - (high - b_part)) + (b - b_part)


@scalar
def sixth(a):
    """(q, rest) with a / 6 = q + rest / 6, where q is a / 6 nearly rounded.

    Without a division, nor an fma: the products are exact, and so are the differences, since both
    terms are within a factor of two of each other (P. H. Sterbenz). `rest` is NaN for infinite `a`.
    """
    q = a * like(a, 1 / 6)
    return q, muladd(q, like(a, -2), muladd(q, like(a, -4), a))


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
def times(a, a_low, b, b_low):
    """The product of two sums as (high, low)."""
    p, p_low = product(a, b, b_low)
    return p, muladd(a_low, b, p_low)


@scalar
def plus(a, a_low, b, b_low):
    """The sum of two sums as (high, low), which do not overlap."""
    high, low = two_sum(a, b)
    return normalised(high, low + (a_low + b_low))


@scalar
def normalised(high, low):
    """high + low as two terms that do not overlap, for |high| >= |low|."""
    total = high + low
    return total, (high - total) + low


@scalar
def rounded(y, p):
    """The product p + rest, from `p` and `y` = |p + rest|.

    It has the sign of `p`. It is `p` if that is 0, infinite or NaN, where the rest is meaningless.
    """
    y = copysign(y, p)
    y = y if y == y else p
    return y if magnitude(p) > like(p, 0) else p


@scalar
def times_power(y, n, down, kept):
    """2 y 2^-max(n, 0) * down, or 0 unless `kept`, for `n` up to twice the range of exponents.

    Nothing is subnormal before the last product, unless the result is 0. Nothing overflows either,
    although `y` may be up to n/2 times the gradient, since `down` is not multiplied first.
    """
    one = like(y, 1)
    shift = pick(EXP, y).shift
    # 2 * 2^-n, as three factors that are normal numbers.
    n = at_least(n, like(y, 0)) - one
    third = muladd(n, like(n, 1 / 3), shift) - shift
    s = pow2(-third, 0)
    t = pow2(third + third - n, 0)
    t = t if kept else like(y, 0)
    return y * s * t * at_least(down, one) * s * at_most(down, one)
