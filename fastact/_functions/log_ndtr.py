"""The logarithm of the normal distribution function and its derivative."""

from math import inf, nan
from typing import Any, NamedTuple

import numpy as np

from fastact._declarations.declare import activation, derivative
from fastact._kernels import normal
from fastact._kernels.elementary import EXP, Fit, normalised, product, rounded, two_sum
from fastact._kernels.logarithm import accurate_log_of_product, binary_exponent, over_one_plus
from fastact._kernels.normal import (
    DENSITY,
    GROWTH,
    RATIO,
    TAIL,
    far_variable,
    gaussian,
    tail_of_ratio,
    times_exp,
)
from fastact._kernels.products import near_one, times_pow2, towards_one
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
    pow2,
    scalar,
    with_variants,
)


class _LogNdtr(NamedTuple):
    steepest: Any  # the square of this is infinite
    near: Any  # below, a^2 / 2 is less than the rest of the result
    alone: Any  # from here on, the rest is less than an ulp
    far: Any  # above, the result is -Q(x), which is computed divided by `unit`
    unit: Any
    asymptotic: Any  # above, the derivative for -a is given by its series
    series: tuple[Any, ...]  # (derivative / a - 1) a^2, in powers of a^-2
    least: Any  # 2^least is nothing beside 1


# From the asymptotic series of Q(a).
_SERIES = (1.0, -2.0, 10.0, -74.0, 706.0, -8162.0, 110410.0)

_LOG_NDTR = PerFormat(
    single=_LogNdtr(
        steepest=np.float32(2.0**70),
        near=np.float32(1.9),
        alone=np.float32(2.0**20),
        far=np.float32(8),
        unit=np.float32(2.0**-64),
        asymptotic=np.float32(14.5),
        series=tuple(map(np.float32, _SERIES[:4])),
        least=np.float32(-60),
    ),
    double=_LogNdtr(2.0**600, 1.9, 2.0**40, 12.0, 2.0**-64, 38.5, series=_SERIES, least=-120.0),
)


class _Ratio(NamedTuple):
    """g of ``_kernels/normal.py`` as two polynomials, of which the second has no end."""

    split: Any
    centre: Any
    near: tuple[Any, ...]  # for a < split, in a - centre
    middle: Any
    pole: Any
    far: tuple[Any, ...]  # in t = (a - middle) / (a + pole)


# The split is not at 0.5, as it is for ndtr: there, the rounding error of t would give errors of
# 1.03 ulp at 0.82 in both formats. Powers of `a` instead of a - 3/4 would give 1.08 in binary32.
_RATIO = PerFormat(
    single=_Ratio(
        split=np.float32(1.25),
        centre=np.float32(0.75),
        near=tuple(
            np.float32(c)
            for c in (
                *(0.050813619047403336, -0.007722822949290276, -0.05019957199692726),
                *(0.041510459035634995, -0.023106876760721207, 0.010591361671686172),
                *(-0.004264595918357372, 0.0014975119847804308, -0.0005274934228509665),
                0.0002663890481926501,
            )
        ),
        middle=RATIO.single.middle,
        pole=RATIO.single.pole,
        far=tuple(
            np.float32(c)
            for c in (
                *(-0.09308960288763046, -0.14170894026756287, 0.03167559206485748),
                *(0.009433156810700893, -0.01414857804775238, 0.007850000634789467),
                *(-0.00246835732831551, 0.00026231675292365253, 0.0001319416769547388),
                *(-5.7582950830692425e-05, -2.055683353319182e-06, 6.833814495621482e-06),
            )
        ),
    ),
    double=_Ratio(
        split=1.25,
        centre=0.75,
        near=(
            0.07896041153419868,
            0.013515470930396026,
            -0.06395609505989902,
            0.048691356249051534,
            -0.026347945065299697,
            0.011889080355847617,
            -0.00474078743951282,
            0.0017203750174022703,
            -0.0005783085741175949,
            0.00018222654165571685,
            -5.4285358216046994e-05,
            1.5387351034052073e-05,
            -4.170275872419727e-06,
            1.086344960475122e-06,
            -2.742287821556147e-07,
            6.372849402938796e-08,
            -1.4061310824490365e-08,
            6.384289656653211e-09,
        ),
        middle=RATIO.double.middle,
        pole=RATIO.double.pole,
        far=(
            -0.028893774690545514,
            -0.17661640448926746,
            0.051430931419420685,
            0.03136548347660287,
            -0.0620841353388394,
            0.05506778445458931,
            -0.03336105405085369,
            0.01415660695154648,
            -0.0035890975568998863,
            -2.2735904174884063e-07,
            0.00039501337990986707,
            -0.00011403680795002544,
            -2.1859246314055055e-05,
            1.9412711120940724e-05,
            -6.679213030703437e-08,
            -2.812788416457722e-06,
            2.6611074343571384e-07,
            4.2748254993903274e-07,
            -6.089126773707825e-08,
            -7.027312238764765e-08,
            1.3547823487084546e-08,
            9.704880822322824e-09,
            -3.1014953627684293e-09,
        ),
    ),
)


