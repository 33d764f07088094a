"""Every declared function of rows and its derivative agree with their declarations.

The tests of softmax cover the loops that these functions share, in ``test_softmax.py``.
"""

import inspect
import types

import mpmath
import numpy as np
import pytest
from conftest import assert_same, is_nan

import fastact
from bench.accuracy import PRECISION
from fastact._declarations import row_gradients
from fastact._declarations.records import (
    REDUCTION_DERIVATIVES,
    ROW_ACTIVATIONS,
    ROW_DERIVATIVES,
    ROW_REDUCTIONS,
)

pytestmark = pytest.mark.functional

WIDE = np.longdouble
EPS = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24, "float64": 2.0**-53}

each = pytest.mark.parametrize("declared", ROW_ACTIVATIONS.values(), ids=lambda d: d.name)
each_derivative = pytest.mark.parametrize(
    "declared", ROW_DERIVATIVES.values(), ids=lambda d: d.name
)
each_of_reductions = pytest.mark.parametrize(
    "declared", REDUCTION_DERIVATIVES.values(), ids=lambda d: d.name
)


def rows(dtype, count, length, seed=0):
    return (4 * np.random.default_rng([seed, length]).standard_normal((count, length))).astype(
        dtype
    )


def largest_error(found, exact):
    """The largest error, in ulp of the type of `found`."""
    significand, lowest = PRECISION[found.dtype.name]
    with np.errstate(divide="ignore"):
        exponent = np.maximum(np.floor(np.log2(abs(exact))), lowest)
    return (abs(found.astype(WIDE) - exact) * np.exp2(significand - 1 - exponent)).max()


@each
@pytest.mark.parametrize("length", [1, 3, 17, 32, 100, 129, 300, 2100])
def test_accuracy(declared, dtype, length):
    if dtype == np.float64 and np.finfo(WIDE).nmant < 60:
        pytest.skip("longdouble is float64 here")
    x = rows(dtype, 70, length)
    exact = declared.reference(np, x.astype(WIDE))
    assert largest_error(getattr(fastact, declared.name)(x), exact) <= declared.ulp[dtype.name]


@each
def test_special_values(declared, dtype):
    for row, result in declared.specials:
        with np.errstate(over="ignore"):
            x, expected = np.array(row).astype(dtype), np.array(result).astype(dtype)
        assert_same(getattr(fastact, declared.name)(x), expected)
        np.testing.assert_allclose(declared.reference(np, np.array(row)), result, rtol=1e-14)


