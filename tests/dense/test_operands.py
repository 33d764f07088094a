"""Accepted operands: the same rules for ufuncs, functions of rows, layers and gradients."""

import functools
import sys

import ml_dtypes
import numpy as np
import pytest
from conftest import assert_same, run_python

import fastact as fa
from fastact._declarations.records import ACTIVATIONS, DERIVATIVES, of_rows

# Types.

FLOATS = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
OTHERS = [
    *(ml_dtypes.int4, ml_dtypes.uint4, ml_dtypes.int2, ml_dtypes.float8_e4m3fn),
    *(ml_dtypes.float8_e5m2, ml_dtypes.float8_e3m4, ml_dtypes.float6_e2m3fn),
    *(ml_dtypes.float4_e2m1fn, ml_dtypes.float8_e8m0fnu),
]
NUMBERS = [np.dtype(t) for t in (*FLOATS, *OTHERS, np.bool_, np.int8, np.uint16, np.int64)]
REFUSED = [np.dtype(t) for t in ("F", "G", "g", "O", "U3", "S3", "m8[s]", "M8[s]", "V4", "i4,f4")]
REFUSED = [dtype for dtype in REFUSED if dtype not in NUMBERS]  # longdouble may be float64


def ones(dtype, *shape):
    if dtype.kind in "mMVUSO" and dtype not in NUMBERS:
        return np.zeros(shape, dtype)
    return np.ones(shape, np.float32).astype(dtype)


def two(first, second):
    """Calls of our functions with operands of two types, by name."""
    x, W = ones(first, 2, 2), ones(second, 2, 2)
    return {
        "dense": lambda: fa.dense(x, W),
        "dense with b": lambda: fa.dense(x, W, ones(first, 2), "tanh"),
        "Dense": lambda: fa.Dense(W)(x),
        "Dense with b": lambda: fa.Dense(W, ones(first, 2))(x),
        "Sequential": lambda: fa.Sequential([fa.Dense(W), "tanh"])(x),
        "Sequential of two": lambda: fa.Sequential([fa.Dense(x), fa.Dense(W)])(x),
        "softmax_backward": lambda: fa.softmax_backward(x, W),
        "logsumexp_backward": lambda: fa.logsumexp_backward(x[0], W),
        "dense_backward": lambda: fa.dense_backward(x, W, x, W, "relu")[0],
    }


def common(*dtypes):
    """The type of a ufunc's result for operands of these types."""
    return fa.sigmoid_backward(*(ones(dtype, 2) for dtype in dtypes)).dtype


@pytest.mark.parametrize("second", NUMBERS, ids=str)
@pytest.mark.parametrize("first", NUMBERS, ids=str)
def test_the_type_of_the_result_is_that_of_a_ufunc(first, second):
    expected, own = common(first, second), common(second, second)  # `own` is that of a layer
    assert fa.heaviside(ones(first, 2), ones(second, 2)).dtype == expected
    if first == second:
        assert fa.sigmoid(ones(first, 2)).dtype == expected
        assert fa.softmax(ones(first, 2)).dtype == expected
    of_layers = {
        "Dense": common(first, own),
        "Dense with b": common(first, expected),
        "Sequential": common(first, own),
        "Sequential of two": common(first, common(common(first, first), own)),
    }
    for name, call in two(first, second).items():
        assert call().dtype == of_layers.get(name, expected), name


EIGHTH = np.ones(1, ml_dtypes.float8_e4m3fn)
FOURTH = np.ones(1, ml_dtypes.int4)
SCALARS = [
    (1.0, 0.5, np.float64),
    (1, 0.5, np.float64),
    (1, 2, np.float64),
    (10**30, 0.5, np.float64),
    (True, 2, np.float64),
    (np.float32(1), 0.5, np.float32),
    (np.float16(1), 2, np.float16),
    (EIGHTH, 1, np.float32),
    (FOURTH, 0.5, np.float16),
]


@pytest.mark.parametrize(("first", "second", "expected"), SCALARS, ids=map(str, range(9)))
def test_the_type_of_the_result_with_numbers_of_python(first, second, expected, fresh):
    """The same in a first call, which chooses and compiles the loop, and in later ones."""
    for _ in range(2):
        assert fresh(DERIVATIVES["relu"])(first, second).dtype == expected
        assert fa.heaviside(first, second).dtype == expected


def test_relu_keeps_small_integers_integers(fresh):
    for dtype in (ml_dtypes.int4, ml_dtypes.uint4, ml_dtypes.int2):
        x = np.array([-2, 0, 1]).astype(np.int8).astype(dtype)
        y = fresh(ACTIVATIONS["relu"])(x)
        assert_same(y, fa.relu(x.astype(np.int8)))


