"""Gated layers: the product of two layers of the same input, to the last bit."""

import copy
import functools
import itertools
import pickle

import numpy as np
import pytest
from conftest import FLOATS, assert_same, is_nan, run_python
from hypothesis import given, settings
from hypothesis import strategies as st
from test_dense import (
    LAYOUTS,
    TARGET,
    computed,
    exactly,
    fortran,
    leading,
    normal,
    rare,
    upside_down,
    wide,
    wild,
)

import fastact as fa
from bench.references import FOR_ARRAYS
from fastact._compiler import host
from fastact._compiler.gemm import gated as gated_loops
from fastact._compiler.gemm import loops as gemm_loops
from fastact._declarations.records import ACTIVATIONS
from fastact._dense import weights
from fastact._dense.compact import NAMES
from fastact._loading import loader
from fastact._machine.targets import BASELINES

pytestmark = pytest.mark.functional

repeatable = settings(derandomize=True, max_examples=25)
layouts = st.sampled_from(LAYOUTS)

PRODUCTS = {
    "silu": fa.swiglu,
    "gelu": fa.geglu,
    "relu": fa.reglu,
    "sigmoid": lambda gate, up: fa.glu(up, gate),
}
"""What is computed with one rounding."""

OTHERS = {
    None: lambda gate, up: gate * up,
    "tanh": lambda gate, up: fa.tanh(gate) * up,
    "gelu_tanh": lambda gate, up: fa.gelu_tanh(gate) * up,
    "fast.tanh": lambda gate, up: fa.fast.tanh(gate) * up,
}

kinds = pytest.mark.parametrize("activation", ["silu", "sigmoid", "tanh"])
each = pytest.mark.parametrize("name", NAMES)


def product(activation, gate, up):
    """The result for two sums in the type that the layer computes in."""
    with np.errstate(all="ignore"):
        return (PRODUCTS | OTHERS)[activation](gate, up)


def operands(rng, make, lead, depth, columns, dtype):
    """x, W_gate, W_up, b_gate, b_up."""
    of_matrix = (depth, columns)
    shapes = (*lead, depth), of_matrix, of_matrix, columns, columns
    return [make(rng, shape, dtype) for shape in shapes]


def sums(x, W_gate, W_up, b_gate, b_up):
    return fa.dense(x, W_gate, b_gate), fa.dense(x, W_up, b_up)


COLUMNS = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 48, 63, 64, 65, 130, 500]


@computed
@repeatable
@given(
    lead=leading(),
    depth=st.sampled_from([0, 1, 2, 15, 33, 100]),
    columns=st.sampled_from([0, *COLUMNS]),
    seed=st.integers(0, 1 << 30),
    place=st.tuples(*[layouts] * 4),
    biases=st.tuples(st.booleans(), st.booleans()),
    activation=st.sampled_from([*PRODUCTS, *OTHERS]),
)
def test_the_bits_are_those_of_two_layers_and_the_product(
    computed, lead, depth, columns, seed, place, biases, activation
):
    rng = np.random.default_rng(seed)
    x, W_gate, W_up, *b = operands(rng, rare, lead, depth, columns, computed)
    b = [value if has else None for value, has in zip(b, biases, strict=True)]
    expected = product(activation, *sums(x, W_gate, W_up, *b))
    layer = fa.Gated(place[0](W_gate), place[1](W_up), activation, *b)
    assert_same(layer(place[2](x)), expected)
    out = place[3](np.full(expected.shape, 7, computed))
    assert layer(x, out=out) is out
    assert_same(out.astype(computed), expected)
    for found, given_ in zip(
        (layer.W_gate, layer.W_up, layer.b_gate, layer.b_up), (W_gate, W_up, *b), strict=True
    ):
        assert found is None if given_ is None else found.tobytes() == given_.tobytes()


