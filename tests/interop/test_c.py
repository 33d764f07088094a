"""Scalar functions for callers in C: values, signatures, use by SciPy, and bad input."""

import ctypes
import math
import re
import sys

import numba
import numpy as np
import pytest
import scipy.integrate
import scipy.ndimage
from conftest import assert_same, nans, run_python, sample
from kinds import WITH_SEVERAL_RESULTS
from scipy import LowLevelCallable

import fastact
import fastact.c
import fastact.numba
from fastact._declarations.records import OBJECTIVES, element_wise

pytestmark = pytest.mark.functional

CASES = [
    *((name, "float64") for name in WITH_SEVERAL_RESULTS),
    *((name, "float32") for name, declared in WITH_SEVERAL_RESULTS.items() if declared.nin > 1),
    ("tanh", "float32"),
]


def called(function, number, nout, values):
    """The results of a function, by the addresses of several of them."""
    if nout == 1:
        return [function(*values)]
    results = [number(7) for _ in range(nout)]
    assert function(*values, *map(ctypes.byref, results)) is None
    return [result.value for result in results]


@pytest.mark.parametrize("name, dtype", CASES)
def test_same_bits_as_the_ufunc(name, dtype):
    activation, ufunc = (element_wise() | OBJECTIVES)[name], getattr(fastact, name)
    operands = sample(activation, np.dtype(dtype), (500,))
    function = fastact.c.function(ufunc, dtype)
    number = {"float32": ctypes.c_float, "float64": ctypes.c_double}[dtype]
    addresses = (ctypes.POINTER(number),) * (ufunc.nout if ufunc.nout > 1 else 0)
    assert function.restype is (None if addresses else number)
    assert function.argtypes == (number,) * ufunc.nin + addresses

    def check(*operands):
        results = [
            called(function, number, ufunc.nout, [float(v) for v in values])
            for values in zip(*operands, strict=True)
        ]
        expected = ufunc(*operands)
        for result, wanted in zip(
            np.array(results, dtype).T, expected if addresses else [expected], strict=True
        ):
            assert_same(result, wanted)

    check(*operands)
    bad = nans(np.dtype(dtype))
    check(*[bad] * ufunc.nin)
    check(bad, *[np.zeros_like(bad)] * (ufunc.nin - 1))
    address = ctypes.cast(function, ctypes.c_void_p).value
    assert fastact.c.address(activation.name, dtype) == address


def test_integral_of_sigmoid_and_of_softplus():
    sigmoid = fastact.c.low_level_callable(fastact.sigmoid)
    assert sigmoid.signature == "double (double)"
    total, error = scipy.integrate.quad(sigmoid, -3, 5)
    exact = math.log1p(math.exp(5)) - math.log1p(math.exp(-3))
    assert abs(total - exact) <= 1e-13 and error < 1e-10
    softplus = fastact.c.low_level_callable("softplus")
    assert scipy.integrate.quad(softplus, -np.inf, 0)[0] == pytest.approx(math.pi**2 / 12)


def test_filter_of_images_with_a_callback_that_numba_compiles():
    pointer = numba.types.CPointer(numba.types.float64)

    @numba.cfunc(numba.int32(pointer, numba.intp, pointer, numba.types.voidptr))
    def mean(window, size, result, data):
        total = 0.0
        for i in range(size):
            total += fastact.sigmoid(window[i])
        result[0] = total / size
        return 1

    image = np.random.default_rng(0).normal(size=(20, 30))
    result = scipy.ndimage.generic_filter(image, LowLevelCallable(mean.ctypes), size=3)
    expected = scipy.ndimage.uniform_filter(fastact.sigmoid(image), size=3)
    np.testing.assert_allclose(result, expected, rtol=1e-13)


def test_float32_has_a_signature_of_its_own():
    assert fastact.c.low_level_callable("tanh", np.float32).signature == "float (float)"
    assert fastact.c.low_level_callable("heaviside").signature == "double (double, double)"
    several = fastact.c.low_level_callable("prelu_backward")
    assert several.signature == "void (double, double, double, double *, double *)"


def test_loaded_without_numba_once_it_is_kept():
    code = "import sys, fastact.c; print(fastact.c.function('tanh')(0.5), 'numba' in sys.modules)"
    run_python(code)
    value, has_numba = run_python(code).split()
    assert float(value) == fastact.tanh(0.5) and has_numba == "False"


@pytest.mark.parametrize("make", [fastact.c.address, fastact.c.function])
@pytest.mark.parametrize(
    "arguments, error, expected",
    [
        (("expit",), ValueError, "activation must be one of .*sigmoid.*, got 'expit'"),
        ((np.tanh,), ValueError, "activation must be one of .*, got <ufunc 'tanh'>"),
        ((fastact.softmax,), ValueError, "activation must be one of .*, got <ufunc 'softmax'>"),
        (("tanh", "float16"), TypeError, "dtype must be float32 or float64, got 'float16'"),
        (("relu", np.int64), TypeError, "dtype must be float32 or float64, got .*int64"),
        (("relu", "number"), TypeError, "dtype must be float32 or float64, got 'number'"),
    ],
)
def test_bad_input(make, arguments, error, expected):
    with pytest.raises(error, match=f"^{make.__name__}: {expected}"):
        make(*arguments)


def test_missing_scipy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(ImportError, match=re.escape('pip install "fastact[scipy]"')):
        fastact.c.low_level_callable("tanh")