def test_operands_that_are_not_numbers_are_refused(fresh):
    for first in (1j, "a", None, np.timedelta64(1, "s")):
        for second in (0.5, 1, FOURTH):
            with pytest.raises(TypeError, match=r"relu_backward"):
                fresh(DERIVATIVES["relu"])(first, second)


@pytest.mark.parametrize("other", [np.dtype(t) for t in OTHERS], ids=str)
@pytest.mark.parametrize("known", [np.dtype(t) for t in FLOATS], ids=str)
def test_values_of_other_types_are_exact(known, other):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 6)).astype(known)
    W = rng.choice([0, 1], (6, 3)).astype(np.float32).astype(other)
    if other == ml_dtypes.float8_e8m0fnu:  # which has no 0
        W = np.ones((6, 3), np.float32).astype(other)
    dtype = common(known, np.dtype(other))
    wide = x.astype(dtype), W.astype(dtype)
    assert_same(fa.dense(x, W), fa.dense(*wide))
    assert_same(fa.Dense(W)(x), fa.dense(*wide))
    assert_same(fa.dense(W.T, x.T), fa.dense(wide[1].T, wide[0].T))


def test_halves_of_both_kinds_are_float32():
    rng = np.random.default_rng(1)
    x, W = rng.standard_normal((4, 6)), rng.standard_normal((6, 3))
    x, W = x.astype(np.float16), W.astype(ml_dtypes.bfloat16)
    single = x.astype(np.float32), W.astype(np.float32)
    assert_same(fa.dense(x, W), fa.dense(*single))
    assert_same(fa.Dense(W)(x), fa.dense(*single))
    model = fa.Sequential([fa.Dense(x), fa.Dense(W)])
    assert model.dtype == np.float32
    first = x.T.copy()[:, :1]  # (6, 1)
    model = fa.Sequential([fa.Dense(first), fa.Dense(W[:1])])
    assert model.dtype == model(x).dtype == np.float32
    hidden = fa.dense(x, first).astype(np.float32)
    assert_same(model(x), fa.dense(hidden, W[:1].astype(np.float32)))


@pytest.mark.parametrize("dtype", REFUSED, ids=str)
def test_other_types_are_refused_by_all_functions(dtype):
    single = np.dtype(np.float32)
    with pytest.raises(TypeError):
        fa.sigmoid(ones(dtype, 2))
    with pytest.raises(TypeError):
        fa.softmax(ones(dtype, 2))
    for pair in ((dtype, single), (single, dtype), (dtype, dtype)):
        with pytest.raises(TypeError):
            fa.heaviside(*(ones(kind, 2) for kind in pair))
        for call in two(*pair).values():
            with pytest.raises(TypeError, match=r"must be an array of .*, got dtype"):
                call()


OUT_OF = ["e", "f", "d", "g", "F", "D", ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn]
NO_OUT = ["O", "U8", "S8", "?", "b", "i8", "M8[s]", "m8[s]", "V8", ml_dtypes.int4, ml_dtypes.uint2]
W = np.ones((2, 3), np.float32)
CALLS = {
    "dense": lambda x, out: fa.dense(x, W, out=out),
    "dense, packed": lambda x, out: fa.dense(x, np.asfortranarray(W), out=out),
    "Dense": lambda x, out: fa.Dense(W)(x, out=out),
    "Sequential": lambda x, out: fa.Sequential([fa.Dense(W), "relu"])(x, out=out),
}

each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@each_call
@pytest.mark.parametrize("dtype", [np.dtype(t) for t in NO_OUT], ids=str)
def test_an_out_that_cannot_hold_the_result(call, dtype):
    out = np.full((4, 3), "kept", object) if dtype.kind == "O" else np.zeros((4, 3), dtype)
    before = out.copy()
    with pytest.raises(TypeError, match=r"out must be of .*float32 can be cast to, got dtype"):
        call(np.ones((4, 2), np.float32), out)
    assert out.tobytes() == before.tobytes()


@each_call
@pytest.mark.parametrize("dtype", [np.dtype(t) for t in OUT_OF], ids=str)
def test_an_out_that_can_hold_the_result(call, dtype):
    out = np.zeros((4, 3), dtype)
    assert call(np.ones((4, 2), np.float32), out) is out
    assert (out.astype(complex) == 2).all()


# Masked values.

HIDDEN = np.ma.masked_array([[1.0, 2.0, 100.0], [3.0, 4.0, 5.0]], [[0, 0, 1], [0, 0, 0]])
OPEN = np.ma.masked_array(HIDDEN.data, False)


@functools.cache
def layer():
    return fa.Dense(np.ones((3, 3)))


