"""The logarithm of one plus the argument and its derivative."""

from math import inf, nan
from typing import Any, NamedTuple

import numpy as np

from fastact._declarations.declare import activation, derivative
from fastact._declarations.sources import LOG_AND_SUMS
from fastact._kernels.elementary import scales, two_sum
from fastact._kernels.logarithm import binary_exponent, log_of_product, over_one_plus
from fastact._kernels.vocabulary import (
    PerFormat,
    copysign,
    fma,
    last_muladd,
    like,
    magnitude,
    or_nan,
    pick,
    pow2,
    scalar,
    with_variants,
)


class _Log1p(NamedTuple):
    linear: Any  # below this magnitude, the result is x
    # The reciprocal of 1 + x is computed times `unit`. Large sums are first multiplied by `shrink`.
    unit: Any
    large: Any
    shrink: Any


_LOG1P = PerFormat(
    single=_Log1p(*map(np.float32, (2.0**-26, 2.0**-8, 2.0**60, 2.0**-64))),
    double=_Log1p(2.0**-55, 2.0**-8, 2.0**500, 2.0**-512),
)


@scalar
def _terms(x):
    one = like(x, 1)
    quarter = like(x, 0.25)
    # 1 + x is 2^k (1 + f). Where k is 0, f is x. The power is 4 2^-k, which is never subnormal.
    k = binary_exponent(one + x)
    power = pow2(-k, 2)
    base = power * quarter - one
    scaled = power * (x * quarter)
    f = base + scaled
    return log_of_product(k, f, over_one_plus((base - f) + scaled, f))


@scalar
def _with_limits(y, x):
    one = like(x, 1)
    y = x if magnitude(x) < pick(_LOG1P, x).linear else y
    y = like(x, inf) if x == like(x, inf) else y
    below = like(x, -inf) if x == -one else like(x, nan)
    return below if x <= -one else y


def _narrow(x):
    high, low = _terms(x)
    y = last_muladd(low, copysign(like(x, 1), high), magnitude(high))
    return _with_limits(copysign(y, high), x)


@activation(
    summary="Logarithm of one plus the argument, element-wise.",
    formula="log1p(x) = log(1 + x)",
    notes="""Same as ``numpy.log1p``: -inf for -1, and NaN below. With 1 + x = 2^k (1 + f), where f
carries its rounding error, the result is k log(2) + f + f^2 p(f)."""
    + LOG_AND_SUMS,
    reference=lambda m, x: m.log1p(x),
    elsewhere={
        "PyTorch": "log1p",
        "JAX": "numpy.log1p",
        "Keras": "ops.log1p",
        "SciPy": "special.log1p",
        "NumPy": "log1p",
    },
    specials=[(inf, inf), (-1.0, -inf), (0.0, 0.0), (-0.0, -0.0)],
    interval=(-0.95, 5.0),
    ulp={"float16": 0.5, "bfloat16": 0.5, "float32": 0.9, "float64": 0.9},
    nondecreasing=True,
    pytensor_ops=["basic.Log1p"],
)
@with_variants(narrow=_narrow)
def log1p(x):
    high, low = _terms(x)
    return _with_limits(high + low, x)


@derivative(
    formula="log1p_backward(grad_output, input) = grad_output / (1 + input)",
    notes="""The sum carries its rounding error, and the quotient is corrected once. It is rounded a
second time only where it is subnormal. Where `input` is -1, the result is infinite. For an infinite
`grad_output` and an infinite `input`, it is NaN.""",
    reference=lambda m, g, x: g / (1 + x),
    slope=lambda m, x: -1 / (1 + x) ** 2,
    of_output=lambda m, y: m.exp(-y),
    infinity_times_zero=nan,
    specials=[(2.0, 0.0, 2.0), (2.0, 1.0, 1.0), (2.0, inf, 0.0), (inf, 0.0, inf)],
    interval=(-0.95, 5.0),
    ulp={"float16": 0.51, "bfloat16": 0.51, "float32": 0.76, "float64": 0.76},
)
def log1p_backward(grad_output, input):
    limits = pick(_LOG1P, input)
    one = like(input, 1)
    d, d_low = two_sum(one, input)
    large = magnitude(input) > limits.large
    shrink = limits.shrink if large else one
    d_low = like(input, 0) if large else d_low
    d = d * shrink
    reciprocal = limits.unit / d
    up, down = scales(grad_output)
    g = grad_output * up
    q = g * reciprocal
    # q is g unit / d. Its residual is exact, and small.
    residual = fma(-q, d, g * limits.unit) - q * d_low
    y = q + residual * (reciprocal / limits.unit)
    y = y if y == y else q
    return or_nan(y, grad_output) * (down * (shrink / limits.unit))
