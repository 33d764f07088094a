"""The continuously differentiable exponential linear unit and its derivatives."""

from math import factorial, inf, nan
from typing import Any, NamedTuple

import numpy as np

from fastact._declarations.declare import activation, derivative
from fastact._declarations.records import KerasFunction, OnnxOperator, TorchModule
from fastact._declarations.sources import EXP_AND_SUMS
from fastact._kernels.elementary import (
    BELOW,
    EXP,
    EXPM1,
    exp_reduced_sum,
    product,
    rounded,
    scales,
    times,
    two_sum,
)
from fastact._kernels.gates import GATE_LOWEST
from fastact._kernels.products import near_one, times_pow2, towards_one
from fastact._kernels.vocabulary import (
    PerFormat,
    at_least,
    copysign,
    fma,
    horner,
    last_muladd,
    like,
    magnitude,
    muladd,
    number_at_least,
    number_at_most,
    or_nan,
    or_nans,
    pick,
    pow2,
    quiet,
    scalar,
    with_variants,
)


class _Celu(NamedTuple):
    lowest: Any  # at and below, e^z - 1 counts as -1: so large that the product is -alpha
    linear: Any  # -z above which the result is x
    tiny: Any  # stands for alpha 0, times the power of 2 for small numbers
    least: Any  # 2^n is not smaller in sums with 1


_CELU = PerFormat(
    single=_Celu(*map(np.float32, (-30, -(2.0**-26), 2.0**-100, -60))),
    double=_Celu(-60.0, -(2.0**-55), 2.0**-600, -200.0),
)

# (e^r - 1 - r - r^2 / 2) / r^3
_CUBIC = PerFormat(EXPM1.single[1:], EXPM1.double[1:])


class _Near(NamedTuple):
    """The Taylor series of (z e^z - e^z + 1 - z^2 / 2) / z^3, whose first term is 1/3."""

    third: Any
    third_low: Any
    rest: tuple[Any, ...]


# For |z| <= ln(2)/2, the terms left out are below 2^-30 and 2^-59.
_REST = tuple((k + 1) / factorial(k + 2) for k in range(2, 16))
_NEAR = PerFormat(
    single=_Near(
        *(np.float32(1 / 3), np.float32(1 / 3 - float(np.float32(1 / 3)))),
        tuple(map(np.float32, _REST[:7])),
    ),
    double=_Near(1 / 3, 2.0**-54 / 3, _REST),
)


@scalar
def _argument(x, alpha, lowest):
    """(z, z_low, a, down) with x / alpha = z + z_low and alpha = a * down, for negative `x`.

    z is cut off at `lowest`. For negative `alpha`, `down` is NaN.
    """
    up, down = scales(alpha)
    # A number, so that `down` alone decides which NaN the result is. A choice at the end that does
    # not change within the loop for one `alpha` would make LLVM write two loops.
    a = number_at_least(alpha * up, pick(_CELU, x).tiny)
    inverse = like(x, 1) / a
    x = at_least(x * up, lowest * a)
    z = x * inverse
    down = or_nan(down if alpha >= like(x, 0) else like(x, nan), alpha)
    return z, fma(-z, a, x) * inverse, a, down


@activation(
    summary="Continuously differentiable exponential linear unit, element-wise.",
    formula="celu(x, alpha) = x if x > 0 else alpha * (exp(x / alpha) - 1)",
    notes="""elu is this function for `alpha` 1 (J. T. Barron, "Continuously Differentiable
Exponential Linear Units", 2017). `alpha` has to be positive: the limits for 0 and infinity are relu
and `x`, and for a negative `alpha` the result is NaN where `x` is below 0. `alpha` is used only
there, so that a NaN in it does not matter elsewhere. The quotient carries its rounding error. With
e^z = s (1 + r + w), where s is a power of 2, e^z - 1 is the sum of s - 1, s r and s w. The first
two carry their rounding errors."""
    + EXP_AND_SUMS,
    reference=lambda m, x, alpha: alpha * m.expm1((x - abs(x)) / 2 / alpha) + (x + abs(x)) / 2,
    elsewhere={
        "PyTorch": "nn.functional.celu",
        "JAX": "nn.celu",
        "Keras": "celu",
        "ONNX": "Celu",
    },
    specials=[
        (2.0, 0.5, 2.0),
        (0.0, 1.0, 0.0),
        (-0.0, 1.0, -0.0),
        (inf, 2.0, inf),
        (-inf, 2.0, -2.0),
        (-3.0, 0.0, -0.0),
        (0.0, 0.0, 0.0),
        (-3.0, inf, -3.0),
        (-3.0, -1.0, nan),
        (2.0, nan, 2.0),
    ],
    interval=(-5.0, 3.0),
    ulp={"float16": 0.51, "bfloat16": 0.51, "float32": 0.9, "float64": 0.9},
    torch_modules=[
        TorchModule(
            "CELU",
            lambda module: module.alpha > 0,
            "have a positive alpha",
            lambda module: (module.alpha,),
        )
    ],
    keras_functions=[
        KerasFunction(
            "nn.celu",
            lambda alpha=1.0: (alpha,) if np.all(alpha > 0) else None,
            "have a positive alpha",
        )
    ],
    parameters={"alpha": (1.0, 0.5, 2.0, 0.1)},
    defaults={"alpha": 1.0},
    onnx_operators=[
        OnnxOperator(
            "Celu", lambda alpha=1.0: (alpha,) if alpha > 0 else None, "have a positive alpha"
        )
    ],
)
@with_variants(one_number=True)
def celu(x, alpha):
    one = like(x, 1)
    c = pick(EXP, x)
    limits = pick(_CELU, x)
    below = pick(BELOW, x)
    z, z_low, a, down = _argument(x, alpha, limits.lowest)
    n = muladd(z, c.log2_e, c.shift) - c.shift
    s = pow2(n, 0)
    r = muladd(n, -below.ln2, z)
    exact = below.ln2_low == like(x, 0)  # known at compile time
    r_low = z_low if exact else muladd(n, -below.ln2_low, z_low)
    w = muladd(r * r, horner(r, pick(EXPM1, r)), muladd(r_low, r, r_low))
    base = s - one
    high = muladd(s, r, base)
    low = muladd(s, w, muladd(s, r, base - high) + ((s - base) - one))
    y = fma(a, high, a * low) * down
    return quiet(y if x < number_at_most(limits.linear * alpha, like(x, 0)) else x)


