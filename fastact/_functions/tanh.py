"""The hyperbolic tangent and its derivative."""

from math import inf, nan

from fastact._declarations.declare import activation, derivative
from fastact._declarations.records import TorchModule
from fastact._declarations.sources import BY_TABLES, EXP_AND_SUMS
from fastact._kernels.elementary import (
    RANGE,
    add_product,
    exp_scaled,
    exp_tail,
    product,
    rounded,
    scales,
)
from fastact._kernels.tables import TANH
from fastact._kernels.vocabulary import (
    at_most,
    copysign,
    fma,
    last_muladd,
    like,
    lookup,
    magnitude,
    muladd,
    or_nan,
    pick,
    polynomial,
    with_tables,
)


def _tanh_by_tables(x):
    tables = TANH
    a = at_most(magnitude(x), tables.enough)
    row = muladd(a, tables.per_unit, tables.shift)
    t = a - lookup(tables.pieces.centre, row)
    slope = polynomial(t, tables.pieces.slope, row)
    base = a if row == tables.shift else lookup(tables.pieces.value, row)
    return copysign(last_muladd(t, slope, base), x)


@activation(
    summary="Hyperbolic tangent, element-wise.",
    formula="tanh(x) = (1 - exp(-2|x|)) / (1 + exp(-2|x|)), with the sign of x",
    notes="""With e^-2|x| = 2^n (1 + r + w), the numerator and the denominator are summed with their
rounding errors. Then one division and one correction with the residual give the quotient."""
    + EXP_AND_SUMS
    + BY_TABLES.format("as p(t) with the sign of x"),
    reference=lambda m, x: m.tanh(x),
    specials=[(-inf, -1.0), (inf, 1.0), (0.0, 0.0), (-0.0, -0.0)],
    interval=(-5.0, 5.0),
    ulp={"float16": 0.5, "bfloat16": 0.5, "float32": 0.76, "float64": 0.85},
    nondecreasing=True,
    range=(-1.0, 1.0),
    steepest=1.0,
    torch_modules=[TorchModule("Tanh")],
    sklearn_names=["tanh"],
)
@with_tables(_tanh_by_tables)
def tanh(x):
    limits = pick(RANGE, x)
    one = like(x, 1)
    two = like(x, 2)
    c, r, r_low = exp_scaled(-two * at_most(magnitude(x), limits.enough))
    w = exp_tail(r, r_low)
    # The numerator p + p_low is the sum of 1, -c, -c r and -c w; the denominator is 2 minus it.
    p, p_low = add_product(one, -c, one)
    p, rest = add_product(p, -c, r)
    p_low = muladd(-c, w, p_low + rest)
    p, p_low = add_product(p, one, p_low)
    reciprocal = one / (two - p)
    q = p * reciprocal
    # p + p_low - q (2 - p - p_low), where p - 2 q is exact, since p/2 <= q <= p.
    residual = fma(q, p, muladd(-two, q, p)) + muladd(q, p_low, p_low)
    return copysign(last_muladd(residual, reciprocal, q), x)


@derivative(
    formula="tanh_backward(grad_output, output) = grad_output * (1 - output**2)",
    notes="""Products and the difference carry their rounding errors, so that the result is rounded
once, also where the square is nearly 1, and a second time only where it is subnormal. For an
infinite `grad_output`, the result is infinite, or NaN where `output` is 1 or -1. tanh never returns
values outside [-1, 1]; an `output` up to 300 in magnitude is handled as accurately, and beyond that
the result may overflow early.""",
    reference=lambda m, g, y: g * (1 - y * y),
    slope=lambda m, y: -2 * y,
    infinity_times_zero=nan,
    specials=[(2.0, 0.0, 2.0), (2.0, 0.5, 1.5), (2.0, 1.0, 0.0), (2.0, -1.0, 0.0)],
    interval=(-1.0, 1.0),
    ulp={"float16": 0.5, "bfloat16": 0.5, "float32": 0.76, "float64": 0.76},
)
def tanh_backward(grad_output, output):
    one = like(output, 1)
    square = output * output
    d = one - square
    d_low = ((one - d) - square) - fma(output, output, -square)
    up, down = scales(grad_output)
    p, p_low = product(grad_output * up, d, d_low)
    y = last_muladd(p_low, copysign(one, p), magnitude(p))
    return rounded(y, or_nan(p, grad_output)) * down
