"""The error function and its derivative."""

from math import inf, nan
from typing import Any, NamedTuple

import numpy as np

from fastact._declarations.declare import activation, derivative
from fastact._declarations.records import OnnxOperator
from fastact._declarations.sources import BY_TABLES, EXP_AND_SUMS
from fastact._kernels.elementary import (
    BELOW,
    EXP,
    EXPM1,
    RANGE,
    Fit,
    reflected,
    rounded,
    times_power,
)
from fastact._kernels.normal import ERROR_SLOPE, bell
from fastact._kernels.tables import ERF, odd_pieces
from fastact._kernels.vocabulary import (
    PerFormat,
    at_most,
    copysign,
    fma,
    horner,
    last_muladd,
    like,
    magnitude,
    muladd,
    or_nan,
    pick,
    pow2_of_sum,
    with_variants,
)


class _Erf(NamedTuple):
    enough: Any  # above, the result is 1
    shift: Any  # as for pow2_of_sum, for 2^n
    tail: tuple[Any, ...]  # (e^-r - 1 + r) / r^2
    rest: tuple[Any, ...]  # (K(a) - 2/sqrt(pi)) / a, where K(a) = -log(1 - erf(a)) / a


_ERF = PerFormat(
    single=_Erf(
        enough=np.float32(3.92),
        shift=np.float32(1.5 * 2.0**23 + 127),
        tail=reflected(EXPM1.single),
        rest=tuple(
            map(
                np.float32,
                (
                    0.6366198658943176,
                    0.10277073830366135,
                    -0.019114740192890167,
                    -0.00026075923233292997,
                    0.0018102722242474556,
                    -0.0007495504105463624,
                    0.00017157677211798728,
                    -2.2352156520355493e-05,
                    1.2923293297717464e-06,
                ),
            )
        ),
    ),
    double=_Erf(
        enough=5.93,
        shift=1.5 * 2.0**52 + 1023,
        tail=reflected(EXPM1.double),
        rest=(
            0.6366197723675815,
            0.10277260330192942,
            -0.019128447008790402,
            -0.0002091946429172516,
            0.0016962059437225935,
            -0.0005901230485364244,
            2.5868597539169844e-05,
            6.452123044842391e-05,
            -2.9789264997645015e-05,
            3.5192807945555964e-06,
            2.6838658759212168e-06,
            -1.5789394373140521e-06,
            1.9601509240174242e-07,
            2.3501478404276307e-07,
            -1.9700615131344552e-07,
            9.10135574361513e-08,
            -3.0314072157277156e-08,
            7.777923005597752e-09,
            -1.5660379833809918e-09,
            2.468192364889752e-10,
            -2.9926302719264056e-11,
            2.6986854926206445e-12,
            -1.7052651600211811e-13,
            6.736364161103209e-15,
            -1.2513791098686224e-16,
        ),
    ),
)


def _erf_by_tables(x):
    t, slope, base = odd_pieces(x, ERF)
    return copysign(last_muladd(t, slope, base), x)


