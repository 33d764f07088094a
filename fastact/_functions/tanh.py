"""The hyperbolic tangent and its derivative."""

from math import inf, nan
from typing import Any, NamedTuple

import numpy as np

from fastact._declarations.declare import activation, derivative
from fastact._declarations.records import Fast, KerasFunction, OnnxOperator, TorchModule
from fastact._declarations.sources import BY_TABLES, EXP_AND_SUMS, NARROW
from fastact._kernels.elementary import (
    BELOW,
    EXP,
    product,
    reflected,
    rounded,
    scales,
)
from fastact._kernels.tables import TANH, odd_pieces
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
    number_at_least,
    or_nan,
    pick,
    pow2_of_sum,
    scalar,
    with_variants,
)


class _Tanh(NamedTuple):
    enough: Any  # above, the result is 1
    shift: Any  # as for pow2_of_sum, for 2^n / 2
    lowest: Any  # the smallest sum: below, 2^n would not matter, but disturb the residual
    ln2: Any
    ln2_low: Any  # 0 where the error of n ln(2) is small enough
    tail: tuple[Any, ...]  # (e^-r - 1 + r) / r^2


_TANH = PerFormat(
    single=_Tanh(
        enough=np.float32(9.02),
        shift=np.float32(1.5 * 2.0**23 + 126),
        lowest=np.float32(1.5 * 2.0**23 + 126 - 24),
        ln2=BELOW.single.ln2,
        ln2_low=BELOW.single.ln2_low,
        tail=reflected(BELOW.single.tail),
    ),
    double=_Tanh(
        enough=19.1,
        shift=1.5 * 2.0**52 + 1022,
        lowest=1.5 * 2.0**52 + 1022 - 53,
        ln2=BELOW.double.ln2,
        ln2_low=BELOW.double.ln2_low,
        tail=reflected(BELOW.double.tail),
    ),
)

# tanh(x) = x p(x^2) / q(x^2) for 16-bit formats; see tools/narrow.py.
_NARROW_ENOUGH = np.float32(4.55)  # from here on, the quotient rounds to 1
_NARROW_P = tuple(np.float32(c) for c in (1.0, 0.12596339, 0.002557568, 5.49365e-06))
_NARROW_Q = tuple(np.float32(c) for c in (1.0, 0.45929655, 0.022323458, 0.00017504337))


def _tanh_by_tables(x):
    t, slope, base = odd_pieces(x, TANH)
    return copysign(last_muladd(t, slope, base), x)


def _narrow(x):
    x = at_least(at_most(x, _NARROW_ENOUGH), -_NARROW_ENOUGH)
    square = x * x
    return x * horner(square, _NARROW_P) / horner(square, _NARROW_Q)


@scalar
def _reduced(x):
    """(u, n, r) with e^-2|x| = 2 u e^-r, u = 2^(n-1) and |r| <= ln(2)/2, for x clamped."""
    limits = pick(_TANH, x)
    exp = pick(EXP, x)
    a = at_most(magnitude(x), limits.enough)
    a = a + a
    total = number_at_least(muladd(a, -exp.log2_e, limits.shift), limits.lowest)
    n = total - limits.shift
    return pow2_of_sum(total), n, muladd(n, limits.ln2, a)


@with_variants(
    tables=_tanh_by_tables,
    narrow=_narrow,
    vectors={("float64", 256): 8, ("float64", 512): 8},
)
def fast_tanh(x):
    one = like(x, 1)
    u, _, r = _reduced(x)
    power = muladd(-r, horner(r, pick(_TANH, x).tail), one)
    p = muladd(u * r, power, like(x, 0.5) - u)
    return copysign(p / (one - p), x)


@activation(
    summary="Hyperbolic tangent, element-wise.",
    formula="tanh(x) = (1 - exp(-2|x|)) / (1 + exp(-2|x|)), with the sign of x",
    notes="""With p = (1 - e^-2|x|) / 2, which is summed with its rounding error, the result is
p / (1 - p). The division is corrected once: its residual is exact, since p <= p / (1 - p) <= 2 p
(Sterbenz's lemma)."""
    + EXP_AND_SUMS
    + BY_TABLES.format("as p(t) with the sign of x")
    + NARROW,
    reference=lambda m, x: m.tanh(x),
    measured_in_full=True,
    elsewhere={
        "PyTorch": "tanh",
        "JAX": "nn.tanh",
        "Keras": "tanh",
        "ONNX": "Tanh",
        "NumPy": "tanh",
    },
    specials=[(-inf, -1.0), (inf, 1.0), (0.0, 0.0), (-0.0, -0.0)],
    interval=(-5.0, 5.0),
    ulp={"float16": 0.5, "bfloat16": 0.5, "float32": 0.94, "float64": 0.85},
    nondecreasing=True,
    range=(-1.0, 1.0),
    steepest=1.0,
    torch_modules=[TorchModule("Tanh")],
    sklearn_names=["tanh"],
    keras_functions=[KerasFunction("nn.tanh"), KerasFunction("numpy.tanh")],
    pytensor_ops=["basic.Tanh"],
    fast=Fast(fast_tanh, ulp={"float32": 2.57, "float64": 2.8}),
    onnx_operators=[OnnxOperator("Tanh")],
)
@with_variants(
    tables=_tanh_by_tables,
    narrow=_narrow,
    vectors={("float64", 512): 8},
    stages={("float32", 512): 4, ("float64", 256): 3},
)
def tanh(x):
    limits = pick(_TANH, x)
    one = like(x, 1)
    u, n, r = _reduced(x)
    # p + p_low is the sum of 1/2, -u and -u (e^-r - 1).
    ur = u * r
    rest = like(x, 0.5) - u
    high = rest + ur
    low = muladd(-(ur * r), horner(r, limits.tail), (rest - high) + ur)
    if limits.ln2_low != like(x, 0):  # known at compile time
        low = muladd(u, n * limits.ln2_low, low)
    p = high + low
    p_low = (high - p) + low
    q = p / (one - p)
    # The derivative of p / (1 - p) is 1 / (1 - p)^2, and 1 + q is 1 / (1 - p).
    slope = one + q
    residual = muladd(p_low, slope, fma(q, p, p - q))
    return copysign(last_muladd(residual, slope, q), x)


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
