"""The rectified linear unit and its derivative."""

from math import inf

from fastact._declarations.declare import activation, derivative
from fastact._declarations.records import KerasFunction, OnnxOperator, TorchModule
from fastact._kernels.vocabulary import at_least, like, or_nan, quiet


@activation(
    summary="Rectified linear unit, element-wise.",
    formula="relu(x) = x if not x < 0 else 0",
    notes="The sign of zero is kept: relu(-0.0) is -0.0.",
    reference=lambda m, x: (x + abs(x)) / 2,
    measured_in_full=True,
    elsewhere={
        "PyTorch": "relu",
        "JAX": "nn.relu",
        "Keras": "relu",
        "ONNX": "Relu",
    },
    specials=[(-inf, 0.0), (inf, inf), (0.0, 0.0), (-0.0, -0.0)],
    interval=(-3.0, 3.0),
    ulp={"float16": 0.0, "bfloat16": 0.0, "float32": 0.0, "float64": 0.0},
    keeps_integers=True,
    nondecreasing=True,
    range=(0.0, inf),
    steepest=1.0,
    torch_modules=[TorchModule("ReLU")],
    sklearn_names=["relu"],
    keras_functions=[KerasFunction("nn.relu")],
    onnx_operators=[OnnxOperator("Relu")],
)
def relu(x):
    return quiet(at_least(x, like(x, 0)))


@derivative(
    formula="relu_backward(grad_output, output) = grad_output if output > 0 else 0",
    notes="""At 0, the derivative is defined as 0. The input of relu may be passed instead of its
output. For an infinite `grad_output`, the result is infinite, or 0 where `output` is 0.""",
    reference=lambda m, g, y: g * (y > 0),
    slope=lambda m, y: 0 * y,
    jumps=[0.0],
    infinity_times_zero=0.0,
    specials=[(2.0, 1.0, 2.0), (2.0, 0.0, 0.0), (-2.0, -0.0, 0.0), (inf, 0.0, 0.0)],
    interval=(0.0, 3.0),
    ulp={"float16": 0.0, "bfloat16": 0.0, "float32": 0.0, "float64": 0.0},
)
def relu_backward(grad_output, output):
    zero = like(output, 0)
    passed = grad_output if output > zero else zero
    passed = passed if output == output else output
    return quiet(or_nan(passed, grad_output))
