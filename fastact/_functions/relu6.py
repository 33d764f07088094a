"""The rectified linear unit that is limited to 6, and its derivative."""

from math import inf

from fastact._declarations.declare import activation, derivative
from fastact._declarations.records import KerasFunction, TorchModule
from fastact._kernels.vocabulary import at_least, at_most, like, or_nan, quiet


@activation(
    summary="Rectified linear unit limited to 6, element-wise.",
    formula="relu6(x) = min(max(x, 0), 6)",
    notes="The sign of zero is kept: relu6(-0.0) is -0.0.",
    reference=lambda m, x: x * (x > 0) * (x < 6) + 6 * (x >= 6),
    elsewhere={
        "PyTorch": "nn.functional.relu6",
        "JAX": "nn.relu6",
        "Keras": "relu6",
        "ONNX": "Clip(x, 0, 6)",
        "NumPy": "clip(x, 0, 6)",
    },
    specials=[(-inf, 0.0), (inf, 6.0), (0.0, 0.0), (-0.0, -0.0), (7.0, 6.0)],
    interval=(-3.0, 9.0),
    ulp={"float16": 0.0, "bfloat16": 0.0, "float32": 0.0, "float64": 0.0},
    keeps_integers=True,
    nondecreasing=True,
    range=(0.0, 6.0),
    steepest=1.0,
    torch_modules=[TorchModule("ReLU6")],
    keras_functions=[KerasFunction("nn.relu6")],
)
def relu6(x):
    return quiet(at_most(at_least(x, like(x, 0)), like(x, 6)))


@derivative(
    formula="relu6_backward(grad_output, output) = grad_output if 0 < output < 6 else 0",
    notes="""At 0 and 6, the derivative is defined as 0. The input of relu6 may be passed instead of
its output. For an infinite `grad_output`, the result is infinite, or 0 where the derivative is
0.""",
    reference=lambda m, g, y: g * ((y > 0) * (y < 6)),
    slope=lambda m, y: 0 * y,
    jumps=[0.0, 6.0],
    infinity_times_zero=0.0,
    specials=[(2.0, 1.0, 2.0), (2.0, 0.0, 0.0), (-2.0, 6.0, 0.0), (inf, 0.0, 0.0)],
    interval=(0.0, 6.0),
    ulp={"float16": 0.0, "bfloat16": 0.0, "float32": 0.0, "float64": 0.0},
)
def relu6_backward(grad_output, output):
    zero = like(output, 0)
    passed = grad_output if output > zero else zero
    passed = passed if output < like(output, 6) else zero
    passed = passed if output == output else output
    return quiet(or_nan(passed, grad_output))
