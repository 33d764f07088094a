"""The unit step and its derivative."""

from math import inf

from fastact._declarations.declare import activation, derivative
from fastact._kernels.vocabulary import at_least, like, or_nan, quiet


@activation(
    summary="Unit step, element-wise.",
    formula="step(x) = 1 if x >= 0 else 0",
    notes="Same as ``numpy.heaviside(x, 1)``.",
    reference=lambda m, x: (x >= 0) + 0 * x,
    measured_in_full=True,
    elsewhere={
        "PyTorch": "heaviside(x, 1)",
        "JAX": "numpy.heaviside(x, 1)",
        "NumPy": "heaviside(x, 1)",
    },
    specials=[(-inf, 0.0), (inf, 1.0), (0.0, 1.0), (-0.0, 1.0)],
    interval=(-3.0, 3.0),
    ulp={"float16": 0.0, "bfloat16": 0.0, "float32": 0.0, "float64": 0.0},
    nondecreasing=True,
    range=(0.0, 1.0),
)
def step(x):
    # LLVM would compare x itself in float16, which takes three operations more (bench/NOTES.md).
    x = quiet(x)
    zero = like(x, 0)
    return at_least(like(x, 1) if x >= zero else x, zero)


@derivative(
    formula="step_backward(grad_output, input) = 0",
    notes="""At 0, the derivative is defined as 0. So the result is 0 unless an operand is NaN, also
for infinite operands. The output of step may be passed instead of its input.""",
    reference=lambda m, g, x: 0 * g * x,
    slope=lambda m, x: 0 * x,
    of_output=lambda m, y: 0 * y,
    infinity_times_zero=0.0,
    specials=[(2.0, 1.0, 0.0), (-2.0, 0.0, 0.0), (-2.0, -1.0, 0.0), (inf, inf, 0.0)],
    interval=(-3.0, 3.0),
    ulp={"float16": 0.0, "bfloat16": 0.0, "float32": 0.0, "float64": 0.0},
)
def step_backward(grad_output, input):
    zero = like(input, 0)
    kept = zero if input == input else input
    return quiet(or_nan(kept, grad_output))
