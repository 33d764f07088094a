"""PyTensor's compiled functions with our kernels: bits, gradients, fused graphs, and its cache."""

import atexit
import os
import re
import shutil
import sys
import tempfile
import types
import warnings

import mpmath
import numba
import numpy as np
import pytest
from conftest import assert_same, run_python

import fastact
import fastact.pytensor
from fastact._declarations.records import ACTIVATIONS

pytestmark = pytest.mark.integration

FOLDER = tempfile.mkdtemp(prefix="pytensor-tests-")  # instead of the user's folder
os.environ["PYTENSOR_FLAGS"] = f"base_compiledir={FOLDER}"
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
pytensor = pytest.importorskip("pytensor")
pt = pytest.importorskip("pytensor.tensor")
dispatch = pytest.importorskip("pytensor.link.numba.dispatch.basic")

DTYPES = ["float32", "float64"]


@pytest.fixture(scope="module", autouse=True)
def registered():
    fastact.pytensor.register()
    fastact.pytensor.register()


def values(dtype):
    return np.concatenate([np.linspace(-120, 120, 2001), [np.inf, -np.inf, 0.0, -0.0]]).astype(
        dtype
    )


mp = mpmath.mp
DEFINITIONS = {
    "sigmoid": lambda x: 1 / (1 + mp.exp(-x)),
    "softplus": lambda x: mp.log1p(mp.exp(x)),
    "tanh": mp.tanh,
    "log1p": mp.log1p,
    "expm1": mp.expm1,
    "log1mexp": lambda x: mp.log(-mp.expm1(x)),
    "erf": mp.erf,
    "erfc": mp.erfc,
}


def compiled(name, dtype, mode="NUMBA"):
    x = pt.vector("x", dtype=dtype)
    return pytensor.function([x], getattr(pt, name)(x), mode=mode)


def test_every_declared_operation_is_tested():
    declared = {name for name, activation in ACTIVATIONS.items() if activation.pytensor_ops}
    assert declared == DEFINITIONS.keys()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", DEFINITIONS)