@each
def test_a_row_depends_on_itself_alone(declared, dtype):
    function = getattr(fastact, declared.name)
    for length in (1, 20, 200, 2100):
        x = rows(dtype, 70, length)
        expected = np.stack([function(row.copy()) for row in x])
        assert_same(function(x), expected)
        assert_same(function(x.T, axis=0), expected.T)
        spoiled = x.copy()
        spoiled[7, length // 2] = np.nan
        y = function(spoiled)
        assert is_nan(y[7]).all()
        assert_same(np.delete(y, 7, 0), np.delete(expected, 7, 0))
        function(x, out=x)
        assert_same(x, expected)


@each
def test_docstrings(declared):
    function = getattr(fastact, declared.name)
    assert type(function) is np.ufunc and function.signature == "(n)->(n)"
    for part in (declared.summary, declared.formula, declared.notes, declared.invalid):
        assert part in function.__doc__


# Derivatives.


def test_every_function_has_a_derivative():
    assert ROW_DERIVATIVES.keys() == ROW_ACTIVATIONS.keys()
    for name, declared in ROW_DERIVATIVES.items():
        assert declared.name == f"{name}_backward" and declared.name in fastact.__all__
        function = getattr(fastact, declared.name)
        assert function.__name__ == declared.name
        assert list(inspect.signature(function).parameters) == ["grad_output", "output", "axis"]
        for part in (declared.formula, declared.notes):
            assert part in inspect.getdoc(function)


@each_derivative
@pytest.mark.parametrize("axis", [0, 1])
def test_rules_are_derivatives(declared, axis):
    """In reverse and forward mode, compared with differences of the declared reference."""
    x, g, step = rows("d", 3, 5), rows("d", 3, 5, seed=1), 1e-6
    reference = ROW_ACTIVATIONS[declared.activation].reference
    y, jacobian = reference(np, x), np.empty((3, 5, 5))
    for j in range(5):
        change = step * (np.arange(5) == j)
        jacobian[:, :, j] = (reference(np, x + change) - reference(np, x - change)) / (2 * step)
    y, g = np.moveaxis(y, 1, axis), np.moveaxis(g, 1, axis)
    gradient = getattr(fastact, declared.name)(g, y, axis=axis)
    tangent = row_gradients.tangent(declared, g, y, axis)
    g, gradient, tangent = (np.moveaxis(v, axis, 1) for v in (g, gradient, tangent))
    np.testing.assert_allclose(gradient, np.einsum("rij,ri->rj", jacobian, g), atol=1e-8)
    np.testing.assert_allclose(tangent, np.einsum("rij,rj->ri", jacobian, g), atol=1e-8)


@each_derivative
def test_special_values_of_derivatives(declared, dtype):
    for g, y, result in declared.specials:
        found = getattr(fastact, declared.name)(np.array(g, dtype), np.array(y, dtype))
        assert_same(found, np.array(result, dtype))
        found = declared.rule(np, np.array(g), np.array(y), -1)
        assert_same(found, np.array(result))


@each_derivative
def test_derivatives_in_every_type(declared, dtype):
    g, x = rows(dtype, 7, 9), rows(dtype, 7, 9, seed=1)
    y = getattr(fastact, declared.activation)(x)
    found = getattr(fastact, declared.name)(g, y)
    exact = declared.rule(np, g.astype(WIDE), y.astype(WIDE), -1)
    assert found.dtype == dtype
    scale = abs(g.astype(WIDE)).sum(1).max()
    assert abs(found.astype(WIDE) - exact).max() <= 2 * EPS[dtype.name] * scale


@each_derivative
def test_derivatives_refuse_wrong_arguments(declared):
    function = getattr(fastact, declared.name)
    for arguments, error, words in (
        ((1.0, 1.0), ValueError, r"grad_output must have at least one axis, got shape \(\)"),
        (([1.0, 2.0], [1.0]), ValueError, r"output must .*\(2,\), got shape \(1,\)"),
        (([1j], [1.0]), TypeError, "grad_output must .*complex128"),
    ):
        with pytest.raises(error, match=f"^{declared.name}: {words}"):
            function(*arguments)
    with pytest.raises(np.exceptions.AxisError, match="axis 1"):
        function([1.0], [1.0], 1)


# Derivatives of reductions.


def test_every_reduction_has_a_derivative():
    assert REDUCTION_DERIVATIVES.keys() == ROW_REDUCTIONS.keys()
    for name, declared in REDUCTION_DERIVATIVES.items():
        assert declared.name == f"{name}_backward" and declared.name in fastact.__all__
        function = getattr(fastact, declared.name)
        assert function.__name__ == declared.name
        assert list(inspect.signature(function).parameters) == ["grad_output", "input", "axis"]
        for part in (declared.formula, declared.notes):
            assert part in inspect.getdoc(function)


def slopes(declared, row):
    """The derivatives of a reduction by differences of its reference, in 200 bits."""
    with mpmath.workprec(200):
        x, step = np.array([mpmath.mpf(float(v)) for v in row]), mpmath.mpf(2) ** -60
        reference = ROW_REDUCTIONS[declared.activation].reference
        return np.array(
            [
                (reference(IN_MPMATH, x + step * unit) - reference(IN_MPMATH, x - step * unit))
                / (2 * step)
                for unit in np.eye(len(x), dtype=int)
            ]
        )


IN_MPMATH = types.SimpleNamespace(
    exp=np.frompyfunc(mpmath.exp, 1, 1),
    log1p=np.frompyfunc(mpmath.log1p, 1, 1),
    max=np.max,
    sum=np.sum,
)


@each_of_reductions
@pytest.mark.parametrize("axis", [0, 1, 2, -3])
def test_rules_of_reductions_are_derivatives(declared, dtype, axis):
    """In reverse and forward mode, and to the declared bound."""
    x, t = rows(dtype, 6, 9), rows(dtype, 6, 9, seed=1)
    g = t[:, 0]
    exact = np.array([slopes(declared, row) for row in x])
    shape = [2, 3]
    shape.insert(axis % 3, 9)
    along = lambda v: np.moveaxis(v.reshape(2, 3, 9), -1, axis)  # noqa: E731
    gradient = getattr(fastact, declared.name)(g.reshape(2, 3), along(x), axis=axis)
    assert gradient.dtype == dtype and gradient.shape == along(x).shape
    kept = np.expand_dims(g.reshape(2, 3), axis)
    assert_same(getattr(fastact, declared.name)(kept, along(x), axis=axis), gradient)
    tangent = row_gradients.tangent(declared, along(t), along(x), axis)
    assert tangent.dtype == dtype and tangent.shape == kept.shape

    eps, x, t, g = EPS[dtype.name], x.astype(float), t.astype(float), g.astype(float)[:, None]
    found = np.moveaxis(gradient, axis, -1).reshape(6, 9).astype(float)
    error = abs(found - g * exact).astype(float)
    tiny = np.finfo(np.float64).tiny if dtype == np.float64 else TINY[dtype.name]
    ulps = 0.51 if "16" in dtype.name else 2.1
    assert (error <= ulps * 2 * eps * abs(g * exact).astype(float) + tiny).all()
    error = abs(tangent.reshape(6).astype(float) - (t * exact).sum(1)).astype(float)
    assert (error <= 8 * eps * abs(t).max(1)).all()


TINY = {"float16": 2.0**-25, "bfloat16": 2.0**-126, "float32": 2.0**-126}


@each_of_reductions
def test_special_values_of_derivatives_of_reductions(declared, dtype):
    for g, row, result in declared.specials:
        function = getattr(fastact, declared.name)
        expected = np.array(result, dtype)
        assert_equal(function(np.array(g, dtype), np.array(row, dtype)), expected)
        assert_equal(function(np.array([g], dtype), np.array(row, dtype)), expected)
        between = np.array([[0.0] * len(row), row, [1.0] * len(row)], dtype)
        found = function(np.array([1, g, 1], dtype), between)
        assert_equal(found[1], expected)
        assert_same(found[::2], function(np.ones(2, dtype), between[::2]))


def assert_equal(found, expected):
    """Type and values are the same, and the signs of zeros; the sign of a new NaN is open."""
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found.astype(float), expected.astype(float))
    signs = np.signbit(found) == np.signbit(expected)
    assert (signs | is_nan(found)).all()


