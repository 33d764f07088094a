"""Objectives of gradient boosting: first and second derivative of a loss in one pass.

Declared as the activations are, in ``activations.py``.
"""

import math as _math

from fastact._declare import objective as _objective
from fastact._kernels import elementary as _e
from fastact._kernels import vocabulary as _s

_inf = _math.inf
_nan = _math.nan


@_objective(
    summary="Gradient and Hessian of the logistic loss by the score, element-wise.",
    formula="logistic_grad_hess(score, label) = (p - label, p * (1 - p)) with p = sigmoid(score)",
    notes="""The loss is -label log(p) - (1 - label) log(1 - p). With t = e^-|score|, the smaller of
p and 1 - p is t / (1 + t), and their product t / (1 + t)^2; neither is got by a difference. A
label above 1/2 is taken from 1 first, which is exact up to 2, so that nothing cancels for labels
0 and 1. For others, `grad` is within an ulp of the smaller of p and 1 - p, besides rounding, as are
all such differences. `hess` depends on the score alone, also where the label is NaN. `grad` of
labels beyond 1e20 (float64: 1e157) is NaN.

The argument of exp is reduced as by W. J. Cody and W. Waite, "Software Manual for the
Elementary Functions" (1980); sums carry their rounding errors as by T. J. Dekker, "A
floating-point technique for extending the available precision" (1971).""",
    reference=lambda m, s, y: (
        (1 - y) / (1 + m.exp(-s)) - y / (1 + m.exp(s)),
        1 / ((1 + m.exp(-s)) * (1 + m.exp(s))),
    ),
    specials=[
        (0.0, 0.0, 0.5, 0.25),
        (0.0, 1.0, -0.5, 0.25),
        (0.0, 0.5, 0.0, 0.25),
        (_inf, 0.0, 1.0, 0.0),
        (-_inf, 1.0, -1.0, 0.0),
    ],
    interval=(-10.0, 10.0),
    ulp={"float16": 0.51, "bfloat16": 0.51, "float32": 0.9, "float64": 0.9},
)
def logistic_grad_hess(score, label):
    limits = _s.pick(_e.RANGE, score)
    one = _s.like(score, 1)
    half = _s.like(score, 0.5)
    n, r, r_low = _e.exp_reduced(_s.at_least(-_s.magnitude(score), limits.lowest))
    scaled = _s.pow2(n, limits.split)
    power = scaled * limits.unsplit
    # With t = 2^n u: 1 / (1 + t) = q + q_low, u / (1 + t) = p + p_low, and u / (1 + t)^2.
    q, c = _e.logistic(n, r, -power)
    q_low = q * c
    u = one + r
    u_low = ((one - u) + r) + (_e.exp_short_tail(r) + r_low)
    p, p_low = _e.product(q, u, _s.muladd(u, c, u_low))
    h, h_low = _e.product(q, p, _s.muladd(p, c, p_low))
    hess = _e.rounded(_s.last_muladd(h_low, one, h), h) * scaled * limits.unsplit
    hess = hess if hess == hess else _s.like(hess, _nan)
    # All 2^split too large: the probability of the other label, less how far off `label` is from
    # the nearer one.
    flipped = label > half
    near = one - label if flipped else label
    x = -score if flipped else score
    small = x < _s.like(x, 0)
    factor = scaled if small else limits.upsplit
    base, base_low = (p if small else q), (p_low if small else q_low)
    high, low = _e.add(base * factor, -near * limits.upsplit)
    low = _s.muladd(base_low, factor, low)
    v = high + low
    low = low - (v - high)
    v = _e.rounded(_s.last_muladd(low, _s.copysign(one, v), _s.magnitude(v)), v)
    v = v * limits.unsplit
    grad = -v if flipped else v
    return grad if grad == grad else _s.like(grad, _nan), hess
