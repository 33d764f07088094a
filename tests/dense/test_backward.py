"""Gradients through dense layers and softmax, compared with those in longdouble."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import fastact
from bench.references import FOR_ARRAYS
from fastact._declarations.records import (
    ACTIVATIONS,
    DERIVATIVES,
    ROW_ACTIVATIONS,
    ROW_DERIVATIVES,
    Derivative,
    unary_derivatives,
)

pytestmark = pytest.mark.functional

WIDE = np.longdouble
TOLD_BY_OUTPUT = [name for name, declared in DERIVATIVES.items() if declared.output_tells]


def _reference(name, x):
    with np.errstate(all="ignore"):
        return ACTIVATIONS[name].reference(FOR_ARRAYS, x)


# Functions like logit are not defined for all sums of a layer.
EVERYWHERE = [
    name for name in TOLD_BY_OUTPUT if np.isfinite(_reference(name, np.linspace(-20, 20, 99))).all()
]
NAMES = [*EVERYWHERE, *ROW_DERIVATIVES, "identity"]
EPS = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24, "float64": 2.0**-53}


def exact(name, g, x, W, b):
    """The gradients by the declared formulas, in longdouble."""
    g, x, W, b = (operand.astype(WIDE) for operand in (g, x, W, b))
    before = x @ W + b
    if name in ROW_DERIVATIVES:
        y = ROW_ACTIVATIONS[name].reference(np, before)
        g = ROW_DERIVATIVES[name].rule(np, g, y, -1)
    elif name != "identity":
        declared = DERIVATIVES[name]
        kept = before
        if declared.saved == "output":
            kept = ACTIVATIONS[name].reference(FOR_ARRAYS, before)
        g = declared.reference(FOR_ARRAYS, g, kept)
    count = math.prod(x.shape[:-1])
    rows, inputs = g.reshape(count, W.shape[1]), x.reshape(count, W.shape[0])
    return g @ W.T, inputs.T @ rows, rows.sum(0)


def operands(dtype, shape=(6, 5), columns=4, seed=0):
    rng = np.random.default_rng(seed)
    shapes = [(*shape[:-1], columns), shape, (shape[-1], columns), (columns,)]
    return [rng.standard_normal(s).astype(dtype) for s in shapes]


@pytest.mark.parametrize("name", NAMES)
def test_dense_backward(name):
    for shape in ((6, 5), (5,), (2, 3, 5), (0, 5), (3, 0)):
        g, x, W, b = operands(np.float64, shape)
        y = fastact.dense(x, W, b, name)
        found = fastact.dense_backward(g, x, W, y, name)
        gradients = zip(found, exact(name, g, x, W, b), (x, W, b), strict=True)
        for gradient, expected, shaped in gradients:
            assert gradient.dtype == np.float64
            assert gradient.shape == shaped.shape
            np.testing.assert_allclose(gradient, expected.astype(float), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_dense_backward_in_other_types(name, dtype):
    g, x, W, b = operands(dtype, (40, 5))
    y = fastact.dense(x, W, b, name)
    found = fastact.dense_backward(g, x, W, y, name)
    # The allowance includes the effect of rounding `y` on the derivative.
    allowance = 40 * EPS[dtype.name]
    for gradient, expected in zip(found, exact(name, g, x, W, b), strict=True):
        assert gradient.dtype == dtype
        difference = abs(gradient.astype(WIDE) - expected)
        assert difference.max() <= allowance * max(1, abs(expected).max())


def test_types_and_functions_as_arguments():
    g, x, W, b = operands(np.float32)
    y = fastact.dense(x, W, b, "tanh")
    expected = fastact.dense_backward(g, x, W, y, "tanh")
    for arguments in ((g, x, W, y, fastact.tanh), (g.tolist(), x, W, y, "tanh")):
        for found, wanted in zip(fastact.dense_backward(*arguments), expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    mixed = fastact.dense_backward(g.astype(float), x, W, y, "tanh")
    assert {gradient.dtype for gradient in mixed} == {np.dtype(np.float64)}
    whole = fastact.dense_backward([[1, 2]], [[1, 2, 3]], np.eye(3, 2, dtype=int), [[1, 0]], "relu")
    assert [gradient.tolist() for gradient in whole] == [
        [[1.0, 0.0, 0.0]],
        [[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]],
        [1.0, 0.0],
    ]


@pytest.mark.parametrize("name", [n for n, d in unary_derivatives().items() if d.saved == "input"])
def test_an_output_is_never_taken_for_an_input(name, monkeypatch):
    """A derivative is refused if it needs the input, which the output does not determine."""
    declared = Derivative(**vars(DERIVATIVES[name]) | {"of_output": None})
    assert not declared.output_tells
    monkeypatch.setitem(DERIVATIVES, name, declared)
    g, x, W, b = operands(np.float64)
    y = fastact.dense(x, W, b, name)
    with pytest.raises(ValueError) as raised:
        fastact.dense_backward(g, x, W, y, name)
    assert str(raised.value) == (
        f"dense_backward: the derivative of {name} needs its input, as saved=; got no saved"
    )


def test_an_activation_without_derivative(monkeypatch):
    monkeypatch.delitem(DERIVATIVES, "tanh")
    g, x, W, b = operands(np.float64)
    with pytest.raises(ValueError, match=r"must have a derivative, got tanh, which has none"):
        fastact.dense_backward(g, x, W, fastact.dense(x, W, b, "tanh"), "tanh")


def test_a_derivative_says_what_it_needs(fresh):
    """By the name of its second input. Any other name would have been taken for the output."""
    tanh = DERIVATIVES["tanh"]

    def tanh_backward(grad_output, saved):
        return grad_output

    for kernel, of_output in ((tanh_backward, None), (tanh.kernel, lambda m, y: 1 - y * y)):
        words = "inputs must be" if of_output is None else "of_output is for"
        with pytest.raises(ValueError, match=f"^tanh_backward: {words} .*got"):
            fresh(Derivative(**vars(tanh) | {"kernel": kernel, "of_output": of_output}))
    assert fresh(tanh)(1.0, 0.0) == 1.0


def replaced(**changes):
    g, x, W, b = operands(np.float32)
    y = fastact.dense(x, W, b, "relu")
    return {"grad_output": g, "x": x, "W": W, "output": y, "activation": "relu"} | changes


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"grad_output": np.zeros((6, 3))}, ValueError, ["grad_output", "(6, 4)", "(6, 3)"]),
        ({"x": np.zeros((6, 3))}, ValueError, ["x must", "(..., 5)", "(6, 3)"]),
        ({"W": np.zeros(5)}, ValueError, ["W must", "(K, N)", "(5,)"]),
        ({"output": np.zeros((5, 4))}, ValueError, ["output must", "(6, 4)", "(5, 4)"]),
        ({"activation": "swoosh"}, ValueError, ["activation", "softplus", "'swoosh'"]),
        ({"activation": "heaviside"}, ValueError, ["activation", "'heaviside'"]),
        ({"activation": "relu_backward"}, ValueError, ["activation", "'relu_backward'"]),
        ({"W": np.zeros((5, 4), complex)}, TypeError, ["W must", "complex128"]),
        ({"output": np.zeros((6, 4), "U1")}, TypeError, ["output must", "<U1"]),
    ],
)
def test_dense_backward_refuses(changes, error, words):
    with pytest.raises(error) as raised:
        fastact.dense_backward(**replaced(**changes))
    assert str(raised.value).startswith("dense_backward: ")
    for word in words:
        assert word in str(raised.value)


# Softmax.

numbers = st.floats(-3, 3)


@settings(max_examples=50)
@given(st.data(), st.integers(1, 4), st.integers(1, 30))
def test_softmax_backward(data, rows, length):
    g, x = (data.draw(arrays(np.float64, (rows, length), elements=numbers)) for _ in range(2))
    y = fastact.softmax(x)
    wide, gradient = y.astype(WIDE), g.astype(WIDE)
    expected = wide * (gradient - (gradient * wide).sum(1, keepdims=True))
    size = wide * (abs(gradient) + abs(gradient * wide).sum(1, keepdims=True))
    # Two products, a difference, and a sum in any order: each rounds to 2**-53 at most.
    allowed = (length + 2) * 2.0**-53 * size + 1e-300
    assert (abs(fastact.softmax_backward(g, y) - expected) <= allowed).all()
    assert (abs(fastact.softmax_backward(g.T, y.T, axis=0).T - expected) <= allowed).all()


def test_softmax_backward_in_other_types(dtype):
    g, x = operands(dtype, (7, 9), 9)[:2]
    y = fastact.softmax(x)
    found = fastact.softmax_backward(g, y)
    wide, gradient = y.astype(WIDE), g.astype(WIDE)
    expected = wide * (gradient - (gradient * wide).sum(1, keepdims=True))
    assert found.dtype == dtype
    assert (abs(found.astype(WIDE) - expected) <= 4 * EPS[dtype.name]).all()
    assert fastact.softmax_backward([1, 2], [1, 0]).tolist() == [0.0, 0.0]


def test_no_warning():
    huge = np.array([[np.inf, 1e308, -1e308]])
    y = np.array([[1.0, 0.0, 0.0]])
    assert np.isnan(fastact.softmax_backward(huge, y)).all()
    fastact.dense_backward(huge, [[1e308]], [[1e308, -1e308, 1.0]], y, "sigmoid")
    fastact.dense_backward(huge, [[1e308]], [[1e308, -1e308, 1.0]], y, "softplus")


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((1.0, 1.0), ValueError, ["grad_output", "axis", "()"]),
        (([1.0, 2.0], [1.0]), ValueError, ["output must", "(2,)", "(1,)"]),
        (([1j], [1.0]), TypeError, ["grad_output", "complex128"]),
        (([1.0], ["1"]), TypeError, ["output", "<U1"]),
        (([1.0], [1.0], 1), np.exceptions.AxisError, ["axis 1"]),
    ],
)
def test_softmax_backward_refuses(arguments, error, words):
    with pytest.raises(error) as raised:
        fastact.softmax_backward(*arguments)
    for word in words:
        assert word in str(raised.value)
