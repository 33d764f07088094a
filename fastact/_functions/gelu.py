"""The Gaussian error linear unit and its derivative."""

from math import inf, nan
from typing import Any, NamedTuple

import numpy as np

from fastact._declarations.declare import activation, derivative
from fastact._declarations.records import KerasFunction, OnnxOperator, TorchModule
from fastact._declarations.sources import BELL_BY_TABLES
from fastact._kernels.elementary import EXP, Fit, product, rounded, scales, two_sum
from fastact._kernels.normal import (
    DENSITY,
    RATIO,
    TAIL,
    Pieces,
    far_fit,
    far_variable,
    gaussian,
    reflected_tail,
    scaled,
    single_pieces,
    tail,
)
from fastact._kernels.tables import GELU, bell_pieces
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
    number_at_most,
    or_nan,
    pick,
    pow2,
    pow2_of_sum,
    scalar,
    with_variants,
)

_TORCH = TorchModule(
    "GELU",
    lambda module: module.approximate == "none",
    'have approximate="none"',
)


def exact_gelu(m, x):
    """gelu with an array or number `x` of the module `m`."""
    return x * m.erfc(x / -m.sqrt(2.0)) / 2


def _gelu_by_tables(x):
    # Of a NaN, the other term is that NaN.
    a = number_at_most(magnitude(x), GELU.enough)
    s = bell_pieces(a, GELU)
    near = muladd(a, GELU.scale, like(a, 1)) < GELU.near
    main = x * like(x, 0.5) if near else at_least(x, like(x, -0.0))
    return last_muladd(s, -GELU.unit, main)


@activation(
    summary="Gaussian error linear unit, element-wise.",
    formula="gelu(x) = x/2 * (1 + erf(x / sqrt(2)))",
    notes="""Computed as max(x, 0) - a Q(a), where a = |x| and Q(a) is the probability that a
standard normal variable is above `a`. With e^(-a^2/2) = 2^n (1 + r p(r)),
Q(a) = e^(-a^2/2) (1 + g) / (2 (1 + c a)), where g is small, and c is 17/16 in float64 and 1 in the
other formats; a^2 and 1 + c a carry their rounding errors (W. J. Cody, "Rational Chebyshev
approximations for the error function", 1969; M. M. Shepherd and J. G. Laframboise, "Chebyshev
approximation of (1 + 2x) exp(x^2) erfc(x)", 1981). So results for
negative `x` are as accurate as others, down to the subnormals. The result for -inf is -0.0, the
limit from below. Libraries also offer an approximation by tanh, which differs by up to 5e-4; this
is the exact function."""
    + BELL_BY_TABLES,
    reference=exact_gelu,
    specials=[(-inf, -0.0), (inf, inf), (0.0, 0.0), (-0.0, -0.0)],
    interval=(-5.0, 5.0),
    ulp={"float16": 0.5, "bfloat16": 0.5, "float32": 1.0, "float64": 1.0},
    steepest=1.1289041451247,
    torch_modules=[_TORCH],
    elsewhere={
        "PyTorch": "nn.functional.gelu",
        "JAX": "nn.gelu; approximate=False",
        "Keras": "ops.gelu; approximate=False",
        "ONNX": "Gelu",
    },
    keras_functions=[
        KerasFunction("nn.gelu", lambda approximate=True: None if approximate else ())
    ],
    onnx_operators=[
        OnnxOperator("Gelu", lambda approximate="none": () if approximate == "none" else None)
    ],
    onnx_formulas=[lambda m, x: x * (1 + m.erf(x / 2**0.5)) / 2],
)
@with_variants(
    tables=_gelu_by_tables,
    tables_in_16_bits=False,
    vectors={("float32", 256): 8},
    stages={("float32", 512): 2},
)
def gelu(x):
    c = pick(TAIL, x)
    a = at_most(magnitude(x), c.zero)
    half = a * like(a, 0.5)
    total, _, r, w = gaussian(half, a, c.shift)
    power = pow2_of_sum(total) * c.unit
    e, m = tail(a, like(a, -0.0), far_variable(a, pick(RATIO, a)), half, r, w)
    # Each is rounded to odd in 16 bits: for negative `x`, the last one is exact.
    s = last_muladd(like(m, 1), m, e)
    # The rounding error of `s` matters for positive `x`. For negative `x`, where the result is
    # s times a power of 2, it would only be rounded a second time if it is subnormal.
    rest = at_least(muladd(power, s - e - m, x), like(x, 0))
    y = copysign(last_muladd(power, -s, rest), x)
    # In 16 bits, infinity would be rounded to odd as well, to NaN.
    return x if x > like(x, 40) else y


