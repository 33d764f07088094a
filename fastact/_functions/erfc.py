"""The complementary error function and its derivative."""

from math import inf, nan, sqrt
from typing import Any, NamedTuple

import numpy as np

from fastact._declarations.declare import activation, derivative
from fastact._declarations.sources import BELL_BY_TABLES
from fastact._kernels.elementary import rounded, times_power
from fastact._kernels.normal import ERROR_SLOPE, RATIO, TAIL, bell, far_variable, gaussian, tail
from fastact._kernels.tables import ERFC, bell_pieces
from fastact._kernels.vocabulary import (
    PerFormat,
    at_most,
    copysign,
    fma,
    last_muladd,
    like,
    magnitude,
    muladd,
    or_nan,
    pick,
    pow2_of_sum,
    with_variants,
)


class _Root(NamedTuple):
    """The square root of 2."""

    high: Any
    low: Any
    # Those of `RATIO` divided by the root. So `t` is computed from `x`: from the rounded product,
    # it would cost 0.07 ulp.
    middle: Any
    pole: Any


def _root(number: Any, high: float, low: float, pieces: Any) -> _Root:
    scaled = (float(value) / sqrt(2) for value in (pieces.middle, pieces.pole))
    return _Root(*map(number, (high, low, *scaled)))


_ROOT = PerFormat(
    single=_root(np.float32, 1.4142135381698608, 2.4203234971764687e-08, RATIO.single),
    double=_root(float, 1.4142135623730951, -9.667293313452913e-17, RATIO.double),
)


def _erfc_by_tables(x):
    s = bell_pieces(at_most(magnitude(x), ERFC.enough), ERFC)
    unit = -ERFC.unit if x < like(x, 0) else ERFC.unit
    y = last_muladd(s, unit, like(x, 2) if x < like(x, 0) else like(x, 0))
    return y if x == x else x + x


@activation(
    summary="Complementary error function, element-wise.",
    formula="erfc(x) = 1 - erf(x)",
    notes="""Same as ``scipy.special.erfc``. The result is 2 Q(a) for positive `x` and 2 - 2 Q(a)
otherwise, where a = sqrt(2) |x|, with its rounding error, and Q(a) is the probability that a
standard normal variable is above `a`. It is computed as for :func:`fastact.gelu`, so that results
for positive `x` are as accurate as others, down to the subnormals."""
    + BELL_BY_TABLES,
    reference=lambda m, x: m.erfc(x),
    elsewhere={
        "PyTorch": "erfc",
        "JAX": "scipy.special.erfc",
        "SciPy": "special.erfc",
    },
    specials=[(-inf, 2.0), (inf, 0.0), (0.0, 1.0), (-0.0, 1.0)],
    interval=(-3.5, 3.5),
    ulp={"float16": 0.5, "bfloat16": 0.5, "float32": 0.99, "float64": 1.0},
    range=(0.0, 2.0),
    steepest=1.1283791670955126,
    pytensor_ops=["math.Erfc"],
)
@with_variants(tables=_erfc_by_tables, tables_in_16_bits=False, stages={("float32", 512): 2})
def erfc(x):
    c = pick(TAIL, x)
    root = pick(_ROOT, x)
    one, zero = like(x, 1), like(x, 0)
    a = at_most(magnitude(x), c.zero / root.high)
    total, _, r, w = gaussian(a, a, c.shift)
    power = pow2_of_sum(total) * c.unit
    z = a * root.high
    z_low = muladd(a, root.low, fma(a, root.high, -z))
    e, m = tail(z, z_low, far_variable(a, root), one, r, w)
    # Each is rounded to odd in 16 bits: for positive `x`, the last one is exact.
    s = last_muladd(like(m, 1), m, e)
    power = -power if x < zero else power
    y = last_muladd(power, s, like(x, 2) if x < zero else zero)
    return y if x == x else x + x


@derivative(
    formula="erfc_backward(grad_output, input) = -grad_output * 2 / sqrt(pi) * exp(-input**2)",
    notes="""Computed as for :func:`fastact.erf_backward`.""",
    reference=lambda m, g, x: -g * (m.exp(-x * x) / m.sqrt(m.atan(1.0))),
    slope=lambda m, x: 2 * x * m.exp(-x * x) / m.sqrt(m.atan(1.0)),
    infinity_times_zero=nan,
    specials=[(2.0, inf, -0.0), (2.0, -inf, -0.0), (-2.0, inf, 0.0), (inf, 0.0, -inf)],
    interval=(-3.5, 3.5),
    ulp={"float16": 0.51, "bfloat16": 0.51, "float32": 1.0, "float64": 1.0},
)
def erfc_backward(grad_output, input):
    c = pick(ERROR_SLOPE, input)
    one = like(input, 1)
    p, p_low, n, down = bell(grad_output, input, one, c)
    y = rounded(last_muladd(p_low, copysign(one, p), magnitude(p)), or_nan(p, grad_output))
    y = times_power(y, -n, down, magnitude(input) <= c.enough)
    return -y if y == y else y