@each_of_reductions
@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 3)], ids=str)
def test_derivatives_of_reductions_of_nothing(declared, dtype, shape):
    x = np.ones(shape, dtype)
    found = getattr(fastact, declared.name)(np.ones(shape[:-1], dtype), x)
    assert found.shape == shape and found.dtype == dtype
    tangent = row_gradients.tangent(declared, x, x, -1)
    assert tangent.tolist() == np.zeros((*shape[:-1], 1)).tolist()


@each_of_reductions
def test_derivatives_of_reductions_refuse_wrong_arguments(declared):
    function, square = getattr(fastact, declared.name), np.ones((2, 3))
    masked = np.ma.masked_array([1.0, 2.0], [False, True])
    shapes = r"grad_output must have the shape of input without axis 1, \(2,\), or with length 1 "
    for arguments, error, words in (
        ((1.0, 1.0), ValueError, r"input must have at least one axis, got shape \(\)"),
        ((1.0, square, 1), ValueError, rf"{shapes}along it, got shape \(\)"),
        (([1.0] * 3, square, 1), ValueError, rf"{shapes}along it, got shape \(3,\)"),
        (([[1.0, 1.0]], square, 1), ValueError, rf"{shapes}along it, got shape \(1, 2\)"),
        ((square, square, 1), ValueError, rf"{shapes}along it, got shape \(2, 3\)"),
        (([1j], [1.0]), TypeError, "grad_output must .*complex128"),
        ((1.0, ["a"]), TypeError, "input must .*<U1"),
        ((masked, square, 1), ValueError, "grad_output must have no masked"),
        ((1.0, masked), ValueError, "input must have no masked"),
    ):
        with pytest.raises(error, match=f"^{declared.name}: {words}"):
            function(*arguments)
    with pytest.raises(np.exceptions.AxisError, match="axis 1"):
        function(1.0, [1.0], 1)
