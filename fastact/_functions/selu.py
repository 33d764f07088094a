"""The scaled exponential linear unit and its derivative."""

from math import inf
from typing import Any, NamedTuple

import numpy as np

from fastact._declarations.declare import activation, derivative
from fastact._declarations.records import KerasFunction, OnnxOperator, TorchModule
from fastact._declarations.sources import EXP_AND_SUMS
from fastact._kernels.elementary import EXPM1, below_reduced, product, rounded, scales
from fastact._kernels.vocabulary import (
    PerFormat,
    copysign,
    fma,
    horner,
    last_muladd,
    like,
    magnitude,
    muladd,
    or_nan,
    pick,
    scalar,
    with_variants,
)


class _Selu(NamedTuple):
    """The constants of the definition, two of them as sums of two numbers."""

    scale: Any
    scale_low: Any
    product: Any  # of scale and alpha
    product_low: Any
    scale_rest: Any  # without 1
    product_rest: Any
    linear: Any  # below this magnitude, e^x - 1 is x


_SELU = PerFormat(
    single=_Selu(
        *map(np.float32, (1.0507010221481323, -3.479265183079941e-08)),
        *map(np.float32, (1.7580993175506592, 2.3296717680252718e-08)),
        *map(np.float32, (0.05070098862051964, 0.7580993175506592, 2.0**-40)),
    ),
    double=_Selu(
        *(1.0507009873554805, 3.9874847667154144e-17),
        *(1.7580993408473768, 1.41535193800845e-17),
        *(0.050700987355480495, 0.7580993408473768, 2.0**-60),
    ),
)


@scalar
def _below(x):
    """e^x - 1 for x <= 0, as (high, low)."""
    s, r, r_low = below_reduced(x)
    base = s - like(x, 1)
    scaled = s * r
    high = base + scaled
    low = muladd(s, r_low, (base - high) + scaled)
    # Only two roundings of r^2 / 2 matter, since its factors are not r * r and 1/2.
    return high, muladd(scaled, r * horner(r, pick(EXPM1, x)), low)


def _narrow(x):
    constants = pick(_SELU, x)
    one = like(x, 1)
    high, low = _below(x)
    high, rest = product(constants.product, high, low)
    y = last_muladd(rest, copysign(one, high), magnitude(high))
    a = magnitude(x)
    above = last_muladd(a, constants.scale_rest, a)
    # Rounding to odd would turn infinity into NaN.
    above = above if a < like(x, inf) else a
    return copysign(y if x < like(x, 0) else above, x)


def _reference(m, x):
    below = m.expm1((x - abs(x)) / 2)
    above = (x + abs(x)) / 2
    c = _SELU.double
    low = below * c.product_low + above * c.scale_low
    return below * c.product + above * c.scale + low


# alpha and gamma of ONNX, which are numbers of float32.
_ONNX = (1.67326319217681884765625, 1.05070102214813232421875)


@activation(
    summary="Scaled exponential linear unit, element-wise.",
    formula="selu(x) = scale * (x if x > 0 else alpha * (exp(x) - 1))",
    notes="""scale is 1.0507009873554804934193349852946 and alpha is
1.6732632423543772848170429916717 (G. Klambauer et al., "Self-Normalizing Neural Networks", 2017).
The factors scale and scale * alpha are sums of two numbers, and so is e^x - 1."""
    + EXP_AND_SUMS,
    reference=_reference,
    elsewhere={
        "PyTorch": "nn.functional.selu",
        "JAX": "nn.selu",
        "Keras": "selu",
        "ONNX": "Selu: constants in float32",
    },
    specials=[(inf, inf), (0.0, 0.0), (-0.0, -0.0)],
    interval=(-5.0, 3.0),
    ulp={"float16": 0.5, "bfloat16": 0.5, "float32": 0.99, "float64": 0.87},
    nondecreasing=True,
    range=(-1.7580993408473768, inf),
    steepest=1.7580993408473768,
    torch_modules=[TorchModule("SELU")],
    onnx_operators=[
        OnnxOperator(
            "Selu",
            lambda alpha=_ONNX[0], gamma=_ONNX[1]: () if (alpha, gamma) == _ONNX else None,
            "have the alpha and gamma that are the defaults",
        )
    ],
    keras_functions=[KerasFunction("nn.selu")],
)
@with_variants(narrow=_narrow)
def selu(x):
    constants = pick(_SELU, x)
    high, low = _below(x)
    low = muladd(high, constants.product_low, constants.product * low)
    # Also without fma, this product must not be rounded, nor small: the emulation would be wrong.
    y = fma(constants.product, high, low)
    # The result is linear for x > 0 and for tiny x. Only the rest is multiplied, so that the
    # rounding of the product hardly matters.
    rest = constants.product_rest if x < like(x, 0) else constants.scale_rest
    return y if x < -constants.linear else muladd(x, rest, x)


def _gradient(m, g, y):
    c = _SELU.double
    above = (g + 0 * y) * (y > 0)
    below = (g + 0 * y) * (y <= 0)
    low = above * c.scale_low + below * c.product_low
    return above * c.scale + below * (y + c.product) + low


@derivative(
    formula="selu_backward(grad_output, output) = "
    "grad_output * (scale if output > 0 else scale * alpha + output)",
    notes="""The factors are sums of two numbers, so that the result is rounded once, and a second
time only where it is subnormal. At 0, the derivative is scale * alpha, as in PyTorch. selu never
returns values below -scale * alpha.""",
    reference=_gradient,
    slope=lambda m, y: (y <= 0) + 0 * y,
    jumps=[0.0],
    specials=[(0.0, 1.0, 0.0), (inf, 1.0, inf), (inf, -1.0, inf)],
    interval=(-1.7580993175506592, 3.0),
    ulp={"float16": 0.5, "bfloat16": 0.51, "float32": 0.85, "float64": 0.86},
)
def selu_backward(grad_output, output):
    constants = pick(_SELU, output)
    one = like(output, 1)
    total = constants.product + output
    rest = ((constants.product - total) + output) + constants.product_low
    below = total + rest
    below_low = (total - below) + rest
    above = output > like(output, 0)
    d = constants.scale if above else below
    d_low = constants.scale_low if above else below_low
    up, down = scales(grad_output)
    p, p_low = product(grad_output * up, d, d_low)
    y = last_muladd(p_low, copysign(one, p), magnitude(p))
    return rounded(y, or_nan(p, grad_output)) * down
