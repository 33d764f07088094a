"""The logarithm of one minus an exponential and its derivative."""

from math import inf, nan
from typing import Any, NamedTuple

import numpy as np

from fastact._declarations.declare import activation, derivative
from fastact._declarations.sources import EXP_AND_SUMS
from fastact._kernels.elementary import (
    EXP,
    EXPM1,
    LOWEST_SLOPE,
    exact_remainder,
    times_power,
)
from fastact._kernels.logarithm import LOG, binary_exponent, log_of_product, over_one_plus
from fastact._kernels.quotient import quotient
from fastact._kernels.vocabulary import (
    PerFormat,
    at_least,
    at_most,
    copysign,
    horner,
    last_muladd,
    like,
    magnitude,
    muladd,
    or_nan,
    pick,
    pow2,
    scalar,
    with_variants,
)


class _Log1mexp(NamedTuple):
    lowest: Any  # at and below, e^x is less than half the smallest subnormal
    far: Any  # below, the result is -e^x, which is computed divided by `unit`
    least: Any  # 2^least is the least power of 2 that matters above `far`
    unit: Any


_LOG1MEXP = PerFormat(
    single=_Log1mexp(*map(np.float32, (-104.0, -30.0, -60.0, 2.0**-64))),
    double=_Log1mexp(-745.2, -60.0, -120.0, 2.0**-64),
)


@scalar
def _exponential(x):
    """(n, r, w) with e^x = 2^n (1 + r + w)."""
    exp = pick(EXP, x)
    n = muladd(x, exp.log2_e, exp.shift) - exp.shift
    r, r_low = exact_remainder(n, x)
    slope = r * horner(r, pick(EXPM1, x))
    # All of e^r is multiplied with r_low, which is up to 200 ulp in binary64.
    return n, r, muladd(r, slope, muladd(r_low, muladd(r, slope, r), r_low))


@scalar
def _terms(x):
    """(high, low, unit): their sum times `unit` is log(1 - e^x) for x < 0."""
    limits = pick(_LOG1MEXP, x)
    c = pick(LOG, x)
    one = like(x, 1)
    # 1 - e^x is -x where that is subnormal.
    small = magnitude(x) < c.least
    far = x < limits.far
    n, r, w = _exponential(at_least(x * c.up if small else x, limits.lowest))
    s = pow2(at_least(n, limits.least), 0)
    d = one - s
    # 1 - e^x is 2^k (1 + f). Where k is 0, f is -e^x.
    k = binary_exponent(d - muladd(s, w, s * r))
    power = pow2(-k, 0)
    base = muladd(power, (one - d) - s, muladd(power, d, -one))
    s = -s * power
    first = muladd(s, r, base)
    f = muladd(s, w, first)
    f_low = muladd(s, w, first - f) + muladd(s, r, base - first)
    k = k - c.up_exponent if small else k
    high, low = log_of_product(k, f, over_one_plus(f_low, f))
    t = -pow2(n, 64)
    t_high = muladd(t, r, t)
    t_low = muladd(t, w, muladd(t, r, t - t_high))
    unit = limits.unit if far else one
    # An exact 0, not an underflow, which takes ten times as long on some processors.
    unit = unit if x > limits.lowest else like(x, 0)
    return t_high if far else high, t_low if far else low, unit


@scalar
def _with_limits(y, x):
    zero = like(x, 0)
    above = like(x, -inf) if x == zero else like(x, nan)
    y = above if x >= zero else y
    return y if x == x else x + x


def _narrow(x):
    high, low, unit = _terms(x)
    y = last_muladd(low, copysign(like(x, 1), high), magnitude(high))
    return _with_limits(-y * unit, x)


def _reference(m, x):
    is_near = x > -0.7
    is_far = x <= -0.7
    near = m.log(-m.expm1(x * is_near - 1.0 * is_far))
    far = m.log1p(-m.exp(x * is_far - 1.0 * is_near))
    return near * is_near + far * is_far


@activation(
    summary="Logarithm of one minus the exponential, element-wise.",
    formula="log1mexp(x) = log(1 - exp(x))",
    notes="""The logarithm of a probability that the opposite has, given its logarithm: -inf for 0,
and NaN above. With e^x = s (1 + r + w), where s is a power of 2, and 1 - e^x = 2^k (1 + f), the sum
f = (1 - s) 2^-k - 1 - s 2^-k (r + w) carries its rounding error. The result is k log(2) + f +
f^2 p(f). Far below 0, it is -e^x until that is subnormal, and -0.0 below."""
    + EXP_AND_SUMS,
    reference=_reference,
    elsewhere={"JAX": "nn.log1mexp: of -x"},
    specials=[(-inf, -0.0), (0.0, -inf), (-0.0, -inf)],
    interval=(-5.0, -0.05),
    ulp={"float16": 0.5, "bfloat16": 0.5, "float32": 0.91, "float64": 0.9},
    range=(-inf, 0.0),
    pytensor_ops=["math.Log1mexp"],
)
@with_variants(narrow=_narrow)
def log1mexp(x):
    high, low, unit = _terms(x)
    return _with_limits((high + low) * unit, x)


@derivative(
    formula="log1mexp_backward(grad_output, input) = grad_output / (1 - exp(-input))",
    notes="""With e^-x = 2^n (1 + r + w), the denominator divided by 2^n carries its rounding error,
and the quotient is corrected once. Powers of 2 are multiplied last, so that the result is accurate
also where the quotient alone would underflow to 0. Where `input` is 0, the result is infinite, or
NaN if `grad_output` is 0. It is NaN where `input` is above 0. For an infinite `grad_output`, the
result is infinite, or NaN where `input` is below -1418.5 in float64 and below -192.5 in the other
formats."""
    + EXP_AND_SUMS,
    reference=lambda m, g, x: -g / m.sqrt(m.expm1(-x)) ** 2,
    slope=lambda m, x: -1 / (4 * m.sinh(x / 2) ** 2),
    of_output=lambda m, y: 1 - m.exp(-y),
    infinity_times_zero=nan,
    specials=[(2.0, -inf, -0.0), (2.0, -0.0, -inf), (-2.0, 0.0, inf), (inf, -1.0, -inf)],
    interval=(-5.0, -0.05),
    ulp={"float16": 0.51, "bfloat16": 0.51, "float32": 0.9, "float64": 0.9},
)
def log1mexp_backward(grad_output, input):
    zero, one = like(input, 0), like(input, 1)
    lowest = pick(LOWEST_SLOPE, input)
    n, r, w = _exponential(at_most(magnitude(input), -lowest))
    # 1 - 2^-n is exact, or the rest is less than an ulp and added to w.
    s = pow2(-at_most(n, like(input, 60)), 0)
    base = one - s
    w = w + ((one - base) - s)
    first = base + r
    d = first + w
    d_low = ((base - first) + r) + ((first - d) + w)
    y, g, down = quotient(grad_output, d, d_low)
    y = -times_power(like(input, 0.5) * y, n, down, input >= lowest)
    y = like(input, nan) if input > zero else y
    y = y if input == input else input + input
    return or_nan(y, g)
