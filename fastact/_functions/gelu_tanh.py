"""The approximation of the Gaussian error linear unit by the hyperbolic tangent."""

from collections.abc import Callable
from math import inf, nan, pi
from typing import Any, NamedTuple

import numpy as np

from fastact._declarations.declare import activation, derivative
from fastact._declarations.records import KerasFunction, OnnxOperator, TorchModule
from fastact._declarations.sources import EXP_AND_SUMS
from fastact._kernels.elementary import normalised, product, rounded, scales, times_power
from fastact._kernels.gates import Near, gate_slope, halved_slope
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
    fma,
    last_muladd,
    last_signed_muladd,
    like,
    magnitude,
    muladd,
    or_nan,
    pick,
    scalar,
    with_variants,
)

# Below `lowest`, the result is less than half the smallest subnormal.
_GELU = PerFormat(
    single=constants(np.float32, 48, lowest=-11.0, enough=5.6),
    double=constants(float, 100, lowest=-21.6, enough=8.4),
)


class _Rate(NamedTuple):
    """The sum of a constant and a multiple of x^2, with coefficients as two terms."""

    constant: Any  # so short that sums with it have an exact rounding error
    constant_low: Any
    quadratic: Any
    quadratic_low: Any


def _rates(number: Callable[[float], Any], *coefficients: float) -> _Rate:
    return _Rate(*map(number, coefficients))


# sqrt(8/pi) (1 + 0.044715 x^2), the argument of the logistic function divided by x.
_ARGUMENT = PerFormat(
    _rates(
        np.float32,
        1.59576416015625,
        4.961449576512678e-06,
        0.07135481387376785,
        2.3988324659995897e-09,
    ),
    _rates(
        float,
        1.5957691216057412,
        -1.053578951956758e-14,
        0.07135481627260025,
        -6.175149918155315e-19,
    ),
)

# Its derivative with respect to x, sqrt(8/pi) (1 + 3 0.044715 x^2).
_DERIVATIVE = PerFormat(
    _rates(
        np.float32,
        1.59576416015625,
        4.961449576512678e-06,
        0.21406444907188416,
        -2.540834209696641e-10,
    ),
    _rates(
        float,
        1.5957691216057412,
        -1.053578951956758e-14,
        0.21406444881780073,
        1.2025242832367862e-17,
    ),
)


@scalar
def _rate(square, square_low, c):
    """constant + quadratic (square + square_low), as two terms."""
    high = muladd(square, c.quadratic, c.constant)
    low = fma(square, c.quadratic, c.constant - high)
    rest = muladd(square, c.quadratic_low, c.constant_low)
    return high, low + muladd(square_low, c.quadratic, rest)


def _reference(m, x):
    scale = m.sqrt(2 / m.atan(1))  # sqrt(8 / pi)
    z = scale * (x + x * x * x * 44715 / 1000000)
    return x * m.exp((z - abs(z)) / 2) / (1 + m.exp(-abs(z)))  # without overflow


@activation(
    summary="Gaussian error linear unit with a hyperbolic tangent, element-wise.",
    formula="gelu_tanh(x) = x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x**3)))",
    notes="""Computed as x / (1 + e^-z) with z = sqrt(8 / pi) (x + 0.044715 x^3), which carries its
rounding error. Then nothing cancels, and the quotient is as in silu. It is accurate until it is
subnormal, and -0.0 below. This is ``torch.nn.GELU(approximate="tanh")``."""
    + EXP_AND_SUMS,
    reference=_reference,
    elsewhere={
        "PyTorch": "nn.functional.gelu: with approximate='tanh'",
        "JAX": "nn.gelu",
        "Keras": "gelu: with approximate=True",
        "ONNX": "Gelu: with approximate='tanh'",
    },
    specials=[(-inf, -0.0), (inf, inf), (0.0, 0.0), (-0.0, -0.0)],
    interval=(-5.0, 5.0),
    ulp={"float16": 0.5, "bfloat16": 0.5, "float32": 0.99, "float64": 0.9},
    range=(-0.17004075057125405, inf),
    steepest=1.1289930686587718,
    torch_modules=[
        TorchModule("GELU", lambda module: module.approximate == "tanh", "have approximate='tanh'")
    ],
    keras_functions=[
        KerasFunction("nn.gelu", lambda approximate=True: () if approximate else None)
    ],
    onnx_operators=[
        OnnxOperator("Gelu", lambda approximate="none": () if approximate == "tanh" else None)
    ],
    onnx_formulas=[lambda m, x: x * (1 + m.tanh((2 / pi) ** 0.5 * (x + 0.044715 * x**3))) / 2],
)
@with_variants(
    vectors={("float32", 512): 2},
    stages={("float32", 512): 4, ("float32", 256): 4, ("float64", 256): 4},
)
def gelu_tanh(x):
    limits = pick(_GELU, x)
    a = where_needed(x, limits)
    square = a * a
    rate, rate_low = _rate(square, fma(a, a, -square), pick(_ARGUMENT, x))
    z, z_low = product(a, rate, rate_low)
    p, rest, q = gated(a, *denominator_of_sum(z, z_low, limits))
    return with_ends(x, a, last_signed_muladd(rest, q, p), limits)


