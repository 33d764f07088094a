"""Mish and its derivative."""

from math import inf, nan
from typing import Any, NamedTuple

import numpy as np

from fastact._declarations.declare import activation, derivative
from fastact._declarations.records import KerasFunction, OnnxOperator, TorchModule
from fastact._declarations.sources import EXP_AND_SUMS, PIECES_BY_TABLES
from fastact._kernels.elementary import (
    EXP,
    EXPM1,
    RANGE,
    exp_as_sum,
    exp_remainder,
    normalised,
    plus,
    product,
    rounded,
    scales,
    times,
    times_power,
    two_sum,
)
from fastact._kernels.gates import FARTHEST
from fastact._kernels.tables import MISH, spread_pieces
from fastact._kernels.vocabulary import (
    PerFormat,
    at_least,
    at_most,
    copysign,
    fma,
    horner,
    last_muladd,
    like,
    magnitude,
    muladd,
    or_nan,
    pick,
    pow2,
    pow2_of_sum,
    quiet,
    with_variants,
)


class _Mish(NamedTuple):
    enough: Any  # above, the result is x
    least: Any  # 2^n is not smaller in sums with 2


_MISH = PerFormat(
    single=_Mish(np.float32(9.1), np.float32(-60)),
    double=_Mish(19.2, -200.0),
)


def _reference(m, x):
    # e^x = n / k, where neither overflows.
    n, k = m.exp((x - abs(x)) / 2), m.exp(-(x + abs(x)) / 2)
    numerator = n * (n + 2 * k)
    return x * numerator / (numerator + 2 * k * k)


class _Far(NamedTuple):
    """Constants of the left tail of mish, where e^x is small."""

    lowest: Any  # 2^n is 0 there, and the result -0.0
    shift: Any  # as for pow2_of_sum, for 2^40 2^n, so that no product is subnormal but the last
    unit: Any  # 2^-40
    half: Any  # -unit / 2


_FAR = _Far(*(np.float32(v) for v in (-115.6, 1.5 * 2.0**23 + 127 + 40, 2.0**-40, -(2.0**-41))))


def _by_tables(x):
    exp = EXP.single
    near = spread_pieces(x, MISH)
    # Far to the left: x n (1 - n/2) with n = e^x = 2^k (1 + r + w)
    a = at_least(x, _FAR.lowest)
    total = muladd(a, exp.log2_e, _FAR.shift)
    k = total - _FAR.shift
    power = pow2_of_sum(total)
    high = muladd(k, -exp.ln2_high, a)
    r = muladd(k, -exp.ln2_low, high)
    w = muladd(r * r, horner(r, exp.tail), muladd(k, -exp.ln2_low, high - r))
    e = like(x, 1) + r + w
    w = muladd(power * _FAR.half * e, e, w)
    p = a * power
    return near if x >= MISH.lowest else last_muladd(p, r + w, p) * _FAR.unit


@activation(
    summary="Mish, a smooth unit that regularises itself, element-wise.",
    formula="mish(x) = x * tanh(log(1 + exp(x)))",
    notes="""With n = e^x, this is x n (n + 2) / (n (n + 2) + 2), where nothing cancels. Numerator
and denominator carry their rounding errors, and the quotient is corrected once. The power of 2 in n
is multiplied last, so that the result is accurate until it is subnormal, and -0.0 below."""
    + EXP_AND_SUMS
    + PIECES_BY_TABLES.format("from -6.5 on"),
    reference=_reference,
    elsewhere={
        "PyTorch": "nn.functional.mish",
        "JAX": "nn.mish",
        "Keras": "mish",
        "ONNX": "Mish",
    },
    specials=[(-inf, -0.0), (inf, inf), (0.0, 0.0), (-0.0, -0.0)],
    interval=(-10.0, 10.0),
    ulp={"float16": 0.5, "bfloat16": 0.5, "float32": 1.0, "float64": 0.9},
    range=(-0.30884341301725041, inf),
    steepest=1.0884981611712279,
    torch_modules=[TorchModule("Mish")],
    keras_functions=[KerasFunction("Mish.static_call")],
    onnx_operators=[OnnxOperator("Mish")],
    onnx_formulas=[
        lambda m, x: x * m.tanh(m.softplus(x)),
        lambda m, x: x * m.tanh(m.log(1 + m.exp(x))),
    ],
)
@with_variants(
    tables=_by_tables,
    tables_in_16_bits=False,
    vectors={("float32", 256): 8},
    stages={("float32", 512): 2, ("float64", 256): 3},
)
def mish(x):
    limits = pick(_MISH, x)
    scale = pick(RANGE, x)
    two = like(x, 2)
    a = at_least(x, scale.lowest)
    n, e, e_low = exp_as_sum(at_most(a, limits.enough))
    power = pow2(at_least(n, limits.least), 0)
    # The numerator divided by 2^n, (n + 2) e^r, as v + v_low.
    t = power * e
    v = muladd(e, t, e + e)
    v_low = fma(e, t, (e + e) - v)
    v_low = muladd(e_low + e_low, t + like(x, 1), v_low)
    d = muladd(power, v, two)
    d_low = muladd(power, v_low, muladd(power, v, two - d))
    w, w_low = product(magnitude(a), v, v_low)
    q = like(x, 1) / d
    p = w * q
    rest = muladd(p, -d_low, fma(p, -d, w) + w_low)
    y = last_muladd(rest, q, p) * pow2(n, scale.split) * scale.unsplit
    return copysign(y, x) if x <= limits.enough else quiet(x)


