"""The gated linear unit with the sigmoid-weighted linear unit, and its derivatives."""

from math import inf

from fastact._declarations.declare import activation, derivative
from fastact._declarations.sources import EXP_AND_SUMS
from fastact._functions.silu import slope_of_silu
from fastact._kernels.elementary import rounded, times
from fastact._kernels.gates import GATE_LOWEST, halved_slope, silu_slope
from fastact._kernels.logistic import half_sigmoid
from fastact._kernels.products import near_one, product_near_one, times_pow2
from fastact._kernels.vocabulary import (
    at_least,
    at_most,
    copysign,
    last_muladd,
    like,
    magnitude,
    or_nan,
    or_nans,
    pick,
    scalar,
)


@scalar
def _product(a, b):
    """(p, p_low, n) with silu(a) b = 2^n (p + p_low)."""
    x = at_least(a, pick(GATE_LOWEST, a))
    q, q_low, n = half_sigmoid(x, like(x, 0))
    d, d_low, k = product_near_one(x, b)
    p, p_low, j = near_one(*times(d, d_low, q, q_low))
    return p, p_low, n + (k + j) + like(n, 1)


@activation(
    summary="Gated linear unit with silu, element-wise.",
    formula="swiglu(a, b) = a / (1 + exp(-a)) * b",
    notes="""The product of `a` and `b` is multiplied by the sigmoid of `a`. All carry their
rounding errors. Powers of 2 are multiplied last, so that the result is accurate also where silu
alone would underflow (N. Shazeer, "GLU Variants Improve Transformer", 2020)."""
    + EXP_AND_SUMS,
    reference=lambda m, a, b: a / (1 + m.exp(-a)) * b,
    elsewhere={
        "PyTorch": "nn.functional.silu(a) * b",
        "JAX": "nn.silu(a) * b",
    },
    specials=[
        (0.0, 3.0, 0.0),
        (-0.0, 3.0, -0.0),
        (inf, -3.0, -inf),
        (-inf, 3.0, -0.0),
        (-1e4, 3.0, -0.0),
        (3.0, inf, inf),
    ],
    interval=(-10.0, 10.0),
    ulp={"float16": 0.51, "bfloat16": 0.51, "float32": 0.95, "float64": 0.95},
)
def swiglu(a, b):
    p, p_low, n = _product(a, b)
    y = last_muladd(p_low, copysign(like(p, 1), p), magnitude(p))
    return times_pow2(rounded(y, or_nans(p, a, b)), n)


@derivative(
    formula="swiglu_backward(grad_output, a, b) = (grad_output * b * s * (1 + a * (1 - s)), "
    "grad_output * a * s) with s = 1 / (1 + exp(-a))",
    notes="""The gradients with respect to `a` and `b`. The derivative of silu is computed as in
silu_backward, and accurate next to its zero. Products carry their rounding errors, and powers of 2
are multiplied last."""
    + EXP_AND_SUMS,
    reference=lambda m, g, a, b: (g * b * slope_of_silu(m, a), g * (a / (1 + m.exp(-a)))),
    specials=[
        (2.0, 0.0, 3.0, 3.0, 0.0),
        (2.0, inf, 3.0, 6.0, inf),
        (2.0, -inf, 3.0, -0.0, -0.0),
    ],
    interval=(-10.0, 10.0),
    ulp={"float16": 0.51, "bfloat16": 0.51, "float32": 0.95, "float64": 0.95},
)
def swiglu_backward(grad_output, a, b):
    one = like(a, 1)
    z = at_most(magnitude(a), -pick(GATE_LOWEST, a))
    h, h_low, n = halved_slope(a, *silu_slope(z, like(z, 0)))
    d, d_low, k = product_near_one(grad_output, b)
    p, p_low, j = near_one(*times(d, d_low, h, h_low))
    y = last_muladd(p_low, copysign(one, p), magnitude(p))
    of_a = times_pow2(rounded(y, or_nan(or_nans(p, a, b), grad_output)), (k + j) - n + one)
    p, p_low, n = _product(a, grad_output)
    y = last_muladd(p_low, copysign(one, p), magnitude(p))
    return of_a, times_pow2(rounded(y, or_nans(p, grad_output, a)), n)
