"""The smooth rectifier and its derivative."""

from math import inf, nan

from fastact._declarations.declare import activation, derivative
from fastact._declarations.records import TorchModule
from fastact._declarations.sources import EXP_AND_SUMS
from fastact._kernels.elementary import (
    EXP,
    LOG,
    LOWEST_SLOPE,
    RANGE,
    add_product,
    exp_reduced,
    exp_tail,
    log1p_rest,
    logistic,
    product,
    rounded,
    scales,
)
from fastact._kernels.vocabulary import (
    at_least,
    at_most,
    copysign,
    last_muladd,
    like,
    magnitude,
    muladd,
    or_nan,
    pick,
    pow2,
)

# Above its threshold, torch returns x, which is 2e-9 too small at 20.
_TORCH = TorchModule(
    "Softplus",
    lambda module: module.beta == 1 and module.threshold >= 20,
    "have beta=1 and a threshold of at least 20",
)


@activation(
    summary="Smooth rectifier, element-wise.",
    formula="softplus(x) = log(1 + exp(x))",
    notes="""Computed as max(x, 0) + log(1 + t) with t = e^-|x|. Where t > 1/2, the logarithm is
log(2) + log(1 + (t - 1)/2), so that its polynomial covers only [-1/4, 1/2]. There is no
threshold above which x replaces the result."""
    + EXP_AND_SUMS,
    reference=lambda m, x: (x + abs(x)) / 2 + m.log1p(m.exp(-abs(x))),
    specials=[(-inf, 0.0), (inf, inf)],
    interval=(-10.0, 10.0),
    ulp={"float16": 0.5, "bfloat16": 0.5, "float32": 0.93, "float64": 0.9},
    nondecreasing=True,
    range=(0.0, inf),
    steepest=1.0,
    torch_modules=[_TORCH],
)
def softplus(x):
    limits = pick(RANGE, x)
    log = pick(LOG, x)
    one = like(x, 1)
    half = like(x, 0.5)
    zero = like(x, 0)
    # -|x|, but at least `lowest` for negative x and -`enough` for positive x, since results may
    # be scaled only for negative x.
    floor = at_least(at_most(x, -limits.enough), limits.lowest)
    n, r, r_low = exp_reduced(at_least(-magnitude(x), floor))
    w = exp_tail(r, r_low)
    c = pow2(at_least(n, -limits.split), 0)
    scale = pow2(at_most(n, -limits.split), limits.split)
    t, t_low = add_product(c, c, r)
    t_low = muladd(c, w, t_low)
    upper = t > half
    f = muladd(half, t, -half) if upper else t
    f_low = half * t_low if upper else t_low
    f, f_low = add_product(f, one, f_low)
    f_low = log1p_rest(f, f_low)
    base, base_low = add_product(log.ln2_high if upper else zero, one, at_least(x, zero))
    base_low += log.ln2_low if upper else zero
    y, y_low = add_product(base, one, f)
    y = last_muladd(y_low + (base_low + f_low), one, y)
    # y is never below x. Where x is NaN or +inf, the sums above are NaN, and this returns x.
    return at_least(x, y) * scale


@derivative(
    formula="softplus_backward(grad_output, input) = grad_output / (1 + exp(-input))",
    notes="""The sigmoid of `input`, with its rounding error, is multiplied by `grad_output`. Powers
of 2 are multiplied last, so that the result is accurate also where the sigmoid alone would
underflow to 0. (In float64, the result is 0 where `input` is below -1418.5.) For an infinite
`grad_output`, the result is infinite, or NaN where `input` is below -1418.5 in float64 and
below -192.5 in the other formats."""
    + EXP_AND_SUMS,
    reference=lambda m, g, x: g / (1 + m.exp(-x)),
    slope=lambda m, x: (1 - m.tanh(x / 2) ** 2) / 4,
    of_output=lambda m, y: -m.expm1(-y),
    infinity_times_zero=nan,
    specials=[(2.0, 0.0, 1.0), (2.0, inf, 2.0), (2.0, -inf, 0.0), (inf, 0.0, inf)],
    interval=(-10.0, 10.0),
    ulp={"float16": 0.51, "bfloat16": 0.51, "float32": 0.9, "float64": 0.9},
)
def softplus_backward(grad_output, input):
    limits = pick(RANGE, input)
    lowest = pick(LOWEST_SLOPE, input)
    shift = pick(EXP, input).shift
    one = like(input, 1)
    zero = like(input, 0)
    # A difference, not a negation, as in sigmoid.
    n, r, _ = exp_reduced(zero - at_least(at_most(input, limits.enough), lowest))
    q, c = logistic(n, r, -pow2(-at_most(magnitude(n), limits.split), 0))
    # Half of the product, since q may be above 1. It is scaled, so that nothing is subnormal
    # before the end.
    q = like(q, 0.5) * q
    up, down = scales(grad_output)
    p, p_low = product(grad_output * up, q, q * c)
    y = last_muladd(p_low, copysign(one, p), magnitude(p))
    # 2 * 2^-n, as three factors that are normal numbers.
    n = at_least(n, zero) - one
    third = muladd(n, like(n, 1 / 3), shift) - shift
    s = pow2(-third, 0)
    t = pow2(third + third - n, 0)
    t = t if input >= lowest else zero
    y = rounded(y, or_nan(p, grad_output))
    return y * at_least(down, one) * s * s * t * at_most(down, one)