@activation(
    summary="Error function, element-wise.",
    formula="erf(x) = 2 / sqrt(pi) * integral of exp(-t**2) from 0 to x",
    notes="""Same as ``scipy.special.erf``. The result is 1 - e^-t with the sign of `x`, where
t = |x| K(|x|) is -log(1 - erf(|x|)) and K is a polynomial. t and the sum carry their rounding
errors, so that nothing cancels near 0."""
    + EXP_AND_SUMS
    + BY_TABLES.format("as p(t) with the sign of x"),
    reference=lambda m, x: m.erf(x),
    elsewhere={
        "PyTorch": "erf",
        "JAX": "scipy.special.erf",
        "Keras": "ops.erf",
        "ONNX": "Erf",
        "SciPy": "special.erf",
    },
    specials=[(-inf, -1.0), (inf, 1.0), (0.0, 0.0), (-0.0, -0.0)],
    interval=(-3.5, 3.5),
    ulp={"float16": 0.5, "bfloat16": 0.5, "float32": 0.93, "float64": 1.0},
    nondecreasing=True,
    range=(-1.0, 1.0),
    steepest=1.1283791670955126,
    pytensor_ops=["math.Erf"],
    onnx_operators=[OnnxOperator("Erf")],
)
@with_variants(
    tables=_erf_by_tables,
    vectors={("float32", 256): 8, ("float64", 256): 8, ("float64", 512): 8},
    stages={("float32", 512): 3, ("float64", 256): 2},
)
def erf(x):
    c = pick(_ERF, x)
    exp = pick(EXP, x)
    below = pick(BELOW, x)
    factor = pick(ERROR_SLOPE, x)
    one = like(x, 1)
    a = at_most(magnitude(x), c.enough)
    # t + t_low is a (factor + a q), where `factor` has two terms.
    q = horner(a, c.rest)
    k = muladd(a, q, factor.factor)
    k_low = muladd(a, q, factor.factor - k) + factor.factor_low
    # The residual of the product may not be subnormal. So tiny results are computed larger.
    limits = pick(RANGE, x)
    tiny = a < limits.unsplit
    a = a * limits.upsplit if tiny else a
    t = a * k
    t_low = muladd(a, k_low, fma(a, k, -t))
    linear = (t + t_low) * limits.unsplit
    total = muladd(t, -exp.log2_e, c.shift)
    n = total - c.shift
    s = pow2_of_sum(total)
    r = fma(n, below.ln2, t)
    if below.ln2_low != like(x, 0):  # known at compile time
        t_low = muladd(n, below.ln2_low, t_low)
    # The sum of 1 - s, s r, -s r^2 p(r) and s (1 - r) t_low, where e^-t is s (1 - r + r^2 p(r)).
    # Near 1/4, t_low is an ulp of the result: without the r t_low, the error would be 1.4 ulp.
    base = one - s
    base_low = (one - base) - s
    scaled = s * r
    high = base + scaled
    low = (base - high) + scaled
    low = muladd(s, muladd(t_low, -r, t_low), low + base_low)
    low = muladd(-scaled, r * horner(r, c.tail), low)
    y = last_muladd(low, one, high)
    return copysign(linear if tiny else y, x)


@derivative(
    formula="erf_backward(grad_output, input) = grad_output * 2 / sqrt(pi) * exp(-input**2)",
    notes="""The square and the product carry their rounding errors. Powers of 2 are multiplied
last, so that the result is accurate also where the derivative alone would underflow. For an
infinite `grad_output`, the result is infinite, or NaN where the magnitude of `input` is above 38.19
in float64 and above 13.97 in the other formats.""",
    reference=lambda m, g, x: g * (m.exp(-x * x) / m.sqrt(m.atan(1.0))),
    slope=lambda m, x: -2 * x * m.exp(-x * x) / m.sqrt(m.atan(1.0)),
    infinity_times_zero=nan,
    specials=[(2.0, inf, 0.0), (2.0, -inf, 0.0), (-2.0, inf, -0.0), (inf, 0.0, inf)],
    interval=(-3.5, 3.5),
    ulp={"float16": 0.51, "bfloat16": 0.51, "float32": 1.0, "float64": 1.0},
)
def erf_backward(grad_output, input):
    c = pick(ERROR_SLOPE, input)
    one = like(input, 1)
    p, p_low, n, down = bell(grad_output, input, one, c)
    y = rounded(last_muladd(p_low, copysign(one, p), magnitude(p)), or_nan(p, grad_output))
    return times_power(y, -n, down, magnitude(input) <= c.enough)


def _rest(m, a):
    return (-m.log(m.erfc(a)) / a - 2 / m.sqrt(m.pi)) / a


def _weight(a):
    """Nearly what a relative error of `_rest` is in the result, to a factor of 2."""
    return a * 2.718281828459045 ** (-a * a)


FITS = {
    f"erf {form}": Fit(coefficients, _rest, (0.0, end), _weight, error)
    for form, coefficients, end, error in (
        ("single", PerFormat(_ERF.single.rest, None), 3.95, PerFormat(2.0**-29.3, None)),
        ("double", PerFormat(None, _ERF.double.rest), 5.95, PerFormat(None, 2.0**-59.2)),
    )
}