def _near_fit(growth, coefficients, error):
    def ratio(m, v):
        return normal.ratio(m, v + 0.75, growth)

    return Fit(coefficients, ratio, (-0.75, 0.5), lambda v: 1, error)


def _far_fit(pieces, growth, end, coefficients, error):
    middle, pole = float(pieces.middle), float(pieces.pole)

    def argument(t):
        return (pole * t + middle) / (1 - t)

    def ratio(m, t):
        a = argument(t)
        if a < 100:
            return normal.ratio(m, a, growth)
        return m.sqrt(2 / m.pi) * _series(a, 41) * (1 + float(growth) * a) / a - 1

    first = float(pieces.split)
    low = (first - middle) / (first + pole)
    # An error of g is divided by a result of more than a^2 / 2.
    return Fit(
        coefficients,
        ratio,
        (low, 1 - 2.0**-30),
        lambda t: 1 / (1 + (argument(t) / end) ** 2),
        error,
    )


def _series(x, last=21):
    """Q(a) a sqrt(2 pi) e^(a^2/2) for a = |x| from 37 on, by its asymptotic series."""
    total = 1
    for factor in range(last, 0, -2):
        total = 1 - factor / (x * x) * total
    return total


FITS = {
    "ratio near for log_ndtr, single": _near_fit(
        GROWTH.single, PerFormat(_RATIO.single.near, None), PerFormat(2.0**-29.2, None)
    ),
    "ratio near for log_ndtr, double": _near_fit(
        GROWTH.double, PerFormat(None, _RATIO.double.near), PerFormat(None, 2.0**-58.4)
    ),
    "ratio far for log_ndtr, single": _far_fit(
        _RATIO.single,
        GROWTH.single,
        20,
        PerFormat(_RATIO.single.far, None),
        PerFormat(2.0**-28.2, None),
    ),
    "ratio far for log_ndtr, double": _far_fit(
        _RATIO.double,
        GROWTH.double,
        40,
        PerFormat(None, _RATIO.double.far),
        PerFormat(None, 2.0**-60.7),
    ),
}


@scalar
def _tail(a, r, w):
    """(e, m) with 2^n (e + m) = Q(a), for n, r and w of :func:`gaussian`."""
    pieces = pick(_RATIO, a)
    g = horner(far_variable(a, pieces), pieces.far)
    g = horner(a - pieces.centre, pieces.near) if a < pieces.split else g
    return tail_of_ratio(a, like(a, -0.0), g, like(a, 0.5), r, w)


@scalar
def _terms(x):
    """(total, low, a, slope, unit): the result is unit (total + low + slope a)."""
    limits, zero_tail = pick(_LOG_NDTR, x), pick(TAIL, x).zero
    half, one, zero = like(x, 0.5), like(x, 1), like(x, 0)
    above = x > zero
    # Q(x) = 2^n (e + m) for x > 0. Otherwise, n is 0, and e + m is Q(a) e^(a^2/2).
    inside = at_most(number_at_least(x, zero), zero_tail)
    a = inside if above else at_most(magnitude(x), limits.steepest)
    _, n, r, w = gaussian(inside * half, inside, pick(EXP, x).shift)
    e, m = _tail(a, r, w)
    # The argument of the logarithm, d + s (e + m), is 2^k (1 + f).
    far = x > limits.far
    d = one if above else zero
    s = pow2(zero if far else n, 0)
    s = -s if above else s
    k = binary_exponent(d + s * (e + m))
    power = pow2(-k, 0)
    s = s * power
    base = muladd(power, d, -one)
    first = muladd(s, e, base)
    f = muladd(s, m, first)
    f_low = muladd(s, m, first - f) + muladd(s, e, base - first)
    # With `log_of_product`, errors in binary32 are up to 1.03 ulp, from 0.5 to 1.
    high, low = accurate_log_of_product(k, f)
    low = low + over_one_plus(f_low, f)
    total = high + low
    low = (high - total) + low
    t = -pow2(n, 64)
    unit = limits.unit if far else one
    # An exact 0, not an underflow, which takes ten times as long on some processors.
    unit = zero if x >= zero_tail else unit
    return t * e if far else total, t * m if far else low, a, zero if above else a * -half, unit


def _narrow(x):
    total, low, a, slope, unit = _terms(x)
    # The square is exact, or infinite, where the rounding error is NaN.
    high, rest = two_sum(slope * a, total)
    low = low + (rest if rest == rest else like(x, 0))
    y = last_muladd(low, copysign(like(x, 1), high), magnitude(high))
    y = copysign(y if y == y else high, high) * unit
    return y if x == x else x + x


def _split(x):
    """Where `x` is far below 0 and where not, and `x` as an argument for the formulas there."""
    is_far, is_near = x < -37, x >= -37
    return is_far, is_near, x * is_far - 40.0 * is_near, x * is_near


