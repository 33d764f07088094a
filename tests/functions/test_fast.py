"""The fast tier: what it shares with the functions that it is faster than, and where it is used."""

import ctypes
import pickle

import ml_dtypes
import numpy as np
import pytest
from conftest import assert_same, run_python

import fastact as fa
import fastact.c
import fastact.fast
from bench.references import FOR_ARRAYS
from fastact._declarations.records import ACTIVATIONS, FAST

pytestmark = pytest.mark.functional

NAMES = [declared.of for declared in FAST.values()]
every_name = pytest.mark.parametrize("name", NAMES)


def test_names():
    assert fa.fast.__all__ == NAMES == ["sigmoid", "tanh"]
    assert "fast" in dir(fa) and "fast" in fa.__all__


@every_name
def test_is_a_ufunc_of_its_own(name):
    function = getattr(fa.fast, name)
    assert function is not getattr(fa, name)
    assert (function.__name__, function.__module__) == (name, "fastact.fast")
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(function, protocol)) is function
    assert "in the fast tier" in function.__doc__


@every_name
def test_special_values(name, dtype):
    for *x, y in ACTIVATIONS[name].specials:
        got = getattr(fa.fast, name)(np.array(x, dtype))
        assert_same(got, np.array([y], dtype))


@every_name
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_formats_of_16_bits_are_the_same_in_both_tiers(name, dtype):
    x = np.arange(1 << 16, dtype=np.uint16).view(dtype)
    assert_same(getattr(fa.fast, name)(x), getattr(fa, name)(x))


@every_name
def test_results_are_not_flushed_to_zero(name):
    x = np.float32(-100 if name == "sigmoid" else -1e-44)
    y = getattr(fa.fast, name)(x)
    assert y != 0
    assert abs(float(y) - ACTIVATIONS[name].reference(FOR_ARRAYS, float(x))) < 2.0**-149


@every_name
@pytest.mark.parametrize("number", [np.float32, np.float64])
def test_layers(name, number):
    """By function and by name; elements have the bits of the ufunc."""
    rng = np.random.default_rng(0)
    x, W = (rng.standard_normal(shape).astype(number) for shape in ((70, 30), (30, 45)))
    plain = fa.dense(x, W)
    function = getattr(fa.fast, name)
    want = function(plain)
    for activation in (function, f"fast.{name}"):
        assert_same(fa.dense(x, W, activation=activation), want)
        layer = fa.Dense(W, activation=activation)
        assert layer.activation == f"fast.{name}"
        assert_same(layer(x), want)
        assert_same(pickle.loads(pickle.dumps(layer))(x), want)


@every_name
def test_gradients_of_layers_are_those_of_the_default(name):
    rng = np.random.default_rng(1)
    x, W = rng.standard_normal((7, 5)), rng.standard_normal((5, 3))
    g = rng.standard_normal((7, 3))
    y = fa.dense(x, W, activation=f"fast.{name}")
    fast = fa.dense_backward(g, x, W, y, activation=f"fast.{name}")
    usual = fa.dense_backward(g, x, W, y, activation=name)
    for got, want in zip(fast, usual, strict=True):
        assert_same(got, want)


@every_name
@pytest.mark.parametrize("number", [np.float32, np.float64])
def test_functions_for_c(name, number):
    x = np.append(np.linspace(-120, 20, 200), [np.nan, np.inf, -np.inf]).astype(number)
    function = fastact.c.function(getattr(fa.fast, name), number)
    assert function.argtypes == (np.ctypeslib.as_ctypes_type(number),)
    want = getattr(fa.fast, name)(x)
    got = np.array([function(v) for v in x.tolist()], number)
    assert_same(got, want)
    assert ctypes.cast(function, ctypes.c_void_p).value == fastact.c.address(f"fast.{name}", number)


def test_first_access_in_a_process():
    """Ufuncs of the tier are made only then, and its module is not imported before."""
    code = """
import sys, numpy as np, fastact as fa
assert "fastact.fast" not in sys.modules
import pickle
assert fa.fast.tanh(np.float32(0)) == 0
assert fa.Dense(np.ones((2, 2)), activation="fast.tanh").activation == "fast.tanh"
"""
    run_python(code)
    run_python("import pickle, fastact; print(pickle.loads(b'cfastact.fast\\nsigmoid\\n.'))")
