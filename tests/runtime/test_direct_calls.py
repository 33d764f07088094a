"""Arrays that NumPy would copy are computed without its copies, and as NumPy would compute them.

``_compiler/direct_call.py`` calls the loop in place of NumPy. It must neither miss what a call asks
for nor change what a caller sees.
"""

import ctypes
import itertools
import sys
import threading
import time

import numpy as np
import pytest
from conftest import FLOATS, assert_same, sample

import fastact
from fastact._declarations.records import element_wise
from fastact._runtime import engine
from fastact._runtime import ufunc as ufunc_module

pytestmark = pytest.mark.functional

UNARY = ["relu", "sigmoid"]  # the code knows nothing of the activation
TRANSPOSABLE = [dtype for dtype in FLOATS if dtype.itemsize > 1]


@pytest.fixture(params=UNARY)
def unary(request):
    return getattr(fastact, request.param)


def unaligned(x):
    """A copy of `x` that begins one byte after an aligned address."""
    copy = np.empty(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    copy[...] = x
    assert not copy.flags.aligned
    return copy


def numbers(shape, dtype="f"):
    return (4 * np.random.default_rng(0).standard_normal(shape)).astype(dtype)


class Recorder:
    """A ufunc that returns its input, and records how its loop is called.

    `calls` holds the number of elements, both strides, and whether input and output are the same.
    """

    def __init__(self):
        self.calls = []
        words = ctypes.POINTER(ctypes.c_ssize_t)
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, words, words, words, ctypes.c_void_p)
        self._loop = kind(self._run)  # lives as long as the ufunc: both are never freed
        _KEPT.append(self)
        self.ufunc = ufunc_module.create(
            name="recorder",
            nin=1,
            doc="",
            types="efd",
            choose=lambda dtype, requested: engine.choose_dtype(dtype, requested, False),
            make_loop=lambda dtype: ctypes.cast(self._loop, ctypes.c_void_p).value,
        )

    def _run(self, context, data, dimensions, strides, auxdata):
        n, size = dimensions[0], self.size
        self.calls.append((n, strides[0], strides[1], data[0] == data[1]))
        values = [
            ctypes.string_at(data[0] + k * strides[0], size) for k in range(n)
        ]  # read before they are written, as if there were no overlap
        for k, value in enumerate(values):
            ctypes.memmove(data[1] + k * strides[1], value, size)
        return 0

    def __call__(self, x, *arguments, **keywords):
        self.size = x.itemsize
        self.ufunc(np.zeros(1, x.dtype))  # makes the loop
        self.calls.clear()
        return self.ufunc(x, *arguments, **keywords)


_KEPT = []


@pytest.mark.parametrize("dtype", ["e", "f", "d"])
@pytest.mark.parametrize("shape", [(1,), (9100,), (7, 1300), (10, 91, 10)])
def test_unaligned_arrays_are_computed_at_once(shape, dtype):
    """More elements than fit in NumPy's buffers."""
    recorder = Recorder()
    x = numbers(shape, dtype)
    strange = unaligned(x)
    out = unaligned(np.zeros_like(x))
    once = [(x.size, x.itemsize, x.itemsize)]
    y = recorder(strange)
    assert [call[:3] for call in recorder.calls] == once
    assert_same(y, x)
    for operands in ((strange, np.zeros_like(x)), (strange, out), (x, out)):
        y = recorder(operands[0], out=operands[1])
        assert y is operands[1]
        assert [call[:3] for call in recorder.calls] == once
        assert_same(y, x)
        assert recorder(*operands) is operands[1]
        assert [call[:3] for call in recorder.calls] == once


def test_unaligned_fields_are_computed_at_once():
    records = np.zeros(9000, [("tag", np.uint8), ("value", "f")])
    records["value"] = numbers(9000)
    recorder = Recorder()
    out = np.zeros(9000, "f")
    recorder(records["value"], out=out)
    assert recorder.calls == [(9000, 5, 4, False)]
    assert_same(out, records["value"].copy())


SIDES = [8, 31, 33, 257]