class _Slope(NamedTuple):
    """Constants of the derivative, which is n d / (n (n + 2) + 2)^2; d is 0 at `zero`."""

    farthest: Any  # below -farthest, a gradient is 0; see FARTHEST
    enough: Any  # above, the derivative is 1
    zero: Any
    zero_low: Any
    n0: Any  # n at the zero
    n0_low: Any
    near: Any  # how far from the zero inputs are near


# d near the zero: the product of n - n0 with n^2 + `linear` n + `constant`, and 4 (x - x0) (n + 1).
_X0 = (-1.1924312145154952, -4.8484829848031044e-17, -1.898915114090381e-33)
_N0 = (0.3034825352815289, 1.981117434764409e-17, 3.2159548094895706e-34)
_LINEAR = _N0[0] + 4
_CONSTANT = _N0[0] * (_N0[0] + 4) + 6 + 4 * _X0[0]

_SLOPE = PerFormat(
    _Slope(
        *(FARTHEST.single, np.float32(11.5)),
        *(np.float32(-1.1924312114715576), np.float32(-3.0439375464652585e-09)),
        *(np.float32(0.3034825325012207), np.float32(2.7803082058852624e-09)),
        np.float32(0.1),
    ),
    _Slope(FARTHEST.double, 21.6, *_X0[:2], *_N0[:2], 0.1),
)


def _derivative(m, x):
    """The derivative in terms of a module `m`; near its zero, nothing cancels."""
    # Above 0, in terms of e^-x.
    t = m.exp(-(x + abs(x)) / 2)
    q = 1 + 2 * t + 2 * t * t
    above = ((1 + 2 * t) * q + 4 * x * t * t * (1 + t)) / (q * q)
    n = m.exp((x - abs(x)) / 2)
    apart = (((x - abs(x)) / 2 - _X0[0]) - _X0[1]) - _X0[2]
    n0, x0 = ((0 * t + a) + b + c for a, b, c in (_N0, _X0))
    d = n0 * m.expm1(apart) * (n * n + n * n0 + n0 * n0 + 4 * (n + n0) + 6 + 4 * x0)
    below = n * (d + 4 * apart * (n + 1)) / ((n * (n + 2) + 2) * (n * (n + 2) + 2))
    return (x < 0) * below + (x >= 0) * above


def _curvature(m, x):
    """The second derivative."""
    n = m.exp((x - abs(x)) / 2)
    k = m.exp(-(x + abs(x)) / 2)
    square = n * n + 2 * n * k + 2 * k * k  # times k^-2
    s = n / (n + k)
    # tanh(softplus(x)) = h, h' = (1 - h^2) s, and h'' = (1 - h^2) (s (1 - s) - 2 h s^2)
    h = n * (n + 2 * k) / square
    return (1 - h * h) * (2 * s + x * (s * (1 - s) - 2 * h * s * s))


