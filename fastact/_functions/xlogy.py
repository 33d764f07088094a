"""The product of a number and a logarithm, and its derivatives."""

from math import inf, nan

from fastact._declarations.declare import activation, derivative
from fastact._declarations.sources import LOG_AND_SUMS
from fastact._kernels.elementary import product, rounded, scales
from fastact._kernels.logarithm import log_positive
from fastact._kernels.products import near_one, product_near_one, times_pow2, towards_one
from fastact._kernels.vocabulary import (
    copysign,
    fma,
    last_muladd,
    like,
    magnitude,
    or_nan,
    or_nans,
    quiet,
    scalar,
)


@scalar
def _log(y):
    """log(y) as (v, v_low), for any number `y`."""
    zero, infinite = like(y, 0), like(y, inf)
    high, low = log_positive(y)
    v = high + low
    v_low = (high - v) + low
    limit = -infinite if y == zero else like(y, nan)
    v = limit if y <= zero else v
    return infinite if y == infinite else v, v_low


def _reference(m, x, y):
    return x * m.log(y * (x != 0) + (x == 0))


@activation(
    summary="Product of a number and a logarithm, 0 where the number is 0, element-wise.",
    formula="xlogy(x, y) = 0 if x == 0 else x * log(y)",
    notes="""Same as ``scipy.special.xlogy``: NaN for negative `y`, unless `x` is 0. With
y = 2^k (1 + f), the logarithm is k log(2) + f + f^2 p(f), and carries its rounding error, so that
the product is rounded once, and a second time only where it is subnormal."""
    + LOG_AND_SUMS,
    reference=_reference,
    elsewhere={
        "PyTorch": "xlogy",
        "JAX": "scipy.special.xlogy",
        "SciPy": "special.xlogy",
    },
    specials=[
        (0.0, 0.0, 0.0),
        (0.0, -1.0, 0.0),
        (0.0, inf, 0.0),
        (2.0, 0.0, -inf),
        (-2.0, 0.0, inf),
        (2.0, 1.0, 0.0),
        (2.0, inf, inf),
        (inf, 2.0, inf),
    ],
    interval=(0.01, 4.0),
    ulp={"float16": 0.51, "bfloat16": 0.51, "float32": 0.9, "float64": 0.8},
)
def xlogy(x, y):
    zero = like(x, 0)
    v, v_low = _log(y)
    up, down = scales(x)
    p, p_low = product(x * up, v, v_low)
    result = last_muladd(p_low, copysign(like(x, 1), p), magnitude(p))
    result = rounded(result, p) * down
    result = zero if x == zero else result
    # The logarithm of NaN is that of a number.
    result = result if y == y else y + y
    return or_nan(result, x + x)


def _gradients(m, g, x, y):
    left_out = (x == 0) * (y <= 0)
    return g * m.log(y * (1 - left_out) + left_out), g * x / y


@derivative(
    formula="xlogy_backward(grad_output, x, y) = (grad_output * log(y), grad_output * x / y)",
    notes="""The gradients with respect to `x` and `y`, as those of PyTorch. The first is 0 where
`x` is 0 and `y` is not positive, and NaN where only `y` is negative. The second is a quotient also
there, and so NaN where both are 0. The logarithm, product and quotient carry their rounding errors,
and powers of 2 are multiplied last."""
    + LOG_AND_SUMS,
    reference=_gradients,
    specials=[
        (2.0, 3.0, 1.0, 0.0, 6.0),
        (2.0, 0.0, 1.0, 0.0, 0.0),
        (2.0, 0.0, 0.0, 0.0, nan),
        (2.0, 0.0, -1.0, 0.0, -0.0),
        (2.0, 3.0, 0.0, -inf, inf),
        (2.0, 3.0, -1.0, nan, -6.0),
        (2.0, 3.0, inf, inf, 0.0),
        (2.0, inf, 1.0, 0.0, inf),
    ],
    interval=(0.01, 4.0),
    ulp={"float16": 0.51, "bfloat16": 0.51, "float32": 0.9, "float64": 0.9},
)
def xlogy_backward(grad_output, x, y):
    zero, one = like(x, 0), like(x, 1)
    v, v_low = _log(y)
    up, down = scales(grad_output)
    p, p_low = product(grad_output * up, v, v_low)
    of_x = last_muladd(p_low, copysign(one, p), magnitude(p))
    of_x = rounded(of_x, p) * down
    of_x = (zero if y <= zero else of_x) if x == zero else of_x
    p, p_low, n = product_near_one(grad_output, x)
    factor, k = towards_one(y)
    d = y * factor
    q = p / d
    q, q_low, j = near_one(q, (fma(-q, d, p) + p_low) / d)
    of_y = last_muladd(q_low, copysign(one, q), magnitude(q))
    of_y = times_pow2(rounded(of_y, q), n + j - k)
    of_x = or_nan(or_nans(of_x, x, y), grad_output)
    of_y = or_nan(or_nans(of_y, x, y), grad_output)
    return quiet(of_x), quiet(of_y)
