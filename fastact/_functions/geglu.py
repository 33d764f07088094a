"""The gated linear unit with the Gaussian error linear unit, and its derivatives."""

from math import inf

import numpy as np

from fastact._declarations.declare import activation, derivative
from fastact._functions.gelu import exact_gelu, exact_slope_of_gelu, slope_of_gelu
from fastact._kernels.elementary import EXP, rounded, times
from fastact._kernels.normal import DENSITY, RATIO, far_variable, gaussian, reflected_tail, tail
from fastact._kernels.products import near_one, product_near_one, times_pow2
from fastact._kernels.vocabulary import (
    PerFormat,
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

# Products of the derivative of gelu with two more factors: farther from 0, they are 0.
_FARTHEST = PerFormat(np.float32(23.9), 65.9)

# Above, the distribution function counts as exactly 1, which it is to half an ulp of binary64.
# Otherwise, geglu(21840, -3) in binary16, a tie with infinity, would be rounded down.
_ONE = 8.293


@scalar
def _product(a, b):
    """(p, p_low, n) with gelu(a) b = 2^n (p + p_low)."""
    # Farther below, the product with any number is 0.
    enough = pick(DENSITY, a).enough
    x = at_least(a, -enough)
    z = at_most(magnitude(x), enough)
    half = like(a, 0.5)
    _, n, r, w = gaussian(z * half, z, pick(EXP, a).shift)
    e, m = tail(z, like(a, -0.0), far_variable(z, pick(RATIO, a)), half, r, w)
    d, d_low, n = reflected_tail(x > like(a, 0), e, m, n)
    d_low = like(a, 0) if x > like(a, _ONE) else d_low
    q, q_low, k = product_near_one(x, b)
    p, p_low, j = near_one(*times(q, q_low, d, d_low))
    return p, p_low, n + (k + j)


@activation(
    summary="Gated linear unit with gelu, element-wise.",
    formula="geglu(a, b) = a/2 * (1 + erf(a / sqrt(2))) * b",
    notes="""The product of `a` and `b` is multiplied by the distribution function of the normal
distribution at `a`, which is computed as for :func:`fastact.gelu`. Both carry their rounding
errors. Powers of 2 are multiplied last, so that the result is accurate also where gelu alone would
underflow (N. Shazeer, "GLU Variants Improve Transformer", 2020).""",
    reference=lambda m, a, b: exact_gelu(m, a) * b,
    elsewhere={
        "PyTorch": "nn.functional.gelu(a) * b",
        "JAX": "nn.gelu(a, approximate=False) * b",
    },
    specials=[
        (0.0, 3.0, 0.0),
        (-0.0, 3.0, -0.0),
        (inf, -3.0, -inf),
        (-inf, 3.0, -0.0),
        (-1e4, 3.0, -0.0),
        (3.0, inf, inf),
    ],
    interval=(-5.0, 5.0),
    ulp={"float16": 0.51, "bfloat16": 0.51, "float32": 0.95, "float64": 0.95},
)
def geglu(a, b):
    p, p_low, n = _product(a, b)
    y = last_muladd(p_low, copysign(like(p, 1), p), magnitude(p))
    return times_pow2(rounded(y, or_nans(p, a, b)), n)


@derivative(
    formula="geglu_backward(grad_output, a, b) = (grad_output * b * (Phi(a) + a * phi(a)), "
    "grad_output * a * Phi(a))",
    notes="""The gradients with respect to `a` and `b`. Phi and phi are the distribution function
and the density of a standard normal variable. The derivative of gelu is computed as in
:func:`fastact.gelu_backward`, and accurate next to its zero. Products carry their rounding errors,
and powers of 2 are multiplied last.""",
    reference=lambda m, g, a, b: (g * b * exact_slope_of_gelu(m, a), g * exact_gelu(m, a)),
    specials=[
        (2.0, 0.0, 3.0, 3.0, 0.0),
        (2.0, inf, 3.0, 6.0, inf),
        (2.0, -inf, 3.0, -0.0, -0.0),
    ],
    interval=(-5.0, 5.0),
    ulp={"float16": 0.51, "bfloat16": 0.51, "float32": 0.95, "float64": 0.95},
)
def geglu_backward(grad_output, a, b):
    one = like(a, 1)
    h, h_low, n = slope_of_gelu(a, pick(_FARTHEST, a))
    d, d_low, k = product_near_one(grad_output, b)
    p, p_low, j = near_one(*times(d, d_low, h, h_low))
    y = last_muladd(p_low, copysign(one, p), magnitude(p))
    of_a = times_pow2(rounded(y, or_nan(or_nans(p, a, b), grad_output)), n + (k + j))
    p, p_low, n = _product(a, grad_output)
    y = last_muladd(p_low, copysign(one, p), magnitude(p))
    return of_a, times_pow2(rounded(y, or_nans(p, grad_output, a)), n)
