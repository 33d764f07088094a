"""The tail of the normal distribution, without cancellation and with its rounding errors.

For a >= 0, the probability Q(a) that a standard normal variable is above `a` is
e^(-a^2/2) (1 + g) / (2 (1 + c a)), where g is small and smooth. With c = 1, as in binary32, g is
from -0.2 to 0.05. In binary64, c is 17/16, and g is from -0.152 to 0.084: its rounding errors count
less where `a` is large. W. J. Cody,
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


# c as above. With 1, errors of log_ndtr and erfc in binary64 are up to 1.04 ulp, at 33 and at 14.4;
# with 9/8, those of log_ndtr up to 1.09, at 0.83, where the rounding error of t counts more.
GROWTH = PerFormat(np.float32(1), 1.0625)

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
        *(0.5, 5.0, 5.0),
        near=(
            0.2646154391971342,
            -0.3477523458529743,
            0.2652884797284655,
            -0.15758411517438795,
            0.079620194122109,
            -0.03568347024099674,
            0.014536375181641198,
            -0.005468954390021428,
            0.0019200683843807655,
            -0.000630268607747224,
            0.00018862818826203382,
            -4.63271298013702e-05,
            6.768776232885579e-06,
        ),
        far=(
            -0.028893774690545514,
            -0.17661640448926746,
            0.05143093141942074,
            0.031365483476603624,
            -0.06208413533884469,
            0.055067784454539394,
            -0.03336105405067023,
            0.014156606952773,
            -0.0035890975602060303,
            -2.2737441570444372e-07,
            0.00039501341552264813,
            -0.00011403669708822708,
            -2.185949046675644e-05,
            1.9412231153793728e-05,
            -6.570267486529138e-08,
            -2.811564114722014e-06,
            2.6296855722140836e-07,
            4.258735989274493e-07,
            -5.5263493366145197e-08,
            -6.988538243038949e-08,
            7.8801540463712e-09,
            1.1138919575826886e-08,
            -6.602860363857609e-10,
            -1.1912919592055362e-09,
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


@scalar
def times_exp(b, b_low, r, w):
    """(b + b_low) (1 - r + w) as (high, low)."""
    e = fma(b, -r, b)
    return e, muladd(b, w, muladd(b_low, -r, fma(b, -r, b - e) + b_low))


_TOGETHER = PerFormat(np.float32(1), 0.0)


@scalar
def scaled(b, b_low, r, w, g):
    """(e, m) with e + m = (b + b_low) (1 - r + w) (1 + g), to a fraction of an ulp of the sum.

    The largest term is exact, and the others are added beginning with the smallest. In binary32,
    e + e_low is multiplied by g as one number: otherwise, gelu has 1.10 ulp at -1.86.
    """
    e, e_low = times_exp(b, b_low, r, w)
    together = pick(_TOGETHER, g) == like(g, 1)
    return e, muladd(e + e_low, g, e_low) if together else muladd(e, g, muladd(e_low, g, e_low))


@scalar
def tail(a, a_low, t, factor, r, w):
    """(e, m) with 2^n (e + m) = 2 factor Q(a + a_low).

    n, r and w are those of :func:`gaussian`, and t that of :func:`far_variable` in `RATIO`.
    """
    pieces = pick(RATIO, a)
    g = a * horner(a, pieces.near) if a < pieces.split else horner(t, pieces.far)
    return tail_of_ratio(a, a_low, g, factor, r, w)


@scalar
def tail_of_ratio(a, a_low, g, factor, r, w):
    """:func:`tail`, given g."""
    one, growth = like(a, 1), pick(GROWTH, a)
    # b + b_low is factor / (1 + growth a). The rest of the sum is exact.
    d = muladd(a, growth, one)
    d_low = fma(a, growth, one - d) + growth * a_low
    u = one / d
    b = factor * u
    b_low = fma(b, -d_low, fma(b, -d, factor)) * u
    return scaled(b, b_low, r, w, g)


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


def ratio(m: Any, a: Any, growth: Any) -> Any:
    """The function g for the constant c = `growth`."""
    return m.exp(a * a / 2) * m.erfc(a / m.sqrt(2)) * (1 + float(growth) * a) - 1


def _exp_tail(m, r):
    return (m.exp(-r) - 1 + r) / r**2


def far_fit(
    pieces: Pieces,
    coefficients: PerFormat,
    function: Callable[..., Any],
    end: float,
    error: PerFormat,
) -> Fit:
    """The fit of `far`, the only ones of the `coefficients`, up to `end`, by absolute errors."""
    middle, pole = float(pieces.middle), float(pieces.pole)

    def of_t(m: Any, t: Any) -> Any:
        return function(m, (pole * t + middle) / (1 - t))

    low, high = ((a - middle) / (a + pole) for a in (float(pieces.split), end))
    return Fit(coefficients, of_t, (low, high), lambda t: 1, error)


def near_fit(coefficients: PerFormat, growth: Any, error: PerFormat) -> Fit:
    """The fit of `near`, the only ones of the `coefficients`, by relative errors of g."""
    return Fit(coefficients, lambda m, a: ratio(m, a, growth) / a, (0.0, 0.5), abs, error)


FITS = {
    "exp for normal": Fit(
        PerFormat(EXP_TAIL.single, None),
        _exp_tail,
        (-0.3472, 0.3472),
        lambda r: r * r,
        PerFormat(2.0**-33.0, None),
    ),
    "ratio near single": near_fit(
        PerFormat(RATIO.single.near, None), GROWTH.single, PerFormat(2.0**-26.9, None)
    ),
    "ratio near double": near_fit(
        PerFormat(None, RATIO.double.near), GROWTH.double, PerFormat(None, 2.0**-59.9)
    ),
    "ratio far single": far_fit(
        RATIO.single,
        PerFormat(RATIO.single.far, None),
        lambda m, a: ratio(m, a, GROWTH.single),
        19.8,
        PerFormat(2.0**-28.1, None),
    ),
    "ratio far double": far_fit(
        RATIO.double,
        PerFormat(None, RATIO.double.far),
        lambda m, a: ratio(m, a, GROWTH.double),
        54.1,
        PerFormat(None, 2.0**-60.7),
    ),
}
