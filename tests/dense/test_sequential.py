"""Stacks of layers: they give the bits of their layers, and reuse buffers."""

import copy
import itertools
import pickle
import threading
import tracemalloc

import numpy as np
import pytest
from conftest import FLOATS, assert_same
from hypothesis import given, settings
from hypothesis import strategies as st
from kinds import TYPICAL

import fastact as fa
from fastact._declarations.records import ROW_ACTIVATIONS

pytestmark = pytest.mark.functional

UNARY = [name for name, declared in TYPICAL.items() if declared.nin == 1] + [*ROW_ACTIVATIONS]
ROUNDED = FLOATS[:2]  # the 16-bit formats, to which every layer rounds its result


def one_by_one(layers, x):
    for layer in layers:
        x = layer(x)
    return x


def random(shape, dtype, seed=0):
    return np.random.default_rng(seed).normal(0, 1, shape).astype(dtype)


def dense(inputs, outputs, activation=None, dtype=np.float32, seed=0):
    return fa.Dense(
        random((inputs, outputs), dtype, seed), random(outputs, dtype, seed + 1), activation
    )


def stack(dtype=np.float32, inputs=6):
    """A stack with every way that an activation may follow a layer."""
    return [
        "tanh",
        dense(inputs, 13, "relu", dtype),
        dense(13, 9, None, dtype),
        fa.sigmoid,
        "softplus",
        dense(9, 4, "tanh", dtype),
        fa.softmax,
    ]


@st.composite
def stacks(draw):
    """Activations, and arguments of layers that fit. The test makes these, since that compiles."""
    widths = draw(st.lists(st.integers(1, 20), min_size=2, max_size=4))
    dtypes = st.sampled_from([np.float32, np.float64, np.float32, np.float16])
    names = st.sampled_from([*UNARY, None])
    layers = draw(st.lists(names, max_size=1))
    for inputs, outputs in itertools.pairwise(widths):
        layers.append((inputs, outputs, draw(names), draw(dtypes)))
        layers += draw(st.lists(names, max_size=2))
    return layers


@settings(max_examples=60)
@given(
    stacks(),
    st.lists(st.integers(0, 5), max_size=3),
    st.sampled_from([*FLOATS, np.dtype(np.int16), np.dtype(bool), np.dtype(">f4")]),
    st.sampled_from(["plain", "fortran", "reversed", "spread"]),
)
def test_the_bits_are_those_of_the_layers(layers, lead, dtype, layout):
    model = fa.Sequential(
        [dense(*layer) if isinstance(layer, tuple) else layer for layer in layers]
    )
    x = random((*lead, model.in_features), np.float32).astype(dtype)
    expected = one_by_one(model, x)
    if layout == "fortran":
        x = np.asfortranarray(x)
    elif layout == "reversed":
        x = x[..., ::-1].copy()[..., ::-1]
    elif layout == "spread":
        x = np.repeat(x, 2, axis=0)[::2] if x.ndim > 1 else np.repeat(x, 2)[::2]
    for _ in range(2):
        assert_same(model(x), expected)
    out = np.empty(expected.shape, expected.dtype)
    assert model(x, out=out) is out
    assert_same(out, expected)
    turned = np.empty(expected.shape[::-1], expected.dtype).T
    model(x, out=turned)
    assert_same(turned, expected)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("rows", [1, 2, 63, 5000, 20001])