@derivative(
    formula="mish_backward(grad_output, input) = grad_output * "
    "(h + input * (1 - h**2) * sigmoid(input)) with h = tanh(log(1 + exp(input)))",
    notes="""With n = e^x, the derivative is n d / (n (n + 2) + 2)^2, where
d = n^3 + 4 n^2 + 6 n + 4 + 4 x (n + 1). All of these carry their rounding errors. The zero at
-1.192 is expanded, so that the result has the same relative error there. Powers of 2 are multiplied
last, as in silu_backward. For an infinite `grad_output`, the result is infinite, or NaN where
`input` is below -1462.5 in float64 and below -198.1 in the other formats."""
    + EXP_AND_SUMS,
    reference=lambda m, g, x: g * _derivative(m, x),
    slope=_curvature,
    infinity_times_zero=nan,
    specials=[(2.0, 0.0, 1.2), (2.0, inf, 2.0), (2.0, -inf, -0.0), (inf, 0.0, inf)],
    interval=(-10.0, 10.0),
    ulp={"float16": 0.51, "bfloat16": 0.51, "float32": 0.95, "float64": 0.98},
)
def mish_backward(grad_output, input):
    c = pick(_SLOPE, input)
    exp = pick(EXP, input)
    one, two, four, none = like(input, 1), like(input, 2), like(input, 4), like(input, 0)
    x = at_least(at_most(input, c.enough), -c.farthest)
    far, far_low = normalised(x - c.zero, -c.zero_low)
    near = magnitude(far) < c.near
    # e^x = 2^k (n0 or 1) e^(r + r_low)
    k = muladd(x, exp.log2_e, exp.shift) - exp.shift
    r, r_low = exp_remainder(k, x)
    k = none if near else k
    r, r_low = (far if near else r), (far_low if near else r_low)
    n0, n0_low = (c.n0 if near else one), (c.n0_low if near else none)
    # e^r - 1, e^r, and e^x divided by 2^k if k is negative
    m, m_low = normalised(r, muladd(r * r, horner(r, pick(EXPM1, r)), r_low))
    e, e_low = plus(one, none, m, m_low)
    e, e_low = times(n0, n0_low, e, e_low)
    up = pow2(at_least(k, none), 0)
    e, e_low = e * up, e_low * up
    power = pow2(at_least(at_most(k, none), pick(_MISH, x).least), 0)
    n, n_low = power * e, power * e_low
    # Near: d = (n - n0) (n^2 + linear n + constant) + 4 (x - x0) (n + 1)
    plus_one, plus_one_low = plus(one, none, n, n_low)
    g, g_low = times(four * far, four * far_low, plus_one, plus_one_low)
    v, v_low = times(c.n0, c.n0_low, m, m_low)
    factor = muladd(n, n + like(x, _LINEAR), like(x, _CONSTANT))
    v, v_low = product(factor, v, v_low)
    d_near, d_near_low = plus(g, g_low, v, v_low)
    # Elsewhere: d = 4 x + 4 + n (n^2 + 4 n + 6 + 4 x)
    v, v_low = plus(four, none, n, n_low)
    v, v_low = times(n, n_low, v, v_low)
    g, g_low = two_sum(four * x, like(x, 6))
    v, v_low = plus(v, v_low, g, g_low)
    v, v_low = times(n, n_low, v, v_low)
    g, g_low = two_sum(four * x, four)
    d, d_low = plus(v, v_low, g, g_low)
    d, d_low = (d_near if near else d), (d_near_low if near else d_low)
    # The denominator
    q, q_low = plus(two, none, n, n_low)
    q, q_low = times(n, n_low, q, q_low)
    q, q_low = plus(two, none, q, q_low)
    inverse = one / q
    correction = muladd(-inverse, q_low, fma(-inverse, q, one))
    d, d_low = times(e, e_low, d, d_low)
    d, d_low = product(inverse, d, d_low)
    d, d_low = product(inverse, d, d_low)
    d_low = muladd(d, correction + correction, d_low)
    # Half of it, for times_power.
    half = like(x, 0.5)
    d = d * half if input == input else input
    up, down = scales(grad_output)
    p, p_low = product(grad_output * up, d, d_low * half)
    y = last_muladd(p_low, copysign(one, p), magnitude(p))
    return times_power(rounded(y, or_nan(p, grad_output)), -k, down, input >= -c.farthest)
