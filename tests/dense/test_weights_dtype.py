"""Layers whose weights are stored in fewer bits than those they compute with."""

import copy
import functools
import itertools
import pickle

import gmpy2
import ml_dtypes
import numpy as np
import pytest
from conftest import assert_same, bits, run_python
from hypothesis import given, settings
from hypothesis import strategies as st
from test_dense import LAYOUTS, TARGET, exactly, normal, rare, wild

import fastact as fa
from fastact._compiler import host
from fastact._compiler.gemm import loops as gemm_loops
from fastact._dense import weights
from fastact._dense.compact import NAMES, compacted
from fastact._loading import loader
from fastact._machine.targets import BASELINES

pytestmark = pytest.mark.functional

SINGLE = np.dtype(np.float32)
TYPES = {"bfloat16": np.dtype(ml_dtypes.bfloat16), "float16": np.dtype(np.float16)}
COLUMNS = [1, 3, 4, 7, 8, 15, 16, 17, 31, 33, 48, 63, 64, 100, 130]

each = pytest.mark.parametrize("name", NAMES)
each_float = pytest.mark.parametrize("name", TYPES)
repeatable = settings(derandomize=True, max_examples=40)
layouts = st.sampled_from(LAYOUTS)


def in_int8(W):
    """The integers and the scale by their definition, in float64."""
    W = W.astype(np.float64)
    scale = (abs(W).max(axis=0, initial=0) / 127).astype(np.float32)
    q = np.rint(W / np.where(scale == 0, 1, scale))
    return q + 0.0, scale  # integers have no -0


def rounded(W, name):
    """The weights that a layer uses."""
    with np.errstate(all="ignore"):
        if name == "int8":
            q, scale = in_int8(W)
            return q.astype(np.float32) * scale
        return W.astype(TYPES[name]).astype(np.float32)


shapes = st.tuples(
    st.integers(0, 90), st.sampled_from([0, 1, 2, 15, 33, 300]), st.sampled_from(COLUMNS)
)


@each_float
@repeatable
@given(
    shape=shapes,
    seed=st.integers(0, 1 << 30),
    place=st.tuples(layouts, layouts),
    activation=st.sampled_from(["identity", "relu", "softplus", "softmax"]),
)
def test_the_bits_are_those_of_the_widened_weights(name, shape, seed, place, activation):
    rows, depth, columns = shape
    rng = np.random.default_rng(seed)
    x, W, b = (rare(rng, s, SINGLE) for s in ((rows, depth), (depth, columns), columns))
    wide = rounded(W, name)
    expected = fa.Dense(wide, b, activation)(x)
    layer = fa.Dense(place[0](W), b, activation, name)
    assert_same(layer.W, wide)
    assert_same(layer(place[1](x)), expected)


