"""The rectified linear unit with a small slope below 0, and its derivative."""

from math import inf

import numpy as np

from fastact._declarations.declare import activation, derivative
from fastact._declarations.records import OnnxOperator, TorchModule
from fastact._kernels.vocabulary import at_least, like, muladd, or_nan, quiet, with_variants


def _by_division(x):
    return quiet(at_least(x, x / like(x, 100)))


@activation(
    summary="Leaky rectified linear unit, element-wise.",
    formula="leaky_relu(x) = max(x, x / 100)",
    notes="""The slope is 1/100 exactly, not the binary number nearest to it, so that results are
rounded correctly.""",
    reference=lambda m, x: (x + abs(x)) / 2 + (x - abs(x)) / 200,
    elsewhere={
        "PyTorch": "nn.functional.leaky_relu",
        "JAX": "nn.leaky_relu",
        "Keras": "leaky_relu: slope 0.2, in Keras 2 0.3",
        "ONNX": "LeakyRelu",
    },
    specials=[(-inf, -inf), (inf, inf), (0.0, 0.0), (-0.0, -0.0), (-300.0, -3.0)],
    interval=(-3.0, 3.0),
    ulp={"float16": 0.5, "bfloat16": 0.5, "float32": 0.5, "float64": 0.5},
    nondecreasing=True,
    steepest=1.0,
    torch_modules=[
        TorchModule(
            "LeakyReLU", lambda module: module.negative_slope == 0.01, "have negative_slope=0.01"
        )
    ],
    onnx_operators=[
        OnnxOperator(
            "LeakyRelu", lambda alpha=0.01: () if np.float32(alpha) == np.float32(0.01) else None
        )
    ],
)
@with_variants(without_fma=_by_division)
def leaky_relu(x):
    # Twice as fast as a division in float64 with vectors of 256 bits (bench/NOTES.md). The
    # remainder is exact. For infinite `x`, it is NaN, and x is returned.
    slope = like(x, 0.01)
    y = x * slope
    return quiet(at_least(x, muladd(muladd(y, like(x, -100), x), slope, y)))


@derivative(
    formula="leaky_relu_backward(grad_output, output) = "
    "grad_output if output > 0 else grad_output / 100",
    notes="""At 0, the derivative is defined as 1/100. The input of leaky_relu may be passed instead
of its output.""",
    reference=lambda m, g, y: g * (y > 0) + g * (y <= 0) * (0 * y + 1) / 100,
    slope=lambda m, y: 0 * y,
    jumps=[0.0],
    specials=[(300.0, 1.0, 300.0), (300.0, 0.0, 3.0), (300.0, -2.0, 3.0), (inf, -1.0, inf)],
    interval=(-0.03, 3.0),
    ulp={"float16": 0.5, "bfloat16": 0.5, "float32": 0.5, "float64": 0.5},
)
def leaky_relu_backward(grad_output, output):
    small = grad_output / like(grad_output, 100)
    passed = grad_output if output > like(output, 0) else small
    passed = passed if output == output else output
    return quiet(or_nan(passed, grad_output))
