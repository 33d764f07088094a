"""The exponential minus one and its derivative."""

from math import inf, nan
from typing import Any, NamedTuple

import numpy as np

from fastact._declarations.declare import activation, derivative
from fastact._declarations.sources import EXP_AND_SUMS
from fastact._kernels.elementary import BELOW, EXP, EXPM1, exact_remainder, scales
from fastact._kernels.vocabulary import (
    PerFormat,
    at_least,
    at_most,
    copysign,
    fma,
    horner,
    last_muladd,
    like,
    magnitude,
    muladd,
    or_nan,
    pick,
    pow2,
    scalar,
    with_variants,
)


class _Expm1(NamedTuple):
    infinite: Any  # from here on, the result is infinite
    linear: Any  # below this magnitude, the result is x


_EXPM1 = PerFormat(
    single=_Expm1(np.float32(88.8), np.float32(2.0**-26)),
    double=_Expm1(709.8, 2.0**-55),
)


@scalar
def _halves(x):
    """e^x - 1 divided by 2, as (high, low)."""
    exp = pick(EXP, x)
    limits = pick(BELOW, x)
    own = pick(_EXPM1, x)
    x = at_least(at_most(x, own.infinite), limits.lowest)
    n = muladd(x, exp.log2_e, exp.shift) - exp.shift
    r, r_low = exact_remainder(n, x)
    half = like(x, 0.5)
    s = pow2(n, -1)  # 2^n may overflow
    base = s - half
    base_low = (s - base) - half
    scaled = s * r
    high = base + scaled
    low = (base - high) + scaled
    # Only two roundings of r^2 / 2 matter, since its factors are not r * r and 1/2.
    slope = r * horner(r, pick(EXPM1, x))
    low = muladd(s, muladd(r_low, muladd(r, slope, r), r_low), low + base_low)
    return high, muladd(scaled, slope, low)


def _narrow(x):
    high, low = _halves(x)
    y = last_muladd(low, copysign(like(x, 1), high), magnitude(high))
    return copysign(y + y, x)


@activation(
    summary="Exponential minus one, element-wise.",
    formula="expm1(x) = exp(x) - 1",
    notes="""Same as ``numpy.expm1``. With e^x = s (1 + r + w), where s is a power of 2, the result
is the sum of s - 1, s r and s w. The first two carry their rounding errors."""
    + EXP_AND_SUMS,
    reference=lambda m, x: m.expm1(x),
    elsewhere={
        "PyTorch": "expm1",
        "JAX": "numpy.expm1",
        "Keras": "ops.expm1",
        "SciPy": "special.expm1",
        "NumPy": "expm1",
    },
    specials=[(-inf, -1.0), (inf, inf), (0.0, 0.0), (-0.0, -0.0)],
    interval=(-4.0, 3.0),
    ulp={"float16": 0.5, "bfloat16": 0.5, "float32": 0.92, "float64": 0.9},
    nondecreasing=True,
    range=(-1.0, inf),
    pytensor_ops=["basic.Expm1"],
)
@with_variants(narrow=_narrow)
def expm1(x):
    high, low = _halves(x)
    y = high + low
    return x if magnitude(x) < pick(_EXPM1, x).linear else y + y


@derivative(
    formula="expm1_backward(grad_output, output) = grad_output * (1 + output)",
    notes="""A multiply-add, rounded once, and a second time only where it is subnormal. For an
infinite `grad_output`, the result is infinite, or NaN where `output` is -1. expm1 never returns
values below -1.""",
    reference=lambda m, g, y: g * (1 + y),
    slope=lambda m, y: 1 + 0 * y,
    infinity_times_zero=nan,
    specials=[
        (2.0, 1.0, 4.0),
        (2.0, 0.0, 2.0),
        (2.0, -0.5, 1.0),
        (2.0, -1.0, 0.0),
        (inf, 0.0, inf),
    ],
    interval=(-1.0, 20.0),
    ulp={"float16": 0.51, "bfloat16": 0.51, "float32": 0.76, "float64": 0.76},
)
def expm1_backward(grad_output, output):
    one = like(output, 1)
    # Only where 1 + output is below 1 does it matter, without fma, that products are exact.
    up, down = scales(grad_output)
    scaled = grad_output * up
    below = fma(scaled, at_most(output, one), scaled) * down
    y = muladd(grad_output, output, grad_output) if output > one else below
    y = y if y == y else grad_output * (one + output)
    return or_nan(y, scaled)