@each_float
def test_every_number_is_widened_exactly(name):
    """As weights of one row, and as those that are kept for several tiles of rows."""
    every = np.arange(1 << 16, dtype=np.uint16).view(TYPES[name])
    finite = every[np.isfinite(every.astype(np.float32))].astype(np.float32)
    W = np.resize(finite, (-(-len(finite) // 64), 64))
    layer = fa.Dense(W.copy(), weights_dtype=name)
    assert_same(layer.W, W)
    for rows in (1, 2, 9, 40):
        for k in range(0, len(W), 37):
            x = np.zeros((rows, len(W)), np.float32)
            x[:, k] = 1
            assert (layer(x) == W[k]).all()


@each
@repeatable
@given(
    shape=shapes,
    seed=st.integers(0, 1 << 30),
    place=st.tuples(layouts, layouts),
    activation=st.sampled_from(["identity", "relu", "softplus", "softmax"]),
)
def test_an_element_depends_only_on_its_row_and_column(name, shape, seed, place, activation):
    rows, depth, columns = shape
    rng = np.random.default_rng(seed)
    x, W, b = (rare(rng, s, SINGLE) for s in ((rows, depth), (depth, columns), columns))
    layer = fa.Dense(W, b, activation, name)
    expected = np.array([layer(row) for row in x], np.float32).reshape(rows, columns)
    assert_same(layer(place[0](x)), expected)
    out = place[1](np.full((rows, columns), 7, np.float32))
    assert layer(x, out=out) is out
    assert_same(out.astype(np.float32), expected)
    if activation != "softmax":
        part = slice(columns // 3, columns // 3 + max(columns // 2, 1))
        assert_same(fa.Dense(W[:, part], b[part], activation, name)(x), expected[:, part])


@each
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_change_no_bits(name, threads):
    """Rows are shared, and columns."""
    rng = np.random.default_rng(1)
    before = fa.get_num_threads()
    for shape in ((1, 700, 3000), (9, 700, 1003), (2000, 60, 33), (900, 300, 130)):
        x, W, b = (normal(rng, s, SINGLE) for s in (shape[:2], shape[1:], shape[2]))
        layer = fa.Dense(W, b, "relu", name)
        some = np.array([layer(row) for row in x[:7]])
        fa.set_num_threads(threads)
        try:
            assert_same(layer(x)[:7], some)
        finally:
            fa.set_num_threads(before)


@repeatable
@given(shape=shapes, seed=st.integers(0, 1 << 30), cancels=st.booleans())
def test_error_bound_of_int8(shape, seed, cancels):
    rows, depth, columns = shape
    rng = np.random.default_rng(seed)
    x, W, b = (normal(rng, s, SINGLE) for s in ((rows, depth), (depth, columns), columns))
    W *= 10 ** rng.uniform(-3, 3, columns).astype(np.float32)
    if cancels:
        half = depth // 2
        x[:, half : 2 * half], W[half : 2 * half] = x[:, :half], -W[:half]
    layer = fa.Dense(W, b, None, "int8")
    y = layer(x).astype(np.float64)
    q, scale = in_int8(W)
    used = q * scale  # exact in float64
    exact, _ = exactly(x, W, b, np.float32)
    _, bound = exactly(x, used, b, np.float32)
    by_weights = scale / 2 * abs(x).astype(np.float64).sum(axis=1, keepdims=True)
    assert (abs(y - exact) <= by_weights * (1 + 1e-6) + bound).all()
    with np.errstate(all="ignore"):
        assert_same(layer.W, used.astype(np.float32))


@pytest.mark.parametrize("columns", [1, 5, 8, 16, 40])
def test_the_scale_is_applied_once(columns):
    """With one rounding, with the bias; or two, without an fma."""
    rng = np.random.default_rng(columns)
    x, W, b = (normal(rng, s, SINGLE) for s in ((50, 30), (30, columns), columns))
    q, scale = in_int8(W)
    sums = fa.dense(x, q.astype(np.float32))
    y = fa.Dense(W, b, None, "int8")(x)
    with gmpy2.context(precision=24):
        for i, j in np.ndindex(*y.shape):
            factors = gmpy2.mpfr(float(sums[i, j])), gmpy2.mpfr(float(scale[j]))
            bias = gmpy2.mpfr(float(b[j]))
            exact = gmpy2.fma(*factors, bias) if TARGET.has_fma else gmpy2.mul(*factors) + bias
            assert y[i, j] == float(exact)


@each
def test_integers_are_exact(name):
    rng = np.random.default_rng(2)
    for columns in COLUMNS:
        for rows in (1, 2, 5, 8, 9, 17, 70):
            W = rng.integers(-127, 128, (24, columns))
            W[0] = 127  # so that the scale is 1
            x, b = rng.integers(-99, 99, (rows, 24)), rng.integers(-99, 99, columns)
            layer = fa.Dense(W.astype(np.float32), b.astype(np.float32), None, name)
            assert (layer(x.astype(np.float32)) == x @ W + b).all()


def test_special_columns_of_int8():
    tiny = float(np.finfo(np.float32).smallest_subnormal)
    W = np.array([[0, tiny, 190 * tiny, 1e-40, 3e38, -0.0], [0, 0, -64 * tiny, 5e-41, -1, 0]])
    W = W.astype(np.float32)
    layer = fa.Dense(W, weights_dtype="int8")
    used = layer.W
    assert (used[:, [0, 5]] == 0).all()
    scale = abs(W).max(axis=0) / np.float32(127)
    assert (abs(used - W) <= np.maximum(scale, 2 * tiny)).all()
    y = layer(np.ones((3, 2), np.float32))
    assert np.isfinite(y).all() and (y[:, [0, 5]] == 0).all()
    assert np.isnan(layer([[np.inf, 1]])[0, 0])  # inf * 0, as in matmul
    for shape in ((0, 5), (3, 0), (0, 0), (0, 40)):
        empty = fa.Dense(np.zeros(shape, np.float32), weights_dtype="int8")
        assert_same(empty(np.ones((2, shape[0]), np.float32)), np.zeros((2, shape[1]), np.float32))


@each_float
def test_nan_and_infinities_are_those_of_the_widened_weights(name):
    rng = np.random.default_rng(3)
    for rows, columns in ((1, 40), (9, 17), (40, 33), (20, 5)):
        x, W = rare(rng, (rows, 30), SINGLE), wild(rng, (30, columns), SINGLE)
        layer = fa.Dense(W, None, None, name)
        expected = fa.Dense(rounded(W, name))(x)
        same = (bits(layer(x)) == bits(expected)) | (np.isnan(layer(x)) & np.isnan(expected))
        assert same.all()
    assert np.isinf(fa.Dense(np.full((1, 20), 1e30), None, None, "float16").W).all()


def test_refused_arguments():
    W = np.ones((3, 20), np.float32)
    for bad in ("int4", "float32", np.float16, 8, b"int8"):
        with pytest.raises(ValueError, match=r"Dense: weights_dtype must be None or .*'int8', got"):
            fa.Dense(W, None, None, bad)
    for value in (np.nan, np.inf, -np.inf):
        W[1, 4] = value
        with pytest.raises(
            ValueError, match=r"W must be finite for weights_dtype='int8', got 1 of"
        ):
            fa.Dense(W, None, None, "int8")
        fa.Dense(W, None, None, "bfloat16")
    with pytest.raises(ValueError, match=r"W must be at most 127 times .* got 1e\+300"):
        fa.Dense([[1e300]], None, None, "int8")


# Types.


@each
def test_types_of_weights_and_inputs(name):
    rng = np.random.default_rng(4)
    for columns in (5, 40):
        W, b, x = (
            normal(rng, (9, columns), "d"),
            normal(rng, columns, "d"),
            normal(rng, (5, 9), "d"),
        )
        layer = fa.Dense(W, b, "tanh", name)
        assert layer.dtype == np.float32 and layer.W.dtype == np.float32
        assert_same(layer.W, rounded(W, name))  # with one rounding
        assert_same(layer(x), fa.dense(x, layer.W.astype("d"), layer.b.astype("d"), "tanh"))
        for dtype in TYPES.values():
            narrow = fa.Dense(W.astype(dtype), b.astype(dtype), "tanh", name)
            assert narrow.dtype == dtype and narrow.W.dtype == np.float32
            expected = narrow(x.astype(dtype).astype(np.float32))
            assert expected.dtype == np.float32
            assert_same(narrow(x.astype(dtype)), expected.astype(dtype))
        assert_same(fa.Dense(W.T.copy().T, b, "tanh", name)(x), layer(x))
        swapped = W.astype(W.dtype.newbyteorder())
        assert_same(fa.Dense(swapped, b, "tanh", name).W, layer.W)
    integers = fa.Dense(np.arange(6).reshape(2, 3), weights_dtype=name)
    assert integers.dtype == np.float32 and np.allclose(integers.W, [[0, 1, 2], [3, 4, 5]], 1e-2)


# What layers can do otherwise.


@each
@pytest.mark.parametrize("columns", [3, 40])
def test_copies_have_the_same_bits(name, columns):
    rng = np.random.default_rng(5)
    W, b, x = (normal(rng, s, SINGLE) for s in ((60, columns), columns, (11, 60)))
    for dtype in (SINGLE, TYPES["float16"]):
        layer = fa.Dense(W.astype(dtype), b.astype(dtype), ("prelu", 0.25), name)
        for copied in (
            copy.copy(layer), copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)),
            pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(layer)))),
        ):  # fmt: skip
            assert repr(copied) == repr(layer) and copied.weights_dtype == name
            assert copied.dtype == dtype
            assert_same(copied.W, layer.W)
            assert_same(copied.b, layer.b)
            for given_x in (x, x.astype("d"), x.astype("e")):
                assert_same(copied(given_x), layer(given_x))


