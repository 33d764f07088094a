"""fastact.autograd, compared with HIPS autograd and its numerical checks."""

import importlib.metadata
import sys

import numpy as np
import pytest
import scipy.special
from conftest import run_python

import fastact
from fastact._declarations.records import (
    ACTIVATIONS,
    DERIVATIVES,
    REDUCTION_DERIVATIVES,
    ROW_ACTIVATIONS,
    ROW_DERIVATIVES,
    ROW_REDUCTIONS,
    Derivative,
    RowDerivative,
    unary_derivatives,
)

autograd = pytest.importorskip("autograd", reason="the extra integration installs autograd")
check_grads = pytest.importorskip("autograd.test_util").check_grads
fag = pytest.importorskip("fastact.autograd")
MODULE = pytest.importorskip("fastact._interop.autograd_module").MODULE

pytestmark = pytest.mark.integration

NAMES = [*unary_derivatives(), *ROW_DERIVATIVES]
SEVERAL = [name for name in DERIVATIVES if ACTIVATIONS[name].nin > 1]
# The declared formula, unless the dict below has one that autograd differentiates better.
THEIRS = {name: (ACTIVATIONS | ROW_ACTIVATIONS)[name].reference for name in NAMES} | {
    "sigmoid": lambda m, x: 1 / (1 + m.exp(-x)),
    "tanh": lambda m, x: m.tanh(x),
    "relu": lambda m, x: m.maximum(x, 0),
    "step": lambda m, x: 0 * x,
    "softplus": lambda m, x: m.log1p(m.exp(x)),
}

each = pytest.mark.parametrize("name", NAMES)
each_several = pytest.mark.parametrize("name", SEVERAL)


def values(*shape, name=None, seed=0):
    """Return values of the interval of a function, or from a normal distribution."""
    if name in ACTIVATIONS:
        low, high = ACTIVATIONS[name].interval
        if low > -3 or high < 3:  # it is not defined everywhere
            return np.random.default_rng(seed).uniform(low, high, shape)
    x = np.random.default_rng(seed).standard_normal(shape)
    return x + np.sign(x) * 0.01


def test_every_activation_is_there():
    differentiable = [name for name in ACTIVATIONS if hasattr(fastact, f"{name}_backward")]
    of_rows = {*ROW_ACTIVATIONS, *ROW_REDUCTIONS}
    assert set(fag.__all__) == {*differentiable, *of_rows}
    assert {*differentiable, *ROW_ACTIVATIONS} == {*THEIRS, *SEVERAL}


@each
@pytest.mark.parametrize("mode", ["rev", "fwd"])
@pytest.mark.parametrize("shape", [(4, 3), (6,)], ids=str)
def test_check_grads(name, mode, shape):
    check_grads(getattr(fag, name), modes=[mode], order=2)(values(*shape, name=name))


def test_check_grads_of_numbers_and_other_axes():
    for name in unary_derivatives():
        number = values(name=name).item()
        check_grads(getattr(fag, name), modes=["rev", "fwd"], order=2)(number)
    for name in ROW_DERIVATIVES:
        function = getattr(fag, name)
        along = lambda x, function=function: function(x, axis=0)  # noqa: E731
        check_grads(along, modes=["rev", "fwd"], order=2)(values(4, 3))


def test_forward_mode_is_by_the_declared_tangent():
    tangent = lambda xp, t, y, axis: 3 * t * y  # noqa: E731
    declared = RowDerivative(**vars(ROW_DERIVATIVES["softmax"]) | {"tangent": tangent})
    x, t = values(4, 3), values(4, 3, seed=1)
    y, found = autograd.make_jvp(fag._row_wise(declared))(x)(t)
    np.testing.assert_array_equal(found, 3 * t * y)


