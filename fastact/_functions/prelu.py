"""The parametric rectified linear unit and its derivatives."""

from math import inf, nan

import numpy as np

from fastact._declarations.declare import activation, derivative
from fastact._declarations.records import KerasFunction, OnnxOperator, TorchModule
from fastact._kernels.vocabulary import like, or_nan, quiet, with_variants


@activation(
    summary="Rectified linear unit with a slope for negative inputs, element-wise.",
    formula="prelu(x, slope) = x if x > 0 else slope * x",
    notes="""`slope` is used only where `x` is not above 0, so that a NaN there does not matter
elsewhere. For `slope` 0 and `x` -inf, the result is NaN.""",
    reference=lambda m, x, slope: (x + abs(x)) / 2 + slope * ((x - abs(x)) / 2),
    elsewhere={
        "PyTorch": "nn.functional.prelu",
        "Keras": "layers.PReLU",
        "ONNX": "PRelu",
    },
    specials=[
        (2.0, 0.25, 2.0),
        (-2.0, 0.25, -0.5),
        (-0.0, 0.25, -0.0),
        (inf, 0.25, inf),
        (-inf, 0.25, -inf),
        (-inf, 0.0, nan),
        (2.0, nan, 2.0),
    ],
    interval=(-3.0, 3.0),
    ulp={"float16": 0.5, "bfloat16": 0.5, "float32": 0.5, "float64": 0.5},
    keras_functions=[
        # max(x, slope x) for other slopes
        KerasFunction(
            "nn.leaky_relu",
            lambda negative_slope=0.2: (negative_slope,) if np.all(negative_slope <= 1) else None,
            "have a negative_slope of at most 1",
        )
    ],
    torch_modules=[
        TorchModule("LeakyReLU", parameters=lambda module: (module.negative_slope,)),
        TorchModule("PReLU", parameters=lambda module: (module.weight,)),
    ],
    parameters={"slope": (0.25, 0.01, 1.0, -0.5)},
    onnx_operators=[
        OnnxOperator("LeakyRelu", lambda alpha=0.01: (alpha,)),
        OnnxOperator("PRelu", lambda slope: (slope,)),
    ],
    onnx_formulas=[lambda m, x, slope: m.relu(x) - slope * m.relu(-x)],
)
@with_variants(one_number=True)
def prelu(x, slope):
    x = quiet(x)
    return x if x > like(x, 0) else or_nan(x * slope, x)


@derivative(
    formula="prelu_backward(grad_output, input, slope) = (grad_output, 0) if input > 0 else "
    "(grad_output * slope, grad_output * input)",
    notes="""The gradients with respect to `input` and `slope`. At 0, they are those for negative
inputs.""",
    reference=lambda m, g, x, slope: (
        g * ((x > 0) + slope * (x <= 0)),
        g * ((x - abs(x)) / 2),
    ),
    specials=[
        (2.0, 1.5, 0.25, 2.0, 0.0),
        (2.0, -1.5, 0.25, 0.5, -3.0),
        (2.0, 0.0, 0.25, 0.5, 0.0),
        (inf, 1.5, 0.25, inf, 0.0),
    ],
    interval=(-3.0, 3.0),
    ulp={"float16": 0.5, "bfloat16": 0.5, "float32": 0.5, "float64": 0.5},
)
def prelu_backward(grad_output, input, slope):
    zero = like(input, 0)
    positive = input > zero
    of_input = grad_output if positive else grad_output * slope
    of_input = of_input if input == input else input
    of_slope = zero if positive else grad_output * input
    return (
        quiet(or_nan(of_input, grad_output)),
        quiet(or_nan(of_slope, grad_output)),
    )
