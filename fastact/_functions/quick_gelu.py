"""The quick approximation of the Gaussian error linear unit by the logistic function."""

from math import inf, nan

import numpy as np

from fastact._declarations.declare import activation, derivative
from fastact._declarations.sources import EXP_AND_SUMS
from fastact._functions.silu import curvature_of_silu, slope_of_silu
from fastact._kernels.elementary import product, rounded, scales, times_power
from fastact._kernels.gates import halved_slope, silu_slope
from fastact._kernels.logistic import (
    constants,
    denominator_of_sum,
    gated,
    where_needed,
    with_ends,
)
from fastact._kernels.vocabulary import (
    PerFormat,
    at_most,
    copysign,
    last_muladd,
    last_signed_muladd,
    like,
    magnitude,
    or_nan,
    pick,
)

# Below `lowest`, the result is less than half the smallest subnormal.
_QUICK_GELU = PerFormat(
    single=constants(np.float32, 48, lowest=-63.7, enough=10.3),
    double=constants(float, 100, lowest=-441.6, enough=22.1),
)

# 1.702 as two terms.
_RATE = PerFormat(
    (np.float32(1.702), np.float32(1.702 - float(np.float32(1.702)))),
    (1.702, 4.263256414560601e-17),
)


@activation(
    summary="Gaussian error linear unit with a logistic function, element-wise.",
    formula="quick_gelu(x) = x / (1 + exp(-1.702 x))",
    notes="""The factor 1.702 is the decimal number. The argument of exp carries its rounding error,
and the quotient is computed as in silu."""
    + EXP_AND_SUMS,
    reference=lambda m, x: x / (1 + m.exp(-(x * 1702) / 1000)),
    elsewhere={
        "ONNX": "QuickGelu: an operator of ONNX Runtime",
    },
    specials=[(-inf, -0.0), (inf, inf), (0.0, 0.0), (-0.0, -0.0)],
    interval=(-6.0, 6.0),
    ulp={"float16": 0.5, "bfloat16": 0.5, "float32": 1.0, "float64": 0.9},
    range=(-0.16361018963635358, inf),
    steepest=1.0998393194610405,
    onnx_formulas=[lambda m, x: x * m.sigmoid(1.702 * x)],
)
def quick_gelu(x):
    limits = pick(_QUICK_GELU, x)
    rate, rate_low = pick(_RATE, x)
    a = where_needed(x, limits)
    z, z_low = product(a, rate, rate_low)
    p, rest, q = gated(a, *denominator_of_sum(z, z_low, limits))
    return with_ends(x, a, last_signed_muladd(rest, q, p), limits)


# The greatest |x|: farther below, every gradient is 0.
_FARTHEST = PerFormat(np.float32(116.4), 859.4)


def _slope(m, x):
    return slope_of_silu(m, x * 1702 / 1000)


@derivative(
    formula="quick_gelu_backward(grad_output, input) = "
    "grad_output * s * (1 + z * (1 - s)) with z = 1.702 * input and s = sigmoid(z)",
    notes="""Computed as silu_backward for 1.702 input, with the rounding error of that product. For
an infinite `grad_output`, the result is infinite, or NaN where `input` is below -859.4 in float64
and below -116.4 in the other formats."""
    + EXP_AND_SUMS,
    reference=lambda m, g, x: g * _slope(m, x),
    slope=lambda m, x: curvature_of_silu(m, x * 1702 / 1000) * 1702 / 1000,
    infinity_times_zero=nan,
    specials=[(2.0, 0.0, 1.0), (2.0, inf, 2.0), (2.0, -inf, -0.0), (inf, 0.0, inf)],
    interval=(-6.0, 6.0),
    ulp={"float16": 0.51, "bfloat16": 0.51, "float32": 0.8, "float64": 0.9},
)
def quick_gelu_backward(grad_output, input):
    one = like(input, 1)
    farthest = pick(_FARTHEST, input)
    rate, rate_low = pick(_RATE, input)
    z, z_low = product(at_most(magnitude(input), farthest), rate, rate_low)
    h, h_low, n = halved_slope(input, *silu_slope(z, z_low))
    up, down = scales(grad_output)
    p, p_low = product(grad_output * up, h, h_low)
    y = last_muladd(p_low, copysign(one, p), magnitude(p))
    return times_power(rounded(y, or_nan(p, grad_output)), n, down, input >= -farthest)
