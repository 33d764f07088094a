"""Layers whose activation has a parameter, and the input of the activation that they keep."""

import copy
import itertools
import pickle

import ml_dtypes
import numpy as np
import pytest
from conftest import assert_same

import fastact as fa
from fastact._declarations.records import (
    ACTIVATIONS,
    NORMALIZATIONS,
    ROW_ACTIVATIONS,
    activations,
)

pytestmark = pytest.mark.functional

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
PARAMETRIC = [
    name
    for name, declared in activations().items()
    if getattr(declared, "parameters", ()) and name not in NORMALIZATIONS
]
VALUES = np.array([0.25, -0.5, 1.0, 0.01, 0.0])

each = pytest.mark.parametrize("name", PARAMETRIC)


def layer(rows=6, depth=7, columns=5, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    shapes = (rows, depth), (depth, columns), (columns,)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def values(name, columns=5):
    """The declared values of the parameter, one for each column."""
    (given,) = ACTIVATIONS[name].parameters.values()
    return np.resize(np.array(given), columns)


@each
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_parameter_is_an_operand_of_the_ufunc(name, dtype):
    x, W, b = layer(dtype=dtype)
    function, before = getattr(fa, name), fa.dense(x, W, b)
    for given in (values(name)[0], values(name)):
        expected = function(before, np.asarray(given, dtype))
        for activation in ((function, given), (name, given)):
            assert_same(fa.dense(x, W, b, activation), expected)
            assert_same(fa.Dense(W, b, activation)(x), expected)
            assert_same(fa.Dense(W, b, activation)(x[0]), expected[0])
        stack = fa.Sequential([fa.Dense(W, b), (function, given)])
        assert_same(stack(x), expected)


@pytest.mark.parametrize("dtype", [np.dtype(np.float16), BFLOAT16], ids=str)
def test_narrow_layers_compute_with_the_parameter_in_float32(dtype):
    x, W, b = layer(dtype=dtype)
    wide = [v.astype(np.float32) for v in (x, W, b)]
    given = np.float32(0.3001)
    expected = fa.prelu(fa.dense(*wide), given).astype(dtype)
    assert_same(fa.dense(x, W, b, (fa.prelu, given)), expected)


@pytest.mark.parametrize("rows", [1, 3, 40])
@pytest.mark.parametrize("columns", [1, 3, 8, 16, 17, 100])
def test_shapes(rows, columns):
    x, W, b = layer(rows, 9, columns)
    given = np.linspace(-1, 1, columns).astype(np.float32)
    expected = fa.prelu(fa.dense(x, W, b), given)
    assert_same(fa.dense(x, W, b, (fa.prelu, given)), expected)
    out = np.zeros((rows, columns + 3), np.float32)[:, :columns]
    assert_same(fa.Dense(W, b, (fa.prelu, given))(x, out=out), expected)


@pytest.mark.parametrize("shape", [(2, 64, 2000), (3000, 64, 40)], ids=["columns", "rows"])
def test_threads_divide_the_parameter_with_the_columns(shape):
    rows, depth, columns = shape
    x, W, b = layer(rows, depth, columns)
    given = np.linspace(-1, 1, columns).astype(np.float32)
    with fa.num_threads(1):
        expected = fa.dense(x, W, b, (fa.prelu, given))
    with fa.num_threads(4):
        for _ in range(3):
            assert_same(fa.Dense(W, b, (fa.prelu, given))(x), expected)


def test_what_a_layer_says_of_its_parameter():
    _, W, b = layer()
    plain, one, each_column = (
        fa.Dense(W, b, activation) for activation in ("relu", ("prelu", 0.25), (fa.prelu, VALUES))
    )
    assert (plain.activation, one.activation) == ("relu", "prelu")
    assert plain.parameters == {} and one.parameters == {"slope": 0.25}
    np.testing.assert_array_equal(each_column.parameters["slope"], VALUES)
    assert repr(one) == "Dense(7 -> 5, prelu(0.25), float32)"
    assert repr(each_column) == "Dense(7 -> 5, prelu([0.25, -0.5, 1.0, 0.01, 0.0]), float32)"
    wide = fa.Dense(np.ones((2, 9)), activation=(fa.prelu, np.ones(9)))
    assert repr(wide) == "Dense(2 -> 9, prelu(9 values), float64)"
    each_column.parameters["slope"][:] = 7  # a new array each time
    np.testing.assert_array_equal(each_column.parameters["slope"], VALUES)


def test_the_caller_may_change_the_array():
    x, W, b = layer()
    given = VALUES.copy()
    made = fa.Dense(W, b, (fa.prelu, given))
    expected = made(x)
    given[:] = 9
    assert_same(made(x), expected)


@pytest.mark.parametrize("again", [copy.copy, lambda made: pickle.loads(pickle.dumps(made))])
@pytest.mark.parametrize("given", [0.25, VALUES], ids=["number", "array"])
def test_copies_and_pickles(again, given):
    x, W, b = layer()
    made = fa.Dense(W, b, (fa.prelu, given))
    assert_same(again(made)(x), made(x))
    stack = fa.Sequential([made, (fa.prelu, given), fa.Dense(np.ones((5, 2), np.float32))])
    assert repr(again(stack)) == repr(stack)
    assert_same(again(stack)(x), stack(x))


def test_stacks():
    x, W, b = layer()
    stack = fa.Sequential([(fa.prelu, 0.5), fa.Dense(W, b), ("prelu", VALUES), "fast.tanh"])
    expected = fa.fast.tanh(
        fa.prelu(fa.dense(fa.prelu(x, np.float32(0.5)), W, b), VALUES.astype(np.float32))
    )
    assert_same(stack(x), expected)
    assert str(stack.layers[0]) == "prelu(0.5)"
    assert stack.layers[3] is fa.fast.tanh
    assert_same(stack[1:](x), fa.Sequential([*stack.layers[1:]])(x))
    half = stack(x.astype(np.float16))
    assert half.dtype == np.float32  # of the weights
    assert fa.Sequential([(fa.prelu, VALUES), fa.Dense(np.ones((5, 1)))])(np.ones(5)).shape == (1,)


@pytest.mark.parametrize("name", [name for name in PARAMETRIC if ACTIVATIONS[name].defaults])
def test_a_function_alone_has_its_defaults(name):
    x, W, b = layer()
    ((parameter, value),) = ACTIVATIONS[name].defaults.items()
    expected = getattr(fa, name)(fa.dense(x, W, b), np.float32(value))
    for activation in (name, getattr(fa, name)):
        assert_same(fa.dense(x, W, b, activation), expected)
        assert fa.Dense(W, b, activation).parameters == {parameter: value}


@pytest.mark.parametrize(
    ("activation", "error", "words"),
    [
        (lambda: fa.prelu, ValueError, r"\(fa.prelu, slope\), got prelu with 0 parameters"),
        (lambda: "prelu", ValueError, r"\(fa.prelu, slope\), got prelu with 0 parameters"),
        (lambda: (fa.prelu, 1, 2), ValueError, "with 2 parameters"),
        (lambda: (fa.celu, 1, 2), ValueError, "with 2 parameters"),
        (lambda: (fa.relu, 1), ValueError, "fa.relu, got relu with 1 parameters"),
        (lambda: ("softmax", 1), ValueError, "softmax with 1 parameters"),
        (
            lambda: (fa.prelu, np.ones(4)),
            ValueError,
            r"slope must be a number or have shape \(5,\)",
        ),
        (lambda: (fa.prelu, np.ones((5, 1))), ValueError, "slope must be a number or have shape"),
        (lambda: (fa.prelu, 1j), TypeError, "slope must be real, got complex128"),
        (lambda: (fa.prelu, "1"), TypeError, "slope"),
        (lambda: ("nothing", 1), ValueError, "one of identity, .*, got 'nothing'"),
        (lambda: (), ValueError, r"one of identity, .*, got \(\)"),
        (lambda: (None, 1), ValueError, "one of identity, .*, got None"),
    ],
)
def test_errors(activation, error, words):
    x, W, b = layer()
    for call in (
        lambda given: fa.dense(x, W, b, given),
        lambda given: fa.Dense(W, b, given),
        lambda given: fa.dense_backward(x @ W, x, W, x @ W, given),
        lambda given: fa.Sequential([fa.Dense(W, b), given]),
    ):
        with pytest.raises(error, match=words):
            call(activation())


def test_a_stack_checks_the_shape_before_its_first_layer():
    with pytest.raises(ValueError, match=r"Sequential: slope must .* shape \(2,\)"):
        fa.Sequential([(fa.prelu, np.ones(3)), fa.Dense(np.ones((2, 4)))])


# The input of the activation.

NAMES = [name for name in (*ACTIVATIONS, *ROW_ACTIVATIONS) if name in activations()]


def with_parameter(name):
    return (name, values(name)) if name in PARAMETRIC else name


@pytest.mark.parametrize("name", [*NAMES, "identity", "fast.tanh"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_saved_is_the_input_of_the_activation(name, dtype):
    x, W, b = layer(dtype=dtype)
    activation = with_parameter(name)
    expected, before = fa.dense(x, W, b, activation), fa.dense(x, W, b)
    for call in (
        lambda **given: fa.dense(x, W, b, activation, **given),
        lambda **given: fa.Dense(W, b, activation)(x, **given),
    ):
        saved, out = np.full_like(before, 9), np.full_like(before, 9)
        assert_same(call(saved=saved), expected)
        assert_same(saved, before)
        assert call(out=out, saved=saved) is out
        assert_same(out, expected)


def test_saved_of_other_types_and_layouts():
    x, W, b = layer(rows=40)
    expected, before = fa.dense(x, W, b, "tanh"), fa.dense(x, W, b)
    for dtype, step in itertools.product((np.float64, np.float16), (1, 2)):
        saved = np.zeros((40, 5 * step), dtype)[:, ::step]
        assert_same(fa.dense(x, W, b, "tanh", saved=saved), expected)
        assert_same(saved, before.astype(dtype))
    cube = x.reshape(4, 10, 7)[:, ::2]
    saved = np.zeros((4, 5, 5), np.float32)
    assert_same(fa.Dense(W, b, "tanh")(cube, saved=saved), expected.reshape(4, 10, 5)[:, ::2])
    assert_same(saved, before.reshape(4, 10, 5)[:, ::2])
    one = np.zeros(5, np.float32)
    assert_same(fa.Dense(W, b, "tanh")(x[3], saved=one), expected[3])
    assert_same(one, before[3])


def test_saved_is_checked():
    x, W, b = layer()
    good = np.zeros((6, 5), np.float32)
    read_only = good.copy()
    read_only.flags.writeable = False
    for saved, words in [
        (np.zeros((6, 4), np.float32), r"saved must have shape \(6, 5\)"),
        ([[0.0]], "saved must be an ndarray"),
        (np.zeros((6, 5), int), "saved must be of a type that float32 can be cast to"),
        (read_only, "saved must be writeable"),
    ]:
        with pytest.raises((TypeError, ValueError), match=words):
            fa.dense(x, W, b, "tanh", saved=saved)
    with pytest.raises(ValueError, match="saved must not overlap out"):
        fa.dense(x, W, b, "tanh", out=good, saved=good)
    with pytest.raises(ValueError, match="saved must not overlap x"):
        fa.dense(x, np.eye(7, dtype=np.float32), None, "tanh", saved=x[:, :7])
    with pytest.raises(ValueError, match="saved must not overlap itself"):
        strided = np.lib.stride_tricks.as_strided(np.zeros(6, np.float32), (6, 5), (0, 4))
        fa.dense(x, W, b, "tanh", saved=strided)


# Gradients.


def numerical(loss, operand, step=1e-6):
    """The gradient of ``loss()`` with respect to an array that it reads, by differences."""
    found = np.zeros_like(operand)
    for index in np.ndindex(operand.shape):
        kept = operand[index]
        operand[index] = kept + step
        above = loss()
        operand[index] = kept - step
        below = loss()
        operand[index] = kept
        found[index] = (above - below) / (2 * step)
    return found


@each
@pytest.mark.parametrize("shape", [(), (5,)], ids=["number", "array"])
def test_gradients(name, shape):
    x, W, b = layer(dtype=np.float64)
    given = np.array(values(name)[0] if shape == () else values(name), np.float64)
    g = np.random.default_rng(1).standard_normal((6, 5))

    def loss():
        return (g * fa.dense(x, W, b, (name, given))).sum()

    saved = np.empty((6, 5))
    y = fa.dense(x, W, b, (name, given), saved=saved)
    found = fa.dense_backward(g, x, W, y, (name, given), saved=saved)
    assert found[3].shape == shape
    for gradient, operand in zip(found, (x, W, b, given), strict=True):
        np.testing.assert_allclose(gradient, numerical(loss, operand), atol=1e-7)


def test_what_a_derivative_needs_must_be_given():
    x, W, b = layer()
    y = fa.dense(x, W, b, "tanh")
    with pytest.raises(ValueError, match=r"tanh needs its output, as output=; got no output"):
        fa.dense_backward(y, x, W, None, "tanh", saved=y)
    with pytest.raises(ValueError, match=r"softmax needs its output, as output=; got no output"):
        fa.dense_backward(y, x, W, None, "softmax", saved=y)
    with pytest.raises(ValueError, match=r"prelu\(0.5\) needs its input, as saved=; got no saved"):
        fa.dense_backward(y, x, W, y, ("prelu", 0.5))
    with pytest.raises(ValueError, match="saved must have the shape of grad_output"):
        fa.dense_backward(y, x, W, y, "softplus", saved=y[:, :2])


def test_softplus_by_its_input_is_more_accurate():
    x, W = np.array([[40.0]]), np.array([[1.0]])
    saved = np.empty((1, 1))
    y = fa.dense(-x, W, None, "softplus", saved=saved)
    exact = np.exp(-40.0)
    by_input = fa.dense_backward(np.ones((1, 1)), -x, W, y, "softplus", saved=saved)[2]
    assert by_input == pytest.approx(exact, rel=1e-15)
