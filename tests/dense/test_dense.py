"""``dense`` and ``Dense``: results depend only on their row, for operands of every kind."""

import functools
import itertools
import math
import pickle
import threading

import ml_dtypes
import numpy as np
import pytest
from conftest import FLOATS, assert_same, bits, is_nan
from hypothesis import example, given, settings
from hypothesis import strategies as st
from kinds import TYPICAL

import fastact as fa
from bench.references import FOR_ARRAYS
from fastact._compiler import host
from fastact._compiler.gemm import loops as gemm_loops
from fastact._declarations.records import ACTIVATIONS
from fastact._dense import layers, weights
from fastact._dense.compact import NAMES
from fastact._loading import loader
from fastact._machine.targets import BASELINES, TILES

pytestmark = pytest.mark.functional

repeatable = settings(derandomize=True, max_examples=60)

UNARY = [name for name, declared in TYPICAL.items() if declared.nin == 1]
COMPUTED = [np.dtype(np.float32), np.dtype(np.float64)]
TARGET = host.host()

computed = pytest.mark.parametrize("computed", COMPUTED, ids=str)


def normal(rng, shape, dtype):
    return rng.standard_normal(shape).astype(dtype)


def rare(rng, shape, dtype):
    """Numbers of all sizes, including subnormal ones and zeros of both signs.

    Their products are finite.
    """
    info = ml_dtypes.finfo(dtype)
    special = [0.0, -0.0, float(info.smallest_subnormal), float(info.smallest_normal), 1e-3, 4e4]
    special = np.array(special + [-v for v in special])
    chosen = rng.choice(special, shape)
    return np.where(rng.random(shape) < 0.4, chosen, rng.standard_normal(shape)).astype(dtype)


def wild(rng, shape, dtype):
    """The same with infinities and NaN."""
    special = rng.choice(np.array([np.inf, -np.inf, np.nan]), shape)
    return np.where(rng.random(shape) < 0.05, special, rare(rng, shape, dtype)).astype(dtype)


# Memory layouts: each function returns an array or a view with the values of `a`.


def fortran(a):
    return np.array(a, order="F")


def spread(a):
    """Every other element along each axis."""
    room = np.zeros([2 * n + 1 for n in a.shape], a.dtype)
    view = room[tuple(slice(1, 2 * n + 1, 2) for n in a.shape)]
    view[...] = a
    return view


def wide(a):
    """Rows that are parts of longer ones."""
    room = np.zeros((*a.shape[:-1], a.shape[-1] + 3), a.dtype)
    room[..., 2:-1] = a
    return room[..., 2:-1]


def backwards(a):
    flip = tuple(slice(None, None, -1) for _ in a.shape)
    return np.ascontiguousarray(a[flip])[flip]


def upside_down(a):
    """Rows in reverse order, each of them forwards."""
    return np.ascontiguousarray(a[::-1])[::-1] if a.ndim > 1 else backwards(a)


def unaligned(a):
    room = np.zeros(a.nbytes + a.itemsize, np.uint8)
    view = room[1 : 1 + a.nbytes].view(a.dtype).reshape(a.shape)
    view[...] = a
    return view


def swapped(a):
    return a.astype(a.dtype.newbyteorder())


def offset(a):
    """Aligned to the size of an element, and to nothing larger."""
    room = np.zeros(a.size + 1, a.dtype)
    view = room[1:].reshape(a.shape)
    view[...] = a
    return view


LAYOUTS = [np.array, fortran, spread, wide, backwards, upside_down, unaligned, swapped, offset]

layouts = st.sampled_from(LAYOUTS)


def one_row_at_a_time(x, W, b, activation="identity"):
    """The results of the rows, each from a separate call."""
    flat = np.ascontiguousarray(x).reshape(math.prod(x.shape[:-1]), x.shape[-1])
    rows = [fa.dense(row, W, b, activation) for row in flat]
    return np.array(rows, W.dtype).reshape(*x.shape[:-1], W.shape[1])


# The result of a row depends on that row alone.

BREADTHS = sorted({*range(10), *(m * 8 + d for m in (2, 3, 4, 6, 8, 12, 16) for d in (-1, 0, 1))})


@st.composite
def leading(draw):
    """Leading dimensions of x: of one row, of a few or many rows, or several axes."""
    kind = draw(st.sampled_from(["one row", "rows", "many rows", "axes"]))
    if kind == "one row":
        return ()
    if kind == "axes":
        return tuple(draw(st.lists(st.integers(0, 5), min_size=2, max_size=3)))
    return (draw(st.integers(0, 40) if kind == "rows" else st.integers(41, 400)),)


@computed
@repeatable
@example(lead=(7, 3), depth=2, columns=17, seed=1, place=(fortran, spread, np.array, fortran),
         has_bias=False, activation="identity")  # fmt: skip
@given(
    lead=leading(),
    depth=st.sampled_from([0, 1, 2, 3, 15, 16, 17, 33, 100]),
    columns=st.sampled_from(BREADTHS),
    seed=st.integers(0, 1 << 30),
    place=st.tuples(layouts, layouts, layouts, layouts),
    has_bias=st.booleans(),
    activation=st.sampled_from(["identity", *UNARY]),
)
def test_a_row_does_not_depend_on_the_others(
    computed, lead, depth, columns, seed, place, has_bias, activation
):
    rng = np.random.default_rng(seed)
    x, W = rare(rng, (*lead, depth), computed), rare(rng, (depth, columns), computed)
    b = rare(rng, columns, computed) if has_bias else None
    expected = one_row_at_a_time(x, W, b, activation)
    lay_x, lay_w, lay_b, lay_out = place
    laid = lay_x(x), lay_w(W), lay_b(b) if has_bias else None
    assert_same(fa.dense(x, W, b, activation), expected)
    assert_same(fa.dense(*laid, activation).astype(computed), expected)
    out = lay_out(np.full(expected.shape, 7, computed))
    assert fa.dense(*laid, activation, out=out) is out
    assert_same(out.astype(computed), expected)
    layer = fa.Dense(*laid[1:], activation)
    assert_same(layer(laid[0]), expected)
    out[...] = 7
    assert layer(laid[0], out=out) is out
    assert_same(out.astype(computed), expected)