@kinds
@computed
def test_all_ways_of_tiles(computed, activation):
    """Few columns, strips of columns, and parts of blocks of rows."""
    rng = np.random.default_rng(1)
    for rows, depth, columns in (
        (70, 33, 3), (300, 17, 9), (1, 3, 5000), (8, 40, 1000), (17, 9, 700), (600, 5, 130),
        (1000, 3, 1),
    ):  # fmt: skip
        given_ = operands(rng, rare, (rows,), depth, columns, computed)
        expected = product(activation, *sums(*given_))
        layer = fa.Gated(*given_[1:3], activation, *given_[3:])
        for lay_x, lay_out in ((np.array, np.array), (fortran, wide), (wide, upside_down)):
            out = lay_out(np.full((rows, columns), 7, computed))
            assert_same(np.array(layer(lay_x(given_[0]), out=out)), expected)


@computed
def test_nan_and_infinities(computed):
    rng = np.random.default_rng(2)
    for activation, rows in itertools.product([*PRODUCTS, *OTHERS], (1, 2, 30)):
        given_ = operands(rng, wild, (rows,), 13, 37, computed)
        gate, up = sums(*given_)
        expected = product(activation, gate, up)
        y = fa.Gated(*given_[1:3], activation, *given_[3:])(given_[0])
        assert (is_nan(y) == is_nan(expected)).all()
        assert_same(y[~is_nan(y)], expected[~is_nan(y)])


@computed
def test_parameters(computed):
    rng = np.random.default_rng(3)
    for rows, columns in itertools.product((1, 9, 40), (1, 7, 33, 900)):
        given_ = operands(rng, rare, (rows,), 5, columns, computed)
        gate, up = sums(*given_)
        for value in (0.25, rng.random(columns).astype(computed)):
            expected = fa.prelu(gate, np.asarray(value, computed)) * up
            layer = fa.Gated(*given_[1:3], (fa.prelu, value), *given_[3:])
            assert_same(layer(given_[0]), expected)
            assert np.array_equal(layer.parameters["slope"], value)
            assert_same(pickle.loads(pickle.dumps(layer))(given_[0]), expected)


# Accuracy.


SLOPES = {"silu": 1.1, "gelu": 1.13, "relu": 1, "sigmoid": 0.25}
"""As in the documentation."""


@pytest.mark.parametrize("activation", PRODUCTS)
@computed
@repeatable
@given(
    shape=st.tuples(st.integers(1, 30), st.integers(0, 300), st.integers(1, 70)),
    seed=st.integers(0, 1 << 30),
    cancels=st.booleans(),
)
def test_error_bound(computed, activation, shape, seed, cancels):
    """The errors of both sums, carried into the product, and that of the product."""
    rows, depth, columns = shape
    rng = np.random.default_rng(seed)
    x, W_gate, W_up, b_gate, b_up = operands(rng, normal, (rows,), depth, columns, computed)
    if cancels:
        half = depth // 2
        x[:, half : 2 * half] = x[:, :half]
        for W in (W_gate, W_up):
            W[half : 2 * half] = -W[:half]
    (gate, of_gate), (up, of_up) = (
        exactly(x, W, b, computed) for W, b in ((W_gate, b_gate), (W_up, b_up))
    )
    activated = ACTIVATIONS[activation].reference(FOR_ARRAYS, gate)
    ideal = activated * up
    carried = SLOPES[activation] * of_gate * (abs(up) + of_up) + abs(activated) * of_up
    own = np.spacing((abs(ideal) + carried).astype(computed))
    y = fa.Gated(W_gate, W_up, activation, b_gate, b_up)(x)
    assert ACTIVATIONS[activation].steepest <= SLOPES[activation]
    assert (abs(y - ideal) <= 1.001 * carried + own).all()


# Types.


