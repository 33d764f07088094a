"""A smooth rectifier of a square root, and its derivatives."""

from math import inf, nan
from typing import Any, NamedTuple

import numpy as np

from fastact._declarations.declare import activation, derivative
from fastact._declarations.records import KerasFunction
from fastact._kernels.elementary import plus, product, rounded, times, two_sum
from fastact._kernels.products import near_one, times_pow2, towards_one
from fastact._kernels.vocabulary import (
    PerFormat,
    copysign,
    fma,
    last_muladd,
    like,
    magnitude,
    or_nan,
    or_nans,
    pick,
    pow2,
    scalar,
    sqrt,
    with_variants,
)


class _Scales(NamedTuple):
    """How x and b are scaled, by f and f^2, so that x^2 + b does not over- or underflow."""

    large: Any  # if |x| or sqrt(|b|) is at least this, f is 2^-exponent
    large_square: Any
    small: Any  # if both are below this, it is 2^exponent
    small_square: Any
    exponent: Any


def _scales(number: Any, limit: int, exponent: int) -> _Scales:
    values = 2.0**limit, 2.0 ** (2 * limit), 2.0**-limit, 2.0 ** (-2 * limit)
    return _Scales(*map(number, (*values, exponent)))


_SCALES = PerFormat(single=_scales(np.float32, 46, 70), double=_scales(float, 350, 560))


class _Root(NamedTuple):
    s: Any  # s + s_low is f sqrt(x^2 + b)
    s_low: Any
    t: Any  # t + t_low is that and f |x|
    t_low: Any
    x: Any  # f x
    b: Any  # f^2 b
    n: Any  # f is 2^n


@scalar
def _root(x, b):
    """The sums of squareplus, as a :class:`_Root`."""
    limits = pick(_SCALES, x)
    zero = like(x, 0)
    a, size = magnitude(x), magnitude(b)
    # At most one of these powers of 2 is not 1.
    n = -limits.exponent if a >= limits.large else zero
    n = -limits.exponent if size >= limits.large_square else n
    up = limits.exponent if size < limits.small_square else zero
    n = n + (up if a < limits.small else zero)
    f = pow2(n, 0)
    x = x * f
    b = b * f * f
    a = magnitude(x)
    square = x * x
    d, d_low = plus(square, fma(x, x, -square), b, zero)
    d = d if d == d else square + b  # of infinite terms
    s = sqrt(d)
    s_low = (d_low - fma(s, s, -d)) / (s + s)
    # Where the square is subnormal, b is 0 or much larger.
    s, s_low = (a if b == zero else s), (zero if b == zero else s_low)
    s_low = s_low if s_low == s_low else zero
    t, t_low = two_sum(s, a)
    return _Root(s, s_low, t, t_low + s_low, x, b, n)


@scalar
def _below(t, t_low, b):
    """(q, q_low, k) with b / (t + t_low) = 2^k (q + q_low)."""
    factor, k = towards_one(b)
    b = b * factor
    q = b / t
    q_low = (fma(-q, t, b) - q * t_low) / t
    return q, q_low if q_low == q_low else like(q, 0), k