@computed
@pytest.mark.parametrize("columns", range(1, 18))
def test_few_columns_change_no_bits(computed, columns):
    """For many rows, vectors hold columns of several rows, or one column of transposed rows."""
    rng = np.random.default_rng(columns)
    for rows, depth in itertools.product((31, 32, 33, 70), (3, 16, 17, 64, 65, 150)):
        x, W = rare(rng, (rows, depth), computed), rare(rng, (depth, columns), computed)
        b = rare(rng, columns, computed)
        expected = one_row_at_a_time(x, W, b, "relu")
        for lay_x, lay_out in ((np.array, np.array), (wide, wide), (upside_down, upside_down)):
            out = lay_out(np.full(expected.shape, 7, computed))
            assert_same(fa.dense(lay_x(x), W, b, "relu", out=out), expected)
            assert_same(fa.Dense(W, b, "relu")(lay_x(x), out=out), expected)
        integers = rng.integers(-99, 99, (rows, depth)), rng.integers(-99, 99, (depth, columns))
        got = fa.Dense(integers[1].astype(computed))(integers[0].astype(computed))
        assert (got == integers[0] @ integers[1]).all()


@computed
def test_a_nan_does_not_depend_on_other_rows(computed):
    """NaN in x or from the sums. If W has others too, it is unspecified which one is returned."""
    rng = np.random.default_rng(24)
    for m, k, n in ((30, 7, 17), (9, 3, 90), (17, 12, 1), (40, 2, 33), (64, 40, 7)):
        x, W = wild(rng, (m, k), computed), rare(rng, (k, n), computed)
        expected = one_row_at_a_time(x, W, None)
        assert is_nan(expected).any()
        assert_same(fa.dense(x, W), expected)
        assert_same(fa.Dense(W)(x), expected)


