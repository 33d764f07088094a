"""Derivatives: errors are within the declared bounds, and declarations are consistent."""

import functools
import platform

import ml_dtypes
import mpmath
import numpy as np
import pytest
from conftest import FLOATS, assert_same, is_nan
from hypothesis import given
from hypothesis import strategies as st
from kinds import bound

import fastact
from bench import accuracy
from bench.references import FOR_ARRAYS
from fastact._declarations.records import (
    ACTIVATIONS,
    DERIVATIVES,
    Derivative,
)
from fastact._machine.targets import BASELINES
from fastact._runtime import engine
from fastact._runtime import ufunc as ufunc_module

pytestmark = pytest.mark.functional

NARROW = ["float16", "bfloat16"]
# Points inside the pieces of every activation, where it is differentiable.
PLACES = [-30.0, -2.5, -0.7, -1e-3, 1e-3, 0.4, 1.1, 3.75, 17.0]


def places(declared):
    """Those where the activation is defined."""
    with np.errstate(all="ignore"):
        y = ACTIVATIONS[declared.activation].reference(FOR_ARRAYS, np.array(PLACES))
    return list(map(mpmath.mpf, np.array(PLACES)[np.isfinite(y)].tolist()))


# Those of several inputs are tested in test_several_inputs.py.
UNARY = [d for d in DERIVATIVES.values() if ACTIVATIONS[d.activation].nin == 1]

each = pytest.mark.parametrize("declared", UNARY, ids=lambda d: d.name)


def ufunc(declared):
    return getattr(fastact, declared.name)


def saved(declared, x):
    """The saved value, input or output, of mpmath's activation at `x`."""
    if declared.saved == "input":
        return x
    return ACTIVATIONS[declared.activation].reference(mpmath.mp, x)


def test_every_activation_of_one_input_has_a_derivative():
    unary = [name for name, activation in ACTIVATIONS.items() if activation.nin == 1]
    assert sorted(declared.activation for declared in UNARY) == sorted(unary)
    for declared in UNARY:
        assert declared.name == f"{declared.activation}_backward"
        assert DERIVATIVES[declared.activation] is declared
        assert declared.inputs == ["grad_output", *declared.needs]
        assert declared.saved in ("input", "output")
        assert declared.results == ["y"]
        assert ACTIVATIONS.keys().isdisjoint([declared.name])


# The declared formulas, compared with mpmath's numerical derivatives of the activation.


@each
def test_reference_is_the_derivative(declared):
    activation = ACTIVATIONS[declared.activation].reference
    with mpmath.workdps(60):
        for place in places(declared):
            exact = mpmath.diff(functools.partial(activation, mpmath.mp), place)
            found = declared.reference(mpmath.mp, 3, saved(declared, place))
            assert abs(found - 3 * exact) <= mpmath.mpf(10) ** -20 * (1 + abs(exact))
            if declared.of_output is not None:
                found = declared.of_output(mpmath.mp, activation(mpmath.mp, place))
                assert abs(found - exact) <= mpmath.mpf(10) ** -20 * (1 + abs(exact))


@each
def test_slope_is_the_derivative_of_the_derivative(declared):
    with mpmath.workdps(60):
        for place in places(declared):
            kept = saved(declared, place)
            if kept in declared.jumps:
                continue
            exact = mpmath.diff(functools.partial(declared.reference, mpmath.mp, 1), kept)
            found = declared.slope(mpmath.mp, kept)
            assert abs(found - exact) <= mpmath.mpf(10) ** -20


def test_no_derivative_at_the_jump_and_the_bend(dtype):
    zeros, ones = np.array([0.0, -0.0], dtype), np.ones(2, dtype)
    for function in (fastact.relu_backward, fastact.step_backward):
        assert_same(function(ones, zeros), np.zeros(2, dtype))
        assert_same(function(-ones, zeros), np.zeros(2, dtype))


@each
def test_infinite_gradients(declared, dtype):
    """Results are infinite where the derivative is not 0; elsewhere 0 or NaN, as declared."""
    x = np.array([-np.inf, -1.0, 0.5, np.inf], dtype)
    kept = x if declared.saved == "input" else getattr(fastact, declared.activation)(x)
    with np.errstate(all="ignore"):
        kept = kept.astype(np.float64)
        derivative = declared.reference(FOR_ARRAYS, 1.0, kept)
        # Formulas need not hold at infinity itself.
        near = declared.reference(FOR_ARRAYS, 1.0, kept.clip(-1e4, 1e4))
        derivative = np.where(np.isnan(derivative), near, derivative)
        expected = np.where(derivative == 0, declared.infinity_times_zero, np.inf * derivative)
    known = ~((derivative == 0) & (declared.infinity_times_zero is None))
    infinite = np.full(4, np.inf, dtype)
    for sign in (1, -1):
        found = ufunc(declared)(sign * infinite, kept.astype(dtype)).astype(np.float64)
        np.testing.assert_array_equal(found[known], sign * expected[known].astype(np.float64))
        assert (np.isnan(found) | (found == 0))[~known].all()


