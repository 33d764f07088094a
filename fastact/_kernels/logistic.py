"""Products with the logistic function, as one quotient: x / (1 + e^-z)."""

from collections.abc import Callable
from math import log
from typing import Any, NamedTuple

import numpy as np

from fastact._kernels.elementary import (
    EXP,
    EXPM1,
    RANGE,
    exp_reduced_sum,
    logistic_of_sum,
    product,
    reflected,
)
from fastact._kernels.vocabulary import (
    PerFormat,
    at_least,
    at_most,
    fma,
    horner,
    like,
    magnitude,
    muladd,
    pick,
    pow2,
    pow2_of_sum,
    quiet,
    scalar,
)


class Logistic(NamedTuple):
    """Constants; denominators are computed times `unit`, negative, so that they do not overflow."""

    lowest: Any  # at and below, the result is 0
    infinite: Any  # at this argument, `u` is infinite
    enough: Any  # above, 1 + e^-x is 1
    unit: Any
    shift: Any  # as for pow2_of_sum, for -unit 2^n
    slope: tuple[Any, ...]  # (e^-r - 1) / r
    tail: tuple[Any, ...]  # (e^-r - 1 + r) / r^2


def constants(
    number: Callable[[float], Any], unit: int, *, lowest: float, enough: float
) -> Logistic:
    """The constants in the type `number`, for the unit 2^-`unit`."""
    single = number is np.float32
    bits, bias, exp = (24, 127, EXP.single) if single else (53, 1023, EXP.double)
    negative = 2 * (bias + 1)  # sets the sign bit, which is above the exponent
    return Logistic(
        lowest=number(lowest),
        infinite=number(-log(2) * (bias + 1 + unit)),
        enough=number(enough),
        unit=number(2.0**-unit),
        shift=number(1.5 * 2.0 ** (bits - 1) + bias + negative - unit),
        slope=(number(-1), *reflected(exp.tail)),
        tail=reflected(exp.tail),
    )


@scalar
def negative_exp(x, limits):
    """(u, r) with u e^-r = -unit e^-x and |r| <= ln(2)/2, for x between `lowest` and `enough`."""
    exp = pick(EXP, x)
    total = muladd(x, -exp.log2_e, limits.shift)
    n = total - limits.shift
    return pow2_of_sum(total), muladd(n, exp.ln2_low, muladd(n, exp.ln2_high, x))


@scalar
def denominator(u, r, limits):
    """-unit (1 + e^-x) as two terms, for the results of :func:`negative_exp`.

    It is negative: its residual then needs no change of sign, which would change the sign of NaN.
    """
    ur = u * r
    slope = horner(r, limits.slope)
    d = muladd(ur, slope, u - limits.unit)
    return d, fma(ur, slope, (u - d) - limits.unit)


@scalar
def denominator_of_sum(x, x_low, limits):
    """-unit (1 + e^-(x + x_low)) as two terms, for x as of :func:`negative_exp`."""
    exp = pick(EXP, x)
    total = muladd(x, -exp.log2_e, limits.shift)
    n = total - limits.shift
    u = pow2_of_sum(total)
    high = muladd(n, exp.ln2_high, x)
    low = muladd(n, exp.ln2_low, x_low)
    r = high + low
    # The first term of e^-r - 1 = -r + r tail(r) is added by itself, and the rounding error of r is
    # added to the low part: else errors of gelu_tanh in float32 are up to 1.12 ulp instead of 0.78.
    ur = u * r
    tail = r * horner(r, limits.tail)
    d = muladd(ur, tail, (u - limits.unit) - ur)
    d_low = fma(ur, tail, ((u - d) - limits.unit) - ur)
    return d, muladd(u, (r - high) - low, d_low)


@scalar
def where_needed(x, limits):
    """`x` where :func:`with_ends` needs the quotient, else 0 or `enough`.

    So there is no underflow below, which takes ten times as long on some processors.
    """
    return at_most(x, limits.enough) if x > limits.lowest else like(x, 0)


@scalar
def gated(a, d, d_low):
    """(p, rest, q) with p + rest q = a / (d + d_low)."""
    q = like(a, 1) / d
    p = a * q
    return p, muladd(-p, d_low, fma(-p, d, a)), q


@scalar
def with_ends(x, a, y, limits):
    """x / (1 + e^-z) from the quotient `y` of `a` and the negative denominator.

    The quotient has the other sign, and the unit changes it back: so 0 keeps its sign without
    operations for that.
    """
    return y * -limits.unit if a == x else quiet(at_least(x, like(x, -0.0)))


@scalar
def exp_sum(x, x_low):
    """(n, r, w) with e^(x + x_low) = 2^n (1 + r + w), to about 1/32 ulp."""
    n, r, r_low = exp_reduced_sum(x, x_low)
    return n, r, muladd(r * r, horner(r, pick(EXPM1, r)), muladd(r_low, r, r_low))


_FAR = PerFormat(np.float32(20), 48.0)


@scalar
def half_sigmoid(x, x_low):
    """(q, q_low, n) with 2 (q + q_low) 2^n = 1 / (1 + e^-(x + x_low)) and n <= 0."""
    limits = pick(RANGE, x)
    # Differences, not negations, which would change the sign of NaN.
    zero = like(x, 0)
    n, r, w = exp_sum(zero - at_most(x, limits.enough), zero - x_low)
    smaller = pow2(-at_most(magnitude(n), limits.split), 0)
    # Where the smaller term of the denominator is not much more than an ulp of the larger, it is
    # added to the smallest parts: else errors of glu in float32 are up to 1.0004 ulp, at -17.68.
    far = n > pick(_FAR, x)
    w = w + smaller if far else w
    q, c = logistic_of_sum(n, r, w, zero if far else -smaller)
    # Half of it, since q may be above 1.
    q = like(q, 0.5) * q
    # Far above, it is 1: else exact products with it would not be ties in 16 bits, nor infinite.
    c = c if x < limits.enough else zero
    return q, q * c, at_most(zero - n, zero)


@scalar
def logistic_slope(q, c, r, w):
    """(p, p_low, h, h_low) from the results of `logistic` for x >= 0, with e^-x = 2^n u.

    u is 1 + r + w, and q (1 + c) is 1 / (1 + e^-x). p + p_low is u times that, and h + h_low is u
    times its square.
    """
    one = like(r, 1)
    u = one + r
    u_low = ((one - u) + r) + w
    p, p_low = product(q, u, muladd(u, c, u_low))
    h, h_low = product(q, p, muladd(p, c, p_low))
    return p, p_low, h, h_low


@scalar
def sigmoid_slope(x, x_low):
    """(h, h_low, n) with 2^n (h + h_low) = s (1 - s) for s = 1 / (1 + e^-(x + x_low))."""
    n, r, w = exp_sum(-magnitude(x), x_low if x < like(x, 0) else -x_low)
    q, c = logistic_of_sum(n, r, w, -pow2(at_least(n, -pick(RANGE, x).split), 0))
    _, _, h, h_low = logistic_slope(q, c, r, w)
    return h, h_low, n