@activation(
    summary="Smooth rectifier of a square root, element-wise.",
    formula="squareplus(x, b) = (x + sqrt(x**2 + b)) / 2",
    notes="""It is relu for `b` 0, and tends to it for large `x` (J. T. Barron, "Squareplus: A
Softplus-Like Algebraic Rectifier", 2021). For negative `x`, where the sum cancels, it is
b / (2 (sqrt(x^2 + b) - x)). For a negative `b`, the result is NaN where x^2 + b is negative, and
not above 0 for negative `x`. The square, the root and the quotient carry their rounding errors,
and are scaled by powers of 2.""",
    reference=lambda m, x, b: (
        (x + abs(x)) / 2 + b / (2 * (m.sqrt(x * x + b) + abs(x)) + (x * x + b == 0) * (x == 0))
    ),
    elsewhere={
        "PyTorch": "(x + sqrt(x * x + b)) / 2",
        "JAX": "nn.squareplus: with b=4 by default",
        "Keras": "squareplus: with b=4 by default",
    },
    specials=[
        (0.0, 4.0, 1.0),
        (1.5, 4.0, 2.0),
        (-1.5, 4.0, 0.5),
        (3.0, 0.0, 3.0),
        (-3.0, 0.0, 0.0),
        (-0.0, 0.0, 0.0),
        (inf, 4.0, inf),
        (-inf, 4.0, 0.0),
        (-2.0, inf, inf),
        (5.0, -9.0, 4.5),
        (-5.0, -9.0, -0.5),
        (1.0, -4.0, nan),
    ],
    interval=(-5.0, 5.0),
    ulp={"float16": 0.51, "bfloat16": 0.51, "float32": 0.76, "float64": 0.76},
    keras_functions=[KerasFunction("nn.squareplus", lambda b=4: (b,))],
    onnx_formulas=[lambda m, x, b: (x + m.sqrt(x * x + b)) / 2],
    parameters={"b": (4.0, 1.0, 0.25, 0.01)},
    defaults={"b": 4.0},
)
@with_variants(one_number=True)
def squareplus(x, b):
    zero = like(x, 0)
    root = _root(x, b)
    q, q_low, k = _below(root.t, root.t_low, b)
    below = q + q_low
    below = below if below == below else root.x + root.s  # for 0 and infinite terms
    above = root.t + root.t_low
    above = above if above == above else root.t
    y = above if x > zero else below
    y = or_nans(y, root.x, root.b)
    return times_pow2(y * like(x, 0.5), -root.n if x > zero else root.n + k)


@derivative(
    formula="squareplus_backward(grad_output, input, b) = "
    "(grad_output * (1 + input / s) / 2, grad_output / (4 * s)) with s = sqrt(input**2 + b)",
    notes="""The gradients with respect to `input` and `b`. For negative `input`, where the sum
cancels, the first is computed as grad_output * b / (2 s (s - input)). The square, the root and
quotients carry their rounding errors, and powers of 2 are multiplied last. For `input` 0, the first
is grad_output / 2, also for `b` 0. For infinite `b`, the result is NaN.""",
    reference=lambda m, g, x, b: (
        g * (x >= 0) * (1 + x / m.sqrt(x * x + b)) / 2
        + g * (x < 0) * b / (m.sqrt(x * x + b) * (m.sqrt(x * x + b) + abs(x))) / 2,
        g / m.sqrt(x * x + b) / 4,
    ),
    specials=[
        (2.0, 0.0, 4.0, 1.0, 0.25),
        (2.0, 1.5, 4.0, 1.6, 0.2),
        (2.0, 3.0, 0.0, 2.0, 1 / 6),
        (2.0, -4.0, 0.0, 0.0, 0.125),
        (2.0, 0.0, 0.0, 1.0, inf),
        (2.0, inf, 4.0, 2.0, 0.0),
        (2.0, -inf, 4.0, 0.0, 0.0),
        (2.0, 1.0, -4.0, nan, nan),
    ],
    interval=(-5.0, 5.0),
    ulp={"float16": 0.51, "bfloat16": 0.51, "float32": 0.8, "float64": 0.8},
)
def squareplus_backward(grad_output, input, b):
    one, half, zero = like(input, 1), like(input, 0.5), like(input, 0)
    root = _root(input, b)
    positive = input > zero
    r = one / root.s
    r_low = r * (fma(-r, root.s, one) - r * root.s_low)
    r_low = r_low if r_low == r_low else zero
    q, q_low, k = _below(root.t, root.t_low, b)
    q, q_low, i = near_one(q, q_low)
    q, q_low = (root.t if positive else q), (root.t_low if positive else q_low)
    i = zero if positive else k + i + (root.n + root.n)
    factor, j = towards_one(grad_output)
    g = grad_output * factor
    p, p_low, m = near_one(*product(g, *times(q, q_low, r, r_low)))
    y = last_muladd(p_low, copysign(one, p), magnitude(p))
    y = times_pow2(rounded(y, p) * half, i + (j + m))
    limit = grad_output if positive else zero * grad_output
    y = limit if magnitude(input) == like(input, inf) else y
    y = (grad_output * half if b >= zero else y) if input == zero else y
    of_input = or_nan(or_nans(y, root.x, root.b), g)
    p, p_low, m = near_one(*product(g, r, r_low))
    y = last_muladd(p_low, copysign(one, p), magnitude(p))
    y = times_pow2(rounded(y, p) * like(p, 0.25), root.n + (j + m))
    return of_input, or_nan(or_nans(y, root.x, root.b), g)
