"""The difference of a number and its hyperbolic tangent."""

from math import inf, nan
from typing import Any, NamedTuple

import numpy as np

from fastact._declarations.declare import activation, derivative
from fastact._declarations.records import KerasFunction, TorchModule
from fastact._declarations.sources import EXP_AND_SUMS, PIECES_BY_TABLES
from fastact._kernels.elementary import (
    EXPM1,
    TANH_SERIES,
    exp_reduced,
    normalised,
    product,
    rounded,
    scales,
    times,
    two_sum,
)
from fastact._kernels.logistic import constants, denominator, gated, negative_exp
from fastact._kernels.tables import TANHSHRINK, octave_pieces
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
    quiet,
    with_variants,
)

_TANHSHRINK = PerFormat(
    single=constants(np.float32, 0, lowest=-20.0, enough=0.0),
    double=constants(float, 0, lowest=-40.0, enough=0.0),
)


class _Near(NamedTuple):
    """Constants of the series near 0, which is computed divided by `unit`.

    Otherwise rounding errors of x^3 would underflow where the result is just normal.
    """

    high: Any  # the ratio (x - tanh(x)) / x^3 for x^2 = 1/2
    low: Any
    unit: Any
    upunit: Any  # 1 / unit


_NEAR = PerFormat(
    _Near(
        *(np.float32(v) for v in (0.27788564562797546, 1.1210929073968146e-08, 2.0**-40, 2.0**40))
    ),
    _Near(0.2778856568389047, 7.930950161266997e-18, 2.0**-100, 2.0**100),
)


class _Cubic(NamedTuple):
    """The ratio (x - tanh(x)) / x^3, for x up to 1 / TANHSHRINK.scale."""

    third: Any
    mean: Any  # of the ratio, where the rounding error of x^2 matters
    rest: tuple[Any, ...]  # the ratio less `third`, as a polynomial in x^2
    enough: Any  # above, the result is |x| - 1


_CUBIC_BY_TABLES = _Cubic(
    third=np.float32(1 / 3),
    mean=np.float32(0.3),
    rest=tuple(
        map(
            np.float32,
            (
                -1.0459432431275673e-08,
                -0.133333221077919,
                0.05396415665745735,
                -0.02181330882012844,
                0.008506184443831444,
                -0.002498571528121829,
            ),
        )
    ),
    enough=np.float32(8.88),
)


def _by_tables(x):
    near = _NEAR.single
    c = _CUBIC_BY_TABLES
    one = like(x, 1)
    a = magnitude(x)
    d = a * TANHSHRINK.scale
    far = last_muladd(*octave_pieces(a, d, TANHSHRINK))
    # Near 0: x^3 times the ratio, whose product with x^2 is two terms.
    square = a * a
    q = square * c.third
    q_low = muladd(fma(a, a, -square), c.mean, fma(square, c.third, -q))
    q_low = muladd(square, horner(square, c.rest), q_low)
    b = a * near.upunit
    cubic = last_muladd(b, q, b * q_low) * near.unit
    y = cubic if d < one else far
    return copysign(y if a < c.enough else a - one, x)


def _reference(m, x):
    a = abs(x)
    far = a - 1 + 2 / (m.exp(2 * a) + 1)
    # Lambert's continued fraction of tanh, x - x^3 / (3 + x^2 - ...), for x up to 1.
    near = a * (a < 1)
    square = near * near
    rest = 61 + 0 * square
    for k in range(59, 1, -2):
        rest = k + square / rest
    near = near * square / (rest + square)
    return (1 - 2 * (x < 0)) * ((a < 1) * near + (a >= 1) * far)