@each
def test_pickles_have_the_stored_numbers(name):
    W = normal(np.random.default_rng(6), (40, 4000), SINGLE)
    layer = fa.Dense(W, weights_dtype=name)
    pickled = pickle.dumps(layer)
    assert_same(pickle.loads(pickled).W, layer.W)
    assert len(pickled) < (1.3 if name == "int8" else 2.2) * W.size


@each
def test_representation_and_attributes(name):
    layer = fa.Dense(np.ones((3, 2), np.float32), None, "relu", weights_dtype=name)
    assert repr(layer) == f"Dense(3 -> 2, relu, float32, weights {name})"
    assert layer.weights_dtype == name and layer.b is None
    assert fa.Dense(np.ones((3, 2), np.float32)).weights_dtype is None
    with pytest.raises(AttributeError, match="weights_dtype cannot be changed"):
        layer.weights_dtype = None


class Named(fa.Dense):
    def __init__(self, name, *arguments, **named):
        super().__init__(*arguments, **named)
        self.name = name


@each
def test_subclasses(name):
    layer = Named("first", np.ones((3, 20), np.float32), weights_dtype=name)
    again = pickle.loads(pickle.dumps(layer))
    assert type(again) is Named and again.name == "first" and again.weights_dtype == name


@each
def test_stacks(name):
    rng = np.random.default_rng(7)
    sizes = (30, 50, 6, 40)
    layers = [
        fa.Dense(normal(rng, (k, n), SINGLE), normal(rng, n, SINGLE), None, name)
        for k, n in itertools.pairwise(sizes)
    ]
    stack = fa.Sequential([layers[0], "relu", layers[1], ("prelu", 0.3), layers[2], "softmax"])
    for dtype in ("f", "d", "e"):
        x = normal(rng, (700, 30), dtype)
        expected = x
        for layer, activation in zip(layers, ("relu", "prelu", "softmax"), strict=True):
            expected = layer(expected)
            function = getattr(fa, activation)
            parameters = [np.array(0.3, expected.dtype)] * (activation == "prelu")
            expected = function(expected, *parameters)
        for model in (stack, pickle.loads(pickle.dumps(stack))):
            assert_same(model(x), expected)
            assert_same(model(x[0]), expected[0])


