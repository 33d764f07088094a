"""The softsign and its derivative."""

from math import inf, nan

import numpy as np

from fastact._declarations.declare import activation, derivative
from fastact._declarations.records import KerasFunction, OnnxOperator, TorchModule
from fastact._kernels.elementary import product, rounded, scales
from fastact._kernels.vocabulary import (
    PerFormat,
    at_least,
    at_most,
    copysign,
    fma,
    last_muladd,
    like,
    magnitude,
    muladd,
    or_nan,
    pick,
    scalar,
    with_variants,
)

# From here on, the result rounds to 1.
_ENOUGH = PerFormat(np.float32(2.0**26), 2.0**55)


@scalar
def _magnitude(x):
    return at_most(magnitude(x), pick(_ENOUGH, x))


def _narrow(x):
    a = _magnitude(x)
    return copysign(a / (like(a, 1) + a), x)


@activation(
    summary="Softsign, element-wise.",
    formula="softsign(x) = x / (1 + |x|)",
    notes="""The sum carries its rounding error. One division gives the reciprocal, and a Newton
step with the residual gives the quotient. Infinite inputs give 1 and -1.""",
    reference=lambda m, x: x / (1 + abs(x)),
    elsewhere={
        "PyTorch": "nn.functional.softsign",
        "JAX": "nn.soft_sign",
        "Keras": "softsign",
        "ONNX": "Softsign",
    },
    specials=[(-inf, -1.0), (inf, 1.0), (0.0, 0.0), (-0.0, -0.0), (1.0, 0.5), (-3.0, -0.75)],
    interval=(-5.0, 5.0),
    ulp={"float16": 0.5, "bfloat16": 0.5, "float32": 0.51, "float64": 0.51},
    nondecreasing=True,
    range=(-1.0, 1.0),
    steepest=1.0,
    torch_modules=[TorchModule("Softsign")],
    keras_functions=[KerasFunction("nn.softsign")],
    onnx_operators=[OnnxOperator("Softsign")],
    onnx_formulas=[lambda m, x: x / (1 + m.abs(x))],
)
@with_variants(narrow=_narrow)
def softsign(x):
    one = like(x, 1)
    a = _magnitude(x)
    # d + d_low is 1 + a; the larger term comes first (Dekker).
    d = one + a
    d_low = at_most(a, one) - (d - at_least(a, one))
    inverse = one / d
    q = a * inverse
    residual = muladd(-q, d_low, fma(-q, d, a))
    return copysign(muladd(residual, inverse, q), x)


@derivative(
    formula="softsign_backward(grad_output, output) = grad_output * (1 - |output|)**2",
    notes="""Products and the difference carry their rounding errors, so that the result is rounded
once, and a second time only where it is subnormal. For an infinite `grad_output`, the result is
infinite, or NaN where `output` is 1 or -1.""",
    reference=lambda m, g, y: g * (1 - abs(y)) * (1 - abs(y)),
    slope=lambda m, y: -2 * (1 - abs(y)) * (1 - 2 * (y < 0)),
    infinity_times_zero=nan,
    specials=[(2.0, 0.0, 2.0), (2.0, 0.5, 0.5), (2.0, 1.0, 0.0), (2.0, -1.0, 0.0)],
    interval=(-1.0, 1.0),
    ulp={"float16": 0.51, "bfloat16": 0.51, "float32": 0.76, "float64": 0.76},
)
def softsign_backward(grad_output, output):
    one = like(output, 1)
    a = magnitude(output)
    rest = one - a
    rest_low = (one - rest) - a
    t, t_low = product(rest, rest, rest_low + rest_low)
    up, down = scales(grad_output)
    p, p_low = product(grad_output * up, t, t_low)
    y = last_muladd(p_low, copysign(one, p), magnitude(p))
    # The magnitude lost the sign of a NaN in `output`.
    return rounded(y, or_nan(or_nan(p, output), grad_output)) * down