@pytest.mark.parametrize("name", REDUCTION_DERIVATIVES)
def test_reductions(name):
    """Values, derivatives of two orders, and those of autograd of the formula, of three."""
    import autograd.numpy as anp

    function, ufunc = getattr(fag, name), getattr(fastact, name)
    x, single = values(4, 3, 2), values(4, 3, 2).astype(np.float32)
    for axis in (-1, 0, 1):
        for keepdims in (False, True):
            along = lambda x: function(x, axis=axis, keepdims=keepdims)  # noqa: B023, E731
            np.testing.assert_array_equal(along(x), ufunc(x, axis=axis, keepdims=keepdims))
            check_grads(along, modes=["rev", "fwd"], order=2)(x)
            gradient = autograd.grad(lambda x: anp.sum(along(x)))(single)  # noqa: B023
            assert gradient.dtype == np.float32
    check_grads(function, modes=["rev", "fwd"], order=2)(values(5))
    weight = values(5, 1, seed=1)[:, 0]
    ours = lambda x: anp.sum(weight * function(x))  # noqa: E731
    theirs = lambda x: anp.sum(weight * ROW_REDUCTIONS[name].reference(anp, x))  # noqa: E731
    for _ in range(3):
        ours, theirs = (autograd.elementwise_grad(f) for f in (ours, theirs))
        np.testing.assert_allclose(ours(values(5, 4)), theirs(values(5, 4)), rtol=1e-9, atol=1e-12)


@each
def test_values_are_those_of_the_ufunc(name):
    x = values(5, 4)
    np.testing.assert_array_equal(getattr(fag, name)(x), getattr(fastact, name)(x))
    single = getattr(fag, name)(x.astype(np.float32))
    assert single.dtype == np.float32


@each
@pytest.mark.filterwarnings("ignore:Output seems independent")  # for relu and step
@pytest.mark.parametrize("order", [1, 2, 3])
def test_derivatives_are_those_of_the_formula(name, order):
    """All orders agree with autograd's derivatives of the formula."""
    import autograd.numpy as anp

    weight = values(5, 4, seed=1)
    ours = lambda x: anp.sum(weight * getattr(fag, name)(x))  # noqa: E731
    theirs = lambda x: anp.sum(weight * THEIRS[name](MODULE, x))  # noqa: E731
    for _ in range(order):
        ours, theirs = (autograd.elementwise_grad(f) for f in (ours, theirs))
    x = values(5, 4, name=name)
    np.testing.assert_allclose(ours(x), theirs(x), rtol=1e-9, atol=1e-12)


def operands_of(name, parameters=(3,)):
    """Return arrays for the inputs of a function; those that are no parameters have one shape."""
    declared = ACTIVATIONS[name]
    sign = np.positive if declared.interval[0] < 0 else np.abs
    return [
        np.resize(np.array(declared.parameters[operand], float), parameters)
        if operand in declared.parameters
        else sign(values(4, 3, seed=seed))
        for seed, operand in enumerate(declared.inputs)
    ]


@each_several
@pytest.mark.parametrize("shape", [(), (1,), (3,), (4, 1), (4, 3), (2, 1, 1)], ids=str)
def test_check_grads_of_several_inputs(name, shape):
    operands = operands_of(name, shape)
    every = tuple(range(len(operands)))
    order = 2 if shape in ((), (3,)) else 1
    check_grads(getattr(fag, name), every, modes=["rev", "fwd"], order=order)(*operands)
    if shape == ():
        numbers = [v.item() if v.ndim == 0 else 0.7 for v in operands]
        check_grads(getattr(fag, name), every, modes=["rev", "fwd"], order=2)(*numbers)


