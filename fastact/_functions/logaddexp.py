"""The logarithm of the sum of two exponentials and its derivatives."""

from math import inf, nan

from fastact._declarations.declare import activation, derivative
from fastact._kernels.elementary import rounded, two_sum
from fastact._kernels.gates import GATE_LOWEST, times_sigmoid
from fastact._kernels.log1pexp import accurate_parts
from fastact._kernels.products import times_pow2
from fastact._kernels.vocabulary import (
    copysign,
    last_muladd,
    like,
    magnitude,
    muladd,
    or_nan,
    or_nans,
    pick,
    quiet,
    scalar,
    with_variants,
)


@scalar
def _or_zero(low, high):
    """`low`, the rounding error of `high`, or 0 where that is infinite."""
    return low if low == low else like(high, 0)


def _narrow(x1, x2):
    larger = x1 if x1 > x2 else x2
    # The rounding error of the difference does not matter in 16 bits.
    power, s, s_low = accurate_parts(x1 - x2, like(x1, 0))
    high, low = two_sum(larger, power * s)
    low = muladd(power, s_low, _or_zero(low, high))
    # Where the two cancel, `low` may be more than `high`.
    total = high + low
    low = _or_zero((high - total) + low, high)
    y = last_muladd(low, copysign(like(x1, 1), total), magnitude(total))
    # Infinity with an odd significand is NaN.
    return quiet(or_nans(copysign(y if y == y else total, total), x1, x2))


def _larger(m, x1, x2):
    return x1 * (x1 >= x2) + x2 * (x1 < x2)


@activation(
    summary="Logarithm of the sum of two exponentials, element-wise.",
    formula="logaddexp(x1, x2) = log(exp(x1) + exp(x2))",
    notes="""Same as ``numpy.logaddexp``. The result is m + log(1 + e^-d), where m is the larger
number and d the distance of the two, with its rounding error. The logarithm is computed as for
:func:`fastact.softplus`, and carries its rounding error. Where m and the logarithm cancel, the
error can be larger than the bound below, but is at most 2^-24 times |m| (float64: 2^-53).""",
    reference=lambda m, x1, x2: _larger(m, x1, x2) + m.log1p(m.exp(-abs(x1 - x2))),
    cancelling=_larger,
    elsewhere={
        "PyTorch": "logaddexp",
        "JAX": "numpy.logaddexp",
        "Keras": "ops.logaddexp",
        "NumPy": "logaddexp",
    },
    specials=[
        (inf, inf, inf),
        (-inf, -inf, -inf),
        (inf, -inf, inf),
        (-inf, 1.5, 1.5),
        (1.5, -inf, 1.5),
        (-0.0, -inf, 0.0),
    ],
    interval=(-10.0, 10.0),
    ulp={"float16": 0.51, "bfloat16": 0.51, "float32": 1.0, "float64": 1.0},
)
@with_variants(narrow=_narrow)
def logaddexp(x1, x2):
    first = x1 > x2
    larger = x1 if first else x2
    distance, distance_low = two_sum(larger, -(x2 if first else x1))
    power, s, s_low = accurate_parts(distance, _or_zero(distance_low, distance))
    high, low = two_sum(larger, power * s)
    return quiet(or_nans(high + muladd(power, s_low, _or_zero(low, high)), x1, x2))


@derivative(
    formula="logaddexp_backward(grad_output, x1, x2) = (grad_output / (1 + exp(x2 - x1)), "
    "grad_output / (1 + exp(x1 - x2)))",
    notes="""The gradients with respect to `x1` and `x2`. The difference and its sigmoid carry their
rounding errors, and powers of 2 are multiplied last. For two equal infinities, the gradients are
NaN, as those of PyTorch.""",
    reference=lambda m, g, x1, x2: (g / (1 + m.exp(x2 - x1)), g / (1 + m.exp(x1 - x2))),
    specials=[
        (2.0, 0.5, 0.5, 1.0, 1.0),
        (2.0, inf, 0.5, 2.0, 0.0),
        (2.0, -inf, 0.5, 0.0, 2.0),
        (2.0, inf, inf, nan, nan),
        (2.0, -inf, -inf, nan, nan),
    ],
    interval=(-10.0, 10.0),
    ulp={"float16": 0.51, "bfloat16": 0.51, "float32": 0.95, "float64": 0.95},
)
def logaddexp_backward(grad_output, x1, x2):
    d, d_low = two_sum(x1, -x2)
    # Farther apart, one gradient is 0, whatever the rounding error.
    d_low = d_low if magnitude(d) < -pick(GATE_LOWEST, d) else like(d, 0)
    p, p_low, n = times_sigmoid(grad_output, d, d_low)
    y = last_muladd(p_low, copysign(like(p, 1), p), magnitude(p))
    of_x1 = or_nans(times_pow2(rounded(y, p), n), x1, x2)
    p, p_low, n = times_sigmoid(grad_output, -d, -d_low)
    y = last_muladd(p_low, copysign(like(p, 1), p), magnitude(p))
    of_x2 = or_nans(times_pow2(rounded(y, p), n), x1, x2)
    return quiet(or_nan(of_x1, grad_output)), quiet(or_nan(of_x2, grad_output))
