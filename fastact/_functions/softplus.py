"""The smooth rectifier, the logarithm of the sigmoid, and their derivatives."""

from math import inf, nan

import numpy as np

from fastact._declarations.declare import activation, derivative
from fastact._declarations.records import KerasFunction, OnnxOperator, TorchModule
from fastact._declarations.sources import EXP_AND_SUMS, NARROW
from fastact._kernels.elementary import (
    EXP,
    LOWEST_SLOPE,
    RANGE,
    exp_reduced,
    logistic,
    product,
    rounded,
    scales,
    times_power,
)
from fastact._kernels.log1pexp import LOG1PEXP, parts, power_below_one
from fastact._kernels.vocabulary import (
    at_least,
    at_most,
    copysign,
    horner,
    last_muladd,
    like,
    magnitude,
    muladd,
    or_nan,
    pick,
    pow2,
    scalar,
    with_variants,
)

# unit e^r for |r| <= ln(2)/2, and log1p(t)/t^2 - 1/t for t in [0, 1]; see tools/narrow.py.
_NARROW_EXP = tuple(
    np.float32(LOG1PEXP.single.unit * c)
    for c in (0.9999999, 0.9999986, 0.4999994, 0.16666597, 0.041669995, 0.008369362, 0.0013748298)
)
_NARROW_LOG1P = tuple(
    np.float32(c)
    for c in (
        *(-0.49999627, 0.33321184, -0.24856006, 0.19149426),
        *(-0.13745219, 0.07910505, -0.030004906, 0.0053494754),
    )
)

# Above its threshold, torch returns x, which is 2e-9 too small at 20.
_TORCH = TorchModule(
    "Softplus",
    lambda module: module.beta == 1 and module.threshold >= 20,
    "have beta=1 and a threshold of at least 20",
)


# As `python -m bench.variants softplus log_sigmoid` finds it.
_VECTORS = {
    ("float16", 512): 8,
    ("float32", 256): 8,
    ("float32", 512): 8,
    ("float64", 256): 8,
    ("float64", 512): 8,
}


@scalar
def _narrow_parts(x):
    """(power, s) with log(1 + e^-|x|) = power s."""
    exp = pick(EXP, x)
    n, power, a = power_below_one(x)
    r = muladd(n, -exp.ln2_low, muladd(n, -exp.ln2_high, a))
    # e^r and log1p(t) / 2^n are computed times `unit`.
    e = horner(r, _NARROW_EXP)
    t = power * e
    return power, muladd(t * e, horner(t, _NARROW_LOG1P), e)


def _narrow(x):
    power, s = _narrow_parts(x)
    return muladd(power, s, at_least(x, like(x, 0)))


def _narrow_log_sigmoid(x):
    power, s = _narrow_parts(x)
    return -muladd(power, s, at_least(-x, like(x, 0)))


@scalar
def _half_sigmoid(x):
    """(q, q_low, n) with 2 (q + q_low) 2^-max(n, 0) = 1 / (1 + e^x)."""
    n, r, _ = exp_reduced(x)
    split = pick(RANGE, x).split
    q, c = logistic(n, r, -pow2(-at_most(magnitude(n), split), 0))
    # Half of it, since q may be above 1.
    q = like(q, 0.5) * q
    return q, q * c, n


@activation(
    summary="Smooth rectifier, element-wise.",
    formula="softplus(x) = log(1 + exp(x))",
    notes="""Computed as max(x, 0) + log(1 + t) with t = e^-|x| = 2^n (1 + r p(r)). The logarithm is
t - t^2/4, with its rounding error, plus t^2 q(t), where |q(t)| is at most 1/4. All of it is divided
by 2^n until the last operation, so that it is accurate where t is subnormal. There is no threshold
above which x replaces the result."""
    + EXP_AND_SUMS
    + NARROW,
    reference=lambda m, x: (x + abs(x)) / 2 + m.log1p(m.exp(-abs(x))),
    measured_in_full=True,
    elsewhere={
        "PyTorch": "nn.functional.softplus: x above a threshold of 20",
        "JAX": "nn.softplus",
        "Keras": "softplus",
        "ONNX": "Softplus",
        "NumPy": "logaddexp(x, 0)",
    },
    specials=[(-inf, 0.0), (inf, inf)],
    interval=(-10.0, 10.0),
    ulp={"float16": 0.5, "bfloat16": 0.5, "float32": 0.88, "float64": 0.9},
    nondecreasing=True,
    range=(0.0, inf),
    steepest=1.0,
    torch_modules=[_TORCH],
    keras_functions=[KerasFunction("nn.softplus")],
    pytensor_ops=["math.Softplus"],
    onnx_operators=[OnnxOperator("Softplus")],
    onnx_formulas=[lambda m, x: m.log(1 + m.exp(x))],
)
@with_variants(narrow=_narrow, vectors=_VECTORS)
def softplus(x):
    power, s, s_low = parts(x)
    return last_muladd(power, s, muladd(power, s_low, at_least(x, like(x, 0))))


