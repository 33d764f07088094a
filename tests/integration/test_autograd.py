"""fastact.autograd, compared with HIPS autograd and its numerical checks."""

import importlib.metadata
import sys

import numpy as np
import pytest
from conftest import run_python

import fastact
from fastact._declarations.records import (
    ACTIVATIONS,
    DERIVATIVES,
    ROW_ACTIVATIONS,
    ROW_DERIVATIVES,
    RowDerivative,
)

autograd = pytest.importorskip("autograd", reason="the extra integration installs autograd")
check_grads = pytest.importorskip("autograd.test_util").check_grads
fag = pytest.importorskip("fastact.autograd")

pytestmark = pytest.mark.integration

NAMES = [*DERIVATIVES, *ROW_DERIVATIVES]
# The declared formula, unless the dict below has one that autograd differentiates better.
THEIRS = {name: (ACTIVATIONS | ROW_ACTIVATIONS)[name].reference for name in NAMES} | {
    "sigmoid": lambda m, x: 1 / (1 + m.exp(-x)),
    "tanh": lambda m, x: m.tanh(x),
    "relu": lambda m, x: m.maximum(x, 0),
    "step": lambda m, x: 0 * x,
    "softplus": lambda m, x: m.log1p(m.exp(x)),
}

each = pytest.mark.parametrize("name", NAMES)


def values(*shape, seed=0):
    x = np.random.default_rng(seed).standard_normal(shape)
    return x + np.sign(x) * 0.01


def test_every_activation_is_there():
    unary = [name for name, activation in ACTIVATIONS.items() if activation.nin == 1]
    assert set(fag.__all__) == {*unary, *ROW_ACTIVATIONS} == THEIRS.keys()


@each
@pytest.mark.parametrize("mode", ["rev", "fwd"])
@pytest.mark.parametrize("shape", [(4, 3), (6,)], ids=str)
def test_check_grads(name, mode, shape):
    check_grads(getattr(fag, name), modes=[mode], order=2)(values(*shape))


def test_check_grads_of_numbers_and_other_axes():
    for name in DERIVATIVES:
        check_grads(getattr(fag, name), modes=["rev", "fwd"], order=2)(0.7)
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
    theirs = lambda x: anp.sum(weight * THEIRS[name](anp, x))  # noqa: E731
    for _ in range(order):
        ours, theirs = (autograd.elementwise_grad(f) for f in (ours, theirs))
    x = values(5, 4)
    np.testing.assert_allclose(ours(x), theirs(x), rtol=1e-9, atol=1e-12)


def test_large_inputs_raise_no_warning():
    x = np.array([-1e4, -800.0, 0.0, 800.0, 1e4])
    for name in NAMES:
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
