"""The sigmoid-weighted linear unit with a rate, and its derivatives."""

from math import inf, nan

from fastact._declarations.declare import activation, derivative
from fastact._declarations.records import OnnxOperator
from fastact._declarations.sources import EXP_AND_SUMS
from fastact._functions.silu import slope_of_silu
from fastact._kernels.elementary import product, rounded, times
from fastact._kernels.gates import GATE_LOWEST, halved_slope, silu_slope
from fastact._kernels.logistic import half_sigmoid, sigmoid_slope
from fastact._kernels.products import (
    near_one,
    product_near_one,
    times_pow2,
    towards_one,
)
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
    with_variants,
)


@scalar
def _argument(x, beta):
    """beta x as two terms, cut off beyond `GATE_LOWEST`."""
    limit = -pick(GATE_LOWEST, x)
    p, p_low, n = product_near_one(x, beta)
    z = times_pow2(p, n)
    z_low = times_pow2(p_low, n)
    # Also where the low part is not a number.
    z_low = z_low if magnitude(z) < limit else like(x, 0)
    return at_most(at_least(z, -limit), limit), z_low


@activation(
    summary="Sigmoid-weighted linear unit with a rate, element-wise.",
    formula="swish(x, beta) = x / (1 + exp(-beta * x))",
    notes="""silu is this function for `beta` 1, and quick_gelu for 1.702 (P. Ramachandran et al.,
"Searching for Activation Functions", 2017). The argument of exp carries the rounding error of the
product, and powers of 2 are multiplied last. For `x` -inf and a positive `beta`, the result
is -0.0."""
    + EXP_AND_SUMS,
    reference=lambda m, x, beta: x / (1 + m.exp(-(x * beta))),
    elsewhere={
        "PyTorch": "x * sigmoid(beta * x)",
        "JAX": "x * nn.sigmoid(beta * x)",
        "ONNX": "Swish: since opset 24, with alpha",
    },
    specials=[
        (0.0, 1.0, 0.0),
        (-0.0, 1.0, -0.0),
        (2.0, 0.0, 1.0),
        (inf, 1.0, inf),
        (-inf, 1.0, -0.0),
        (inf, -1.0, 0.0),
        (-inf, -1.0, -inf),
        (inf, 0.0, nan),
        (-3.0, inf, -0.0),
        (3.0, inf, 3.0),
    ],
    interval=(-10.0, 10.0),
    ulp={"float16": 0.51, "bfloat16": 0.51, "float32": 0.95, "float64": 0.95},
    parameters={"beta": (1.0, 1.702, 0.5, -1.0)},
    defaults={"beta": 1.0},
    onnx_operators=[OnnxOperator("Swish", lambda alpha=1.0: (alpha,))],
    onnx_formulas=[lambda m, x, beta: x * m.sigmoid(beta * x)],
)
@with_variants(one_number=True)
def swish(x, beta):
    one = like(x, 1)
    zero = like(x, 0)
    z, z_low = _argument(x, beta)
    q, q_low, n = half_sigmoid(z, z_low)
    factor, k = towards_one(x)
    # Where the sigmoid is 0, a finite number makes an infinite `x` a zero.
    gone = z <= pick(GATE_LOWEST, x)
    p, p_low, j = near_one(*product(copysign(one, x) if gone else x * factor, q, q_low))
    y = last_muladd(p_low, copysign(one, p), magnitude(p))
    return times_pow2(rounded(y, or_nans(p, x, beta)), n + (j + one) + (zero if gone else k))


@derivative(
    formula="swish_backward(grad_output, input, beta) = "
    "(grad_output * s * (1 + z * (1 - s)), grad_output * input**2 * s * (1 - s)) "
    "with z = beta * input and s = sigmoid(z)",
    notes="""The gradients with respect to `input` and `beta`. The first is computed as
silu_backward for z, which carries its rounding error, and is accurate next to its zero. Powers of 2
are multiplied last."""
    + EXP_AND_SUMS,
    reference=lambda m, g, x, beta: (
        g * slope_of_silu(m, x * beta),
        g * x / (1 + m.exp(-abs(x * beta))) * (x / (1 + m.exp(abs(x * beta)))),
    ),
    specials=[
        (2.0, 0.0, 1.0, 1.0, 0.0),
        (2.0, inf, 1.0, 2.0, 0.0),
        (2.0, 3.0, 0.0, 1.0, 4.5),
        (2.0, -800.0, 10.0, -0.0, 0.0),
    ],
    interval=(-10.0, 10.0),
    ulp={"float16": 0.51, "bfloat16": 0.51, "float32": 0.95, "float64": 0.95},
)
def swish_backward(grad_output, input, beta):
    one = like(input, 1)
    z, z_low = _argument(input, beta)
    low = -z_low if z < like(z, 0) else z_low
    h, h_low, n = halved_slope(z, *silu_slope(magnitude(z), low))
    factor, k = towards_one(grad_output)
    g = grad_output * factor
    p, p_low, j = near_one(*product(g, h, h_low))
    y = last_muladd(p_low, copysign(one, p), magnitude(p))
    y = rounded(y, or_nan(or_nans(p, input, beta), grad_output))
    of_input = times_pow2(y, (k + j) - n + one)
    h, h_low, n = sigmoid_slope(z, z_low)
    gone = magnitude(z) >= -pick(GATE_LOWEST, z)
    x = one if gone else input
    d, d_low, i = product_near_one(x, x)
    p, p_low, j = near_one(*product(g, d, d_low))
    p, p_low, m = near_one(*times(p, p_low, h, h_low))
    y = last_muladd(p_low, copysign(one, p), magnitude(p))
    y = rounded(y, or_nan(or_nans(p, input, beta), grad_output))
    of_beta = times_pow2(y, n + (k + j) + (i + m))
    return of_input, of_beta
