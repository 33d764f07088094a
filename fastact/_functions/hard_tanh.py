"""The piecewise linear approximation of the hyperbolic tangent, and its derivative."""

from math import inf

from fastact._declarations.declare import activation, derivative
from fastact._declarations.records import KerasFunction, TorchModule
from fastact._kernels.vocabulary import at_least, at_most, like, magnitude, or_nan, quiet


@activation(
    summary="Hard hyperbolic tangent, element-wise.",
    formula="hard_tanh(x) = min(max(x, -1), 1)",
    notes="The sign of zero is kept: hard_tanh(-0.0) is -0.0.",
    reference=lambda m, x: x * (x > -1) * (x < 1) + (x >= 1) - 1 * (x <= -1),
    elsewhere={
        "PyTorch": "nn.functional.hardtanh",
        "JAX": "nn.hard_tanh",
        "Keras": "hard_tanh",
        "ONNX": "Clip(x, -1, 1)",
        "NumPy": "clip(x, -1, 1)",
    },
    specials=[(-inf, -1.0), (inf, 1.0), (0.0, 0.0), (-0.0, -0.0), (3.0, 1.0)],
    interval=(-3.0, 3.0),
    ulp={"float16": 0.0, "bfloat16": 0.0, "float32": 0.0, "float64": 0.0},
    nondecreasing=True,
    range=(-1.0, 1.0),
    steepest=1.0,
    torch_modules=[
        TorchModule(
            "Hardtanh",
            lambda module: (module.min_val, module.max_val) == (-1, 1),
            "have min_val=-1 and max_val=1",
        )
    ],
    keras_functions=[KerasFunction("nn.hard_tanh")],
)
def hard_tanh(x):
    one = like(x, 1)
    return quiet(at_most(at_least(x, -one), one))


@derivative(
    formula="hard_tanh_backward(grad_output, output) = grad_output if |output| < 1 else 0",
    notes="""At -1 and 1, the derivative is defined as 0. The input of hard_tanh may be passed
instead of its output. For an infinite `grad_output`, the result is infinite, or 0 where the
derivative is 0.""",
    reference=lambda m, g, y: g * (abs(y) < 1),
    slope=lambda m, y: 0 * y,
    jumps=[-1.0, 1.0],
    infinity_times_zero=0.0,
    specials=[(2.0, 0.5, 2.0), (2.0, 0.0, 2.0), (2.0, 1.0, 0.0), (inf, -1.0, 0.0)],
    interval=(-1.0, 1.0),
    ulp={"float16": 0.0, "bfloat16": 0.0, "float32": 0.0, "float64": 0.0},
)
def hard_tanh_backward(grad_output, output):
    passed = grad_output if magnitude(output) < like(output, 1) else like(output, 0)
    passed = passed if output == output else output
    return quiet(or_nan(passed, grad_output))
