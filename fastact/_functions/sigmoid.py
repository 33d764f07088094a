"""The logistic sigmoid and its derivative."""

from math import inf, nan

from fastact._declarations.declare import activation, derivative
from fastact._declarations.records import TorchModule
from fastact._declarations.sources import BY_TABLES, EXP_AND_SUMS
from fastact._kernels.elementary import EXP, RANGE, exp_reduced, logistic, product, rounded, scales
from fastact._kernels.tables import SIGMOID
from fastact._kernels.vocabulary import (
    at_least,
    at_most,
    copysign,
    last_muladd,
    like,
    lookup,
    magnitude,
    muladd,
    number_at_least,
    or_nan,
    pick,
    polynomial,
    pow2,
    pow2_of_sum,
    with_tables,
)


def _sigmoid_by_tables(x):
    c = pick(EXP, x)
    limits = pick(RANGE, x)
    tables = SIGMOID
    z = number_at_least(-magnitude(x), limits.lowest)
    total = muladd(z, c.log2_e, tables.shift)
    row = at_least(total, tables.last)
    # Exact except for the last product, which is 0 unless x is below all rows.
    beyond = total - row
    t = muladd(beyond, -c.ln2_high, z) - lookup(tables.pieces.centre, row)
    t = muladd(beyond, -c.ln2_low, t)
    slope = polynomial(t, tables.pieces.slope, row)
    y = last_muladd(t, slope, lookup(tables.pieces.value, row))
    y = y * (pow2_of_sum(total) if x == x else x)  # exact; y is a number so far, even if x is NaN
    rest = last_muladd(y, like(x, -1), limits.upsplit)
    return (rest if x > like(x, 0) else y) * limits.unsplit


@activation(
    summary="Logistic sigmoid, element-wise.",
    formula="sigmoid(x) = 1 / (1 + exp(-x))",
    notes="""With e^-x = 2^n (1 + r + w), the result is a / (a + b (1 + r + w)) where
a = 2^-max(n, 0) and b = 2^min(n, 0). The four terms of the denominator are summed with their
rounding error. Then one division and one Newton step with the residual give the quotient."""
    + EXP_AND_SUMS
    + BY_TABLES.format("as 2^n p(t) for negative x and as 1 - 2^n p(t) for positive x"),
    reference=lambda m, x: 1 / (1 + m.exp(-x)),
    specials=[(-inf, 0.0), (inf, 1.0), (0.0, 0.5)],
    interval=(-10.0, 10.0),
    ulp={"float16": 0.5, "bfloat16": 0.5, "float32": 0.88, "float64": 0.9},
    nondecreasing=True,
    range=(0.0, 1.0),
    steepest=0.25,
    torch_modules=[TorchModule("Sigmoid")],
    sklearn_names=["logistic"],
)
@with_tables(_sigmoid_by_tables)
def sigmoid(x):
    limits = pick(RANGE, x)
    zero = like(x, 0)
    # A difference, not a negation, so that the sign of a NaN stays unchanged to the end.
    n, r, _ = exp_reduced(zero - at_least(at_most(x, limits.enough), limits.lowest))
    # a scaled by 2^split; 1 or 2^-|n|.
    scaled = pow2(-magnitude(n), limits.split)
    a = scaled if n > zero else limits.upsplit
    q, c = logistic(n, r, scaled * -limits.unsplit)
    q = last_muladd(q, c, q)
    return q * a * limits.unsplit


@derivative(
    formula="sigmoid_backward(grad_output, output) = grad_output * output * (1 - output)",
    notes="""Products and the difference carry their rounding errors, so that the result is rounded
once, and a second time only where it is subnormal. For an infinite `grad_output`, the result is
infinite, or NaN where `output` is 0 or 1. sigmoid never returns values outside [0, 1]; an `output`
up to 300 in magnitude is handled as accurately, and beyond that the result may overflow early.""",
    reference=lambda m, g, y: g * y * (1 - y),
    slope=lambda m, y: 1 - 2 * y,
    infinity_times_zero=nan,
    specials=[(2.0, 0.5, 0.5), (2.0, 0.0, 0.0), (2.0, 1.0, 0.0), (inf, 0.5, inf)],
    interval=(0.0, 1.0),
    ulp={"float16": 0.5, "bfloat16": 0.51, "float32": 0.76, "float64": 0.76},
)
def sigmoid_backward(grad_output, output):
    one = like(output, 1)
    rest = one - output
    t, t_low = product(output, rest, (one - rest) - output)
    up, down = scales(grad_output)
    p, p_low = product(grad_output * up, t, t_low)
    y = last_muladd(p_low, copysign(one, p), magnitude(p))
    return rounded(y, or_nan(p, grad_output)) * down
