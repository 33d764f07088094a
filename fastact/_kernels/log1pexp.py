"""log(1 + e^-|x|) with its rounding error, for softplus and what is computed from it."""

from math import log
from typing import Any, NamedTuple

import numpy as np

from fastact._kernels import elementary
from fastact._kernels.elementary import EXP, EXPM1, LOG1P, Fit
from fastact._kernels.vocabulary import (
    PerFormat,
    fma,
    horner,
    like,
    magnitude,
    muladd,
    number_at_least,
    pick,
    pow2_of_sum,
    scalar,
)


class _Log1pExp(NamedTuple):
    """Constants; 2^n is computed divided by `unit`, so that it is not subnormal."""

    lowest: Any  # at and below this argument of exp, 2^n is 0
    shift: Any  # as for pow2_of_sum, for 2^n / unit
    unit: Any


LOG1PEXP = PerFormat(
    single=_Log1pExp(
        lowest=np.float32(-167 * log(2)),
        shift=np.float32(1.5 * 2.0**23 + 167),
        unit=np.float32(2.0**-40),
    ),
    double=_Log1pExp(lowest=-1123 * log(2), shift=1.5 * 2.0**52 + 1123, unit=2.0**-100),
)

# 1 / (1 + t) in powers of -t/4, to 0.09 and 0.03.
_LINEAR = PerFormat((np.float32(1), np.float32(2.2)), (1.0, 2.2))
_QUADRATIC = PerFormat((np.float32(1), np.float32(3.6), np.float32(6.4)), (1.0, 3.6, 6.4))

# As `LOG1P`, with one degree more in binary32: its error alone would be 1/4 ulp.
_ACCURATE_LOG1P = PerFormat(
    single=tuple(
        np.float32(c)
        for c in (
            *(-0.12813957035541534, 0.1792249083518982, -0.09323003888130188),
            *(0.051085200160741806, -0.028954196721315384, 0.01676073670387268),
            *(-0.009764807298779488, 0.006066703703254461, -0.0043685850687325),
            0.002183679025620222,
        )
    ),
    double=LOG1P.double,
)


@scalar
def power_below_one(x):
    """(n, 2^n / unit, -|x|), with n = -|x| / ln(2) rounded."""
    limits = pick(LOG1PEXP, x)
    x = number_at_least(-magnitude(x), limits.lowest)
    total = muladd(x, pick(EXP, x).log2_e, limits.shift)
    return total - limits.shift, pow2_of_sum(total), x


@scalar
def _negative_exp(x, tail):
    """(power, e, e_low) with e^-|x| = power (e + e_low), where `e` is near `unit`."""
    exp = pick(EXP, x)
    unit = pick(LOG1PEXP, x).unit
    n, power, a = power_below_one(x)
    # The sum high + n_low is r without its last rounding.
    high = muladd(n, -exp.ln2_high, a)
    n_low = n * -exp.ln2_low
    r = high + n_low
    w = muladd(r * r, horner(r, tail), n_low)
    e = muladd(w, unit, muladd(high, unit, unit))
    return power, e, muladd(w, unit, muladd(high, unit, unit - e))


@scalar
def _log1p(power, e, e_low, reciprocal, q):
    """(s, s_low) with log1p(power (e + e_low)) = power (s + s_low).

    `reciprocal` is a polynomial in -t/4 for 1 / (1 + t), by which `e_low` is multiplied.
    """
    t = power * e
    # log1p(t) / 2^n, times unit: s + s_low is e - e t/4 + e_low / (1 + t) + e t q(t).
    quarter = t * like(e, -0.25)
    s_high = muladd(e, quarter, e)
    rest = fma(e, quarter, e - s_high)
    rest = muladd(e_low, horner(quarter, reciprocal), rest)
    rest = muladd(e * t, horner(t - like(e, 0.5), q), rest)
    s = s_high + rest
    return s, (s_high - s) + rest


@scalar
def parts(x):
    """(power, s, s_low) with log(1 + e^-|x|) = power (s + s_low)."""
    power, e, e_low = _negative_exp(x, pick(EXP, x).tail)
    s, s_low = _log1p(power, e, e_low, pick(_LINEAR, x), pick(LOG1P, x))
    return power, s, s_low


@scalar
def accurate_parts(x, x_low):
    """:func:`parts` for x + x_low to about 1/8 ulp, where `x` is positive and `x_low` its error."""
    power, e, e_low = _negative_exp(x, pick(EXPM1, x))
    e_low = muladd(-x_low, e, e_low)
    s, s_low = _log1p(power, e, e_low, pick(_QUADRATIC, x), pick(_ACCURATE_LOG1P, x))
    return power, s, s_low


FITS = {
    "log1p for logaddexp": Fit(
        PerFormat(_ACCURATE_LOG1P.single, None),
        elementary.FITS["log1p"].function,
        elementary.FITS["log1p"].interval,
        elementary.FITS["log1p"].weight,
        PerFormat(2.0**-29.0, None),
    ),
}