ROWS = {
    "softmax": ("x", lambda x: fa.softmax(x)),
    "softmax, axis 0": ("x", lambda x: fa.softmax(x, axis=0)),
    "softmax of float32": ("x", lambda x: fa.softmax(x.astype(np.float32))),
    "softmax into itself": ("x", lambda x: fa.softmax(x, out=x.copy())),
    "softmin": ("x", lambda x: fa.softmin(x)),
    "log_softmax": ("x", lambda x: fa.log_softmax(x)),
    "logsumexp": ("x", lambda x: fa.logsumexp(x)),
    "dense": ("x", lambda x: fa.dense(x, np.ones((3, 2)))),
    "dense, W": ("W", lambda W: fa.dense(np.ones(2), W)),
    "dense, b": ("b", lambda b: fa.dense(np.ones((2, 2)), np.ones((2, 3)), b[0])),
    "dense, out": ("out", lambda out: fa.dense(np.ones((2, 2)), np.ones((2, 3)), out=out.copy())),
    "dense, list": ("x", lambda x: fa.dense([x[0], x[1]], np.ones((3, 2)))),
    "dense, lists": ("x", lambda x: fa.dense([[x[1], x[0]]], np.ones((3, 2)))),
    "Dense": ("x", lambda x: layer()(x)),
    "Dense, W": ("W", lambda W: fa.Dense(W)),
    "Dense, b": ("b", lambda b: fa.Dense(np.ones((2, 3)), b[0])),
    "Sequential": ("x", lambda x: fa.Sequential([layer(), "tanh"])(x)),
    "softmax_backward": ("grad_output", lambda g: fa.softmax_backward(g, HIDDEN.data)),
    "softmax_backward, output": ("output", lambda y: fa.softmax_backward(HIDDEN.data, y)),
    "dense_backward": ("grad_output", lambda g: fa.dense_backward(g, OPEN, np.eye(3), OPEN)),
    "dense_backward, x": ("x", lambda x: fa.dense_backward(OPEN, x, np.eye(3), OPEN)),
    "dense_backward, W": ("W", lambda W: fa.dense_backward(OPEN, np.ones((2, 2)), W, OPEN)),
    "dense_backward, output": ("output", lambda y: fa.dense_backward(OPEN, OPEN, np.eye(3), y)),
}


@pytest.mark.parametrize(("name", "call"), ROWS.values(), ids=ROWS)
def test_masked_values_are_refused(name, call):
    with pytest.raises(
        ValueError, match=rf": {name} must have no masked .*, got 1 of \d; {name}\."
    ):
        call(HIDDEN)
    call(OPEN)  # without masked values, they are arrays like others


def test_softmax_of_masked_arrays_without_masked_values():
    y = fa.softmax(OPEN)
    assert type(y) is np.ma.MaskedArray and not y.mask.any()
    assert_same(y.data, fa.softmax(OPEN.data))
    y = fa.softmax(HIDDEN.filled(-np.inf))  # as the documents recommend
    assert_same(y[0], np.append(fa.softmax(HIDDEN.data[0, :2]), 0.0))


def test_element_wise_functions_keep_the_mask(activation):
    function = getattr(fa, activation.name)
    found = function(*[HIDDEN] * activation.nin)
    expected = function(*[HIDDEN.data[1]] * activation.nin)
    if function.nout == 1:
        found, expected = (found,), (expected,)
    for y, values in zip(found, expected, strict=True):
        assert (y.mask == HIDDEN.mask).all()
        assert_same(y.data[1], values)


def test_before_and_after_the_first_masked_array():
    """NumPy imports their module late; the import hook that waits for it is removed then."""
    code = """
import sys
import numpy as np
import fastact as fa
before = list(sys.meta_path)
assert "numpy.ma" not in sys.modules
fa.softmax([1.0, 2.0])
fa.dense([1.0], [[2.0]])
assert "numpy.ma" not in sys.modules
{}
assert len(sys.meta_path) == len(before) - 1
import numpy.ma.core
assert numpy.ma.core.__spec__.loader.name == "numpy.ma.core"
x = np.ma.masked_array([1.0, 2.0], [0, 1])
for name in {}:
    try:
        getattr(fa, name)(x)
    except ValueError as error:
        print(error)
"""
    names = list(of_rows())
    for line in ("np.ma", "import numpy.ma", "from numpy.ma import masked_array"):
        errors = run_python(code.format(line, names)).splitlines()
        assert [error.split(", got")[0] for error in errors] == [
            f"{name}: x must have no masked elements" for name in names
        ]
    assert "numpy.ma" in sys.modules


def test_masked_arrays_that_were_imported_first():
    code = """
import sys
import numpy.ma
before = list(sys.meta_path)
import fastact as fa
assert sys.meta_path == before
try:
    fa.softmax(numpy.ma.masked_array([1.0, 2.0], [0, 1]))
except ValueError as error:
    print(error)
"""
    assert run_python(code).startswith(
        "softmax: x must have no masked elements, got 1 of 2; x.fill"
    )