@pytest.mark.parametrize("dtype", [d for d in FLOATS if d.itemsize == 2], ids=str)
@kinds
def test_16_bit_formats_are_rounded_once(dtype, activation):
    rng = np.random.default_rng(4)
    for rows, depth, columns in ((1, 9, 33), (40, 70, 5), (300, 3, 130)):
        given_ = operands(rng, normal, (rows,), depth, columns, dtype)
        layer = fa.Gated(*given_[1:3], activation, *given_[3:])
        assert layer.dtype == dtype
        single = [v.astype(np.float32) for v in given_]
        expected = product(activation, *sums(*single)).astype(dtype)
        assert_same(layer(given_[0]), expected)
        assert_same(layer.W_gate, given_[1])


def test_types_of_the_result():
    f, d, e = np.float32, np.float64, np.float16
    W = np.arange(12).reshape(3, 4) - 5
    x = np.array([[1, -2, 3], [4, 5, -6]])
    expected = fa.swiglu((x @ W).astype(d), (x @ (2 * W)).astype(d))
    for W_type, x_type, result in (
        (f, f, f), (e, f, f), (f, e, f), (e, e, e), (f, d, d), (d, f, d), (int, int, d),
        (f, np.int8, f), (np.int8, f, d), (bool, d, d),
    ):  # fmt: skip
        layer = fa.Gated(W.astype(W_type), (2 * W).astype(W_type))
        y = layer(x.astype(x_type))
        assert y.dtype == result
        if W_type is not bool:
            assert np.allclose(y, expected, 2 * np.finfo(result).eps, 1e-7)
    assert fa.Gated(W.astype(f), W.astype(d)).dtype == d
    assert fa.Gated(W.astype(e), W.astype(e), "relu", np.ones(4, f)).dtype == f


@each
@repeatable
@given(
    shape=st.tuples(st.integers(0, 90), st.sampled_from([0, 1, 15, 300]), st.sampled_from(COLUMNS)),
    seed=st.integers(0, 1 << 30),
    activation=st.sampled_from([*PRODUCTS, "tanh"]),
)
def test_weights_in_fewer_bits(name, shape, seed, activation):
    rows, depth, columns = shape
    rng = np.random.default_rng(seed)
    x, W_gate, W_up, b_gate, b_up = operands(rng, rare, (rows,), depth, columns, np.float32)
    layer = fa.Gated(W_gate, W_up, activation, b_gate, b_up, name)
    halves = fa.Dense(W_gate, b_gate, None, name), fa.Dense(W_up, b_up, None, name)
    expected = product(activation, *(half(x) for half in halves))
    assert_same(layer(x), expected)
    assert_same(layer.W_gate, halves[0].W)
    assert_same(layer.W_up, halves[1].W)
    assert_same(pickle.loads(pickle.dumps(layer))(x), expected)
    double = x.astype(np.float64)
    assert_same(layer(double), product(activation, *(half(double) for half in halves)))


# Loops.


@computed
@pytest.mark.parametrize("activation", ["silu", "sigmoid", (fa.prelu, np.linspace(0, 1, 1003))])
def test_threads_change_no_bits(computed, activation):
    """Rows are shared, and columns."""
    rng = np.random.default_rng(5)
    for rows, depth, columns in ((1, 700, 1003), (9, 70, 1003), (900, 30, 1003)):
        given_ = operands(rng, normal, (rows,), depth, columns, computed)
        layer = fa.Gated(*given_[1:3], activation, *given_[3:])
        with fa.num_threads(1):
            expected = layer(given_[0])
        for threads in (2, 3, 7):
            with fa.num_threads(threads):
                assert_same(layer(given_[0]), expected)


@pytest.fixture
def fresh_kernels(monkeypatch):
    """``fresh_kernels()`` discards the compiled loops for the rest of the test."""
    make = weights._kernels.__wrapped__
    return lambda: monkeypatch.setattr(weights, "_kernels", functools.cache(make))


def uncached(form, lanes, stored):
    """The addresses of new code, since the cache knows no constants that tests have changed."""
    from fastact._compiler.gemm import module
    from fastact._compiler.symbols import SETTING
    from fastact._loading import linker

    code = module.object_code(form, lanes, host.host(), stored)
    return linker.load_all(code, [*stored.entries(form), SETTING])


