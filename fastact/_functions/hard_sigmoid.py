"""The piecewise linear approximation of the sigmoid, and its derivative."""

from math import inf

from fastact._declarations.declare import activation, derivative
from fastact._declarations.records import KerasFunction, TorchModule
from fastact._kernels.elementary import sixth
from fastact._kernels.vocabulary import (
    at_least,
    at_most,
    like,
    muladd,
    or_nan,
    quiet,
    scalar,
    with_variants,
)


@scalar
def _clamped(x):
    three = like(x, 3)
    return at_most(at_least(x, -three), three)


def _narrow(x):
    return (_clamped(x) + like(x, 3)) / like(x, 6)


@activation(
    summary="Hard sigmoid, element-wise.",
    formula="hard_sigmoid(x) = min(max(x + 3, 0), 6) / 6",
    notes="""The slope is 1/6. The sum and the quotient carry their errors, so that the result is
rounded once.""",
    reference=lambda m, x: (x >= 3) + (x > -3) * (x < 3) * (x + 3) / 6,
    elsewhere={
        "PyTorch": "nn.functional.hardsigmoid",
        "JAX": "nn.hard_sigmoid",
        "Keras": "hard_sigmoid: slope 0.2 in Keras 2",
        "ONNX": "HardSigmoid: slope 0.2 by default",
    },
    specials=[(-inf, 0.0), (inf, 1.0), (-3.0, 0.0), (3.0, 1.0), (0.0, 0.5), (1.5, 0.75)],
    interval=(-5.0, 5.0),
    ulp={"float16": 0.5, "bfloat16": 0.5, "float32": 0.5, "float64": 0.5},
    nondecreasing=True,
    range=(0.0, 1.0),
    steepest=1 / 6,
    torch_modules=[TorchModule("Hardsigmoid")],
    keras_functions=[KerasFunction("nn.hard_sigmoid")],
    onnx_formulas=[lambda m, x: m.relu6(x + 3) / 6],
)
@with_variants(narrow=_narrow)
def hard_sigmoid(x):
    three = like(x, 3)
    x = _clamped(x)
    total = three + x
    low = x - (total - three)  # exact: |x| is at most 3 (Dekker)
    q, rest = sixth(total)
    return muladd(rest + low, like(x, 1 / 6), q)


@derivative(
    formula="hard_sigmoid_backward(grad_output, output) = grad_output / 6 if 0 < output < 1 else 0",
    notes="""Where `output` is 0 or 1, also at the bends, the derivative is defined as 0. For an
infinite `grad_output`, the result is infinite, or 0 where the derivative is 0.""",
    reference=lambda m, g, y: g / 6 * ((y > 0) * (y < 1)),
    slope=lambda m, y: 0 * y,
    jumps=[0.0, 1.0],
    infinity_times_zero=0.0,
    specials=[(3.0, 0.5, 0.5), (3.0, 0.0, 0.0), (3.0, 1.0, 0.0), (inf, 0.0, 0.0)],
    interval=(0.0, 1.0),
    ulp={"float16": 0.5, "bfloat16": 0.5, "float32": 0.5, "float64": 0.5},
)
def hard_sigmoid_backward(grad_output, output):
    zero = like(output, 0)
    passed = grad_output / like(output, 6) if output > zero else zero
    passed = passed if output < like(output, 1) else zero
    passed = passed if output == output else output
    return quiet(or_nan(passed, grad_output))
