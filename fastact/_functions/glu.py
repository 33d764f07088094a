"""The gated linear unit and its derivatives."""

from math import inf

from fastact._declarations.declare import activation, derivative
from fastact._declarations.records import KerasFunction
from fastact._declarations.sources import EXP_AND_SUMS
from fastact._kernels.elementary import rounded, times
from fastact._kernels.gates import GATE_LOWEST, times_sigmoid
from fastact._kernels.logistic import sigmoid_slope
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
)


@activation(
    summary="Gated linear unit, element-wise.",
    formula="glu(a, b) = a / (1 + exp(-b))",
    notes="""The sigmoid of `b`, with its rounding error, is multiplied by `a`. Powers of 2 are
multiplied last, so that the result is accurate also where the sigmoid alone would underflow. It is
0 where `b` is below -286 in float32 and -2200 in float64, or NaN for an infinite `a` (Y. N. Dauphin
et al., "Language Modeling with Gated Convolutional Networks", 2017)."""
    + EXP_AND_SUMS,
    reference=lambda m, a, b: a / (1 + m.exp(-b)),
    elsewhere={
        "PyTorch": "nn.functional.glu(x): the halves of x along an axis",
        "JAX": "nn.glu(x): the halves of x along an axis",
        "Keras": "glu(x): the halves of x along an axis",
    },
    specials=[
        (2.0, 0.0, 1.0),
        (2.0, inf, 2.0),
        (2.0, -inf, 0.0),
        (-2.0, -inf, -0.0),
        (inf, 0.0, inf),
    ],
    interval=(-10.0, 10.0),
    ulp={"float16": 0.51, "bfloat16": 0.51, "float32": 0.95, "float64": 0.95},
    keras_functions=[KerasFunction("nn.glu")],
)
def glu(a, b):
    p, p_low, n = times_sigmoid(a, b, like(b, 0))
    y = last_muladd(p_low, copysign(like(p, 1), p), magnitude(p))
    return times_pow2(rounded(y, p), n)


@derivative(
    formula="glu_backward(grad_output, a, b) = (grad_output * s, grad_output * a * s * (1 - s)) "
    "with s = 1 / (1 + exp(-b))",
    notes="""The gradients with respect to `a` and `b`. Sums and products carry their rounding
errors, and powers of 2 are multiplied last."""
    + EXP_AND_SUMS,
    reference=lambda m, g, a, b: (
        g / (1 + m.exp(-b)),
        g * a * (1 / (1 + m.exp(-b))) * (1 / (1 + m.exp(b))),
    ),
    specials=[
        (2.0, 3.0, 0.0, 1.0, 1.5),
        (2.0, 3.0, inf, 2.0, 0.0),
        (2.0, 3.0, -inf, 0.0, 0.0),
    ],
    interval=(-10.0, 10.0),
    ulp={"float16": 0.51, "bfloat16": 0.51, "float32": 0.95, "float64": 0.95},
)
def glu_backward(grad_output, a, b):
    one = like(b, 1)
    lowest = pick(GATE_LOWEST, b)
    p, p_low, n = times_sigmoid(grad_output, b, like(b, 0))
    y = last_muladd(p_low, copysign(one, p), magnitude(p))
    of_a = times_pow2(rounded(y, p), n)
    h, h_low, n = sigmoid_slope(at_most(at_least(b, lowest), -lowest), like(b, 0))
    d, d_low, k = product_near_one(grad_output, a)
    p, p_low, j = near_one(*times(d, d_low, h, h_low))
    y = last_muladd(p_low, copysign(one, p), magnitude(p))
    return of_a, times_pow2(rounded(y, or_nan(or_nans(p, a, b), grad_output)), n + (k + j))