@pytest.mark.parametrize("name", ["float32", "float64"])
@pytest.mark.parametrize("activation", ["sigmoid", "tanh"])
def test_outputs_that_the_activation_does_not_have(activation, name):
    """The declared bound also holds for these outputs, up to the documented magnitude."""
    declared = DERIVATIVES[activation]
    info, rng = np.finfo(name), np.random.default_rng(5)
    gradients = np.exp2(rng.uniform(info.minexp + 8, info.maxexp - 28, 3000)).astype(name)
    outputs = rng.choice([-1, 1], 3000) * np.exp2(rng.uniform(-3, np.log2(300), 3000))
    found = ufunc(declared)(gradients, outputs.astype(name))
    with mpmath.workprec(300):
        for g, y, result in zip(gradients, outputs.astype(name), found, strict=True):
            exact = declared.reference(mpmath.mp, mpmath.mpf(float(g)), mpmath.mpf(float(y)))
            ulp = np.spacing(abs(result))
            assert abs(mpmath.mpf(float(result)) - exact) <= declared.ulp[name] * float(ulp)


# Errors.


@each
@pytest.mark.parametrize("name", NARROW)
def test_16_bits(declared, name):
    """A few significands of the gradient with every value that may be saved, and random pairs."""
    step = {"float16": 93, "bfloat16": 11}[name]
    report = accuracy.derivative_report(declared, name, ufunc(declared), 200_000, step, seed=1)
    assert report.count > 200_000
    assert report.ulp <= declared.ulp[name] <= 0.51
    assert report.wrong == 0


@each
def test_float32(declared):
    report = accuracy.derivative_report(declared, "float32", ufunc(declared), 1_000_000, seed=2)
    assert report.count > 900_000
    assert report.ulp <= bound(declared, "float32")
    assert declared.ulp["float32"] <= 1
    assert report.wrong == 0


@each
def test_float64(declared):
    report = accuracy.derivative_report(declared, "float64", ufunc(declared), 20_000, seed=3)
    assert report.count > 18_000
    assert report.ulp <= bound(declared, "float64")
    assert declared.ulp["float64"] <= 1


gradients = st.floats(allow_nan=False, allow_infinity=False)


@each
@given(data=st.data())
def test_any_float64_pair(declared, data):
    """Also near 0 and the ends of the interval, which Hypothesis prefers."""
    gradient = data.draw(gradients)
    low, high = declared.interval
    if declared.saved == "input":
        kept = data.draw(st.floats(-1418.5, 1e308) | st.floats(low, high))
    else:
        kept = data.draw(st.floats(low, high) | st.floats(0, 1e-6).map(lambda gap: high - gap))
    x = [np.array([gradient]), np.array([kept])]
    report = accuracy.float64_report(ufunc(declared), declared.reference, x)
    assert report.ulp <= bound(declared, "float64")


@each
@pytest.mark.exhaustive
@pytest.mark.parametrize("name", NARROW)
def test_every_pair_of_16_bits(declared, name):
    in_full = ACTIVATIONS[declared.activation].measured_in_full
    step = 1 if in_full else {"float16": 7, "bfloat16": 1}[name]
    report = accuracy.derivative_report(declared, name, ufunc(declared), 2_000_000, step, seed=4)
    print(f"{declared.name} {name}: {report}")
    assert report.ulp <= declared.ulp[name]
    assert report.wrong == 0


@each
@pytest.mark.exhaustive
@pytest.mark.parametrize(("name", "samples"), [("float32", 20_000_000), ("float64", 1_000_000)])
def test_many_pairs(declared, name, samples):
    if not ACTIVATIONS[declared.activation].measured_in_full:
        samples //= 10
    report = accuracy.derivative_report(declared, name, ufunc(declared), samples, seed=5)
    print(f"{declared.name} {name}: {report}")
    assert report.ulp <= bound(declared, name)
    assert report.wrong == 0


# One needs the input, and one the output. All others have code for lesser machines tested when all
# tests run at these levels (.ci/run).
@pytest.mark.parametrize(
    "declared", [DERIVATIVES["softplus"], DERIVATIVES["tanh"]], ids=lambda d: d.name
)
@pytest.mark.parametrize("target", ["x86-64-v2", "x86-64-v3"])
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="runs code for x86-64")
def test_code_for_lesser_machines_is_as_accurate(declared, target):
    function = ufunc_module.create(
        name=declared.name,
        nin=2,
        doc="",
        types="efd",
        choose=functools.partial(engine.choose_dtype, keeps_integers=False),
        make_loop=functools.partial(
            engine.loop_address, declared.kernel, 2, target=BASELINES[target]
        ),
    )
    for name in NARROW:
        report = accuracy.derivative_report(declared, name, function, 50_000, 311, seed=6)
        assert report.ulp <= declared.ulp[name]
        assert report.wrong == 0
    for name, samples in (("float32", 200_000), ("float64", 5_000)):
        report = accuracy.derivative_report(declared, name, function, samples, seed=7)
        assert report.ulp <= 1
        assert report.wrong == 0


# The samples themselves.


@each
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_samples_are_pairs_that_occur(declared, dtype):
    assert isinstance(declared, Derivative)
    gradient, kept = accuracy.pairs(declared, dtype, 40_000, seed=8)
    assert gradient.dtype == kept.dtype == dtype
    assert gradient.shape == kept.shape and len(kept) > 35_000
    assert not is_nan(gradient).any() and not is_nan(kept).any()
    low, high = (float(kept.min()), float(kept.max()))
    if declared.saved == "input":
        assert low < -700 and high > 20
    else:
        activation = ACTIVATIONS[declared.activation]
        least, greatest = np.array(activation.range, dtype).astype(np.float64)
        below = activation.reference(FOR_ARRAYS, -700.0)
        assert low == least if np.isfinite(least) else low < below
        above = activation.reference(FOR_ARRAYS, 20.0)
        usual = min(above, float(ml_dtypes.finfo(dtype).max) / 2)
        assert high == greatest if np.isfinite(greatest) else high > usual