@activation(
    summary="Difference of a number and its hyperbolic tangent, element-wise.",
    formula="tanhshrink(x) = x - tanh(x)",
    notes="""Up to 1.03 in magnitude, where the difference cancels, it is x^3 p(x^2). Beyond, it is
|x| - 1 + 2 / (1 + e^2|x|), with the sign of x. Sums carry their rounding errors."""
    + EXP_AND_SUMS
    + PIECES_BY_TABLES.format("from 5/9 to 8.88 in magnitude"),
    reference=_reference,
    elsewhere={
        "PyTorch": "nn.functional.tanhshrink",
        "Keras": "tanh_shrink",
    },
    specials=[(-inf, -inf), (inf, inf), (0.0, 0.0), (-0.0, -0.0)],
    interval=(-5.0, 5.0),
    ulp={"float16": 0.5, "bfloat16": 0.5, "float32": 0.81, "float64": 0.9},
    nondecreasing=True,
    range=(-inf, inf),
    steepest=1.0,
    torch_modules=[TorchModule("Tanhshrink")],
    keras_functions=[KerasFunction("nn.tanh_shrink")],
    onnx_formulas=[lambda m, x: x - m.tanh(x)],
)
@with_variants(tables=_by_tables, tables_in_16_bits=False)
def tanhshrink(x):
    limits = pick(_TANHSHRINK, x)
    near = pick(_NEAR, x)
    one = like(x, 1)
    a = magnitude(x)
    # Far from 0: a - 1 is a multiple of the ulp of p, so that the error of the sum is exact.
    u, r = negative_exp(at_least(like(x, -2) * a, limits.lowest), limits)
    p, rest, q = gated(like(x, -2), *denominator(u, r, limits))
    base = a - one
    far = base + p
    far_low = muladd(rest, q, p - (far - base))
    # Near 0: x^3 times the ratio, which is a constant plus a series. All factors are two terms.
    square = a * a
    b = a * near.upunit
    cube = b * square
    square_low = fma(a, a, -square)
    cube_low = muladd(b, square_low, fma(b, square, -cube))
    t = square - like(x, 0.5)
    # The slope of the ratio is -0.08 where the rounding error of the square matters.
    low = muladd(square_low, like(x, -0.08), near.low)
    series = muladd(t, horner(t, pick(TANH_SERIES, x)), low)
    ratio = near.high + series
    ratio_low = (near.high - ratio) + series
    y = cube * ratio
    y_low = muladd(cube, ratio_low, muladd(cube_low, ratio, fma(cube, ratio, -y)))
    small = a < like(x, 1.03)
    y = y if small else far
    y_low = y_low if small else far_low
    y = last_muladd(y_low, one, y) * (near.unit if small else one)
    return copysign(y, x) if a <= near.upunit else quiet(x)


class _Lift(NamedTuple):
    """How small tangents are scaled, so that their squares do not underflow."""

    small: Any  # up to here, they are
    up: Any
    down: Any  # up^-2
    enough: Any  # above, the tangent is 1


_LIFT = PerFormat(
    _Lift(*(np.float32(v) for v in (2.0**-40, 2.0**40, 2.0**-80, 10.0))),
    _Lift(2.0**-300, 2.0**300, 2.0**-600, 20.0),
)


_CUBIC = PerFormat(EXPM1.single[1:], EXPM1.double[1:])  # (e^r - 1 - r - r^2/2) / r^3


@derivative(
    formula="tanhshrink_backward(grad_output, input) = grad_output * tanh(input)**2",
    notes="""With e = exp(2 |input|) - 1, which has a small relative error also near 0, the tangent
is e / (e + 2). Both carry their rounding errors, and so do the products, so that the result is
rounded once, and a second time only where it is subnormal. For an infinite `grad_output`, the
result is infinite, or NaN where `input` is 0."""
    + EXP_AND_SUMS,
    reference=lambda m, g, x: g * m.tanh(x) * m.tanh(x),
    slope=lambda m, x: 2 * m.tanh(x) * (1 - m.tanh(x) ** 2),
    infinity_times_zero=nan,
    specials=[(2.0, 0.0, 0.0), (2.0, inf, 2.0), (-2.0, -inf, -2.0), (inf, inf, inf)],
    interval=(-5.0, 5.0),
    ulp={"float16": 0.51, "bfloat16": 0.51, "float32": 0.8, "float64": 1.0},
)
def tanhshrink_backward(grad_output, input):
    lift = pick(_LIFT, input)
    one, two = like(input, 1), like(input, 2)
    a = at_most(magnitude(input), lift.enough)
    n, r, r_low = exp_reduced(a + a)
    u = pow2(n, 0)
    # e = u - 1 + u (r + r^2/2 + rest). For n = 1, u - 1 cancels with r, so errors of r^2 count.
    square = r * r
    rest = muladd(square * r, horner(r, pick(_CUBIC, input)), r_low)
    rest = muladd(fma(r, r, -square), like(r, 0.5), rest)
    base = u - one
    first = muladd(u, r, base)
    e, e_low = two_sum(first, u * like(r, 0.5) * square)
    e, e_low = normalised(e, muladd(u, rest, e_low + fma(u, r, base - first)))
    d, d_low = two_sum(e, two)
    q = one / d
    correction = muladd(-q, d_low + e_low, fma(-q, d, one))
    small = a < lift.small
    by = lift.up if small else one
    t, t_low = product(q, e * by, e_low * by)
    t, t_low = normalised(t, muladd(t, correction, t_low))
    t = t if input == input else input
    up, down = scales(grad_output)
    p, p_low = product(grad_output * up, t, t_low)
    p, p_low = times(p, p_low, t, t_low)
    y = last_muladd(p_low, copysign(one, p), magnitude(p))
    unlifted = at_least(down, one) * (lift.down if small else one)
    return rounded(y, or_nan(p, grad_output)) * unlifted * at_most(down, one)