@each_several
@pytest.mark.parametrize("order", [1, 2, 3])
def test_derivatives_of_several_inputs_are_those_of_the_formula(name, order, recwarn):
    """With respect to each input, and for arrays of float32, whose type they have."""
    import autograd.numpy as anp

    weight, operands = values(4, 3, seed=9), operands_of(name)
    for k in range(len(operands)):
        ours = lambda *v: anp.sum(weight * getattr(fag, name)(*v))  # noqa: E731
        theirs = lambda *v: anp.sum(weight * ACTIVATIONS[name].reference(MODULE, *v))  # noqa: E731
        for _ in range(order):
            ours, theirs = (autograd.elementwise_grad(f, k) for f in (ours, theirs))
        found = ours(*operands)
        if order == 1:
            assert not recwarn.list
        np.testing.assert_allclose(found, theirs(*operands), rtol=1e-9, atol=1e-12)
        recwarn.clear()  # of derivatives that are 0
    narrow = [v.astype(np.float32) for v in operands]
    gradients = autograd.grad(lambda *v: anp.sum(getattr(fag, name)(*v)), (0, 1))(*narrow)
    assert {gradient.dtype for gradient in gradients} == {np.dtype(np.float32)}


@each_several
def test_values_of_several_inputs_are_those_of_the_ufunc(name):
    operands = operands_of(name)
    expected = getattr(fastact, name)(*operands)
    np.testing.assert_array_equal(getattr(fag, name)(*operands), expected)


def test_second_derivatives_follow_from_the_reference_without_a_slope(recwarn):
    declared = DERIVATIVES["softplus"]
    without = Derivative(**vars(declared) | {"slope": None})
    function = fag._element_wise(without)
    check_grads(function, modes=["rev", "fwd"], order=3)(values(4, 3))
    second = autograd.elementwise_grad(autograd.elementwise_grad(function))(values(4, 3))
    expected = autograd.elementwise_grad(autograd.elementwise_grad(fag.softplus))(values(4, 3))
    np.testing.assert_allclose(second, expected, rtol=1e-13)
    assert not recwarn.list


def test_a_derivative_that_does_not_depend_on_an_input_causes_no_warning(recwarn):
    """autograd itself warns of outputs that are independent of an input."""
    mixed = autograd.elementwise_grad(autograd.elementwise_grad(fag.prelu, 0), 1)
    np.testing.assert_array_equal(mixed(values(4, 3), np.full((4, 3), 0.5)), values(4, 3) < 0)
    twice = autograd.elementwise_grad(lambda x: autograd.elementwise_grad(fag.prelu)(x, 0.5) * x)
    np.testing.assert_array_equal(twice(values(4, 3)), np.where(values(4, 3) > 0, 1, 0.5))
    assert not recwarn.list


@pytest.mark.parametrize("name", ["erf", "erfc", "atan"])
def test_functions_of_references_that_autograd_lacks(name):
    exact = {"erf": scipy.special.erf, "erfc": scipy.special.erfc, "atan": np.arctan}[name]
    function = getattr(MODULE, name)
    np.testing.assert_array_equal(function(values(4, 3)), exact(values(4, 3)))
    check_grads(function, modes=["rev", "fwd"], order=3)(values(4, 3))


def test_large_inputs_raise_no_warning():
    x = np.array([-1e4, -800.0, 0.0, 800.0, 1e4])
    bounded = [n for n in NAMES if n in ROW_ACTIVATIONS or np.isfinite(ACTIVATIONS[n].steepest)]
    assert len(bounded) > len(NAMES) / 2
    for name in bounded:
        for order in (1, 2):
            function = getattr(fag, name)
            for _ in range(order):
                function = autograd.elementwise_grad(function)
            assert np.isfinite(function(x)).all()
    assert autograd.elementwise_grad(fag.softplus)(x).tolist() == [0, 0, 0.5, 1, 1]
    assert autograd.elementwise_grad(autograd.elementwise_grad(fag.softplus))(0.0) == 0.25


HIDDEN = """
import sys
sys.modules["autograd"] = None
try:
    import fastact.autograd
except ImportError as error:
    print(error)
import fastact
"""


def test_missing_library():
    expected = 'autograd is not installed; pip install "fastact[autograd]" installs it\n'
    assert run_python(HIDDEN) == expected


def test_other_versions(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "9.1")
    monkeypatch.delitem(sys.modules, "fastact.autograd")
    with pytest.warns(UserWarning, match=r"autograd 9\.1 is outside the range .* 1\.7 to below"):
        __import__("fastact.autograd")
