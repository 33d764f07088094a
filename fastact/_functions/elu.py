"""The exponential linear unit and its derivative."""

from math import inf, nan

import numpy as np

from fastact._declarations.declare import activation, derivative
from fastact._declarations.records import KerasFunction, OnnxOperator, TorchModule
from fastact._declarations.sources import EXP_AND_SUMS, NARROW
from fastact._kernels.elementary import BELOW, below_reduced, product, rounded, scales
from fastact._kernels.vocabulary import (
    at_least,
    at_most,
    copysign,
    horner,
    last_muladd,
    like,
    magnitude,
    muladd,
    or_nan,
    pick,
    with_variants,
)

# (e^r - 1 - r) / r^2 for |r| <= ln(2)/2; see tools/narrow.py.
_NARROW_TAIL = tuple(np.float32(c) for c in (0.49999347, 0.16666538, 0.041879714, 0.00836726))


def _narrow(x):
    zero = like(x, 0)
    s, r, _ = below_reduced(at_most(x, zero))
    p = muladd(r * r, horner(r, _NARROW_TAIL), r)
    # For x > 0, s is 1 and p is 0.
    return copysign(muladd(s, p, at_least(x, zero) + (s - like(x, 1))), x)


@activation(
    summary="Exponential linear unit, element-wise.",
    formula="elu(x) = x if x > 0 else exp(x) - 1",
    notes="""The scale alpha of the exponential is 1, the default of other libraries. With
e^x = s (1 + p), where s is a power of 2, the result is s - 1, which is exact, plus s p."""
    + EXP_AND_SUMS
    + NARROW,
    reference=lambda m, x: m.expm1((x - abs(x)) / 2) + (x + abs(x)) / 2,
    elsewhere={
        "PyTorch": "nn.functional.elu",
        "JAX": "nn.elu",
        "Keras": "elu",
        "ONNX": "Elu",
    },
    specials=[(-inf, -1.0), (inf, inf), (0.0, 0.0), (-0.0, -0.0)],
    interval=(-5.0, 3.0),
    ulp={"float16": 0.5, "bfloat16": 0.5, "float32": 0.94, "float64": 0.9},
    nondecreasing=True,
    range=(-1.0, inf),
    steepest=1.0,
    torch_modules=[TorchModule("ELU", lambda module: module.alpha == 1, "have alpha=1")],
    keras_functions=[
        KerasFunction(
            "nn.elu", lambda alpha=1.0: () if np.all(alpha == 1) else None, "have alpha=1"
        )
    ],
    onnx_operators=[
        OnnxOperator("Elu", lambda alpha=1.0: () if alpha == 1 else None, "have alpha=1")
    ],
)
@with_variants(narrow=_narrow)
def elu(x):
    limits = pick(BELOW, x)
    s, r, r_low = below_reduced(x)
    tail = horner(r, limits.tail)
    square = r * r
    exact = limits.ln2_low == like(x, 0)  # known at compile time
    p = muladd(square, tail, r) if exact else r + muladd(square, tail, r_low)
    y = muladd(s, p, s - like(x, 1))
    # NaN comes from the sum, which makes it quiet.
    return x if x >= like(x, 0) else y


@derivative(
    formula="elu_backward(grad_output, output) = grad_output * (1 + min(output, 0))",
    notes="""The sum and the product carry their rounding errors, so that the result is rounded
once, and a second time only where it is subnormal. At 0, the derivative is 1. For an infinite
`grad_output`, the result is infinite, or NaN where `output` is -1. elu never returns values below
-1.""",
    reference=lambda m, g, y: g * (1 + (y - abs(y)) / 2),
    slope=lambda m, y: (y < 0) + 0 * y,
    infinity_times_zero=nan,
    specials=[(2.0, 1.0, 2.0), (2.0, 0.0, 2.0), (2.0, -0.5, 1.0), (2.0, -1.0, 0.0)],
    interval=(-1.0, 3.0),
    ulp={"float16": 0.5, "bfloat16": 0.51, "float32": 0.76, "float64": 0.76},
)
def elu_backward(grad_output, output):
    one = like(output, 1)
    y = at_most(output, like(output, 0))
    d = one + y
    d_low = y - (d - one)
    up, down = scales(grad_output)
    p, p_low = product(grad_output * up, d, d_low)
    y = last_muladd(p_low, copysign(one, p), magnitude(p))
    return rounded(y, or_nan(p, grad_output)) * down
