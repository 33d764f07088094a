"""The tail of the normal distribution, without cancellation and with its rounding errors.

For a >= 0, the probability Q(a) that a standard normal variable is above `a` is
e^(-a^2/2) (1 + g) / (2 (1 + a)), where g is small (from -0.2 to 0.05) and smooth. W. J. Cody,
"Rational Chebyshev approximations for the error function", Math. Comp. 23 (1969), takes the
exponential out. M. M. Shepherd and J. G. Laframboise, "Chebyshev approximation of
(1 + 2x) exp(x^2) erfc(x) in 0 <= x < inf", Math. Comp. 36 (1981), multiply by such a factor, and
map the half-line to an interval by t = (a - middle) / (a + pole). A polynomial in t is not accurate
enough near 0, where the rounding error of t is large compared with `a`: there g is a polynomial in
`a` itself.
"""

from collections.abc import Callable
from math import log, sqrt
from typing import Any, NamedTuple

import numpy as np

from fastact._kernels.elementary import EXP, RANGE, Fit, product, reflected, scales
from fastact._kernels.vocabulary import (
    PerFormat,
    at_least,
    at_most,
    fma,
    horner,
    like,
    magnitude,
    muladd,
    or_nan,
    pick,
    pow2,
    scalar,
)


class Tail(NamedTuple):
    """Constants; 2^n is computed divided by `unit`, a power of 2, so that it is normal."""

    # At and above this argument, 2^n is 0, and the tail, also multiplied by the argument, rounds to
    # 0. Then nothing is subnormal: masked entries of -1e9 would take ten times as long.
    zero: Any
    shift: Any  # as for pow2_of_sum, for 2^n / unit
    unit: Any


def _tail(number: Any, bits: int, bias: int, lowest: int) -> Tail:
    return Tail(
        zero=number(sqrt(2 * log(2) * lowest)),
        shift=number(1.5 * 2.0 ** (bits - 1) + lowest),
        unit=number(2.0 ** (bias - lowest)),
    )


TAIL = PerFormat(
    single=_tail(np.float32, 24, 127, 153),
    double=_tail(float, 53, 1023, 1078),
)


class Pieces(NamedTuple):
    """A function of a >= 0 as two polynomials."""

    split: Any  # where the second piece begins
    middle: Any  # t = (a - middle) / (a + pole)
    pole: Any
    near: tuple[Any, ...]  # in `a`
    far: tuple[Any, ...]  # in t


def single_pieces(split: float, middle: float, pole: float, near: Any, far: Any) -> Pieces:
    near, far = (tuple(map(np.float32, terms)) for terms in (near, far))
    return Pieces(np.float32(split), np.float32(middle), np.float32(pole), near, far)


# g as above; `near` holds g / a.
RATIO = PerFormat(
    single=single_pieces(
        *(0.5, 6.0, 4.0),
        near=(
            0.2021145075559616,
            -0.29784825444221497,
            0.23356042802333832,
            -0.13801801204681396,
            0.06237136572599411,
            -0.016430344432592392,
        ),
        far=(
            -0.09308960288763046,
            -0.14170894026756287,
            0.03167559951543808,
            0.009433253668248653,
            -0.014148618094623089,
            0.00784851424396038,
            -0.002469542669132352,
            0.0002686382213141769,
            0.0001408344687661156,
            -6.349250907078385e-05,
            -1.752948264766019e-05,
        ),
    ),
    double=Pieces(
        *(0.5, 6.5, 5.0),
        near=(
            0.2021154391971342,
            -0.2978845608027972,
            0.23403847972863326,
            -0.14096152016342334,
            0.07180769422963788,
            -0.032358952478881806,
            0.013234301336337653,
            -0.004994072987039638,
            0.0017574917438447795,
            -0.000577974541226426,
            0.00017320936629253283,
            -4.257127780403214e-05,
            6.220810148780217e-06,
        ),
        far=(
            -0.09976486985242254,
            -0.1446068578227699,
            0.04950156275490236,
            -0.0002739569787658712,
            -0.015777337074581285,
            0.01470473502691587,
            -0.008648636908620994,
            0.003624816203077631,
            -0.0010120513294840756,
            0.0001094206032582423,
            4.9385330805522836e-05,
            -2.4768134209584527e-05,
            1.5501965074683687e-06,
            2.2356376916269897e-06,
            -5.954734191729613e-07,
            -1.637653733544076e-07,
            9.306259249838591e-08,
            1.1573373494941346e-08,
            -1.249053027998058e-08,
            -1.2362689321595305e-09,
            1.3182817762519832e-09,
            2.0088132224370388e-10,
            -3.6392467101434237e-11,
        ),
    ),
)