def test_blocks_of_rows_change_nothing(rows, dtype):
    layers = [dense(5, 70, "relu", dtype), dense(70, 90, "sigmoid", dtype), dense(90, 3, "softmax")]
    model, x = fa.Sequential(layers), random((rows, 5), dtype)
    y = model(x)
    assert_same(y, one_by_one(layers, x))
    some = [0, rows // 2, rows - 1]
    assert_same(y[some], np.stack([model(x[i]) for i in some]))


def test_shapes_may_change_from_call_to_call():
    model = fa.Sequential(stack())
    for shape in [(3, 6), (6,), (40, 6), (1, 6), (2, 3, 6), (0, 6), (100, 6), (3, 6)]:
        x = random(shape, np.float32)
        assert_same(model(x), one_by_one(model, x))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rows", [1, 300, 20_000])
def test_nothing_is_allocated_after_the_first_call(rows, dtype):
    """Except by Python, for the views of blocks, which take less than 2 KB."""
    model = fa.Sequential([dense(8, 64, "relu"), dense(64, 64), "tanh", dense(64, 2)])
    x, out = random((rows, 8), dtype), np.empty((rows, 2), dtype)
    model(x, out=out)
    tracemalloc.start()
    try:
        model(x, out=out)
        assert tracemalloc.get_traced_memory()[1] < 2048
    finally:
        tracemalloc.stop()


def test_the_size_of_kept_buffers_is_bounded():
    model = fa.Sequential([dense(8, 64, "relu"), dense(64, 64), dense(64, 2)])
    x, out = random((100_000, 8), np.float32), np.empty((100_000, 2), np.float32)
    tracemalloc.start()
    try:
        with fa.num_threads(3):
            model(x, out=out)
        kept, most = tracemalloc.get_traced_memory()
        assert kept < most < 3 * 2**20  # intermediate results are 25 MB
    finally:
        tracemalloc.stop()


def test_threads_may_call_at_once():
    model = fa.Sequential(stack())
    inputs = [random((rows, 6), np.float32, rows) for rows in (1, 7, 300, 4000)]
    expected = [one_by_one(model, x) for x in inputs]
    start, wrong = threading.Barrier(len(inputs)), []

    def work(k):
        start.wait()
        for turn in range(100):
            i = (k + turn // 10) % len(inputs)
            if not np.array_equal(model(inputs[i]), expected[i]):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("name", [*UNARY])
@pytest.mark.parametrize("rounded", [np.float32, np.float64])
def test_an_activation_gives_the_same_wherever_it_is(name, rounded):
    """In a layer, after it in a stack, and called with the result of the layer."""
    for outputs in (1, 5, 37, 200):
        plain, x = dense(11, outputs, None, rounded), random((29, 11), rounded)
        expected = getattr(fa, name)(plain(x))
        assert_same(fa.Dense(plain.W, plain.b, name)(x), expected)
        assert_same(fa.dense(x, plain.W, plain.b, name), expected)
        assert_same(fa.dense(x[3], plain.W, plain.b, getattr(fa, name)), expected[3])
        assert_same(fa.Sequential([plain, name])(x), expected)
        wide = np.zeros((29, outputs + 3), rounded)
        fa.Dense(plain.W, plain.b, name)(x, out=wide[:, 1:-2])
        assert_same(np.ascontiguousarray(wide[:, 1:-2]), expected)
        assert not wide[:, [0, -2, -1]].any()


@pytest.mark.parametrize("dtype", ROUNDED, ids=str)
def test_softmax_of_16_bit_layers_is_rounded_once(dtype):
    layer = fa.Dense(random((4, 6), np.float32).astype(dtype), activation="softmax")
    x = random((20, 4), np.float32).astype(dtype)
    z = x.astype(np.float64) @ layer.W.astype(np.float64)
    exact = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    unit = {"float16": 2.0**-11, "bfloat16": 2.0**-8}[dtype.name]
    error = np.abs(layer(x).astype(np.float64) - exact)
    assert (error <= 1.01 * unit * exact + 2.0**-25).all()


def test_sequence():
    layers = stack()
    model = fa.Sequential([layers[0], fa.Sequential(layers[1:4]), None, "identity", *layers[4:]])
    assert len(model) == len(layers) == len(model.layers)
    assert [type(layer) for layer in model] == [type(layer) for layer in model.layers]
    assert model[0] is fa.tanh and model[-1] is fa.softmax and model[1] is layers[1]
    assert model[1:4].layers == model.layers[1:4]
    assert (model.in_features, model.out_features, model.dtype) == (6, 4, np.float32)
    assert model.classes_ is None
    assert fa.Sequential([dense(1, 1, dtype=np.float16), dense(1, 1)]).dtype == np.float32


def test_repr():
    assert repr(fa.Sequential([dense(3, 2, "relu"), "softmax"])) == (
        "Sequential(\n    Dense(3 -> 2, relu, float32),\n    softmax,\n)"
    )


@pytest.mark.parametrize("copied", [lambda m: pickle.loads(pickle.dumps(m)), copy.deepcopy])
def test_copies(copied):
    model = fa.Sequential(stack(), classes_=["a", "b", "c", "d"])
    x = random((5, 6), np.float32)
    expected = model(x)
    twin = copied(model)
    assert repr(twin) == repr(model)
    assert twin.classes_.tolist() == ["a", "b", "c", "d"]
    assert_same(twin(x), expected)


@pytest.mark.parametrize(
    "layers, message",
    [
        (lambda: [], "layers must have at least one Dense or Gated, got \\[\\]"),
        (
            lambda: ["relu", (fa.prelu, np.ones(50))],
            r"layers must have at least one Dense or Gated, got \[relu, prelu\(50 values\)\]",
        ),
        (
            lambda: [dense(3, 4), "relu", dense(5, 2)],
            "layer 2 must have 4 input features.* got Dense\\(5 -> 2",
        ),
        (lambda: [dense(3, 4), fa.Sequential([dense(5, 2)])], "layer 1 must have 4 input features"),
        (lambda: [dense(3, 4), "gelu2"], "layer 1 must be a Dense, .* softmax.*, got 'gelu2'"),
        (lambda: [np.tanh, dense(3, 4)], "layer 0 must be .*, got <ufunc 'tanh'>"),
        (lambda: [dense(3, 4), fa.heaviside], "layer 1 must be .*, got <ufunc 'heaviside'>"),
    ],
)
def test_layers_that_do_not_fit(layers, message):
    with pytest.raises(ValueError, match=f"^Sequential: {message}"):
        fa.Sequential(layers())


X = np.zeros((5, 6), np.float32)
SHARED = np.zeros((5, 12), np.float32)
READ_ONLY = np.zeros((5, 4), np.float32)
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize("ready", [False, True])
@pytest.mark.parametrize(
    "x, out, error, message",
    [
        (np.zeros((5, 7)), None, ValueError, r"x must have shape \(\.\.\., 6\).* \(5, 7\)"),
        (np.float32(1), None, ValueError, r"x must have shape .* got shape \(\)"),
        (X.astype(complex), None, TypeError, "x must be an array of .* got dtype complex128"),
        (X.astype("M8[s]"), None, TypeError, "x must be an array of .* got dtype datetime64"),
        (X, np.ones((4, 4), np.float32), ValueError, r"out must have shape \(5, 4\), got .*\(4, 4"),
        (X, np.ones((2, 5, 4), np.float32), ValueError, r"out must have shape \(5, 4\)"),
        (X[:1], np.ones((5, 4), np.float32), ValueError, r"out must have shape \(1, 4\)"),
        (X, np.ones((5, 4), int), TypeError, "out must be of a type that float32 can be cast to"),
        (X, [[0.0] * 4] * 5, TypeError, "out must be an ndarray, got list"),
        (X, READ_ONLY, ValueError, "out must be writeable"),
        (SHARED[:, :6], SHARED[:, 4:8], ValueError, "out must not overlap x"),
    ],
)
@pytest.mark.parametrize("last", ["softmax", None], ids=["activation", "layer"])
def test_bad_operands(x, out, error, message, ready, last):
    model = fa.Sequential([*stack(), last or dense(4, 4)])
    if ready:
        model(X)
    before = np.array(out)
    with pytest.raises(error, match=f"^Sequential: {message}"):
        model(x, out=out)
    np.testing.assert_array_equal(before, out)


def test_interleaved_operands_do_not_overlap():
    model = fa.Sequential(stack())
    shared = random((5, 10), np.float32)
    x = shared[:, :6]
    expected = model(x.copy())
    model(x, out=shared[:, 6:])
    assert_same(shared[:, 6:].copy(), expected)


def test_float64_rows_of_a_float32_stack_are_not_rounded():
    model = fa.Sequential([dense(6, 30), dense(30, 2)])
    x = random((4, 6), np.float64)
    hidden, last = model
    exact = (x @ hidden.W.astype(float) + hidden.b) @ last.W.astype(float) + last.b
    np.testing.assert_allclose(model(x), exact, rtol=1e-12)


@pytest.mark.parametrize("dtypes", [(np.float32, np.float64), (np.float64, np.float32)])
def test_types_rise_from_layer_to_layer(dtypes):
    layers = [dense(6, 9, "tanh", dtypes[0]), dense(9, 2, None, dtypes[1])]
    model, x = fa.Sequential(layers), random((4, 6), np.float32)
    for _ in range(2):
        assert_same(model(x), one_by_one(layers, x))
        assert model(x).dtype == np.float64