@pytest.mark.parametrize("dtype", TRANSPOSABLE, ids=str)
@pytest.mark.parametrize("margin", [0, 3])
def test_transposed_matrices(unary, dtype, margin):
    """Of all sizes around those of tiles; `margin` lies between rows and must not be written."""
    declared = element_wise()[unary.__name__]
    for rows, columns in itertools.product(SIDES, repeat=2):
        (x,) = sample(declared, dtype, (rows, columns))
        expected = unary(x)
        room = np.full((columns + margin, rows + margin), 7, dtype)
        turned = room[:columns, :rows].T
        turned[...] = x
        whole = np.full((rows + margin, columns + margin), 7, dtype)
        out = whole[:rows, :columns]
        assert unary(turned, out=out) is out
        assert_same(out.copy(), expected)
        assert (whole[rows:] == 7).all() and (whole[:, columns:] == 7).all()
        assert_same(turned.copy(), x)
        room[...] = 7
        assert unary(x, turned) is turned
        assert_same(turned.copy(), expected)
        assert (room[columns:] == 7).all() and (room[:, rows:] == 7).all()


@pytest.mark.parametrize("dtype", ["e", "f", "d"])
def test_transposed_matrices_are_computed_by_tiles(dtype):
    x = numbers((70, 300), dtype)
    recorder = Recorder()
    for source, out in ((x.T, np.zeros((300, 70), dtype)), (unaligned(x.T), np.zeros_like(x.T))):
        assert_same(recorder(source, out=out), out)
        if source.flags.f_contiguous != out.flags.f_contiguous:
            assert {call[1:] for call in recorder.calls} == {(x.itemsize, x.itemsize, True)}
        assert sum(call[0] for call in recorder.calls) == x.size
        assert_same(out.copy(), x.T.copy())


# What is left to NumPy.


def test_operands_of_other_kinds(unary):
    x = numbers((40, 50))
    expected = unary(x)
    strange, out = unaligned(x), np.zeros_like(x)
    where = x > 0
    assert_same(unary(strange, out=(out,)), expected)
    assert_same(unary(strange, out, where=where)[where], expected[where])
    assert_same(unary(strange, out=None), expected)
    assert_same(unary(strange, dtype="d"), unary(x.astype("d")))
    assert_same(unary(strange, out=np.zeros_like(x, "d")), expected.astype("d"))
    assert_same(unary(unaligned(x.astype(">f4")), out=out), expected)
    assert_same(unary(unaligned(x)[:, :1], out=out), np.broadcast_to(expected[:, :1], x.shape))
    assert_same(unary(unaligned(x[0]), out=out), np.broadcast_to(expected[0], x.shape))
    square = np.zeros((50, 50), "f")
    assert_same(unary(unaligned(x[0]), out=square), np.broadcast_to(expected[0], (50, 50)))
    out[...] = 7
    unary(strange, out=out, where=where)
    assert (out[~where] == 7).all()
    assert_same(unary(strange[::2, 3:9]), expected[::2, 3:9])
    assert_same(unary(strange[:0]), expected[:0])
    assert type(unary(unaligned(x[0, :1]).reshape(()))) is np.float32


class Sub(np.ndarray):
    pass


def test_subclasses_keep_their_type(unary):
    x = unaligned(numbers((40, 50)))
    assert type(unary(x.view(Sub))) is Sub
    out = unaligned(np.zeros((40, 50), "f")).view(Sub)
    assert unary(x, out=out) is out
    assert_same(np.asarray(out), unary(x))


class Override(np.ndarray):
    def __array_ufunc__(self, function, method, *operands, **keywords):
        return function, method


def test_overrides_get_the_call(unary):
    x = unaligned(numbers(40))
    unary(x)
    for first, *out in ((x.view(Override),), (x, x.view(Override)), (x.view(Override), x)):
        for result in (unary(first, *out), unary(first, out=out[0] if out else None)):
            assert type(result) is tuple and result == (unary, "__call__")


def test_refused_outputs(unary):
    x = unaligned(numbers((40, 50)))
    out = np.zeros((40, 50), "f")
    out.flags.writeable = False
    for source, sink in ((x, out), (np.zeros((50, 40), "f").T, out)):
        with pytest.raises(ValueError, match="read-only"):
            unary(source, out=sink)
    for shape in ((40, 51), (50, 40), (40,), (2000,)):
        with pytest.raises(ValueError, match="broadcast"):
            unary(x, out=np.zeros(shape, "f"))
    with pytest.raises(TypeError, match="cast"):
        unary(x, out=np.zeros((40, 50), "i"))
    with pytest.raises(TypeError):
        unary(x, other=np.zeros((40, 50), "f"))
    with pytest.raises(TypeError):
        unary()