# Below this input, the derivative counts as 0: as for softplus_backward.
_LOWEST = PerFormat(-DENSITY.single.enough, -DENSITY.double.enough)


class _Slope(NamedTuple):
    """e^(-a^2/2) (root - a) (1 + h) scale is the derivative at -a, and 1 minus that at a."""

    root: Any  # the derivative is 0 at -(root + root_low)
    root_low: Any
    rest: Pieces  # h; the first polynomial is in a - 3/4


_SLOPE = PerFormat(
    single=_Slope(
        root=np.float32(0.7517915368080139),
        root_low=np.float32(-1.211444945855772e-08),
        rest=single_pieces(
            *(1.5, 5.0, 4.0),
            near=(
                -0.08390697836875916,
                -0.13582013547420502,
                0.05865364894270897,
                -0.022961044684052467,
                0.008288966491818428,
                -0.002791918581351638,
                0.0008795405738055706,
                -0.0002637580328155309,
                8.540004637325183e-05,
                -2.3812059225747362e-05,
            ),
            far=(
                -0.09712900966405869,
                -0.16163384914398193,
                0.08182687312364578,
                -0.03382840380072594,
                0.010602560825645924,
                -0.002048037014901638,
                -1.890853491204325e-05,
                0.00014393479796126485,
                -2.253183447464835e-05,
                -9.23004699870944e-06,
            ),
        ),
    ),
    double=_Slope(
        root=0.7517915246935645,
        root_low=-1.4956759177009883e-17,
        rest=Pieces(
            *(1.5, 5.0, 5.0),
            near=(
                -0.08390698264007175,
                -0.13582012996486864,
                0.058653793379403824,
                -0.022961155847453216,
                0.008287584822898885,
                -0.0027911752990956214,
                0.0008849542227806514,
                -0.0002659495029584279,
                7.616994323023525e-05,
                -2.0883191152667205e-05,
                5.5009146551474875e-06,
                -1.3965031363864059e-06,
                3.425877368769584e-07,
                -8.141769509537745e-08,
                1.87758407503278e-08,
                -4.179963219460783e-09,
                9.107574141805435e-10,
                -2.1929520421288148e-10,
                4.618711990331371e-11,
            ),
            far=(
                -0.09712900947318918,
                -0.17959316053960767,
                0.12097562710774094,
                -0.07107024293829199,
                0.03561566311381709,
                -0.014668621858513878,
                0.004604367446113059,
                -0.0008810612438003896,
                -3.0391537386542276e-05,
                8.129394346633568e-05,
                -1.8402406287764683e-05,
                -3.985447378991807e-06,
                2.720656623702979e-06,
                4.260934769167842e-08,
                -3.384788002212803e-07,
                2.5788516460547935e-08,
                4.497050445497366e-08,
                -6.737031929072544e-09,
                -6.201517609860912e-09,
                2.1182213813760415e-09,
                -8.96491433626528e-11,
            ),
        ),
    ),
)


@scalar
def slope_of_gelu(x, farthest):
    """(d, d_low, n) with 2^n (d + d_low) the derivative at `x`, or at -farthest if that is above.

    n is 0 for positive `x`.
    """
    c = pick(_SLOPE, x)
    a = at_most(magnitude(x), farthest)
    _, n, r, w = gaussian(a * like(a, 0.5), a, pick(EXP, x).shift)
    high, low = two_sum(c.root, -a)
    low = low + c.root_low
    # With these scales, |h| is at most 1/4.
    near = a < c.rest.split
    h = horner(far_variable(a, c.rest), c.rest.far)
    h = horner(a - like(a, 0.75), c.rest.near) if near else h
    scale = like(a, 0.625) if near else like(a, 0.5)
    root = high + low
    b = scale * root
    b_low = muladd(scale, (high - root) + low, fma(scale, root, -b))
    e, m = scaled(b, b_low, r, w, h)
    return reflected_tail(x > like(x, 0), e, m, n)


