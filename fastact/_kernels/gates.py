"""Derivatives of gates: of x / (1 + e^-z), where z is an odd function of x.

The derivative d has a zero at a negative x, and d(x) + d(-x) = 1. So it is computed for -|x|, with
t = e^-|z| and w = |x z'|, as t (1 + t - w) / (1 + t)^2. Near the zero, where 1 + t - w cancels, the
exponential is expanded around it: with t0 = w0 - 1, the difference is t - t0 + (w0 - w), and both
terms have the same sign.
"""

from typing import Any, NamedTuple

import numpy as np

from fastact._kernels.elementary import EXP, EXPM1, normalised, product, times, two_sum
from fastact._kernels.logistic import half_sigmoid
from fastact._kernels.products import near_one, towards_one
from fastact._kernels.vocabulary import (
    PerFormat,
    at_least,
    fma,
    horner,
    like,
    magnitude,
    muladd,
    or_nans,
    pick,
    pow2,
    scalar,
)


class Near(NamedTuple):
    """Differences from the zero, each as two terms that do not overlap."""

    t: Any  # t at the zero
    t_low: Any
    z: Any  # |z| at the zero less |z|
    z_low: Any
    w: Any  # w at the zero less w
    w_low: Any


# The greatest |z|: farther below, every gradient is 0.
FARTHEST = PerFormat(np.float32(198.1), 1462.5)

# Products with two more factors: farther below, they are 0. So are, for more factors, those that
# would not be 0 only if the product of the factors overflowed.
GATE_LOWEST = PerFormat(np.float32(-286.0), -2200.0)


class _Slopes(NamedTuple):
    least: Any  # 2^n is not smaller in sums with 1
    near: Any  # how far from its zero |z| is near


_SLOPES = PerFormat(
    _Slopes(np.float32(-60), np.float32(0.3)),
    _Slopes(-200.0, 0.3),
)


class _Zero(NamedTuple):
    """The zero of 1 + e^-z - z, as two terms, and e^-z there."""

    z: Any
    z_low: Any
    t: Any
    t_low: Any


_ZERO = PerFormat(
    _Zero(
        *(np.float32(1.2784645557403564), np.float32(-1.2979282537628478e-08)),
        *(np.float32(0.27846455574035645), np.float32(-1.2979282537628478e-08)),
    ),
    _Zero(
        *(1.2784645427610737, 1.0946994183093437e-16),
        *(0.2784645427610738, -1.5523606315812798e-18),
    ),
)


@scalar
def gate_slope(z, z_low, w, w_low, zero):
    """(d, d_low, n) with d(-|x|) = 2^n (d + d_low) and n <= 0; `zero` is of class :class:`Near`."""
    c = pick(EXP, z)
    limits = pick(_SLOPES, z)
    one, nothing = like(z, 1), like(z, 0)
    near = magnitude(zero.z) < limits.near
    # e^-z = 2^n t0 e^(r + r_low), where t0 is 1, or n is 0.
    n = muladd(z, -c.log2_e, c.shift) - c.shift
    high = muladd(n, -c.ln2_high, -z)
    low = n * -c.ln2_low - z_low
    r = high + low
    r_low = (high - r) + low
    r, r_low = (zero.z if near else r), (zero.z_low if near else r_low)
    t0, t0_low = (zero.t if near else one), (zero.t_low if near else nothing)
    n = nothing if near else n
    power = pow2(at_least(n, limits.least), 0)
    u = power * t0
    # e^r = 1 + r + rest
    rest = muladd(r * r, horner(r, pick(EXPM1, r)), r_low)
    # The denominator is 1 + u e^r, the numerator that less w.
    one_u = one + u
    one_u_low = ((one - one_u) + u) + t0_low * power
    rest_of_w = one - w
    base, base_low = two_sum(rest_of_w, u)
    base_low = base_low + (((one - rest_of_w) - w) - w_low)
    base, base_low = (zero.w if near else base), (zero.w_low if near else base_low)
    change = muladd(u, rest, t0_low * power * r)
    v = fma(u, r, base)
    v, v_low = normalised(v, fma(u, r, base - v) + (base_low + change))
    e = fma(u, r, one_u)
    e, e_low = normalised(e, fma(u, r, one_u - e) + (one_u_low + change))
    q = one / e
    correction = muladd(-q, e_low, fma(-q, e, one))
    # e^r, and t / 2^n
    base = one + r
    exp, exp_low = normalised(base, rest)
    exp_low = ((one - base) + r) + exp_low
    t, t_low = times(t0, t0_low, exp, exp_low)
    a, a_low = times(t, t_low, v, v_low)
    b, b_low = product(q, a, a_low)
    d, d_low = product(q, b, b_low)
    return d, muladd(d, correction + correction, d_low), n


@scalar
def silu_slope(z, z_low):
    """`gate_slope` where w is z, for z >= 0."""
    zero = pick(_ZERO, z)
    r, r_low = normalised(zero.z - z, zero.z_low - z_low)
    return gate_slope(z, z_low, z, z_low, Near(zero.t, zero.t_low, r, r_low, r, r_low))


@scalar
def halved_slope(x, d, d_low, n):
    """(h, h_low, m) with d(x) = 2 2^-m (h + h_low), for d(-|x|) from :func:`gate_slope`."""
    limits = pick(_SLOPES, x)
    one, half = like(x, 1), like(x, 0.5)
    power = pow2(at_least(n, limits.least), 0)
    above = muladd(-power, d, one)
    above_low = muladd(-power, d_low, fma(-power, d, one - above))
    positive = x > like(x, 0)
    d, d_low = (above if positive else d), (above_low if positive else d_low)
    d = d if x == x else x
    return d * half, d_low * half, like(x, 0) if positive else -n


@scalar
def times_sigmoid(a, b, b_low):
    """(p, p_low, n) with a / (1 + e^-(b + b_low)) = 2^n (p + p_low)."""
    q, q_low, n = half_sigmoid(at_least(b, pick(GATE_LOWEST, b)), b_low)
    factor, k = towards_one(a)
    p, p_low, j = near_one(*product(a * factor, q, q_low))
    return or_nans(p, a, b), p_low, n + (k + j) + like(n, 1)
