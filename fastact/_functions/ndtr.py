"""The distribution function of the standard normal distribution and its derivative."""

from math import inf, nan

from fastact._declarations.declare import activation, derivative
from fastact._declarations.sources import BELL_BY_TABLES
from fastact._kernels.elementary import rounded, times_power
from fastact._kernels.normal import DENSITY, RATIO, TAIL, bell, far_variable, gaussian, tail
from fastact._kernels.tables import NDTR, bell_pieces
from fastact._kernels.vocabulary import (
    at_most,
    copysign,
    last_muladd,
    like,
    magnitude,
    or_nan,
    pick,
    pow2_of_sum,
    with_variants,
)


def _ndtr_by_tables(x):
    s = bell_pieces(at_most(magnitude(x), NDTR.enough), NDTR)
    unit = NDTR.unit if x < like(x, 0) else -NDTR.unit
    y = last_muladd(s, unit, like(x, 0) if x < like(x, 0) else like(x, 1))
    return y if x == x else x + x


@activation(
    summary="Distribution function of the standard normal distribution, element-wise.",
    formula="ndtr(x) = (1 + erf(x / sqrt(2))) / 2",
    notes="""Same as ``scipy.special.ndtr``, also called Phi. The result is Q(a) for negative `x`
and 1 - Q(a) otherwise, where a = |x| and Q(a) is the probability that a standard normal variable
is above `a`. It is computed as for :func:`fastact.gelu`, so that results for negative `x` are as
accurate as others, down to the subnormals."""
    + BELL_BY_TABLES,
    reference=lambda m, x: m.erfc(x / -m.sqrt(2.0)) / 2,
    elsewhere={
        "PyTorch": "special.ndtr",
        "JAX": "scipy.special.ndtr",
        "SciPy": "special.ndtr",
    },
    specials=[(-inf, 0.0), (inf, 1.0), (0.0, 0.5), (-0.0, 0.5)],
    interval=(-5.0, 5.0),
    ulp={"float16": 0.5, "bfloat16": 0.5, "float32": 1.0, "float64": 1.0},
    nondecreasing=True,
    range=(0.0, 1.0),
    steepest=0.3989422804014327,
)
@with_variants(tables=_ndtr_by_tables, tables_in_16_bits=False, stages={("float32", 512): 2})
def ndtr(x):
    c = pick(TAIL, x)
    half, one, zero = like(x, 0.5), like(x, 1), like(x, 0)
    a = at_most(magnitude(x), c.zero)
    total, _, r, w = gaussian(a * half, a, c.shift)
    power = pow2_of_sum(total) * c.unit
    e, m = tail(a, like(a, -0.0), far_variable(a, pick(RATIO, a)), half, r, w)
    # Each is rounded to odd in 16 bits: for negative `x`, the last one is exact.
    s = last_muladd(like(m, 1), m, e)
    power = power if x < zero else -power
    y = last_muladd(power, s, zero if x < zero else one)
    return y if x == x else x + x


@derivative(
    formula="ndtr_backward(grad_output, input) = grad_output * exp(-input**2 / 2) / sqrt(2 * pi)",
    notes="""The square and the product carry their rounding errors. Powers of 2 are multiplied
last, so that the result is accurate also where the derivative alone would underflow. For an
infinite `grad_output`, the result is infinite, or NaN where the magnitude of `input` is above 54.02
in float64 and above 19.77 in the other formats.""",
    reference=lambda m, g, x: g * (m.exp(-x * x / 2) / m.sqrt(8 * m.atan(1.0))),
    slope=lambda m, x: -x * m.exp(-x * x / 2) / m.sqrt(8 * m.atan(1.0)),
    infinity_times_zero=nan,
    specials=[(2.0, inf, 0.0), (2.0, -inf, 0.0), (-2.0, inf, -0.0), (inf, 0.0, inf)],
    interval=(-5.0, 5.0),
    ulp={"float16": 0.51, "bfloat16": 0.51, "float32": 1.0, "float64": 1.0},
)
def ndtr_backward(grad_output, input):
    c = pick(DENSITY, input)
    one = like(input, 1)
    p, p_low, n, down = bell(grad_output, input, like(input, 0.5), c)
    y = rounded(last_muladd(p_low, copysign(one, p), magnitude(p)), or_nan(p, grad_output))
    return times_power(y, -n, down, magnitude(input) <= c.enough)
