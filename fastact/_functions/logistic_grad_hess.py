"""The objective of binary classification in gradient boosting."""

from math import inf, nan

from fastact._declarations.declare import objective
from fastact._declarations.sources import EXP_AND_SUMS
from fastact._kernels.elementary import (
    RANGE,
    exp_reduced,
    exp_tail,
    logistic,
    rounded,
    two_sum,
)
from fastact._kernels.logistic import logistic_slope
from fastact._kernels.vocabulary import (
    at_least,
    copysign,
    last_muladd,
    like,
    magnitude,
    muladd,
    pick,
    pow2,
)


@objective(
    summary="Gradient and Hessian of the logistic loss with respect to the score, element-wise.",
    formula="logistic_grad_hess(score, label) = (p - label, p * (1 - p)) with p = sigmoid(score)",
    notes="""The loss is -label log(p) - (1 - label) log(1 - p). With t = e^-|score|, the smaller of
p and 1 - p is t / (1 + t), and their product is t / (1 + t)^2; neither is computed as a difference.
A label above 1/2 is subtracted from 1 first, which is exact up to 2, so that nothing cancels for
labels 0 and 1. For other labels, the error of `grad` is at most one ulp of the smaller of p and
1 - p, apart from the final rounding. `hess` depends on the score alone, also where the label is
NaN. `grad` is NaN for labels beyond 1e20 in magnitude (float64: 1e157)."""
    + EXP_AND_SUMS,
    reference=lambda m, s, y: (
        (1 - y) / (1 + m.exp(-s)) - y / (1 + m.exp(s)),
        1 / ((1 + m.exp(-s)) * (1 + m.exp(s))),
    ),
    specials=[
        (0.0, 0.0, 0.5, 0.25),
        (0.0, 1.0, -0.5, 0.25),
        (0.0, 0.5, 0.0, 0.25),
        (inf, 0.0, 1.0, 0.0),
        (-inf, 1.0, -1.0, 0.0),
    ],
    interval=(-10.0, 10.0),
    ulp={"float16": 0.51, "bfloat16": 0.51, "float32": 0.9, "float64": 0.9},
)
def logistic_grad_hess(score, label):
    limits = pick(RANGE, score)
    one = like(score, 1)
    half = like(score, 0.5)
    n, r, r_low = exp_reduced(at_least(-magnitude(score), limits.lowest))
    scaled = pow2(n, limits.split)
    power = scaled * limits.unsplit
    # With t = 2^n u: 1 / (1 + t), u / (1 + t), and u / (1 + t)^2.
    q, c = logistic(n, r, -power)
    q_low = q * c
    p, p_low, h, h_low = logistic_slope(q, c, r, exp_tail(r) + r_low)
    hess = rounded(last_muladd(h_low, one, h), h) * scaled * limits.unsplit
    hess = hess if hess == hess else like(hess, nan)
    # Scaled by 2^split: the probability of the label that is farther away, minus the distance of
    # `label` from the nearer one.
    flipped = label > half
    near = one - label if flipped else label
    x = -score if flipped else score
    small = x < like(x, 0)
    factor = scaled if small else limits.upsplit
    base, base_low = (p if small else q), (p_low if small else q_low)
    high, low = two_sum(base * factor, -near * limits.upsplit)
    low = muladd(base_low, factor, low)
    v = high + low
    low = low - (v - high)
    v = rounded(last_muladd(low, copysign(one, v), magnitude(v)), v)
    v = v * limits.unsplit
    grad = -v if flipped else v
    return grad if grad == grad else like(grad, nan), hess