@activation(
    summary="Logarithm of the logistic sigmoid, element-wise.",
    formula="log_sigmoid(x) = -log(1 + exp(-x))",
    notes="""Computed as -softplus(-x), with the same errors. The result is -0.0 where it is less
than half the smallest subnormal number."""
    + EXP_AND_SUMS
    + NARROW,
    reference=lambda m, x: (x - abs(x)) / 2 - m.log1p(m.exp(-abs(x))),
    elsewhere={
        "PyTorch": "nn.functional.logsigmoid",
        "JAX": "nn.log_sigmoid",
        "Keras": "log_sigmoid",
        "SciPy": "special.log_expit",
    },
    specials=[(-inf, -inf), (inf, -0.0)],
    interval=(-10.0, 10.0),
    ulp={"float16": 0.5, "bfloat16": 0.5, "float32": 0.88, "float64": 0.9},
    nondecreasing=True,
    range=(-inf, 0.0),
    steepest=1.0,
    torch_modules=[TorchModule("LogSigmoid")],
    keras_functions=[KerasFunction("nn.log_sigmoid")],
    onnx_formulas=[lambda m, x: m.log(m.sigmoid(x)), lambda m, x: -m.softplus(-x)],
)
@with_variants(narrow=_narrow_log_sigmoid, vectors=_VECTORS)
def log_sigmoid(x):
    power, s, s_low = parts(x)
    return -last_muladd(power, s, muladd(power, s_low, at_least(-x, like(x, 0))))


@derivative(
    formula="softplus_backward(grad_output, input) = grad_output / (1 + exp(-input))",
    notes="""The sigmoid of `input`, with its rounding error, is multiplied by `grad_output`. Powers
of 2 are multiplied last, so that the result is accurate also where the sigmoid alone would
underflow to 0. (In float64, the result is 0 where `input` is below -1418.5.) For an infinite
`grad_output`, the result is infinite, or NaN where `input` is below -1418.5 in float64 and
below -192.5 in the other formats."""
    + EXP_AND_SUMS,
    reference=lambda m, g, x: g / (1 + m.exp(-x)),
    slope=lambda m, x: (1 - m.tanh(x / 2) ** 2) / 4,
    of_output=lambda m, y: -m.expm1(-y),
    infinity_times_zero=nan,
    specials=[(2.0, 0.0, 1.0), (2.0, inf, 2.0), (2.0, -inf, 0.0), (inf, 0.0, inf)],
    interval=(-10.0, 10.0),
    ulp={"float16": 0.51, "bfloat16": 0.51, "float32": 0.95, "float64": 0.99},
)
@with_variants(vectors={("float64", 256): 8, ("float64", 512): 8})
def softplus_backward(grad_output, input):
    limits = pick(RANGE, input)
    lowest = pick(LOWEST_SLOPE, input)
    one = like(input, 1)
    # A difference, not a negation, as in sigmoid.
    q, q_low, n = _half_sigmoid(like(input, 0) - at_least(at_most(input, limits.enough), lowest))
    up, down = scales(grad_output)
    p, p_low = product(grad_output * up, q, q_low)
    y = last_muladd(p_low, copysign(one, p), magnitude(p))
    y = rounded(y, or_nan(p, grad_output))
    return times_power(y, n, down, input >= lowest)


@derivative(
    formula="log_sigmoid_backward(grad_output, input) = grad_output / (1 + exp(input))",
    notes="""Computed like softplus_backward, for the negative of `input`. For an infinite
`grad_output`, the result is infinite, or NaN where `input` is above 1418.5 in float64 and above
192.5 in the other formats."""
    + EXP_AND_SUMS,
    reference=lambda m, g, x: g / (1 + m.exp(x)),
    slope=lambda m, x: -(1 - m.tanh(x / 2) ** 2) / 4,
    of_output=lambda m, y: -m.expm1(y),
    infinity_times_zero=nan,
    specials=[(2.0, 0.0, 1.0), (2.0, -inf, 2.0), (2.0, inf, 0.0), (inf, 0.0, inf)],
    interval=(-10.0, 10.0),
    ulp={"float16": 0.51, "bfloat16": 0.51, "float32": 0.95, "float64": 0.99},
)
@with_variants(vectors={("float64", 256): 8, ("float64", 512): 8})
def log_sigmoid_backward(grad_output, input):
    limits = pick(RANGE, input)
    highest = -pick(LOWEST_SLOPE, input)
    one = like(input, 1)
    q, q_low, n = _half_sigmoid(at_most(at_least(input, -limits.enough), highest))
    up, down = scales(grad_output)
    p, p_low = product(grad_output * up, q, q_low)
    y = last_muladd(p_low, copysign(one, p), magnitude(p))
    y = rounded(y, or_nan(p, grad_output))
    return times_power(y, n, down, input <= highest)
