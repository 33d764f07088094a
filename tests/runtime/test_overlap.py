"""Operands that share memory: results are as if elements were computed in order, one by one."""

import ctypes

import numpy as np
import pytest
from conftest import assert_same, bits
from kinds import TYPICAL
from numpy._core.tests import test_mem_overlap
from numpy.lib.stride_tricks import as_strided

import fastact as fa
from fastact._declarations.records import ACTIVATIONS, OBJECTIVES, ROW_ACTIVATIONS
from fastact._parallel import helpers, pool
from fastact._runtime import engine

FUZZ = test_mem_overlap.TestUFunc()
ELEMENT_WISE = {**TYPICAL, **OBJECTIVES}
UNARY = [name for name, declared in ELEMENT_WISE.items() if declared.nin == 1]
BINARY = [name for name, declared in ELEMENT_WISE.items() if declared.nin == 2]
TWO_RESULTS = [name for name, declared in ELEMENT_WISE.items() if len(declared.results) == 2]


@pytest.fixture(scope="module", params=[1, 2], ids="{} threads".format)
def threads(request):
    """The number of threads, which share even the least work."""
    pool._reset()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTACT_THREADING_LAYER", "fastact")
        assert pool.start().layer == "fastact", pool.state
        patch.setattr(helpers.team(), "worth_waking", 0)
        pool._fields.share = 1
        with fa.num_threads(request.param):
            yield request.param
    pool._reset()


def alone(function, *args, **kwargs):
    with fa.num_threads(1):
        return function(*args, **kwargs)


def values(n, dtype=np.float64, seed=0):
    return np.random.default_rng(seed).normal(size=n).astype(dtype)


# Operands as NumPy passes them.


@pytest.mark.parametrize("name", [*UNARY, *ROW_ACTIVATIONS])
def test_numpys_own_fuzz(threads, name):
    # Not float16: values reach 2**16, which is infinite there, and softmax would return NaN.
    for dtype in (np.float32, np.float64):
        FUZZ.check_unary_fuzz(getattr(fa, name), None, dtype, 150)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", [*UNARY, *ROW_ACTIVATIONS])
def test_numpys_own_fuzz_at_length(threads, name):
    keeps = name in ACTIVATIONS and ACTIVATIONS[name].keeps_integers  # else no int16 output
    for dtype in (np.float32, np.float64, *[np.int16] * keeps):
        FUZZ.check_unary_fuzz(getattr(fa, name), None, dtype, 1500)


@pytest.mark.parametrize("name", BINARY)
def test_numpys_own_fuzz_of_two_inputs(threads, name):
    function = getattr(fa, name)
    if function.nout == 1:
        FUZZ.check_unary_fuzz(lambda x, out: function(x, x, out=out), None, np.float64, 100)
        FUZZ.check_unary_fuzz(lambda x, out: function(x, 1.0, out=out), None, np.float64, 100)
        FUZZ.check_unary_fuzz(lambda x, out: function(out, x, out=out), None, np.float64, 100)


@pytest.mark.parametrize("name", [name for name in BINARY if name not in TWO_RESULTS])
@pytest.mark.parametrize("method", ["reduce", "accumulate"])
def test_numpys_own_fuzz_of_reductions(threads, name, method):
    def whole(a, b, axis):
        if axis is None and a.ndim > 1:
            return "skip", False  # these functions are not commutative
        if method == "reduce":
            return None, axis is None or a.ndim == 1
        return a.size if axis is None else a.shape[axis], False

    FUZZ.check_unary_fuzz(getattr(getattr(fa, name), method), whole, np.float64, 60)


@pytest.mark.parametrize("name", UNARY)
@pytest.mark.parametrize("n", [20_000, 400_000])
def test_output_behind_the_input(threads, name, n):
    function, x = getattr(fa, name), values(n)
    expected = alone(function, x[1:].copy())
    for _ in range(5):
        y = x.copy()
        function(y[1:], out=y[:-1])
        assert_same(y[:-1], expected)
        y = x.copy()[::-1]
        function(y[1:], out=y[:-1])
        assert_same(y[:-1], alone(function, x[-2::-1].copy()))


def test_output_behind_the_input_with_strides(threads):
    y = values(3_000_000)
    expected = alone(fa.tanh, y[7::2].copy())
    out = y[6 : 6 + len(expected)]
    fa.tanh(y[7::2], out=out)
    assert_same(out, expected)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("distance", [1, 3, 64, 513, 5000])
def test_output_behind_the_input_and_past_the_caches(threads, dtype, distance):
    x = values(5_000_000, dtype)
    expected = alone(fa.relu, x[distance:].copy())
    fa.relu(x[distance:], out=x[:-distance])
    assert_same(x[:-distance], expected)


