"""The sigmoid-weighted linear unit."""

from math import inf, nan

import numpy as np

from fastact._declarations.declare import activation, derivative
from fastact._declarations.records import KerasFunction, OnnxOperator, TorchModule
from fastact._declarations.sources import EXP_AND_SUMS
from fastact._kernels.elementary import product, rounded, scales, times_power
from fastact._kernels.gates import FARTHEST, halved_slope, silu_slope
from fastact._kernels.logistic import (
    constants,
    denominator,
    gated,
    negative_exp,
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
    with_variants,
)

# Below `lowest`, the result is less than half the smallest subnormal. The units are smaller than
# those of sigmoid, as -109 is farther from 0 than -104.
_SILU = PerFormat(
    single=constants(np.float32, 48, lowest=-109.0, enough=17.4),
    double=constants(float, 100, lowest=-752.0, enough=37.5),
)


@activation(
    summary="Sigmoid-weighted linear unit, element-wise.",
    formula="silu(x) = x / (1 + exp(-x))",
    notes="""Also known as swish. The denominator is summed as in sigmoid and carries its rounding
error. Then one division and one Newton step with the residual give the quotient. So the result is
accurate until it is subnormal, and -0.0 below."""
    + EXP_AND_SUMS,
    reference=lambda m, x: x / (1 + m.exp(-x)),
    elsewhere={
        "PyTorch": "nn.functional.silu",
        "JAX": "nn.silu",
        "Keras": "silu",
        "ONNX": "Swish: since opset 24",
    },
    specials=[(-inf, -0.0), (inf, inf), (0.0, 0.0), (-0.0, -0.0)],
    interval=(-10.0, 10.0),
    ulp={"float16": 0.5, "bfloat16": 0.5, "float32": 1.0, "float64": 1.0},
    range=(-0.27846454276107377, inf),
    steepest=1.0998393194610405,
    torch_modules=[TorchModule("SiLU")],
    keras_functions=[KerasFunction("nn.silu")],
    onnx_operators=[OnnxOperator("Swish", lambda alpha=1.0: () if alpha == 1 else None)],
    onnx_formulas=[lambda m, x: x * m.sigmoid(x), lambda m, x: x / (1 + m.exp(-x))],
)
@with_variants(
    vectors={("float32", 512): 2, ("float64", 512): 2},
    stages={("float32", 512): 4, ("float64", 512): 4, ("float32", 256): 3, ("float64", 256): 4},
)
def silu(x):
    limits = pick(_SILU, x)
    a = where_needed(x, limits)
    u, r = negative_exp(a, limits)
    p, rest, q = gated(a, *denominator(u, r, limits))
    return with_ends(x, a, last_signed_muladd(rest, q, p), limits)


# The zero of the derivative is at -x for the sum x of these; doubles give no more than 53 bits.
_ZERO = (1.2784645427610737, 1.0946994183093437e-16, 3.907766676128665e-33)


def slope_of_silu(m, x):
    """The derivative of silu in terms of a module `m`; near its zero, nothing cancels."""
    a = abs(x)
    apart = ((_ZERO[0] - a) + _ZERO[1]) + _ZERO[2]
    t = m.exp(-a)
    t0 = ((0 * t + _ZERO[0] - 1) + _ZERO[1]) + _ZERO[2]
    below = t * (t0 * m.expm1(apart) + apart) / ((1 + t) * (1 + t))
    return (x < 0) * below + (x >= 0) * (1 - below)


def curvature_of_silu(m, x):
    """The second derivative of silu. Unlike exp, tanh does not overflow."""
    t = m.tanh(x / 2)
    return (1 - t * t) * (2 - x * t) / 4


@derivative(
    formula="silu_backward(grad_output, input) = "
    "grad_output * s * (1 + input * (1 - s)) with s = sigmoid(input)",
    notes="""Computed as t (1 + t - a) / (1 + t)^2 with a = |input| and t = e^-a, or as 1 less that
for positive `input`. The zero at -1.278 is expanded, so that the result has the same relative error
there. Powers of 2 are multiplied last, so that the result is accurate also where the derivative
alone would underflow to 0. For an infinite `grad_output`, the result is infinite, or NaN where
`input` is below -1462.5 in float64 and below -198.1 in the other formats."""
    + EXP_AND_SUMS,
    reference=lambda m, g, x: g * slope_of_silu(m, x),
    slope=curvature_of_silu,
    infinity_times_zero=nan,
    specials=[(2.0, 0.0, 1.0), (2.0, inf, 2.0), (2.0, -inf, -0.0), (inf, 0.0, inf)],
    interval=(-10.0, 10.0),
    ulp={"float16": 0.51, "bfloat16": 0.51, "float32": 0.8, "float64": 0.9},
)
def silu_backward(grad_output, input):
    one = like(input, 1)
    farthest = pick(FARTHEST, input)
    z = at_most(magnitude(input), farthest)
    h, h_low, n = halved_slope(input, *silu_slope(z, like(z, 0)))
    up, down = scales(grad_output)
    p, p_low = product(grad_output * up, h, h_low)
    y = last_muladd(p_low, copysign(one, p), magnitude(p))
    return times_power(rounded(y, or_nan(p, grad_output)), n, down, input >= -farthest)
