"""The squared rectified linear unit and its derivative."""

from math import inf

from fastact._declarations.declare import activation, derivative
from fastact._kernels.vocabulary import at_least, like, or_nan, quiet


@activation(
    summary="Squared rectified linear unit, element-wise.",
    formula="relu2(x) = max(x, 0)**2",
    notes="""Also called squared ReLU (D. R. So et al., "Primer: Searching for Efficient
Transformers for Language Modeling", NeurIPS 2021).""",
    reference=lambda m, x: x * x * (x > 0),
    elsewhere={
        "PyTorch": "relu(x)**2",
        "JAX": "nn.relu(x)**2",
    },
    specials=[(-inf, 0.0), (inf, inf), (0.0, 0.0), (-0.0, 0.0), (3.0, 9.0)],
    interval=(-3.0, 3.0),
    ulp={"float16": 0.5, "bfloat16": 0.5, "float32": 0.5, "float64": 0.5},
    nondecreasing=True,
    range=(0.0, inf),
    onnx_formulas=[lambda m, x: m.relu(x) ** 2],
)
def relu2(x):
    x = at_least(x, like(x, 0))
    return x * x


@derivative(
    formula="relu2_backward(grad_output, input) = 2 * grad_output * max(input, 0)",
    notes="""The result is rounded once. For an infinite `grad_output`, it is infinite, or 0 where
`input` is not positive.""",
    reference=lambda m, g, x: 2 * g * x * (x > 0),
    slope=lambda m, x: 2 * (x > 0),
    of_output=lambda m, y: 2 * m.sqrt(y),
    infinity_times_zero=0.0,
    specials=[(2.0, 1.5, 6.0), (2.0, 0.0, 0.0), (2.0, -1.0, 0.0), (inf, -1.0, 0.0)],
    interval=(-3.0, 3.0),
    ulp={"float16": 0.5, "bfloat16": 0.5, "float32": 0.5, "float64": 0.5},
)
def relu2_backward(grad_output, input):
    zero = like(input, 0)
    # The smaller factor is doubled: if it overflows, so does the exact product.
    small = input < like(input, 1)
    product = (input + input if small else input) * (
        grad_output if small else grad_output + grad_output
    )
    product = product if input > zero else zero
    product = product if input == input else input
    return quiet(or_nan(product, grad_output))