@pytest.mark.parametrize("name", UNARY)
def test_output_whose_elements_overlap(threads, name):
    function, x = getattr(fa, name), values(3_000_000 if name == "tanh" else 100_000)
    small = x[:60_000]
    y = as_strided(np.zeros(1), x.shape, (0,))
    function(x, out=y)
    assert_same(y[0], function(x[-1]))
    y, expected = (
        np.ndarray(small.shape, small.dtype, bytearray(2 * len(small) + 6), 0, (2,)) for _ in "ab"
    )
    for i, value in enumerate(function(small).tolist()):
        expected[i] = value
    function(small, out=y)
    assert_same(y, expected)


@pytest.mark.parametrize("name", BINARY)
def test_large_operands_of_two_inputs(threads, name):
    function = getattr(fa, name)
    rng = np.random.default_rng(1)
    for _ in range(6):
        step, n = rng.choice([-3, -1, 1, 2]), rng.integers(9_000, 90_000)
        whole = values((n + 64) * abs(step), np.float32, seed=2)
        starts = rng.integers(0, 60, 2 + function.nout)
        views = [whole[:: abs(step)][s : s + n][:: 1 if step > 0 else -1] for s in starts]
        inputs, outputs = views[:2], views[2:]
        results = alone(function, *(x.copy() for x in inputs))
        results = results if function.nout > 1 else (results,)
        expected = whole.copy()
        for y, result in zip(outputs, results, strict=True):
            place = np.ndarray(
                y.shape, y.dtype, expected, y.ctypes.data - whole.ctypes.data, y.strides
            )
            place[...] = result
        if function.nout > 1 and np.shares_memory(*outputs):
            continue  # NumPy writes copies back in its own order
        function(*inputs, out=tuple(outputs))
        np.testing.assert_array_equal(bits(whole), bits(expected))


@pytest.mark.parametrize("name", TWO_RESULTS)
@pytest.mark.parametrize("shift", [-1, 0, 1, 700])
def test_two_outputs_in_one_place(threads, name, shift):
    function = getattr(fa, name)
    x = [values(60_000, seed=seed) for seed in (0, 1)]
    whole = np.zeros(len(x[0]) + 1000)
    first, second = whole[800 : 800 + len(x[0])], whole[800 + shift :][: len(x[0])]
    second = np.ndarray(x[0].shape, x[0].dtype, whole, 8 * (800 + shift)) if shift < 0 else second
    first, second = first[:50_000], second[:50_000]
    results = alone(function, x[0][:50_000], x[1][:50_000])
    function(x[0][:50_000], x[1][:50_000], out=(first, second))
    expected = np.zeros_like(whole)
    for i in range(50_000):
        expected[800 + i] = results[0][i]
        expected[800 + shift + i] = results[1][i]
    np.testing.assert_array_equal(bits(whole), bits(expected))


@pytest.mark.parametrize("other", [np.int64, np.float32])
def test_output_with_stride_zero_and_casts(threads, other):
    x = values(60_000).astype(other)
    y = as_strided(np.zeros(1), x.shape, (0,))
    fa.tanh(x, out=y, casting="unsafe")
    assert y[0] == fa.tanh(x[-1])


# Functions of rows, and layers.