class _Zero(NamedTuple):
    """The zero of the derivative, at -x for x + x_low, and t = e^-|z| there."""

    x: Any
    x_low: Any
    t: Any
    t_low: Any


_ZERO = PerFormat(
    _Zero(
        *(np.float32(0.7524614334106445), np.float32(-1.1339627903339533e-08)),
        *(np.float32(0.29195520281791687), np.float32(9.0968503840827e-09)),
    ),
    _Zero(
        *(0.7524614220710163, -3.635560509207687e-17),
        *(0.29195521191476714, -8.582607951729513e-18),
    ),
)

# The zero as a sum, of which doubles give 159 bits, and e^-|z| there.
_ZERO_PARTS = (0.7524614220710163, -3.635560509207687e-17, 2.5415595389660457e-33)
_T_PARTS = (0.29195521191476714, -8.582607951729513e-18, 3.5868027732627047e-34)

# The greatest |x|: farther below, every gradient is 0.
_FARTHEST = PerFormat(np.float32(13.6), 27.2)


@scalar
def _near(a):
    """The differences from the zero; those of z and w = |x z'| are divided by that of x."""
    zero, none = pick(_ZERO, a), like(a, 0)
    x, x_low = normalised(zero.x - a, zero.x_low)
    squares = muladd(a, a + zero.x, zero.x * zero.x)
    by_z, by_z_low = _rate(squares, none, pick(_ARGUMENT, a))
    by_w, by_w_low = _rate(squares, none, pick(_DERIVATIVE, a))
    z, z_low = product(x, by_z, by_z_low)
    z, z_low = normalised(z, muladd(x_low, by_z, z_low))
    w, w_low = product(x, by_w, by_w_low)
    return Near(zero.t, zero.t_low, z, z_low, w, muladd(x_low, by_w, w_low))


def _slope(m, x):
    """The derivative in terms of a module `m`; near its zero, nothing cancels."""
    scale = m.sqrt(2 / m.atan(1))
    cubic = scale * 44715 / 1000000
    a = abs(x)
    apart = ((_ZERO_PARTS[0] - a) + _ZERO_PARTS[1]) + _ZERO_PARTS[2]
    zero, t0 = apart + a, ((0 * scale + _T_PARTS[0]) + _T_PARTS[1]) + _T_PARTS[2]
    squares = zero * zero + zero * a + a * a
    t = m.exp(-(scale + cubic * a * a) * a)
    by_z, by_w = scale + cubic * squares, scale + 3 * cubic * squares
    below = t * (t0 * m.expm1(apart * by_z) + apart * by_w) / ((1 + t) * (1 + t))
    return (x < 0) * below + (x >= 0) * (1 - below)


def _curvature(m, x):
    """The second derivative. Unlike exp, tanh does not overflow."""
    scale = m.sqrt(2 / m.atan(1))
    cubic = scale * 44715 / 1000000
    t = m.tanh((scale + cubic * x * x) * x / 2)
    first, second = scale + 3 * cubic * x * x, 6 * cubic * x
    return (1 - t * t) * (2 * first + x * second - x * first * first * t) / 4


@derivative(
    formula="gelu_tanh_backward(grad_output, input) = "
    "grad_output * s * (1 + input * slope * (1 - s)) with s = sigmoid(z), the slope of z, and "
    "z = sqrt(8 / pi) * (input + 0.044715 * input**3)",
    notes="""Computed as t (1 + t - w) / (1 + t)^2 with t = e^-|z| and w = |input * slope|, or as 1
less that for positive `input`. The zero at -0.752 is expanded, so that the result has the same
relative error there. Powers of 2 are multiplied last, as in silu_backward. For an infinite
`grad_output`, the result is infinite, or NaN where `input` is below -27.2 in float64 and below
-13.6 in the other formats."""
    + EXP_AND_SUMS,
    reference=lambda m, g, x: g * _slope(m, x),
    slope=_curvature,
    infinity_times_zero=nan,
    specials=[(2.0, 0.0, 1.0), (2.0, inf, 2.0), (2.0, -inf, -0.0), (inf, 0.0, inf)],
    interval=(-5.0, 5.0),
    ulp={"float16": 0.51, "bfloat16": 0.51, "float32": 0.9, "float64": 0.9},
)
def gelu_tanh_backward(grad_output, input):
    one = like(input, 1)
    farthest = pick(_FARTHEST, input)
    a = at_most(magnitude(input), farthest)
    square = a * a
    square_low = fma(a, a, -square)
    by_z, by_z_low = _rate(square, square_low, pick(_ARGUMENT, input))
    by_w, by_w_low = _rate(square, square_low, pick(_DERIVATIVE, input))
    z, z_low = product(a, by_z, by_z_low)
    w, w_low = product(a, by_w, by_w_low)
    h, h_low, n = halved_slope(input, *gate_slope(z, z_low, w, w_low, _near(a)))
    up, down = scales(grad_output)
    p, p_low = product(grad_output * up, h, h_low)
    y = last_muladd(p_low, copysign(one, p), magnitude(p))
    return times_power(rounded(y, or_nan(p, grad_output)), n, down, input >= -farthest)