def _reference(m, x):
    is_far, is_near, far, near = _split(x)
    below, above = near * (near < 0), near * (near > 0)
    far_result = m.log1p(_series(far) - 1) - m.log(-far * m.sqrt(8 * m.atan(1.0))) - far * far / 2
    below_result = m.log(m.erfc(-below / m.sqrt(2.0)) / 2)
    above_result = m.log1p(-m.erfc(above / m.sqrt(2.0)) / 2)
    near_result = below_result * (near <= 0) + above_result * (near > 0)
    return is_far * far_result + is_near * near_result


def _ratio(m, x):
    is_far, is_near, far, near = _split(x)
    density = m.exp(-near * near / 2) / m.sqrt(8 * m.atan(1.0))
    near_result = density * 2 / m.erfc(-near / m.sqrt(2.0))
    return is_far * (-far / _series(far)) + is_near * near_result


@activation(
    summary="Logarithm of the normal distribution function, element-wise.",
    formula="log_ndtr(x) = log((1 + erf(x / sqrt(2))) / 2)",
    notes="""Same as ``scipy.special.log_ndtr``. For negative `x` it is log(Q(a) e^(a^2/2)) - a^2/2
with a = -x, where Q(a) is the probability that a standard normal variable is above `a`, and the
first factor is computed without the exponential, as for :func:`fastact.gelu`. So it is accurate
also where ndtr is 0. For positive `x` it is log(1 - Q(x)), and -Q(x) until that is subnormal.

The argument of log is reduced by a power of 2, as in W. J. Cody and W. Waite, "Software Manual for
the Elementary Functions" (1980).""",
    reference=_reference,
    elsewhere={
        "PyTorch": "special.log_ndtr",
        "JAX": "scipy.special.log_ndtr",
        "SciPy": "special.log_ndtr",
    },
    specials=[(-inf, -inf), (inf, -0.0)],
    interval=(-5.0, 5.0),
    ulp={"float16": 0.5, "bfloat16": 0.5, "float32": 1.0, "float64": 1.0},
    nondecreasing=True,
    range=(-inf, 0.0),
)
@with_variants(narrow=_narrow)
def log_ndtr(x):
    total, low, a, slope, unit = _terms(x)
    high = muladd(slope, a, total)
    # The rounding error of this sum, where it is exact to subtract `total` first, or nearly so to
    # subtract it last. That matters without fma: 1.28 ulp in binary32, at -2.08.
    limits = pick(_LOG_NDTR, x)
    near = a < limits.near
    rest = fma(slope, a, (total if near else like(x, 0)) - high)
    rest = rest if near else rest + total
    low = low + (rest if a < limits.alone else like(x, 0))
    y = (high + low) * unit
    return y if x == x else x + x


@derivative(
    formula="log_ndtr_backward(grad_output, input) = grad_output * exp(-input**2 / 2) / "
    "(sqrt(2 * pi) * ndtr(input))",
    notes="""The derivative is the density divided by the distribution function. Where `input` is
negative, their common exponential is left out, so that it is accurate also where both are 0. All
terms carry their rounding errors, and powers of 2 are multiplied last. For an infinite
`grad_output`, the result is infinite, or NaN where `input` is above 54.02 in float64 and above
19.77 in the other formats.""",
    reference=lambda m, g, x: g * _ratio(m, x),
    slope=lambda m, x: -_ratio(m, x) * (x + _ratio(m, x)),
    infinity_times_zero=nan,
    specials=[(2.0, inf, 0.0), (-2.0, inf, -0.0), (2.0, -inf, inf), (inf, 0.0, inf)],
    interval=(-5.0, 5.0),
    ulp={"float16": 0.51, "bfloat16": 0.51, "float32": 1.0, "float64": 1.0},
)
def log_ndtr_backward(grad_output, input):
    limits, density = pick(_LOG_NDTR, input), pick(DENSITY, input)
    one, zero = like(input, 1), like(input, 0)
    above = input > zero
    inside = at_most(number_at_least(input, zero), density.enough)
    a = inside if above else magnitude(input)
    _, n, r, w = gaussian(inside * like(input, 0.5), inside, pick(EXP, input).shift)
    e, m = _tail(a, r, w)
    # The distribution function, times e^(a^2/2) for negative inputs.
    s = -pow2(at_least(n, limits.least), 0) if above else one
    base = one if above else zero
    first = muladd(s, e, base)
    d, d_low = normalised(first, muladd(s, m, muladd(s, e, base - first)))
    c, c_low = times_exp(density.factor, density.factor_low, r, w)
    q = c / d
    q_low = (fma(-q, d, c) - muladd(q, d_low, -c_low)) / d
    # The polynomial is less accurate there.
    asymptotic = (zero if above else a) > limits.asymptotic
    v = one / (a * a)
    q_low = a * (v * horner(v, limits.series)) if asymptotic else q_low
    q = a if asymptotic else q
    factor, k = towards_one(grad_output)
    q_factor, j = towards_one(q)
    p, p_low, i = near_one(*product(grad_output * factor, q * q_factor, q_low * q_factor))
    p = or_nan(p, input)
    p = or_nan(p, grad_output)
    y = last_muladd(p_low, copysign(one, p), magnitude(p))
    y = times_pow2(rounded(y, p), n + (i + j + k))
    # 0, or NaN for an infinite gradient.
    return y * zero if input > density.enough else y