def large(dtype, columns=53):
    """A shape whose W is too large for the cache, with several blocks of k."""
    depth = 2 * gemm_loops.K_BLOCK + 5
    columns = max(columns, gemm_loops.W_CACHED // (depth * dtype.itemsize) + 3)
    assert depth * columns * dtype.itemsize > gemm_loops.W_CACHED
    return depth, columns


@pytest.fixture(scope="module", params=COMPUTED, ids=str)
def large_layer(request):
    rng = np.random.default_rng(5)
    depth, columns = large(request.param)
    W, b = rare(rng, (depth, columns), request.param), rare(rng, columns, request.param)
    x = rare(rng, (60, depth), request.param)
    return x, W, b, one_row_at_a_time(x, W, b)


@settings(repeatable, max_examples=25)
@given(
    rows=st.lists(st.integers(0, 59), max_size=60),
    lay_x=layouts,
    lay_w=st.sampled_from([np.array, fortran, wide, upside_down]),
    lay_out=layouts,
)
def test_blocks_of_k_change_no_bits(large_layer, rows, lay_x, lay_w, lay_out):
    x, W, b, expected = large_layer
    x, W, expected = lay_x(x[rows]), lay_w(W), expected[rows]
    out = lay_out(np.full(expected.shape, 7, expected.dtype))
    fa.dense(x, W, b, out=out)
    assert_same(out.astype(W.dtype), expected)
    out[...] = 7
    fa.Dense(W, b)(x, out=out)
    assert_same(out.astype(W.dtype), expected)


@computed
def test_blocks_of_rows_change_no_bits(computed):
    """Rows for several blocks, with a small W and with a large one."""
    rng = np.random.default_rng(6)
    few, columns = 5, 53
    for depth, cols, block in (
        (few, columns, gemm_loops.SMALL_BLOCK),
        (*large(computed), gemm_loops.LARGE_BLOCK),
    ):
        rows = 2 * block // (cols * computed.itemsize) + 11
        some, W = normal(rng, (13, depth), computed), normal(rng, (depth, cols), computed)
        b = normal(rng, cols, computed)
        expected = one_row_at_a_time(some, W, b, "tanh")
        if depth > few:  # 16,000 rows of 2,000 take a second
            some, W = some[:, : gemm_loops.K_BLOCK + 9], W[: gemm_loops.K_BLOCK + 9]
            wider = -(-gemm_loops.W_CACHED // (W.itemsize * len(W))) + 1
            W, b = np.resize(W, (len(W), wider)), np.resize(b, wider)
            rows = 2 * block // (wider * computed.itemsize) + 11
            expected = one_row_at_a_time(some, W, b, "tanh")
        choice = rng.integers(0, 13, rows)
        y = fa.Dense(W, b, "tanh")(some[choice])
        assert (bits(y) == bits(expected)[choice]).all()


@pytest.mark.parametrize("lay", [np.array, fortran, spread, backwards, unaligned, swapped])
@pytest.mark.parametrize("narrow", [np.float16, ml_dtypes.bfloat16])
def test_blocks_of_converted_rows_change_no_bits(narrow, lay):
    rng = np.random.default_rng(7)
    depth, columns = 20, 9
    rows = 2 * layers._BLOCK // (4 * (depth + columns)) + 3
    some, W = normal(rng, (29, depth), narrow), normal(rng, (depth, columns), narrow)
    choice = rng.integers(0, 29, rows)
    expected = one_row_at_a_time(some, W, None, "tanh")[choice]
    x = some[choice]
    out = lay(np.zeros((rows, columns), narrow))
    fa.dense(lay(x), W, None, "tanh", out=out)
    assert_same(out.astype(narrow), expected)
    assert_same(fa.Dense(lay(W), None, "tanh")(x.reshape(1, rows, 1, depth))[0, :, 0], expected)


# What the result is.


def exactly(x, W, b, dtype):
    """x @ W + b in higher precision, and a bound on the error of the sum in the format `dtype`."""
    more = np.float64 if np.dtype(dtype).itemsize <= 4 else np.longdouble
    x, W, b = (v.astype(more) for v in (x, W, b))
    unit = more(np.finfo(dtype).eps) / 2
    exact, size = x @ W + b, abs(x) @ abs(W) + abs(b)
    # One rounding for each of W.shape[0] products (two without fma) and for the bias; 1.001 covers
    # the terms of higher order. For subnormal results, at most the smallest subnormal for each.
    count = W.shape[0] * (1 if TARGET.has_fma else 2) + 1
    bound = 1.001 * count * unit * size + count * more(np.finfo(dtype).smallest_subnormal)
    return exact, bound


shapes = st.tuples(st.integers(1, 30), st.integers(0, 300), st.integers(1, 70))


@computed
@repeatable
@given(shape=shapes, seed=st.integers(0, 1 << 30), spread=st.booleans())
def test_error_bound(computed, shape, seed, spread):
    rows, depth, columns = shape
    rng = np.random.default_rng(seed)
    x, W, b = (normal(rng, s, computed) for s in ((rows, depth), (depth, columns), columns))
    if spread:  # sums that cancel
        x *= 10 ** rng.integers(-8, 8, depth).astype(computed)
        half = depth // 2
        x[:, half : 2 * half], W[half : 2 * half] = x[:, :half], -W[:half]
    exact, bound = exactly(x, W, b, computed)
    assert (abs(fa.dense(x, W, b) - exact) <= bound).all()
    assert (abs(fa.Dense(W, b)(x) - exact) <= bound).all()


@pytest.mark.parametrize("rows", [1, 3, 100])
@computed
def test_error_bound_of_large_sums(computed, rows):
    rng = np.random.default_rng(8)
    depth, columns = large(computed)
    shapes = (rows, depth), (depth, columns), columns
    x, W, b = (normal(rng, s, computed) for s in shapes)
    exact, bound = exactly(x, W, b, computed)
    for y in (fa.dense(x, W, b), fa.Dense(W, b)(x), fa.dense(x, np.asfortranarray(W), b)):
        assert (abs(y - exact) <= bound).all()


STEEPEST = {a.name: a.steepest for a in ACTIVATIONS.values() if a.steepest < np.inf}


@pytest.mark.parametrize("name", STEEPEST)
@computed
def test_error_bound_with_activation(computed, name):
    """The error of the sum times the steepest slope, plus the error of the activation."""
    rng = np.random.default_rng(9)
    x, W, b = (normal(rng, s, computed) for s in ((50, 40), (40, 30), 30))
    x, W = x / 4, W / 2
    exact, bound = exactly(x, W, b, computed)
    declared = ACTIVATIONS[name]
    y = fa.dense(x, W, b, name)
    ideal = declared.reference(FOR_ARRAYS, exact)
    own = declared.ulp[computed.name] * np.spacing(abs(ideal).astype(computed))
    assert (abs(y - ideal) <= 1.001 * (STEEPEST[name] * bound + own)).all()


@pytest.mark.parametrize("narrow", FLOATS, ids=str)
def test_integers_are_exact(narrow):
    """Every format holds all products and sums; shapes go up to the largest tiles."""
    wide_enough = narrow.itemsize >= 4
    if wide_enough:
        shapes = itertools.product((1, 2, 5, 7, 8, 9, 29), (0, 4), range(0, 150, 7))
    else:
        shapes = [(1, 1, 1), (2, 3, 4), (9, 4, 17), (40, 4, 33)]
    rng = np.random.default_rng(10)
    for m, k, n in shapes:
        x, W, b = (rng.integers(-7, 8, s) for s in ((m, k), (k, n), n))
        y = fa.dense(*(v.astype(narrow) for v in (x, W, b)))
        assert y.dtype == narrow
        assert (y.astype(np.int64) == x @ W + b).all()
        layer = fa.Dense(W.astype(narrow), b.astype(narrow))
        assert (layer(x.astype(narrow)).astype(np.int64) == x @ W + b).all()


@pytest.mark.parametrize("rows", [1, 2, 5, 30])
@computed
def test_nan_and_infinities_as_matmul(computed, rows):
    rng = np.random.default_rng(11)
    for _ in range(20):
        x, W, b = (wild(rng, s, computed) for s in ((rows, 13), (13, 37), 37))
        with np.errstate(all="ignore"):
            expected = x @ W + b
        y = fa.dense(x, W, b)
        assert (is_nan(y) == is_nan(expected)).all()
        assert (np.isinf(y) == np.isinf(expected)).all()
        infinite = np.isinf(y)
        assert (y[infinite] == expected[infinite]).all()
        assert (is_nan(fa.Dense(W, b)(x)) == is_nan(expected)).all()


@computed
def test_a_nan_stays_in_its_row_and_column(computed):
    for rows, columns in itertools.product((1, 2, 9, 30), (1, 5, 16, 17, 40, 65)):
        for i, j in ((0, 0), (rows - 1, columns - 1), (rows // 2, columns // 2)):
            x, W = np.ones((rows, 3), computed), np.ones((3, columns), computed)
            x[i, 1], W[2, j] = np.nan, np.inf
            y = fa.dense(x, W, None)
            assert np.isnan(y[i]).all()
            rest = np.delete(y, i, 0)
            assert (np.delete(rest, j, 1) == 3).all()
            assert (rest[:, j] == np.inf).all()


@computed
def test_zeros_and_subnormals(computed):
    tiny = np.finfo(computed).smallest_subnormal
    x, W = np.full((3, 1), 3 * tiny, computed), np.full((1, 19), 1, computed)
    assert_same(fa.dense(x, W), np.full((3, 19), 3 * tiny, computed))
    zero = np.full((3, 1), -0.0, computed)
    # Sums start from +0, as NumPy's do: a result of -0 needs a bias of -0 and an underflow.
    assert_same(fa.dense(zero, W), np.zeros((3, 19), computed))
    # The activation receives the sum with its sign.
    assert_same(fa.dense(zero, W, activation="relu"), np.zeros((3, 19), computed))


@computed
def test_overflow_in_silence(computed):
    big = np.full((5, 4), np.finfo(computed).max, computed)
    with np.errstate(all="raise"):
        assert (fa.dense(big, big[:4]) == np.inf).all()
        assert (fa.Dense(-big[:4])(big) == -np.inf).all()
        narrow = np.zeros((5, 4), np.float16)
        fa.dense(big / 2, np.eye(4, dtype=computed), out=narrow)
        assert (narrow == np.inf).all()
        assert (fa.dense(narrow, np.zeros((4, 4), np.float16)) != 0).all()


@pytest.mark.parametrize("rows", [(), (0,), (1,), (9,), (2, 0), (2, 3)], ids=str)
@pytest.mark.parametrize("kind", [*FLOATS, np.dtype(np.int64)], ids=str)
def test_nothing_to_add(rows, kind):
    """K, the number of rows or the number of columns is 0."""
    bias = np.array([1, 0, 3]).astype(kind)
    result = kind if kind in FLOATS else np.dtype(np.float64)
    x, W = np.ones((*rows, 0), kind), np.ones((0, 3), kind)
    expected = np.broadcast_to(fa.sigmoid(bias.astype(result)), (*rows, 3))
    for y in (fa.dense(x, W, bias, "sigmoid"), fa.Dense(W, bias, "sigmoid")(x)):
        assert_same(y, expected)
    for y in (fa.dense(x, W), fa.Dense(W)(x)):
        assert_same(y, np.zeros((*rows, 3), result))
    x, W = np.ones((*rows, 4), kind), np.ones((4, 0), kind)
    for y in (fa.dense(x, W, bias[:0], "tanh"), fa.Dense(W)(x), fa.dense(x, W)):
        assert_same(y, np.zeros((*rows, 0), result))


# Types.


@pytest.mark.parametrize("kinds", [a + b for a in "?bBhHiIlLqQefd" for b in "?bBhHiIlLqQefd"])
def test_promotion(kinds):
    x, W = np.ones((2, 3), kinds[0]), np.ones((3, 2), kinds[1])
    common = np.matmul(x, W).dtype
    expected = common if common.kind == "f" else np.dtype(np.float64)
    for y in (fa.dense(x, W), fa.dense(W.T, x.T), fa.dense(x[0], W)):
        assert_same(y, np.full(y.shape, 3, expected))
    layer = fa.Dense(W)
    assert layer.dtype == (W.dtype if W.dtype.kind == "f" else np.float64)
    assert_same(layer(x), np.full((2, 2), 3, np.result_type(expected, layer.dtype)))
    assert fa.dense(x, x.T, W[0]).dtype == expected


@pytest.mark.parametrize("other", [np.bool_, np.int8, np.float32, np.float64, ml_dtypes.bfloat16])
def test_promotion_of_bfloat16(other):
    x, W = np.ones((2, 3), ml_dtypes.bfloat16), np.ones((3, 3), other)
    expected = np.result_type(x, W)
    for y in (fa.dense(x, W), fa.dense(W, x.T), fa.Dense(x.T)(W)):
        assert_same(y, np.full(y.shape, 3, expected))


def test_lists_and_scalars_in_them():
    assert_same(fa.dense([1, 2], [[1, 0], [0, 1]]), np.array([1.0, 2.0]))
    assert_same(fa.dense([[True]], [[2]], [1]), np.array([[3.0]]))
    assert_same(fa.Dense([[1], [2]], [3])([[4, 5]]), np.array([[17.0]]))
    masked = np.ma.masked_array([[1.0]])
    assert type(fa.dense(masked, masked)) is np.ndarray


@pytest.mark.parametrize("name", ["identity", *UNARY])
@pytest.mark.parametrize("narrow", [np.float16, ml_dtypes.bfloat16])
def test_16_bits_are_rounded_once(narrow, name):
    rng = np.random.default_rng(12)
    for shape in ((1, 30, 20), (40, 30, 20), (300, 3, 5)):
        m, k, n = shape
        x, W, b = (normal(rng, s, narrow) for s in ((m, k), (k, n), n))
        wide_operands = [v.astype(np.float32) for v in (x, W, b)]
        exact, bound = exactly(x, W, b, np.float32)
        if name != "identity":
            exact = ACTIVATIONS[name].reference(FOR_ARRAYS, exact)
            steepest = ACTIVATIONS[name].steepest
            bound = steepest * bound + np.spacing(abs(exact).astype(np.float32))
        for y in (fa.dense(x, W, b, name), fa.Dense(W, b, name)(x)):
            assert y.dtype == narrow
            assert_same(y, fa.dense(*wide_operands, name).astype(narrow))
            # Half a step between 16-bit numbers, and the error before the rounding.
            info = ml_dtypes.finfo(narrow)
            half = np.maximum(abs(exact) * float(info.eps), float(info.smallest_subnormal)) / 2
            assert (abs(y.astype(float) - exact) <= 1.01 * (bound + half)).all()


@pytest.mark.parametrize("kind", FLOATS, ids=str)
@pytest.mark.parametrize("sink", [*FLOATS, np.dtype(np.longdouble), np.dtype(complex)], ids=str)
def test_out_of_another_type(kind, sink):
    rng = np.random.default_rng(13)
    x, W, b = (normal(rng, s, kind) for s in ((40, 6), (6, 19), 19))
    expected = fa.dense(x, W, b, "sigmoid")
    if {kind.name, sink.name} == {"float16", "bfloat16"}:
        pytest.skip("neither of float16 and bfloat16 casts to the other")
    if kind.name in ("float16", "bfloat16"):  # rounded only to the type of out
        wider = fa.dense(*(v.astype(np.float32) for v in (x, W, b)), "sigmoid")
        expected = wider if sink.itemsize > 2 else expected
    for y in (np.zeros((40, 19), sink), spread(np.zeros((40, 19), sink))):
        assert fa.dense(x, W, b, "sigmoid", out=y) is y
        np.testing.assert_array_equal(y, expected.astype(sink))
        y[...] = 0
        assert fa.Dense(W, b, "sigmoid")(x, out=y) is y
        np.testing.assert_array_equal(y, expected.astype(sink))


# What is refused.


def refusals():
    """By name: operands (x, W, b, keywords), the type of the error, and a pattern of its text."""
    f = np.float32
    x, W, b = np.ones((5, 3), f), np.ones((3, 4), f), np.ones(4, f)
    read_only = np.full((5, 4), 7, f)
    read_only.flags.writeable = False
    value, kind = ValueError, TypeError
    return {
        "x too short": (np.ones((5, 2), f), W, b, {}, value, "x must .* 3.*got .*5, 2"),
        "x transposed": (x.T, W, b, {}, value, "x must .* 3.*got .*3, 5"),
        "x a scalar": (np.float32(1), W, b, {}, value, r"x must .* 3.*got .*\(\)"),
        "x empty": (np.ones((5, 0), f), W, b, {}, value, "x must .* 3.*got .*5, 0"),
        "x of one element": (np.ones(1, f), W, b, {}, value, r"x must .* 3.*got .*\(1,\)"),
        "W a vector": (x, W[0], b, {}, value, r"W must .*K, N.*got .*\(4,\)"),
        "W a stack": (x, W[None], b, {}, value, r"W must .*K, N.*got .*\(1, 3, 4\)"),
        "W a scalar": (x, 2.0, b, {}, value, r"W must .*K, N.*got .*\(\)"),
        "b too short": (x, W, b[:3], {}, value, r"b must .*\(4,\).*got .*\(3,\)"),
        "b too long": (x, W, np.ones(5, f), {}, value, r"b must .*\(4,\).*got .*\(5,\)"),
        "b of one element": (x, W, b[:1], {}, value, r"b must .*\(4,\).*got .*\(1,\)"),
        "b a scalar": (x, W, 1.0, {}, value, r"b must .*\(4,\).*got .*\(\)"),
        "b a row": (x, W, b[None], {}, value, r"b must .*\(4,\).*got .*\(1, 4\)"),
        "b a column": (x, W, b[:, None], {}, value, r"b must .*\(4,\).*got .*\(4, 1\)"),
        "x complex": (x.astype(complex), W, b, {}, kind, "x must .*float.*got .*complex128"),
        "W complex": (x, W.astype("F"), b, {}, kind, "W must .*float.*got .*complex64"),
        "b complex": (x, W, b.astype(complex), {}, kind, "b must .*float.*got .*complex128"),
        "x long": (x.astype("g"), W, b, {}, kind, f"x must .*got .*{np.dtype('g')}"),
        "W of objects": (x, W.astype(object), b, {}, kind, "W must .*got .*object"),
        "W of strings": (x, W.astype(str), b, {}, kind, "W must .*got .*<U"),
        "b of times": (x, W, b.astype("m8[s]"), {}, kind, "b must .*got .*timedelta64"),
        "x of dates": (x.astype("M8[s]"), W, b, {}, kind, "x must .*got .*datetime64"),
        "activation unknown": (
            x, W, b, {"activation": "swoosh"}, value, "activation must .*tanh.*got 'swoosh'",
        ),
        "activation of NumPy": (
            x, W, b, {"activation": np.tanh}, value, "activation must .*got <ufunc 'tanh'>",
        ),
        "activation of two inputs": (
            x, W, b, {"activation": fa.heaviside}, value, "activation must .*got .*heaviside",
        ),
        "activation by its number": (x, W, b, {"activation": 1}, value, "activation must .*got 1"),
        "activations": (x, W, b, {"activation": ["tanh"]}, value, r"activation must .*got \["),
        "out too small": (
            x, W, b, {"out": np.full((4, 4), 7, f)}, value, r"out must .*\(5, 4\).*\(4, 4\)",
        ),
        "out transposed": (
            x, W, b, {"out": np.full((4, 5), 7, f)}, value, r"out must .*\(5, 4\).*\(4, 5\)",
        ),
        "out with too few columns": (
            x, W, b, {"out": np.full((5, 3), 7, f)}, value, r"out must .*\(5, 4\).*\(5, 3\)",
        ),
        "out with too many columns": (
            x, W, b, {"out": np.full((5, 5), 7, f)}, value, r"out must .*\(5, 4\).*\(5, 5\)",
        ),
        "out with too many rows": (
            x, W, b, {"out": np.full((6, 4), 7, f)}, value, r"out must .*\(5, 4\).*\(6, 4\)",
        ),
        "out with an axis behind": (
            x, W, b, {"out": np.full((5, 4, 1), 7, f)}, value, r"out must .*\(5, 4\).*\(5, 4, 1\)",
        ),
        "out flat": (
            x, W, b, {"out": np.full(20, 7, f)}, value, r"out must .*\(5, 4\).*\(20,\)",
        ),
        "out with an axis more": (
            x, W, b, {"out": np.full((1, 5, 4), 7, f)}, value, r"out must .*\(5, 4\).*\(1, 5, 4\)",
        ),
        "out of integers": (
            x, W, b, {"out": np.full((5, 4), 7, int)}, kind, "out must .*float32.*got .*int64",
        ),
        "out of bool": (
            x, W, b, {"out": np.full((5, 4), True)}, kind, "out must .*float32.*got .*bool",
        ),
        "out a list": (x, W, b, {"out": [[7.0] * 4] * 5}, kind, "out must .*ndarray.*got list"),
        "out read-only": (x, W, b, {"out": read_only}, value, "out must .*writeable.*read-only"),
    }  # fmt: skip


REFUSALS = refusals()


@pytest.mark.parametrize("what", REFUSALS)
@pytest.mark.parametrize("convert", [False, True], ids=["as they are", "converted"])
def test_refusals(what, convert):
    x, W, b, keywords, error, text = REFUSALS[what]
    if convert and not what.startswith(("x", "activation", "W")):
        x = np.asarray(x).astype(np.float16)
        W = W.tolist() if what != "b of times" else W
        text = text.replace("float32", "float64")
    keywords = dict(keywords)
    out = keywords.setdefault("out", np.full((5, 4), 7, np.float32))
    before = np.array(out)
    with pytest.raises(error, match=f"^dense: {text}"):
        fa.dense(x, W, b, **keywords)
    np.testing.assert_array_equal(out, before)
    if what.startswith(("W", "b", "activation")):
        with pytest.raises(error, match=f"^Dense: {text}"):
            fa.Dense(W, b, keywords.get("activation"))
    else:
        with pytest.raises(error, match=f"^Dense: {text}"):
            fa.Dense(W, b)(x, out=out)
        np.testing.assert_array_equal(out, before)


def overlapping():
    """By case: the name of an operand, x, W, b, and an `out` that overlaps that operand."""
    square = np.arange(36.0).reshape(6, 6)
    line = np.arange(40.0)
    return {
        "x itself": ("x", square, np.eye(6), np.zeros(6), square),
        "x shifted": ("x", line[:36].reshape(6, 6), np.eye(6), None, line[3:39].reshape(6, 6)),
        "x turned": ("x", square, np.eye(6), None, square.T),
        "x from behind": ("x", square, np.eye(6), None, square[::-1, ::-1]),
        "one element of x": ("x", line[:6], np.ones((6, 3)), None, line[5:8]),
        "W itself": ("W", np.eye(6), square, np.zeros(6), square),
        "one element of W": ("W", np.ones(2), line[:6].reshape(2, 3), None, line[5:8]),
        "W from behind": ("W", np.eye(6), square, None, square[::-1]),
        "b": ("b", np.eye(6), np.eye(6), square[3], square),
        "one element of b": ("b", np.ones((1, 2)), np.ones((2, 3)), line[2:5], line[None, 4:7]),
    }


@pytest.mark.parametrize("what", overlapping())
@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_overlap_is_refused(what, dtype):
    name, x, W, b, out = overlapping()[what]
    if dtype == np.float16:  # another type of W, so that operands are converted
        W, x = (W, x.astype(dtype)) if name == "W" else (W.astype(np.float32), x)
    if not np.shares_memory(out, {"x": x, "W": W, "b": b}[name]):
        pytest.fail("the test is void")
    before = out.copy()
    with pytest.raises(ValueError, match=rf"^dense: out must not overlap {name}, got"):
        fa.dense(x, W, b, out=out)
    np.testing.assert_array_equal(out, before)
    if name == "x":
        with pytest.raises(ValueError, match=r"^Dense: out must not overlap x, got"):
            fa.Dense(W, b)(x, out=out)
        np.testing.assert_array_equal(out, before)


@computed
def test_interleaved_out_is_accepted(computed):
    rng = np.random.default_rng(14)
    for share in ("x", "W", "b"):
        sizes = {"x": (4, 5), "W": (5, 7), "b": (7,)}
        operands = {name: normal(rng, size, computed) for name, size in sizes.items()}
        expected = fa.dense(**operands)
        room = np.zeros(400, computed)
        mine = operands[share]
        view = room[: 2 * mine.size : 2].reshape(mine.shape)
        view[...] = mine
        out = room[1 : 2 * expected.size : 2].reshape(expected.shape)
        assert np.may_share_memory(view, out) and not np.shares_memory(view, out)
        operands[share] = view
        assert_same(fa.dense(**operands, out=out), expected)
        assert_same(view, mine)
        out[...] = 7
        layer = fa.Dense(operands["W"], operands["b"])
        assert_same(layer(operands["x"], out=out), expected)
        assert_same(view, mine)
    # Columns of one array.
    both = np.zeros((6, 12), computed)
    both[:, :5] = 1
    fa.dense(both[:, :5], np.ones((5, 7), computed), out=both[:, 5:])
    assert (both[:, :5] == 1).all() and (both[:, 5:] == 5).all()


@computed
def test_nothing_around_out_is_written(computed):
    rng = np.random.default_rng(15)
    for m, n in itertools.product((1, 2, 5, 9, 40), BREADTHS):
        room = np.full((m + 2, n + 70), 7, computed)
        out = room[1:-1, 3 : 3 + n]
        x, W = normal(rng, (m, 3), computed), normal(rng, (3, n), computed)
        for call in (lambda x, out, W=W: fa.dense(x, W, out=out), fa.Dense(W)):
            call(x, out=out)
            assert_same(np.array(out), fa.dense(x, W))
            out[...] = 7
            assert (room == 7).all()


# Layers.


@pytest.mark.parametrize("kind", [*FLOATS, np.dtype(np.int32), np.dtype(bool)], ids=str)
@pytest.mark.parametrize("columns", [0, 1, 5, 16, 21, 40])
def test_attributes_of_a_layer(kind, columns):
    rng = np.random.default_rng(16)
    W, b = normal(rng, (7, columns), np.float64) * 9, normal(rng, columns, np.float64) * 9
    W, b = W.astype(kind), b.astype(kind)
    own = kind if kind in FLOATS else np.dtype(np.float64)
    for lay in (np.array, fortran, spread, unaligned, swapped):
        layer = fa.Dense(lay(W), b, fa.tanh)
        assert (layer.in_features, layer.out_features) == (7, columns)
        assert layer.dtype == own and layer.dtype.isnative
        assert layer.activation == "tanh"
        assert_same(layer.W, W.astype(own))
        assert_same(layer.b, b.astype(own))
        assert repr(layer) == f"Dense(7 -> {columns}, tanh, {own})"
    plain = fa.Dense(W)
    assert plain.b is None and plain.activation == "identity"
    assert repr(plain) == f"Dense(7 -> {columns}, identity, {own})"
    assert fa.Dense(W, activation=None).activation == "identity"
    assert fa.Dense(W, activation="step").activation == "step"


def test_large_weights_come_back():
    rng = np.random.default_rng(17)
    for depth, columns in ((64, 130), (1024, 16), (1000, 33), (17, 1)):
        for dtype in COMPUTED:
            W = normal(rng, (depth, columns), dtype)
            assert_same(fa.Dense(W).W, W)


@pytest.mark.parametrize("kind", FLOATS, ids=str)
@pytest.mark.parametrize("has_bias", [False, True])
def test_pickle(kind, has_bias):
    rng = np.random.default_rng(18)
    W, b = normal(rng, (7, 21), kind), normal(rng, 21, kind) if has_bias else None
    layer, x = fa.Dense(W, b, "sigmoid"), normal(rng, (5, 7), kind)
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(layer, protocol))
        assert repr(again) == repr(layer) and again.dtype == layer.dtype
        assert_same(again.W, W)
        assert (again.b is None) == (b is None)
        assert_same(again(x), layer(x))


@pytest.mark.parametrize("kind", FLOATS, ids=str)
def test_a_layer_keeps_a_copy(kind):
    rng = np.random.default_rng(19)
    W, b, x = (normal(rng, s, kind) for s in ((7, 21), 21, (5, 7)))
    layer = fa.Dense(W, b)
    expected, w_was, b_was = layer(x), W.copy(), b.copy()
    W[...], b[...] = 0, 0
    assert_same(layer(x), expected)
    layer.W[...] = 0
    layer.b[...] = 0
    assert_same(layer(x), expected)
    assert_same(layer.W, w_was)
    assert_same(layer.b, b_was)
    wider = x.astype(np.float64)
    assert_same(layer(wider), fa.dense(wider, w_was, b_was))


@pytest.mark.parametrize("kind", FLOATS, ids=str)
@pytest.mark.parametrize("given", [*FLOATS, np.dtype(np.int8)], ids=str)
def test_x_of_another_type(kind, given):
    rng = np.random.default_rng(20)
    W, b, x = normal(rng, (7, 21), kind), normal(rng, 21, kind), rng.integers(-9, 9, (5, 7))
    x = x.astype(given)
    y = fa.Dense(W, b, "tanh")(x)
    halves = {kind.name, given.name} == {"float16", "bfloat16"}  # NumPy has no common type of these
    common = np.dtype(np.float32) if halves else np.result_type(x, W)
    assert_same(y, fa.dense(*(v.astype(common) for v in (x, W, b)), "tanh"))


@computed
def test_threads_share_a_layer(computed):
    rng = np.random.default_rng(21)
    layer = fa.Dense(normal(rng, (33, 45), computed), normal(rng, 45, computed), "sigmoid")
    inputs = [normal(rng, (*lead, 33), computed) for lead in ((), (1,), (7,), (3, 50), (2000,))]
    inputs += [x.astype(np.float16) for x in inputs] + [fortran(inputs[2])]
    inputs += [x.astype(np.float64) for x in inputs[:3]]
    expected = [layer(x) for x in inputs]
    fresh = pickle.loads(pickle.dumps(layer))  # was not called with float64 yet
    start, wrong = threading.Barrier(8), []

    def work(turn):
        start.wait()
        for i in list(range(len(inputs)))[turn:] * 10 + list(range(turn)) * 10:
            y = fresh(inputs[i])
            z = fa.dense(inputs[i], fresh.W, fresh.b, "sigmoid")
            if y.tobytes() != expected[i].tobytes() or z.tobytes() != expected[i].tobytes():
                wrong.append((turn, i))

    threads = [threading.Thread(target=work, args=(turn,)) for turn in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and not any(thread.is_alive() for thread in threads)


# Activations.


@pytest.mark.parametrize("name", UNARY)
@computed
def test_activation_is_the_ufunc(computed, name):
    """Either spelling gives the bits of the ufunc, for blocks in place and row by row."""
    ufunc = getattr(fa, name)
    rng = np.random.default_rng(22)
    for m, k, n in ((1, 4, 5), (3, 9, 16), (50, 9, 33), (700, 20, 90)):
        x, W, b = (wild(rng, s, computed) for s in ((m, k), (k, n), n))
        expected = ufunc(fa.dense(x, W, b))
        for spelling in (name, ufunc):
            assert_same(fa.dense(x, W, b, spelling), expected)
            layer = fa.Dense(W, b, spelling)
            assert_same(layer(x), expected)
            for lay in (fortran, wide, upside_down):
                out = lay(np.zeros((m, n), computed))
                assert_same(np.array(layer(x, out=out)), expected)


@computed
def test_no_activation(computed):
    x, W = np.full((3, 2), -1, computed), np.ones((2, 5), computed)
    for activation in (None, "identity"):
        assert_same(fa.dense(x, W, None, activation), np.full((3, 5), -2, computed))
        assert_same(fa.Dense(W, None, activation)(x), np.full((3, 5), -2, computed))


# Other machines.


@pytest.fixture
def fresh_kernels(monkeypatch):
    """``fresh_kernels()`` discards the compiled loops for the rest of the test."""
    make, direct = weights._kernels.__wrapped__, layers._direct.__wrapped__

    def forget():
        monkeypatch.setattr(weights, "_kernels", functools.cache(make))
        monkeypatch.setattr(layers, "_direct", functools.cache(direct))

    return forget


@pytest.fixture
def on_target(monkeypatch, fresh_kernels):
    """``on_target(name)`` makes dense loops for a lower level, whose code runs here."""

    def switch(name):
        if TARGET.architecture != "x86_64":
            pytest.skip("runs code for x86-64")
        for module in (loader, host):
            monkeypatch.setattr(module, "host", lambda: BASELINES[name])
        fresh_kernels()

    return switch


BLOCKS = {
    "tiny": {"W_CACHED": 0, "K_BLOCK": 5, "STRIP": 3, "SMALL_BLOCK": 900, "LARGE_BLOCK": 900},
    "far": {"W_CACHED": 0, "W_FETCHED": 0, "FETCHED_STRIP": 3, "FETCHED_ROWS": 40},
    "none": {"W_CACHED": 1 << 40, "SMALL_BLOCK": 1 << 40},
}


@pytest.mark.parametrize("tiles", [{1: 4}, {1: 3, 2: 2}, {1: 5, 2: 4, 3: 1}, None], ids=str)
@pytest.mark.parametrize("blocks", BLOCKS)
def test_no_block_size_matters(monkeypatch, fresh_kernels, tiles, blocks):
    """Other sizes of blocks and tiles give the same bits."""
    if tiles and max(tiles) == 1 and blocks != "none":
        pytest.skip("if k is split, a ragged vector needs a tile shared with the one before")
    rng = np.random.default_rng(25)
    cases = []
    for m, k, n in itertools.product((1, 7, 40), (1, 13), (16, 33, 47, 75)):
        x, W, b = (rare(rng, s, np.float32) for s in ((m, k), (k, n), n))
        cases.append((x, W, b, fa.dense(x, W, b, "softplus")))
    for name, size in BLOCKS[blocks].items():
        monkeypatch.setattr(gemm_loops, name, size)
    if tiles:
        for registers in TILES:
            monkeypatch.setitem(TILES, registers, tiles)
    fresh_kernels()
    for x, W, b, expected in cases:
        assert_same(fa.dense(x, W, b, "softplus"), expected)
        assert_same(fa.Dense(W, b, "softplus")(x), expected)
        assert_same(fa.Dense(W, b, "softplus")(fortran(x)), expected)


@pytest.mark.parametrize("target", ["x86-64-v2", "x86-64-v3"])
@computed
def test_code_for_lesser_machines(computed, target, on_target):
    """Errors are within the bound; with fma, vectors of any width give the same bits."""
    rng = np.random.default_rng(23)
    cases = []
    for m, k, n in ((1, 30, 40), (3, 17, 1), (50, 40, 7), (33, 100, 33), (30, *large(computed))):
        x, W, b = (normal(rng, s, computed) for s in ((m, k), (k, n), n))
        cases.append((x, W, b, fa.dense(x, W, b)))
    on_target(target)
    widest = BASELINES[target].vector_bits // (8 * computed.itemsize)
    assert weights.kernels(computed, 64).lanes == widest
    for x, W, b, expected in cases:
        one = one_row_at_a_time(x, W, b)
        assert_same(fa.dense(x, W, b), one)
        assert_same(fa.Dense(W, b)(x), one)
        if BASELINES[target].has_fma == TARGET.has_fma:
            assert_same(one, expected)
        exact, bound = exactly(x, W, b, computed)
        assert (abs(one - exact) <= 2 * bound).all()  # without fma, each product is rounded twice
    for m, n in itertools.product((1, 2, 5, 7, 8, 9, 29), range(0, 76, 5)):
        x, W, b = (rng.integers(-7, 8, s) for s in ((m, 4), (4, n), n))
        layer = fa.Dense(W.astype(computed), b.astype(computed))
        assert (layer(x.astype(computed)) == x @ W + b).all()


@pytest.mark.parametrize("weights_dtype", [None, *sorted(NAMES)])
def test_any_number_of_rows_without_columns(weights_dtype):
    """Nothing is done for each of the rows, which would take minutes."""
    W = np.empty((2**40, 0), np.float32)
    layer = fa.Dense(W, weights_dtype=weights_dtype)
    assert layer.W.shape == W.shape
    assert layer(np.broadcast_to(np.float32(1), (3, 2**40))).shape == (3, 0)
    assert fa.dense(np.broadcast_to(np.float32(1), (3, 2**40)), W).shape == (3, 0)