@each
@pytest.mark.parametrize("columns", [5, 40])
def test_saved_input_of_the_activation(name, columns):
    rng = np.random.default_rng(8)
    x, W, b = (normal(rng, s, SINGLE) for s in ((20, 30), (30, columns), columns))
    saved = np.empty((20, columns), np.float32)
    y = fa.Dense(W, b, "softplus", name)(x, saved=saved)
    assert_same(saved, fa.Dense(W, b, None, name)(x))
    assert_same(y, fa.softplus(saved))
    gradients = fa.dense_backward(y, x, fa.Dense(W, b, None, name).W, y, "softplus", saved=saved)
    assert gradients[0].shape == x.shape


@each
def test_a_small_stack_is_enough(name):
    code = f"""
import threading
import numpy as np
import fastact as fa
layer, x = fa.Dense(np.ones((700, 130)), None, "softmax", {name!r}), np.ones((300, 700), "f")
expected, found = layer(x), []
threading.stack_size(64 * 1024)
thread = threading.Thread(target=lambda: found.append(layer(x)))
thread.start()
thread.join()
assert (found[0] == expected).all()
"""
    run_python(code)


@each
def test_packed_weights_do_not_depend_on_their_layout(name):
    W = normal(np.random.default_rng(14), (37, 75), SINGLE)
    given_ = compacted("Dense", "W", W, name)
    in_turn = given_._replace(values=np.asfortranarray(given_.values))
    rows, columns = (weights.Weights(w, None, None) for w in (given_, in_turn))
    assert_same(rows._packed[..., : 37 * 4], columns._packed[..., : 37 * 4])
    assert_same(columns.unpacked(), rounded(W, name))


@each
def test_weights_are_stored_in_fewer_bits(name):
    W = np.ones((300, 64), np.float32)
    sizes = [fa.Dense(W, None, None, kind)._own._packed.nbytes for kind in (None, name)]
    assert sizes[0] / sizes[1] == pytest.approx({"int8": 4}.get(name, 2), rel=0.02)


# Other machines.


@pytest.fixture
def fresh_kernels(monkeypatch):
    """``fresh_kernels()`` discards the compiled loops for the rest of the test."""
    make = weights._kernels.__wrapped__
    return lambda: monkeypatch.setattr(weights, "_kernels", functools.cache(make))


