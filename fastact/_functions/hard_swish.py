"""The piecewise quadratic approximation of swish, and its derivative."""

from math import inf

import numpy as np

from fastact._declarations.declare import activation, derivative
from fastact._declarations.records import KerasFunction, OnnxOperator, TorchModule
from fastact._kernels.elementary import product, rounded, scales, sixth, two_sum
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
    quiet,
    scalar,
    with_variants,
)

# What RN(1/6) lacks of 1/6.
_SIXTH_LOW = PerFormat(np.float32(-(2.0**-25) / 6), 2.0**-54 / 6)


@scalar
def _reduced(x):
    """m with x (x + 3) = m (m + 3) for x between -3 and 3, and 0 below.

    The product is the same for x and -3 - x. Of these, m is the greater one. It is at least -3/2,
    so that nothing cancels, and exact where it is not x.
    """
    x = at_least(x, like(x, -3))
    return at_least(x, like(x, -3) - x)


@scalar
def _beside(y, x):
    """The result: `y`, whose sign may be wrong where it is 0, or `x` above 3."""
    return x if x > like(x, 3) else copysign(y, x)


def _narrow(x):
    x = quiet(x)  # LLVM would compare x itself in float16, which takes five operations more
    m = _reduced(x)
    y = m * muladd(m, like(m, 1 / 6), like(m, 0.5))
    # An ulp upwards, since m/2 is halfway between two results for many small m.
    return _beside(muladd(magnitude(y), like(y, 2.0**-23), y), x)


@activation(
    summary="Hard swish, element-wise.",
    formula="hard_swish(x) = x * min(max(x + 3, 0), 6) / 6",
    notes="""Computed as m^2/6 + m/2, where m is the greater of `x` and -3 - `x`, which have the
same result. So nothing cancels. At and below -3, also for -inf, the result is -0.0.""",
    reference=lambda m, x: x * (x >= 3) + x * (x > -3) * (x < 3) * (x + 3) / 6,
    elsewhere={
        "PyTorch": "nn.functional.hardswish",
        "JAX": "nn.hard_swish",
        "Keras": "hard_swish",
        "ONNX": "HardSwish",
    },
    specials=[
        *[(-inf, -0.0), (inf, inf), (0.0, 0.0), (-0.0, -0.0)],
        *[(-3.0, -0.0), (-1.5, -0.375), (1.5, 1.125), (3.0, 3.0)],
    ],
    interval=(-5.0, 5.0),
    ulp={"float16": 0.5, "bfloat16": 0.5, "float32": 0.75, "float64": 0.75},
    range=(-0.375, inf),
    steepest=1.5,
    torch_modules=[TorchModule("Hardswish")],
    keras_functions=[KerasFunction("nn.hard_silu")],
    onnx_operators=[OnnxOperator("HardSwish")],
    onnx_formulas=[lambda m, x: x * m.hard_sigmoid(x), lambda m, x: x * m.relu6(x + 3) / 6],
)
@with_variants(narrow=_narrow)
def hard_swish(x):
    x = quiet(x)
    m = _reduced(x)
    sixth_of_m = fma(m, like(m, 1 / 6), m * pick(_SIXTH_LOW, m))
    return _beside(fma(m, sixth_of_m, m * like(m, 0.5)), x)


@derivative(
    formula="hard_swish_backward(grad_output, input) = "
    "grad_output * (0 if input <= -3, (2 * input + 3) / 6 if -3 < input < 3, 1 if input >= 3)",
    notes="""The derivative is defined as 0 at -3 and as 1 at 3. The sum, the quotient and the
product carry their errors, so that the result is rounded once, and a second time only where it is
subnormal. For an infinite `grad_output`, the result is infinite, 0 where `input` is at most -3, or
NaN where it is -1.5.""",
    reference=lambda m, g, x: g * ((x >= 3) + (x > -3) * (x < 3) * (2 * x + 3) / 6),
    slope=lambda m, x: (x > -3) * (x < 3) * (0 * x + 1) / 3,
    jumps=[-3.0, 3.0],
    infinity_times_zero=0.0,
    specials=[
        (2.0, 0.0, 1.0),
        (2.0, 1.5, 2.0),
        (2.0, -1.5, 0.0),
        (2.0, -3.0, 0.0),
        (2.0, 3.0, 2.0),
    ],
    interval=(-5.0, 5.0),
    ulp={"float16": 0.51, "bfloat16": 0.51, "float32": 0.76, "float64": 0.76},
)
def hard_swish_backward(grad_output, input):
    three = like(input, 3)
    within = at_most(at_least(input, -three), three)
    total, low = two_sum(within + within, three)
    slope, rest = sixth(total)
    up, down = scales(grad_output)
    p, p_low = product(grad_output * up, slope, (rest + low) * like(input, 1 / 6))
    y = last_muladd(p_low, copysign(like(p, 1), p), magnitude(p))
    y = rounded(y, or_nan(p, grad_output)) * down
    y = grad_output if input >= three else y
    y = like(y, 0) if input <= -three else y
    return quiet(or_nan(y, grad_output))