BLOCKS = {
    "small": {"ROWS": 20, "FEW_ROWS": 8, "BUFFER": 1 << 12, "FAR_BYTES": 64},
    "far": {"ROWS": 9, "BUFFER": 1 << 15, "W_CACHED": 0, "W_FAR": 0, "K_BLOCK": 5},
}


@pytest.mark.parametrize(
    ("blocks", "name"),
    [
        ("small", None),
        pytest.param("far", None, marks=pytest.mark.exhaustive),
        ("far", "int8"),
    ],
)
def test_no_block_size_matters(blocks, name, monkeypatch, fresh_kernels):
    rng = np.random.default_rng(6)
    cases = []
    for rows, depth, columns in itertools.product((1, 7, 16, 40), (1, 130), (16, 33, 75, 300)):
        given_ = operands(rng, rare, (rows,), depth, columns, np.float32)
        layer = fa.Gated(*given_[1:3], "silu", *given_[3:], name)
        cases.append((given_, layer(given_[0])))
    for constant, size in BLOCKS[blocks].items():
        where = gated_loops if hasattr(gated_loops, constant) else gemm_loops
        monkeypatch.setattr(where, constant, size)
    fresh_kernels()
    monkeypatch.setattr(weights.engine, "gemm_addresses", uncached)
    for given_, expected in cases:
        layer = fa.Gated(*given_[1:3], "silu", *given_[3:], name)
        assert_same(layer(given_[0]), expected)


# .ci/run runs all tests at the levels x86-64-v2 and x86-64-v3.
@pytest.mark.parametrize(
    "target",
    [pytest.param("x86-64", marks=pytest.mark.exhaustive), "x86-64-v2"],
)
@computed
def test_code_for_lesser_machines(computed, target, monkeypatch, fresh_kernels):
    if TARGET.architecture != "x86_64":
        pytest.skip("runs code for x86-64")
    # The loops of the product are kept for the process, so they have to be this machine's.
    one = np.ones((1, 1), computed)
    assert_same(fa.Gated(one, one, "silu")(one), fa.swiglu(one, one))
    for module in (loader, host):
        monkeypatch.setattr(module, "host", lambda: BASELINES[target])
    fresh_kernels()
    rng = np.random.default_rng(7)
    for rows, depth, columns in ((1, 30, 40), (7, 33, 3), (33, 100, 33), (3, 9, 4), (90, 40, 700)):
        given_ = operands(rng, normal, (rows,), depth, columns, computed)
        layer = fa.Gated(*given_[1:3], "silu", *given_[3:])
        gate, up = (fa.Dense(W, b)(given_[0]) for W, b in zip(given_[1:3], given_[3:], strict=True))
        assert_same(layer(given_[0]), fa.swiglu(gate, up))


@pytest.mark.parametrize("name", [None, *NAMES])
def test_a_small_stack_is_enough(name):
    code = f"""
import threading
import numpy as np
import fastact as fa
W = np.ones((700, 130))
layer, x = fa.Gated(W, W, weights_dtype={name!r}), np.ones((300, 700), "f")
expected, found = layer(x), []
threading.stack_size(64 * 1024)
thread = threading.Thread(target=lambda: found.append(layer(x)))
thread.start()
thread.join()
assert (found[0] == expected).all()
"""
    run_python(code)


@computed
def test_a_bound_function_keeps_all_that_it_reads(computed):
    rng = np.random.default_rng(8)
    given_ = operands(rng, normal, (5,), 9, 33, computed)
    expected = fa.swiglu(*sums(*given_))
    call = fa.Gated(*given_[1:3], "silu", *given_[3:])._call
    others = [np.full(9 * 33 + k, np.nan, computed) for k in range(200)]
    assert_same(call(given_[0]), expected)
    assert len(others) == 200


