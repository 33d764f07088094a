"""The gated linear unit with a rectifier, and its derivatives."""

from math import inf, nan

from fastact._declarations.declare import activation, derivative
from fastact._kernels.vocabulary import at_least, like, or_nan, or_nans, quiet


@activation(
    summary="Gated linear unit with a rectifier, element-wise.",
    formula="reglu(a, b) = max(a, 0) * b",
    notes="""For `a` not above 0 and an infinite `b`, the result is NaN (N. Shazeer, "GLU Variants
Improve Transformer", 2020).""",
    reference=lambda m, a, b: (a + abs(a)) / 2 * b,
    elsewhere={
        "PyTorch": "relu(a) * b",
        "JAX": "nn.relu(a) * b",
    },
    specials=[
        (2.0, -3.0, -6.0),
        (-2.0, 3.0, 0.0),
        (-inf, 3.0, 0.0),
        (inf, 3.0, inf),
        (0.0, inf, nan),
    ],
    interval=(-3.0, 3.0),
    ulp={"float16": 0.5, "bfloat16": 0.5, "float32": 0.5, "float64": 0.5},
)
def reglu(a, b):
    return quiet(or_nans(at_least(a, like(a, 0)) * b, a, b))


@derivative(
    formula="reglu_backward(grad_output, a, b) = (grad_output * b, grad_output * a) if a > 0 else "
    "(0, 0)",
    notes="""The gradients with respect to `a` and `b`. Both are defined as 0 where `a` is 0.""",
    reference=lambda m, g, a, b: (g * b * (a > 0), g * ((a + abs(a)) / 2)),
    specials=[
        (2.0, 1.5, -3.0, -6.0, 3.0),
        (2.0, -1.5, -3.0, 0.0, 0.0),
        (2.0, 0.0, -3.0, 0.0, 0.0),
        (inf, -1.0, 1.0, 0.0, 0.0),
    ],
    interval=(-3.0, 3.0),
    ulp={"float16": 0.5, "bfloat16": 0.5, "float32": 0.5, "float64": 0.5},
)
def reglu_backward(grad_output, a, b):
    zero = like(a, 0)
    positive = a > zero
    of_a = grad_output * b if positive else zero
    of_b = grad_output * a if positive else zero
    of_a = of_a if a == a else a
    of_b = of_b if a == a else a
    return quiet(or_nan(of_a, grad_output)), quiet(or_nan(of_b, grad_output))