def test_outputs_that_warn(unary):
    """NumPy warns of a write to an array that may be broadcast, and so must we."""
    x = numbers((1, 40, 50))
    out, _ = np.broadcast_arrays(unaligned(x[0]), x)  # the first has one axis more now
    assert out.flags.c_contiguous
    with pytest.warns((DeprecationWarning, FutureWarning)):
        unary(x, out=out)


@pytest.mark.parametrize("shift", [-8, -4, -1, 0, 1, 4, 8])
def test_overlap(unary, shift):
    """The output begins `shift` bytes after the input, at an address that is not aligned."""
    x = numbers(3000)
    memory = np.zeros(x.nbytes + 17, np.uint8)
    source, sink = (memory[a : a + x.nbytes].view("f") for a in (9, 9 + shift))
    source[...] = x
    expected = unary(x)
    assert unary(source, out=sink) is sink
    assert_same(sink.copy(), expected)


def test_overlap_of_transposed_matrices(unary):
    x = numbers((64, 64))
    memory = np.zeros(64 * 70, "f")
    for start in (0, 1, 64, 6 * 64):
        source = memory[:4096].reshape(64, 64).T
        sink = memory[start : start + 4096].reshape(64, 64)
        source[...] = x
        unary(source, out=sink)
        assert_same(sink.copy(), unary(x))


def test_outputs_that_overlap_themselves(unary):
    """Of elements in one place, the last one is kept."""
    x = unaligned(numbers(100))
    memory = np.zeros(500, np.uint8)
    out = np.lib.stride_tricks.as_strided(memory[1:401].view("f"), (100,), (0,))
    unary(x, out=out)
    assert_same(out[:1].copy(), unary(x)[-1:])
    for stride in (0, 1, 3, 4):  # in place, elements are read before any is written
        memory = unaligned(numbers(100))
        both = np.lib.stride_tricks.as_strided(memory, (80,), (stride,))
        expected = memory.copy()
        reference = np.lib.stride_tricks.as_strided(expected, (80,), (stride,))
        reference[...] = unary(both.copy())
        unary(both, out=both)
        assert_same(memory.copy(), expected)
    x = numbers((20, 300))
    memory, expected = np.zeros(1000, "f"), np.zeros(1000, "f")
    rows = np.lib.stride_tricks.as_strided(memory, x.shape, (8, 4))
    unary(np.asfortranarray(x), out=rows)
    for k, row in enumerate(unary(x)):
        expected[2 * k : 2 * k + 300] = row
    assert_same(memory, expected)


# What a caller sees.


def test_references(unary):
    x, turned = unaligned(numbers((40, 50))), numbers((50, 40)).T
    out = np.zeros((40, 50), "f")
    arrays = (x, turned, out)
    before = [sys.getrefcount(array) for array in arrays]
    for _ in range(10):
        unary(x, out=out)
        unary(x, out)
        unary(turned, out=out)
    new, other = unary(x), np.zeros(1)
    assert [sys.getrefcount(array) for array in arrays] == before
    assert sys.getrefcount(new) == sys.getrefcount(other)
    assert new.base is None and new.flags.owndata


@pytest.mark.skipif(
    not getattr(sys, "_is_gil_enabled", lambda: True)(), reason="there is no GIL to release"
)
@pytest.mark.parametrize("kind", ["unaligned", "transposed", "new"])
def test_other_threads_run_meanwhile(kind):
    x = numbers((2000, 2000), "d")
    x = x.T if kind == "transposed" else unaligned(x)
    out = [] if kind == "new" else [np.zeros((2000, 2000))]
    fastact.softplus(np.zeros(1))
    turns, stop = [0], threading.Event()

    def count():
        while not stop.is_set():
            turns[0] += 1
            time.sleep(0)  # gives up the GIL

    interval = sys.getswitchinterval()
    counter = threading.Thread(target=count)
    counter.start()
    try:
        sys.setswitchinterval(1000)  # no thread has to give up the GIL
        for _ in range(100):  # on a busy machine, a thread may be late
            before = turns[0]
            fastact.softplus(x, *out)
            after = turns[0]
            if after > before:
                break
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        counter.join()
    assert after > before