# Objects.

X = np.linspace(-2, 2, 15, dtype=np.float32).reshape(5, 3)
GATE = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
UP = GATE[::-1] + 0.5
SQUARE = np.linspace(-1, 2, 16, dtype=np.float32).reshape(4, 4)


@pytest.mark.parametrize("activation", ["silu", "sigmoid", None])
def test_attributes(activation):
    b = np.arange(4, dtype=np.float32)
    layer = fa.Gated(GATE, UP, activation, b_up=b)
    assert (layer.in_features, layer.out_features, layer.dtype) == (3, 4, np.float32)
    assert layer.activation == (activation or "identity") and layer.parameters == {}
    assert repr(layer) == f"Gated(3 -> 4, {activation or 'identity'}, float32)"
    assert_same(layer.W_gate, GATE)
    assert_same(layer.W_up, UP)
    assert layer.b_gate is None
    assert_same(layer.b_up, b)
    for name in ("W_gate", "W_up", "b_gate", "b_up", "activation", "dtype", "in_features"):
        with pytest.raises(AttributeError, match=f"{name}.* (cannot be changed|has no setter)"):
            setattr(layer, name, GATE)
    layer.W_gate[...] = 0
    assert_same(layer(X), product(activation, *sums(X, GATE, UP, None, b)))
    assert "weights int8" in repr(fa.Gated(GATE, UP, weights_dtype="int8"))


class Halved(fa.Gated):
    """Another result, other arguments of ``__init__``, and overridden attributes."""

    @property
    def activation(self):
        return "identity"

    def __init__(self, factor):
        super().__init__(GATE, UP, "sigmoid")
        self.factor = factor

    def __call__(self, x):
        return super().__call__(x) / 2


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))]
)
def test_copies(copied):
    layer = Halved(7)
    again = copied(layer)
    assert type(again) is Halved and again.factor == 7
    assert_same(again(X), fa.Gated(GATE, UP, "sigmoid")(X) / 2)
    assert_same(again.W_gate, GATE)
    assert fa.Gated.__module__ == "fastact" and b"_dense" not in pickle.dumps(fa.Gated)


def one_by_one(layers, x):
    for layer in layers:
        x = layer(x)
    return x


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8], ids=str)
@pytest.mark.parametrize("rows", [(), (5,), (2, 3), (1000,)], ids=str)
def test_a_stack_of_layers(dtype, rows):
    """Gated layers at any place, and an activation after one."""
    x = np.linspace(-3, 3, int(np.prod(rows)) * 3).reshape(*rows, 3).astype(dtype)
    gated, dense = fa.Gated(GATE, UP), fa.Dense(SQUARE, activation="tanh")
    middle = fa.Gated(SQUARE, SQUARE.T, "gelu", np.ones(4, np.float32))
    for layers in (
        [gated], [gated, dense], [gated, "tanh", dense], [fa.Dense(GATE), middle, dense],
        [fa.Dense(GATE), "relu", middle], [gated, fa.Sequential([middle, "softmax"])],
    ):  # fmt: skip
        model = fa.Sequential(layers)
        expected = one_by_one(model, x)
        for _ in range(2):
            assert_same(model(x), expected)
        out = np.empty_like(expected)
        assert model(x, out=out) is out
        assert_same(out, expected)
        assert_same(pickle.loads(pickle.dumps(model))(x), expected)
        assert (model.in_features, model.out_features) == (3, 4)
    assert "\n    Gated(3 -> 4, silu, float32),\n" in repr(fa.Sequential([gated, dense]))


def test_a_stack_calls_what_a_subclass_overrides():
    model = fa.Sequential([Halved(7), fa.Dense(SQUARE)])
    assert_same(model(X), one_by_one(model, X))
    plain = fa.Gated(GATE, UP, "sigmoid")
    assert_same(model(X), fa.dense(plain(X) / 2, SQUARE))


