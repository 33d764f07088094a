"""Gates, which are x times a function between 0 and 1: tails, and the zeros of derivatives."""

import mpmath
import numpy as np
import pytest
from conftest import FLOATS, assert_same, bits

import fastact
from fastact._declarations.records import ACTIVATIONS, DERIVATIVES

pytestmark = pytest.mark.functional

GATES = {"silu": -1.278, "gelu_tanh": -0.752, "quick_gelu": -0.751, "mish": -1.192}
"""About where the derivatives are 0."""


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", GATES)
def test_far_below_the_result_is_minus_zero(name, dtype):
    x = np.array([-6e4, -3e4, -np.inf]).astype(dtype)
    assert_same(getattr(fastact, name)(x), np.full(3, -0.0).astype(dtype))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", GATES)
def test_far_above_the_result_is_the_input(name, dtype):
    x = np.array([50.0, 3e4, float(np.finfo(np.float16).max), np.inf]).astype(dtype)
    assert_same(getattr(fastact, name)(x), x)


@pytest.mark.parametrize("name", GATES)
def test_results_are_not_cut_off_before_they_are_subnormal(name):
    """Other libraries return 0 or results of the wrong sign there."""
    x = -np.linspace(4, 110, 400).astype(np.float32)
    found = getattr(fastact, name)(x)
    with mpmath.workprec(200):
        for value, result in zip(x, found, strict=True):
            exact = ACTIVATIONS[name].reference(mpmath.mp, mpmath.mpf(float(value)))
            assert abs(mpmath.mpf(float(result)) - exact) <= np.spacing(abs(result))
            assert np.signbit(result)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", GATES)
def test_derivatives_next_to_their_zeros(name, dtype):
    """The relative error is the same where 1 + e^x - x or the like cancels."""
    activation, declared = ACTIVATIONS[name], DERIVATIVES[name]
    with mpmath.workdps(60):

        def exact(x):
            return mpmath.diff(lambda t: activation.reference(mpmath.mp, t), x)

        zero = mpmath.findroot(exact, GATES[name])
        start = np.array(float(zero), dtype)
        steps = np.unique(np.round(1.3 ** np.arange(60))).astype(np.int64)
        x = [(bits(start).astype(np.int64) + sign * steps) for sign in (-1, 1)]
        x = np.concatenate([*x, [int(bits(start))]]).astype(bits(start).dtype).view(dtype)
        x = x[abs(x - start) < 0.5]
        found = getattr(fastact, f"{name}_backward")(np.ones_like(x), x)
        for value, result in zip(x, found, strict=True):
            want = exact(mpmath.mpf(float(value)))
            error = abs(mpmath.mpf(float(result)) - want) / np.spacing(abs(result))
            assert error <= declared.ulp[dtype]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_tanhshrink_does_not_cancel(dtype):
    x = np.geomspace(1e-12, 30, 500).astype(dtype)
    found = fastact.tanhshrink(x)
    with mpmath.workdps(60):
        for value, result in zip(x, found, strict=True):
            exact = mpmath.mpf(float(value))
            exact = exact - mpmath.tanh(exact)
            assert abs(mpmath.mpf(float(result)) - exact) <= np.spacing(result)