def _slope_of_alpha(m, z):
    """e^z - 1 - z e^z; near 0 by its series, where the terms cancel."""
    far = abs(z) >= 1e-3
    near = z * (1 - far)
    series = 1 / 2 + near * (1 / 8 * near + near * near * (1 / 30 + near * (1 / 144 + near / 840)))
    return far * (m.expm1(z) - z * m.exp(z)) - near * near * (series + near / 3)


@derivative(
    formula="celu_backward(grad_output, input, alpha) = (grad_output, 0) if input > 0 else "
    "(grad_output * exp(z), grad_output * (exp(z) - 1 - z * exp(z))) with z = input / alpha",
    notes="""The gradients with respect to `input` and `alpha`. The terms of the second cancel near
0, where it is -z^2 / 2 and a polynomial; elsewhere they are added with their rounding errors.
Powers of 2 are multiplied last. At 0, the gradients are those for negative inputs. As for celu,
`alpha` has to be positive."""
    + EXP_AND_SUMS,
    reference=lambda m, g, x, alpha: (
        g * m.exp((x - abs(x)) / 2 / alpha),
        g * _slope_of_alpha(m, (x - abs(x)) / 2 / alpha),
    ),
    specials=[
        (2.0, 1.5, 0.5, 2.0, 0.0),
        (2.0, 0.0, 0.5, 2.0, 0.0),
        (2.0, -inf, 0.5, 0.0, -2.0),
        (2.0, -3.0, 0.0, 0.0, -2.0),
        (2.0, -3.0, -1.0, nan, nan),
        (2.0, 1.5, nan, 2.0, 0.0),
        (inf, 1.5, 0.5, inf, 0.0),
    ],
    interval=(-5.0, 3.0),
    ulp={"float16": 0.51, "bfloat16": 0.51, "float32": 0.9, "float64": 0.9},
)
@with_variants(one_number=True)
def celu_backward(grad_output, input, alpha):
    one, half, zero = like(input, 1), like(input, 0.5), like(input, 0)
    above = input >= zero
    z, z_low, _, down = _argument(input, alpha, pick(GATE_LOWEST, input))
    # NaN for negative `alpha`.
    z = or_nan(zero if above else z, zero if above else down)
    z_low = zero if above else z_low
    n, r, r_low = exp_reduced_sum(z, z_low)
    factor, k = towards_one(grad_output)
    g = grad_output * factor
    # e^z = 2^n (1 + r + v), where v is r^2 / 2 and a rest.
    scale, m = towards_one(z)
    scaled = r * scale
    square = scaled * (scaled * half)
    square_low = fma(scaled, scaled * half, -square)
    cubic = horner(r, pick(_CUBIC, r))
    rest = muladd(scaled * cubic, square + square, square_low)
    rest = rest + muladd(r_low, r, r_low)
    e = one + r
    e_low = ((one - e) + r) + (square + rest if scale == one else zero)
    p, p_low = product(g, e, e_low)
    y = last_muladd(p_low, copysign(one, p), magnitude(p))
    of_input = times_pow2(rounded(y, p), n + k)
    # Near 0, e^z - 1 - z e^z is -z^2 / 2 (1 + 2 z (1/3 + ...)).
    series = pick(_NEAR, r)
    t = r * horner(r, series.rest)
    slope = series.third + t
    slope_low = ((series.third - slope) + t) + series.third_low
    v, v_low = product(r + r, slope, slope_low)
    u = one + v
    near, near_low = times(square, square_low, u, ((one - u) + v) + v_low)
    near_low = muladd(scaled * e, r_low * scale, near_low)
    # Elsewhere, it is s c - 1 + s c (r + r^2 / 2 + rest) with c = 1 - z and s = 2^n.
    s = pow2(at_least(n, pick(_CELU, z).least), 0)
    c, c_low = two_sum(one, -z)
    c, c_low = s * c, s * (c_low - z_low)
    base = c - one
    base_low = (c - (base + one)) + c_low
    q = r + square
    q_low = ((r - q) + square) + rest
    t, t_low = product(c, q, q_low)
    high, low = two_sum(base, t)
    low = low + (base_low + muladd(c_low, q, t_low))
    high, low = (-near if n == zero else high), (-near_low if n == zero else low)
    high, low, i = near_one(high, low)
    p, p_low, j = near_one(*product(g, high, low))
    y = last_muladd(p_low, copysign(one, p), magnitude(p))
    of_alpha = times_pow2(rounded(y, p), (k + j) + (i + (m + m)))
    of_alpha = zero if above else of_alpha
    alpha = zero if above else alpha
    # The sign of a NaN that no operand gave would depend on the compiler.
    of_input = of_input if of_input == of_input else like(input, nan)
    of_alpha = of_alpha if of_alpha == of_alpha else like(input, nan)
    return (
        quiet(or_nan(or_nans(of_input, input, alpha), grad_output)),
        quiet(or_nan(or_nans(of_alpha, input, alpha), grad_output)),
    )