class Bell(NamedTuple):
    """A multiple of e^(-half a^2) that is a derivative."""

    # Above, the derivative counts as 0. As for softplus_backward, it is far below the
    # smallest number there, since a large gradient can bring the result back into range.
    enough: Any
    factor: Any
    factor_low: Any  # the rounding error of `factor`


DENSITY = PerFormat(
    single=Bell(*map(np.float32, (19.77, 0.3989422917366028, -1.1335170135851058e-08))),
    double=Bell(54.02, 0.3989422804014327, -2.49232720227773e-17),
)
"""1/sqrt(2 pi), for the density of the normal distribution."""

ERROR_SLOPE = PerFormat(
    single=Bell(*map(np.float32, (13.97, 1.128379225730896, -5.8635382771399236e-08))),
    double=Bell(38.19, 1.1283791670955126, 1.533545961316588e-17),
)
"""2/sqrt(pi), for the derivatives of erf and erfc."""

# (e^-r - 1 + r) / r^2. In binary32, a polynomial of one degree more than in `EXP` lowers the
# largest error of gelu by 0.06 ulp.
EXP_TAIL = PerFormat(
    single=reflected(
        tuple(
            np.float32(c)
            for c in (
                0.5,
                0.1666666716337204,
                0.04166645184159279,
                0.008333198726177216,
                0.0013936193427070975,
                0.00019952468574047089,
            )
        )
    ),
    double=reflected(EXP.double.tail),
)


@scalar
def gaussian(half, a, shift):
    """(total, n, r, w) with e^(-half a) = 2^n (1 - r + w).

    `half` is a / 2 or `a`, `r` is exact, and n is total - shift. The square is computed with its
    rounding error.
    """
    exp = pick(EXP, a)
    square = half * a
    total = muladd(square, -exp.log2_e, shift)
    n = total - shift
    high = fma(n, exp.ln2_high, square)
    low = muladd(n, exp.ln2_low, fma(half, a, -square))
    r = high + low
    return total, n, high, muladd(r * r, horner(r, pick(EXP_TAIL, a)), -low)


@scalar
def far_variable(a, pieces):
    """The variable t of the second piece."""
    return (a - pieces.middle) / (a + pieces.pole)


_FAR_TERMS = PerFormat(np.float32(1), 2.0)


@scalar
def far_ratio(t, coefficients):
    """(g, g_low) with g + g_low as the polynomial; g_low is 0 in binary32.

    In binary64, the errors of log_ndtr and erfc would be up to 1.04 and 1.02 ulp: for an argument
    of 30, half an ulp of g is an eighth of one of 1 + g.
    """
    rest = horner(t, coefficients[1:])
    first = coefficients[0]
    g = muladd(t, rest, first)
    # Where g is below the first term, their difference is exact: a multiple of 2^-56 below 1/8.
    two = pick(_FAR_TERMS, t) == like(t, 2)
    return g, fma(t, rest, first - g) if two and g < first else like(t, 0)


@scalar
def times_far_ratio(b, b_low, g_low):
    """The low part of (b + b_low) (1 + g + g_low), so that it is multiplied by 1 + g alone."""
    return muladd(b, g_low, b_low) if pick(_FAR_TERMS, b) == like(b, 2) else b_low


@scalar
def times_exp(b, b_low, r, w):
    """(b + b_low) (1 - r + w) as (high, low)."""
    e = fma(b, -r, b)
    return e, muladd(b, w, muladd(b_low, -r, fma(b, -r, b - e) + b_low))


@scalar
def scaled(b, b_low, r, w, g):
    """(e, m) with e + m = (b + b_low) (1 - r + w) (1 + g), to a fraction of an ulp of the sum.

    The largest term is exact, and the others are added beginning with the smallest.
    """
    e, e_low = times_exp(b, b_low, r, w)
    return e, muladd(e + e_low, g, e_low)