def exact_slope_of_gelu(m, x):
    """The derivative with an array or number `x` of the module `m`."""
    # In NumPy's float64, this has too few digits for float32 at the 20 numbers next to the zero.
    density = m.exp(-x * x / 2) / m.sqrt(8 * m.atan(1.0))
    return m.erfc(x / -m.sqrt(2.0)) / 2 + x * density


@derivative(
    formula="gelu_backward(grad_output, input) = grad_output * (Phi(input) + input * phi(input))",
    notes="""Phi and phi are the distribution function and the density of a standard normal
variable. The sum is 0 at -0.7517916, and has that number as a factor, with its rounding error, so
that it is accurate there too. Powers of 2 are multiplied last, so that the result is accurate
also where the derivative alone would underflow. For an infinite `grad_output`, the result is
infinite, or NaN where `input` is below -54.02 in float64 and below -19.77 in the other formats.""",
    reference=lambda m, g, x: g * exact_slope_of_gelu(m, x),
    slope=lambda m, x: (2 - x * x) * m.exp(-x * x / 2) / m.sqrt(8 * m.atan(1.0)),
    infinity_times_zero=nan,
    specials=[(2.0, 0.0, 1.0), (2.0, inf, 2.0), (2.0, -inf, -0.0), (inf, 0.0, inf)],
    interval=(-5.0, 5.0),
    ulp={"float16": 0.51, "bfloat16": 0.51, "float32": 1.0, "float64": 1.0},
)
@with_variants(vectors={("float32", 256): 8})
def gelu_backward(grad_output, input):
    one = like(input, 1)
    zero = like(input, 0)
    shift = pick(EXP, input).shift
    lowest = pick(_LOWEST, input)
    d, d_low, n = slope_of_gelu(input, -lowest)
    d = or_nan(d, input)
    up, down = scales(grad_output)
    p, p_low = product(grad_output * up, d, d_low)
    y = rounded(last_muladd(p_low, copysign(one, p), magnitude(p)), or_nan(p, grad_output))
    # 2^n as three factors that are normal numbers.
    third = muladd(n, like(n, 1 / 3), shift) - shift
    t = pow2(n - third - third, 0)
    t = t if input >= lowest else zero
    power = pow2(third, 0)
    return y * power * at_least(down, one) * power * t * at_most(down, one)


def _rest(m, a, scale):
    q = m.exp(a * a / 2) * m.erfc(a / m.sqrt(2)) / 2
    root = m.mpf(_SLOPE.double.root) + m.mpf(_SLOPE.double.root_low)
    return (q - a / m.sqrt(2 * m.pi)) / (root - a) / scale - 1


_SINGLE, _DOUBLE = _SLOPE.single.rest, _SLOPE.double.rest
_NEAR = (
    ("single", PerFormat(_SINGLE.near, None), PerFormat(2.0**-27.7, None)),
    ("double", PerFormat(None, _DOUBLE.near), PerFormat(None, 2.0**-60.9)),
)
FITS = {
    f"slope of gelu near {form}": Fit(
        terms, lambda m, u: _rest(m, u + 0.75, 0.625), (-0.75, 0.75), lambda u: 1, error
    )
    for form, terms, error in _NEAR
} | {
    "slope of gelu far single": far_fit(
        _SINGLE,
        PerFormat(_SINGLE.far, None),
        lambda m, a: _rest(m, a, 0.5),
        24.0,
        PerFormat(2.0**-30.6, None),
    ),
    "slope of gelu far double": far_fit(
        _DOUBLE,
        PerFormat(None, _DOUBLE.far),
        lambda m, a: _rest(m, a, 0.5),
        66.0,
        PerFormat(None, 2.0**-59.3),
    ),
}