def test_a_stack_is_compiled():
    model = fa.Sequential([fa.Gated(GATE, UP, None), "relu", fa.Dense(SQUARE), "tanh"])
    assert_same(model(X), one_by_one(model, X))
    (program,) = model._compiled.values()
    assert len(program._steps) == 3  # tanh is a part of the layer before it, relu of none


W = np.ones((3, 4), np.float32)
masked = np.ma.array(W, mask=np.eye(3, 4))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: fa.Gated(W[0], W),
            ValueError,
            r"W_gate must have shape \(K, N\), got shape \(4,\)",
        ),
        (lambda: fa.Gated(W, 1.0), ValueError, r"W_up must have shape \(K, N\), got shape \(\)"),
        (
            lambda: fa.Gated(W, W[:, :3]),
            ValueError,
            r"W_up must have the shape of W_gate, \(3, 4\), got shape \(3, 3\)",
        ),
        (
            lambda: fa.Gated(W, W, "silu", W[0, :3]),
            ValueError,
            r"b_gate must have shape \(4,\) to match the columns of W_gate .*got shape \(3,\)",
        ),
        (lambda: fa.Gated(W, W, b_up=7), ValueError, r"b_up must have shape \(4,\) .*W_up"),
        (lambda: fa.Gated(W, W, W[0]), ValueError, "activation must be one of identity, "),
        (lambda: fa.Gated(W, W, np.tanh), ValueError, "activation must be one of .*<ufunc 'tanh'>"),
        (lambda: fa.Gated(W, W, "prelu"), ValueError, r"activation must be \(fa.prelu, slope\)"),
        (lambda: fa.Gated(W, W, "softmax"), ValueError, "activation must be element-wise, got sof"),
        (lambda: fa.Gated(W, W * 1j), TypeError, "W_up must be an array of .*got dtype complex64"),
        (lambda: fa.Gated(W, W, b_gate=["a"] * 4), TypeError, "b_gate must be an array of .*got"),
        (lambda: fa.Gated(masked, W), ValueError, "W_gate must have no masked elements, got 3 of"),
        (
            lambda: fa.Gated(W, W, weights_dtype="int4"),
            ValueError,
            "weights_dtype must be None or one of .*'int8', got 'int4'",
        ),
        (
            lambda: fa.Gated(W, W / 0 * W, weights_dtype="int8"),
            ValueError,
            "W_up must be finite for weights_dtype='int8', got 12 of 12",
        ),
        (
            lambda: fa.Gated(W, W)(W),
            ValueError,
            r"x must have shape \(..., 3\) to match W_gate of shape \(3, 4\), got shape \(3, 4\)",
        ),
        (lambda: fa.Gated(W, W)(1j * X), TypeError, "x must be an array of .*got dtype complex64"),
        (
            lambda: fa.Gated(W, W)(X, out=np.zeros((5, 3), "f")),
            ValueError,
            r"out must have shape \(5, 4\), got shape \(5, 3\)",
        ),
        (lambda: fa.Gated(W, W)(X, out=np.zeros((5, 4), int)), TypeError, "out must be of a type"),
        (
            lambda: fa.Gated(W[:, :3], W[:, :3])(X, out=X),
            ValueError,
            "out must not overlap x, got arrays that share memory",
        ),
    ],
)
def test_wrong_arguments(make, error, message):
    with np.errstate(all="ignore"), pytest.raises(error, match=f"^Gated: {message}"):
        make()


def test_out_is_left_alone_if_it_is_refused():
    layer = fa.Gated(np.ones((4, 4), np.float32), SQUARE)
    buffer = np.arange(20, dtype=np.float32)
    x, out = buffer[:16].reshape(4, 4), buffer[4:].reshape(4, 4)
    with pytest.raises(ValueError, match=r"^Gated: out must not overlap x"):
        layer(x, out=out)
    assert (buffer == np.arange(20)).all()
