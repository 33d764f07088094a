"""The logarithm of odds and its derivative."""

from math import inf, nan

from fastact._declarations.declare import activation, derivative
from fastact._declarations.sources import LOG_AND_SUMS
from fastact._kernels.elementary import product
from fastact._kernels.logarithm import LOG, binary_exponent, log_of_product, over_one_plus
from fastact._kernels.quotient import quotient
from fastact._kernels.vocabulary import (
    copysign,
    fma,
    last_muladd,
    like,
    magnitude,
    or_nan,
    pick,
    pow2,
    scalar,
    significand,
    with_variants,
)


@scalar
def _terms(x):
    c = pick(LOG, x)
    one = like(x, 1)
    d = one - x
    d_low = (one - d) - x
    reciprocal = one / d
    small = x < c.least
    x = x * c.up if small else x
    z = x * reciprocal
    z_low = (fma(-z, d, x) - z * d_low) * reciprocal
    # Near 1/2, k is 0 and f is exact, and so small that its low part matters.
    k = binary_exponent(z)
    f = significand(z, c.root) - one
    rest = over_one_plus(z_low * pow2(-k, 0), f)
    k = k - c.up_exponent if small else k
    return log_of_product(k, f, rest)


@scalar
def _with_limits(y, x):
    zero, one = like(x, 0), like(x, 1)
    above = like(x, inf) if x == one else like(x, nan)
    y = above if x >= one else y
    below = like(x, -inf) if x == zero else like(x, nan)
    y = below if x <= zero else y
    # The significand of NaN is that of a number.
    return y if x == x else x + x


def _narrow(x):
    high, low = _terms(x)
    y = last_muladd(low, copysign(like(x, 1), high), magnitude(high))
    return _with_limits(copysign(y, high), x)


def _reference(m, x):
    # Near 1/2, the two logarithms would cancel, but 2 x - 1 is exact.
    near = (x > 0.25) * (x < 0.75)
    far = 1 - near
    return m.log1p(near * (2 * x - 1) / (1 - near * x)) + (
        m.log(far * x + near) - m.log1p(-far * x)
    )


@activation(
    summary="Logarithm of odds, element-wise: the inverse of sigmoid.",
    formula="logit(x) = log(x / (1 - x))",
    notes="""Same as ``scipy.special.logit``: -inf for 0, inf for 1, and NaN outside [0, 1]. The
quotient carries its rounding error, so that the result is as accurate near 1/2, where it is 0."""
    + LOG_AND_SUMS,
    reference=_reference,
    elsewhere={
        "PyTorch": "logit",
        "JAX": "scipy.special.logit",
        "SciPy": "special.logit",
    },
    specials=[(0.0, -inf), (1.0, inf), (0.5, 0.0)],
    interval=(0.01, 0.99),
    ulp={"float16": 0.5, "bfloat16": 0.5, "float32": 0.96, "float64": 0.92},
    nondecreasing=True,
)
@with_variants(narrow=_narrow)
def logit(x):
    high, low = _terms(x)
    return _with_limits(high + low, x)


@derivative(
    formula="logit_backward(grad_output, input) = grad_output / (input * (1 - input))",
    notes="""The denominator carries its rounding error, and the quotient is corrected once. Where
`input` is 0 or 1, the result is infinite, or NaN if `grad_output` is 0. It is NaN where `input` is
outside [0, 1].""",
    reference=lambda m, g, x: g / m.sqrt(x * (1 - x)) ** 2,
    slope=lambda m, x: (2 * x - 1) / (x * (1 - x)) ** 2,
    of_output=lambda m, y: 2 + m.exp(y) + m.exp(-y),
    specials=[(2.0, 0.5, 8.0), (2.0, 0.0, inf), (-2.0, 1.0, -inf), (inf, 0.5, inf)],
    interval=(0.01, 0.99),
    ulp={"float16": 0.51, "bfloat16": 0.51, "float32": 0.76, "float64": 0.76},
)
def logit_backward(grad_output, input):
    one = like(input, 1)
    zero = like(input, 0)
    d = one - input
    t, t_low = product(magnitude(input), d, (one - d) - input)
    y, g, down = quotient(grad_output, t, t_low)
    y = y * down
    y = like(input, nan) if input < zero else y
    y = like(input, nan) if input > one else y
    y = y if input == input else input + input
    return or_nan(y, g)