@pytest.mark.parametrize("columns", [5, 100, 300, 20_000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_of_an_output_in_one_place(threads, columns, dtype):
    x = values((600 if columns < 1000 else 20, columns), dtype)
    expected = alone(fa.softmax, x)
    for row in (0, 3, columns - 1, -2):  # distance between rows, in elements
        size = abs(row) * (len(x) - 1) + columns
        memory, model = np.zeros(size, dtype), np.zeros(size, dtype)
        first = 0 if row >= 0 else size - columns
        for i, values_of_row in enumerate(expected):
            model[first + i * row :][:columns] = values_of_row
        y = as_strided(memory[first:], x.shape, (row * memory.itemsize, memory.itemsize))
        fa.softmax(x, out=y)
        np.testing.assert_array_equal(bits(memory), bits(model))


@pytest.mark.parametrize("columns", [5, 300])
def test_elements_of_rows_in_one_place(threads, columns):
    x = values((200, columns))
    y = as_strided(np.zeros(200), x.shape, (8, 0))
    fa.softmax(x, out=y)
    assert_same(y[:, 0].copy(), alone(fa.softmax, x)[:, -1].copy())


def test_rows_by_casts(threads):
    x = np.arange(3000).reshape(300, 10) % 7
    y = as_strided(np.zeros(10), x.shape, (0, 8))
    fa.softmax(x, out=y)
    assert_same(y[0], fa.softmax(x[-1]))


def test_rows_that_are_interleaved(threads):
    z = values((300, 200)).view(complex)
    whole = z.copy()
    expected = alone(fa.softmax, z.real.copy())
    fa.softmax(z.real, out=z.imag)
    assert_same(z.imag.copy(), expected)
    assert_same(z.real.copy(), whole.real.copy())
    x = values((300, 20))
    expected = alone(fa.softmax, x[::-1, :10].copy())
    fa.softmax(x[::-1, :10], out=x[:, 10:])
    assert_same(x[:, 10:].copy(), expected)


MINGLED = [(0, 8), (8, 8), (8 * 11, 8), (8 * 12, 0), (-8, 8), (8, 16)]


@pytest.mark.parametrize("strides", MINGLED)
def test_layers_refuse_an_output_that_overlaps_itself(threads, strides):
    x, W = values((50, 7)), values((7, 12))
    layer = fa.Dense(W)
    memory = np.zeros(1000)
    out = as_strided(memory[50:], (50, 12), strides)
    for call in (
        lambda: fa.dense(x, W, out=out),
        lambda: fa.dense(x.astype("f"), W, out=out),
        lambda: layer(x, out=out),
        lambda: fa.Sequential([layer])(x, out=out),
        lambda: fa.Sequential([layer, fa.softmax])(x, out=out),
        lambda: fa.Sequential([layer])(x[np.newaxis], out=out[np.newaxis]),
    ):
        with pytest.raises(ValueError, match="out must not overlap itself, got shape"):
            call()
    assert not memory.any()


@pytest.mark.parametrize(
    "shape, strides", [((3, 2), (16, 24)), ((2, 5), (-40, 8)), ((1, 5), (0, 8))]
)
def test_layers_take_an_output_of_separate_elements(threads, shape, strides):
    x, W = values((shape[0], 7)), values((7, shape[1]))
    out = as_strided(values(40)[20:], shape, strides)
    assert fa.dense(x, W, out=out) is out
    assert_same(out.copy(), fa.dense(x, W))
    out[...] = 0
    assert_same(fa.Sequential([fa.Dense(W)])(x, out=out).copy(), fa.dense(x, W))


# The loops themselves, which must work for any operands.

LOOP = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.POINTER(ctypes.c_void_p),
    ctypes.POINTER(ctypes.c_int64),
    ctypes.POINTER(ctypes.c_int64),
    ctypes.c_void_p,
)


def call_loop(loop, data, dimensions, strides):
    loop(
        None,
        (ctypes.c_void_p * len(data))(*data),
        (ctypes.c_int64 * len(dimensions))(*dimensions),
        (ctypes.c_int64 * len(strides))(*strides),
        None,
    )


def check_loop(loop, memory, offsets, strides, n):
    """Compare a call with `n` calls for one element each."""
    once, model = memory.copy(), memory.copy()
    call_loop(loop, [once.ctypes.data + o for o in offsets], [n], strides)
    start = model.ctypes.data
    for i in range(n):
        there = [start + o + i * s for o, s in zip(offsets, strides, strict=True)]
        call_loop(loop, there, [1], strides)
    np.testing.assert_array_equal(once, model, f"{offsets} {strides} {n}")


def loop_trials(rng, nargs, size, n, count):
    """Yield offsets and strides in bytes, which are equal more often than by chance."""
    for _ in range(count):
        near = [0, 1, size, 2 * size, 3 * size, -size, -2 * size, size // 2, 5]
        strides = rng.choice(near, nargs, p=[0.1, 0.03, 0.4, 0.1, 0.05, 0.2, 0.05, 0.04, 0.03])
        if rng.random() < 0.5:
            strides[:] = strides[0]
        middle = size * (4 * n + 64)
        unit = size if rng.random() < 0.8 else 1
        reach = rng.choice([3, 40, n])
        offsets = middle + unit * rng.integers(-reach, reach + 1, nargs)
        yield offsets.tolist(), strides.tolist()


def check_element_wise(name, dtype, lengths, count):
    function, declared = getattr(fa, name), ELEMENT_WISE[name]
    address = engine.loop_address(
        declared.kernel, declared.nin, type(np.dtype(dtype)), nout=function.nout
    )
    rng = np.random.default_rng(5)
    size = np.dtype(dtype).itemsize
    for n in lengths:
        memory = values(8 * n + 128, dtype, seed=3).view(np.uint8)
        for offsets, strides in loop_trials(rng, function.nargs, size, n, count):
            check_loop(LOOP(address), memory, offsets, strides, n)


@pytest.mark.parametrize("name", ELEMENT_WISE)
def test_loops_of_any_operands(threads, name):
    check_element_wise(name, np.float32, (1, 2, 37, 600), 12)
    check_element_wise(name, np.float64, (600,), 12)


@pytest.mark.parametrize("name", sorted({"tanh", *BINARY, *TWO_RESULTS}))
def test_long_loops_of_any_operands(threads, name):
    check_element_wise(name, np.float32, (9000,), 6)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ELEMENT_WISE)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_loops_of_any_operands_at_length(threads, name, dtype):
    check_element_wise(name, dtype, (2, 37, 600), 150)
    check_element_wise(name, dtype, (9000, 30_000), 6)