@scalar
def tail(a, a_low, t, factor, r, w):
    """(e, m) with 2^n (e + m) = 2 factor Q(a + a_low).

    n, r and w are those of :func:`gaussian`, and t that of :func:`far_variable` in `RATIO`.
    """
    pieces = pick(RATIO, a)
    g, g_low = far_ratio(t, pieces.far)
    g = a * horner(a, pieces.near) if a < pieces.split else g
    return tail_of_ratio(a, a_low, g, g_low, factor, r, w)


@scalar
def tail_of_ratio(a, a_low, g, g_low, factor, r, w):
    """:func:`tail`, given g + g_low; g_low is that of :func:`far_ratio`, also near 0."""
    one = like(a, 1)
    # b + b_low is factor / (1 + a).
    d = one + a
    d_low = (a - (d - one)) + a_low
    u = one / d
    b = factor * u
    b_low = fma(b, -d_low, fma(b, -d, factor)) * u
    return scaled(b, times_far_ratio(b, b_low, g_low), r, w, g)


@scalar
def reflected_tail(positive, e, m, n):
    """(d, d_low, k) with 2^k (d + d_low) = 2^n (e + m), or 1 less that if `positive`; k is n or 0.

    The sum e + m is at most 1/2 in magnitude, nearly, and `n` at most 0.
    """
    one, zero = like(e, 1), like(e, 0)
    s = e + m
    s_low = (e - s) + m
    factor = -pow2(at_least(n, -pick(RANGE, e).split), 0) if positive else one
    base = one if positive else zero
    d = muladd(factor, s, base)
    d_low = muladd(factor, s_low, muladd(factor, s, base - d))
    return d, d_low, zero if positive else n


@scalar
def bell(grad_output, input, half, c):
    """(p, p_low, n, down) for the gradient through a function with a derivative of this shape.

    With the :class:`Bell` `c`, and `half` 1/2 or 1 as there, the gradient is
    2^(n + 1) (p + p_low) down. Half of it is computed, since e^r times 2/sqrt(pi) is up to 1.6: the
    product could overflow where the gradient does not.
    """
    a = at_most(magnitude(input), c.enough)
    _, n, r, w = gaussian(half * a, a, pick(EXP, a).shift)
    e, e_low = times_exp(c.factor, c.factor_low, r, w)
    d = e + e_low
    d_low = (e - d) + e_low
    up, down = scales(grad_output)
    p, p_low = product(grad_output * (up * like(input, 0.5)), or_nan(d, input), d_low)
    return p, p_low, n, down


def _ratio(m, a):
    return m.exp(a * a / 2) * m.erfc(a / m.sqrt(2)) * (1 + a) - 1


def _exp_tail(m, r):
    return (m.exp(-r) - 1 + r) / r**2


def far_fit(
    pieces: tuple[Pieces, Pieces],
    function: Callable[..., Any],
    single_end: float,
    double_end: float,
    errors: tuple[float, float],
) -> dict[str, Fit]:
    """The fits of `far` by format, up to an argument `end`, with absolute errors."""

    def fit(chosen: Pieces, end: float, coefficients: PerFormat, error: PerFormat) -> Fit:
        middle, pole = float(chosen.middle), float(chosen.pole)

        def of_t(m: Any, t: Any) -> Any:
            return function(m, (pole * t + middle) / (1 - t))

        low, high = ((a - middle) / (a + pole) for a in (float(chosen.split), end))
        return Fit(coefficients, of_t, (low, high), lambda t: 1, error)

    single, double = pieces
    return {
        "single": fit(single, single_end, PerFormat(single.far, None), PerFormat(errors[0], None)),
        "double": fit(double, double_end, PerFormat(None, double.far), PerFormat(None, errors[1])),
    }


FITS = {
    "exp for normal": Fit(
        PerFormat(EXP_TAIL.single, None),
        _exp_tail,
        (-0.3472, 0.3472),
        lambda r: r * r,
        PerFormat(2.0**-33.0, None),
    ),
    "ratio near": Fit(
        PerFormat(RATIO.single.near, RATIO.double.near),
        lambda m, a: _ratio(m, a) / a,
        (0.0, 0.5),
        abs,
        PerFormat(2.0**-26.9, 2.0**-59.9),
    ),
} | {
    f"ratio far {name}": fit
    for name, fit in far_fit(RATIO, _ratio, 19.8, 54.1, (2.0**-28.1, 2.0**-57.8)).items()
}