# All others have code for x86-64-v2 and -v3 tested when all tests run at these levels (.ci/run).
@pytest.mark.parametrize(
    ("name", "target"),
    [
        *(pytest.param(name, "x86-64", marks=pytest.mark.exhaustive) for name in NAMES),
        ("int8", "x86-64-v2"),
        ("float16", "x86-64-v3"),
    ],
)
def test_code_for_lesser_machines(name, target, monkeypatch, fresh_kernels):
    if TARGET.architecture != "x86_64":
        pytest.skip("runs code for x86-64")
    for module in (loader, host):
        monkeypatch.setattr(module, "host", lambda: BASELINES[target])
    fresh_kernels()
    rng = np.random.default_rng(9)
    for rows, depth, columns in ((1, 30, 40), (7, 33, 3), (33, 300, 33), (3, 9, 4), (90, 400, 70)):
        shapes = (rows, depth), (depth, columns), columns
        x, W, b = (rare(rng, s, SINGLE) for s in shapes)
        layer = fa.Dense(W, b, "relu", name)
        assert_same(layer.W, rounded(W, name))
        y = layer(x)
        assert_same(np.array([layer(row) for row in x]), y)
        if name == "int8":
            q, scale = in_int8(W)
            exact, bound = exactly(x, q * scale, b, np.float32)
            assert (abs(y - np.maximum(exact, 0)) <= 2 * bound).all()
        else:
            assert_same(y, fa.Dense(layer.W, b, "relu")(x))


@each
def test_vectors_that_are_widened_early_end_with_the_last(name):
    """Vectors of one row are widened before the products of the ones before them."""
    rng = np.random.default_rng(15)
    for columns in (80, 96, 112, 128, 200):
        for depth in (1, 2, 3, 4, 7):
            W = rng.integers(-127, 128, (depth, columns)).astype(np.float32)
            W[0] = 127  # so that the scale of int8 is 1
            for k in range(depth):
                x = np.zeros(depth, np.float32)
                x[k] = 1
                assert (fa.Dense(W, None, None, name)(x) == W[k]).all()


@each
def test_a_panel_in_use_is_left_to_its_user(name):
    """Layers of a format share a panel. A call that finds it taken has the same result."""
    rng = np.random.default_rng(16)
    x, W, b = (normal(rng, s, SINGLE) for s in ((40, 2500), (2500, 80), 80))
    layer = fa.Dense(W, b, "relu", name)
    expected = np.array([layer(row) for row in x])
    panel = layer._own.kernels.panel
    for taken in (1, 0):
        panel[1:] = -1
        panel[0] = taken
        try:
            assert_same(layer(x), expected)
            assert panel[0] == taken  # is given back, if it was free
            assert (panel[1:] == -1).all() == bool(taken)
        finally:
            panel[0] = 0
    assert fa.Dense(W)._own.kernels.panel is None


@pytest.mark.parametrize(
    "name",
    [n if n == "int8" else pytest.param(n, marks=pytest.mark.exhaustive) for n in NAMES],
)
def test_no_size_of_a_panel_matters(name, monkeypatch, fresh_kernels):
    rng = np.random.default_rng(10)
    cases = []
    for rows, depth, columns in ((7, 130, 33), (20, 129, 47), (90, 700, 130)):
        x, W, b = (rare(rng, s, SINGLE) for s in ((rows, depth), (depth, columns), columns))
        cases.append((x, W, b, fa.Dense(W, b, "relu", name)(x)))
    for constants in (
        {"PANEL": 1 << 10, "SHARED_PANEL": 5000},
        {"PANEL": 1 << 16, "W_CACHED": 0, "K_BLOCK": 5, "WIDENED_BLOCK": 900, "WIDENED_ROWS": 1},
        {"PANEL": 5000, "W_FAR": 0, "FAR_BYTES": 64, "SMALL_BLOCK": 900, "WIDENED_ROWS": 20},
    ):  # fmt: skip
        for constant, size in constants.items():
            monkeypatch.setattr(gemm_loops, constant, size)
        fresh_kernels()
        monkeypatch.setattr(weights.engine, "gemm_addresses", uncached)
        for x, W, b, expected in cases:
            assert_same(fa.Dense(W, b, "relu", name)(x), expected)


def uncached(form, lanes, stored):
    """The addresses of new code, since the cache knows no constants that tests have changed."""
    from fastact._compiler.gemm import module
    from fastact._compiler.symbols import SETTING
    from fastact._loading import linker

    code = module.object_code(form, lanes, host.host(), stored)
    return linker.load_all(code, [*stored.entries(form), SETTING])
