"""The logistic sigmoid and its derivative."""

from math import inf, nan

import numpy as np

from fastact._declarations.declare import activation, derivative
from fastact._declarations.records import Fast, KerasFunction, OnnxOperator, TorchModule
from fastact._declarations.sources import EXP_AND_SUMS, NARROW
from fastact._kernels.elementary import product, rounded, scales
from fastact._kernels.logistic import constants, denominator, negative_exp
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
    or_nan,
    pick,
    scalar,
    with_variants,
)

# The units are so small that an emulated fma, which splits its factors, does not overflow.
_LOGISTIC = PerFormat(
    single=constants(np.float32, 40, lowest=-104, enough=17.4),
    double=constants(float, 100, lowest=-745.2, enough=37.5),
)

# e^-r for |r| <= ln(2)/2; see tools/narrow.py.
_NARROW_EXP = tuple(
    np.float32(c) for c in (1.0, -0.99999994, 0.4999943, -0.16668096, 0.04190164, -0.008263038)
)


@scalar
def _quotient(x, u, power):
    """unit / (unit - u power).

    For a masked `x` like -1e9, the denominator is infinite, so that the quotient is 0 and never the
    result of an underflow, which takes ten times as long on some processors.
    """
    unit = pick(_LOGISTIC, x).unit
    return -unit / muladd(u, power, -unit)


def _narrow(x):
    limits = pick(_LOGISTIC, x)
    u, r = negative_exp(at_least(at_most(x, limits.enough), limits.infinite), limits)
    y = _quotient(x, u, horner(r, _NARROW_EXP))
    # Half an ulp towards 1/2, since 1/2 + x/4 is halfway between two results for many small x.
    return muladd(y, copysign(like(x, 2.0**-24), -x), y)


@with_variants(narrow=_narrow)
def fast_sigmoid(x):
    limits = pick(_LOGISTIC, x)
    u, r = negative_exp(at_least(at_most(x, limits.enough), limits.infinite), limits)
    return _quotient(x, u, muladd(r, horner(r, limits.slope), like(x, 1)))


@activation(
    summary="Logistic sigmoid, element-wise.",
    formula="sigmoid(x) = 1 / (1 + exp(-x))",
    notes="""With e^-x = 2^n (1 + r p(r)), the denominator is the sum of 1, 2^n and 2^n r p(r), and
carries its rounding error. Then one division and one Newton step with the residual give the
quotient."""
    + EXP_AND_SUMS
    + NARROW,
    reference=lambda m, x: 1 / (1 + m.exp(-x)),
    measured_in_full=True,
    elsewhere={
        "PyTorch": "sigmoid",
        "JAX": "nn.sigmoid",
        "Keras": "sigmoid",
        "ONNX": "Sigmoid",
        "SciPy": "special.expit",
    },
    specials=[(-inf, 0.0), (inf, 1.0), (0.0, 0.5)],
    interval=(-10.0, 10.0),
    ulp={"float16": 0.5, "bfloat16": 0.5, "float32": 0.89, "float64": 0.89},
    nondecreasing=True,
    range=(0.0, 1.0),
    steepest=0.25,
    torch_modules=[TorchModule("Sigmoid")],
    sklearn_names=["logistic"],
    keras_functions=[KerasFunction("nn.sigmoid")],
    pytensor_ops=["math.Sigmoid"],
    fast=Fast(fast_sigmoid, ulp={"float32": 2.49, "float64": 2.5}),
    onnx_operators=[OnnxOperator("Sigmoid")],
    onnx_formulas=[lambda m, x: 1 / (1 + m.exp(-x))],
)
@with_variants(
    narrow=_narrow,
    vectors={("float16", 256): 8, ("float64", 512): 8},
    stages={("float32", 256): 3, ("float64", 256): 3},
)
def sigmoid(x):
    limits = pick(_LOGISTIC, x)
    one = like(x, 1)
    u, r = negative_exp(at_least(at_most(x, limits.enough), limits.lowest), limits)
    d, d_low = denominator(u, r, limits)
    q = -one / d
    y = last_muladd(muladd(q, d_low, fma(q, d, one)), q, q)
    # An exact 0, not an underflow, which takes ten times as long on some processors.
    return y * (limits.unit if x > limits.lowest else like(x, 0))


@derivative(
    formula="sigmoid_backward(grad_output, output) = grad_output * output * (1 - output)",
    notes="""Products and the difference carry their rounding errors, so that the result is rounded
once, and a second time only where it is subnormal. For an infinite `grad_output`, the result is
infinite, or NaN where `output` is 0 or 1. sigmoid never returns values outside [0, 1]; an `output`
up to 300 in magnitude is handled as accurately, and beyond that the result may overflow early.""",
    reference=lambda m, g, y: g * y * (1 - y),
    slope=lambda m, y: 1 - 2 * y,
    infinity_times_zero=nan,
    specials=[(2.0, 0.5, 0.5), (2.0, 0.0, 0.0), (2.0, 1.0, 0.0), (inf, 0.5, inf)],
    interval=(0.0, 1.0),
    ulp={"float16": 0.5, "bfloat16": 0.51, "float32": 0.76, "float64": 0.76},
)
@with_variants(vectors={("float64", 256): 8})
def sigmoid_backward(grad_output, output):
    one = like(output, 1)
    rest = one - output
    t, t_low = product(output, rest, (one - rest) - output)
    up, down = scales(grad_output)
    p, p_low = product(grad_output * up, t, t_low)
    y = last_muladd(p_low, copysign(one, p), magnitude(p))
    return rounded(y, or_nan(p, grad_output)) * down