def test_same_bits_as_the_ufunc(name, dtype):
    assert_same(compiled(name, dtype)(values(dtype)), getattr(fastact, name)(values(dtype)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", DEFINITIONS)
def test_results_are_within_an_ulp(name, dtype):
    tiny = 10.0 ** -np.arange(1, 30)
    x = np.concatenate([np.linspace(-20, 20, 201), tiny, -tiny]).astype(dtype)
    y = compiled(name, dtype)(x)
    defined = {"log1p": x > -1, "log1mexp": x < 0}.get(name, x == x)
    assert (np.isfinite(y) == defined).all()
    info = np.finfo(dtype)
    with mpmath.workdps(50):
        for value, got in zip(x[defined], y[defined], strict=True):
            exact = DEFINITIONS[name](mp.mpf(float(value)))
            exponent = max(mp.frexp(exact)[1] - 1, info.minexp) if exact else info.minexp
            assert abs(mp.mpf(float(got)) - exact) <= mp.mpf(2) ** (exponent - info.nmant)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", DEFINITIONS)
def test_results_are_like_those_of_pytensor(name, dtype):
    """Its linker "py" calls functions of NumPy and SciPy."""
    x = np.linspace(-10, 10, 41).astype(dtype)
    x = np.concatenate([x, np.array([np.inf, -np.inf, np.nan], dtype)])
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = compiled(name, dtype, pytensor.compile.mode.Mode("py", None))(x)
    actual = compiled(name, dtype)(x)
    assert actual.dtype == expected.dtype
    tolerance = 200 * np.finfo(dtype).eps
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
def test_formulas_that_are_rewritten(dtype):
    """PyTensor finds operations in formulas, and they are compiled as ours."""
    x = pt.vector("x", dtype=dtype)
    formulas = {
        "softplus": pt.log(1 + pt.exp(x)),
        "log1mexp": pt.log(1 - pt.exp(x)),
        "expm1": pt.exp(x) - 1,
        "erfc": 1 - pt.erf(x),
    }
    v = np.linspace(-5, -0.1, 1001).astype(dtype)
    for name, formula in formulas.items():
        assert_same(pytensor.function([x], formula, mode="NUMBA")(v), getattr(fastact, name)(v))


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients(dtype):
    x = pt.matrix("x", dtype=dtype)
    total = (pt.softplus(x) + pt.sigmoid(x) + pt.tanh(x)).sum()
    function = pytensor.function([x], pytensor.grad(total, x), mode="NUMBA")
    v = np.linspace(-6, 6, 60).reshape(6, 10)
    exp = np.exp(v.astype(np.longdouble))
    p = exp / (1 + exp)
    expected = p + p * (1 - p) + (2 / (exp + 1 / exp)) ** 2
    assert np.abs(function(v.astype(dtype)) - expected).max() < 8 * np.finfo(dtype).eps


@pytest.mark.parametrize("dtype", DTYPES)
def test_fused_operations(dtype):
    x = pt.vector("x", dtype=dtype)
    function = pytensor.function([x], [pt.softplus(x) * x, -pt.softplus(x)], mode="NUMBA")
    v = np.linspace(-20, 20, 2001).astype(dtype)
    product, minus = function(v)
    assert_same(product, fastact.softplus(v) * v)
    assert_same(minus, -fastact.softplus(v))
    function = pytensor.function([x], pt.erf(x) * pt.expm1(-x), mode="NUMBA")
    assert_same(function(v), fastact.erf(v) * fastact.expm1(-v))


def test_functions_that_call_ours_are_inlined():
    inner = fastact.pytensor._inlined(fastact.softplus)

    @numba.njit
    def wrapper(x):
        return inner(x)

    assert wrapper(1.5) == fastact.softplus(1.5)
    (code,) = wrapper.inspect_llvm().values()
    assert "alwaysinline" in code


def test_integers_are_left_to_pytensor():
    for dtype, ours in [("uint8", False), ("int64", False), ("float32", True), ("float64", True)]:
        node = pytensor.scalar.math.sigmoid.make_node(pytensor.scalar.get_scalar_type(dtype)())
        _, key = dispatch.numba_funcify_and_cache_key(node.op, node=node)
        assert key.startswith("sigmoid-") == ours
    x = pt.vector("x", dtype="uint8")
    function = pytensor.function([x], pt.sigmoid(x), mode="NUMBA")
    result = function(np.arange(5, dtype=np.uint8))
    np.testing.assert_allclose(result, 1 / (1 + np.exp(-np.arange(5.0))), rtol=1e-6)


PROCESS = """
import numpy as np, pytensor, pytensor.tensor as pt
import fastact as fa, fastact.pytensor
x = pt.vector("x", dtype="float64")
v = np.linspace(-5, 5, 10001)
theirs = pytensor.function([x], pt.sigmoid(x), mode="NUMBA")(v)
fastact.pytensor.register()
ours = pytensor.function([x], pt.sigmoid(x), mode="NUMBA")(v)
print((ours == fa.sigmoid(v)).all(), (theirs != ours).any())
"""


def test_what_pytensor_keeps_on_disk_is_not_mixed_up(tmp_path):
    flags = f"base_compiledir={tmp_path},numba__cache=True"
    for _ in range(2):  # the second process reads what the first has stored
        assert run_python(PROCESS, PYTENSOR_FLAGS=flags).split() == ["True", "True"]


@pytest.mark.parametrize("version", ["2.99.1", "3.1.0", "4.0"])
def test_other_versions_give_a_warning(monkeypatch, version):
    monkeypatch.setitem(sys.modules, "pytensor", types.SimpleNamespace(__version__=version))
    with pytest.warns(UserWarning, match=f"PyTensor {version} is outside .* 3.0 to below 3.1"):
        fastact.pytensor.register()


def test_missing_pytensor_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytensor", None)
    with pytest.raises(ImportError, match=re.escape('pip install "fastact[pytensor]"')):
        fastact.pytensor.register()


def test_the_command_that_measures_functions(tmp_path):
    code = """
from bench import pytensor
pytensor.DTYPES = ("float32",)
pytensor.main(["--size", "100", "--repetitions", "1"])
"""
    printed = run_python(code, PYTENSOR_FLAGS=f"base_compiledir={tmp_path}")
    rows = [line.split("|")[1:-1] for line in printed.splitlines() if "float32" in line]
    assert len(rows) == len(DEFINITIONS) + 4 and all(
        float(cell) > 0 for row in rows for cell in row[2:]
    )
