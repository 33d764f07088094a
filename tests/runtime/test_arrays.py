"""A result depends only on its element, not on shape, layout, position or neighbours.

The loops compute contiguous arrays by vectors and all others through buffers. Errors are most
likely for lengths around the sizes of both, for strides and for overlaps.
"""

import ctypes
import functools
import itertools
import mmap
import os

import numpy as np
import pytest
from conftest import FLOATS, assert_same, bits, one_by_one, run_python, sample
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import mutually_broadcastable_shapes
from kinds import of_each_kind

import fastact
from fastact._compiler.loops import elementwise
from fastact._declarations.records import element_wise

pytestmark = pytest.mark.functional

# The same examples in all runs, without a database. Examples that compile take long.
repeatable = settings(derandomize=True, max_examples=60)

BORDERS = [*range(201), *range(511, 515), *range(1023, 1027), 4097]


# Length and position.


def test_every_length_and_place(activation, ufunc, dtype):
    """Around every block border, results are those for scalars, and no other element is written."""
    x = sample(activation, dtype, max(BORDERS))
    expected = one_by_one(ufunc, *x)
    guard = np.asarray(7, dtype)
    room = np.empty(max(BORDERS) + 2, dtype)
    for length in BORDERS:
        for part in (slice(0, length), slice(x[0].size - length, None)):
            room[...] = guard
            ufunc(*(operand[part] for operand in x), out=room[1 : length + 1])
            assert_same(room[1 : length + 1], expected[part])
            assert (np.delete(room, slice(1, length + 1)) == guard).all()


@pytest.mark.parametrize("where", [0, 5, "in place"])
@pytest.mark.parametrize("size", [elementwise.AHEAD, elementwise.FAR, elementwise.STREAMED])
@pytest.mark.parametrize("dtype", [np.dtype("f"), np.dtype("d")], ids=str)
def test_operands_beyond_the_caches(activation, ufunc, dtype, size, where):
    """Only float32 and float64 have separate loops for them, wherever the output begins."""
    length = size // dtype.itemsize + 77
    period = 1009
    some = sample(activation, dtype, period)
    expected = np.resize(ufunc(*some), length)
    x = [np.resize(operand, length) for operand in some]
    if where == "in place":
        ufunc(*x, out=x[0])
        assert_same(x[0], expected)
        return
    guard = np.asarray(7, dtype)
    room = np.empty(length + 8, dtype)
    room[...] = guard
    assert_same(ufunc(*x, out=room[where : where + length]), expected)
    assert (room[:where] == guard).all() and (room[where + length :] == guard).all()


@pytest.mark.parametrize("step", [-3, -2, -1, 2, 3])
def test_every_length_and_stride(activation, ufunc, dtype, step):
    """The same for strided inputs and outputs, which go through buffers."""
    x = sample(activation, dtype, 600)
    expected = one_by_one(ufunc, *x)
    guard = np.asarray(7, dtype)
    wide = [np.repeat(operand[:: np.sign(step)], abs(step))[::step] for operand in x]
    room = np.empty(600 * abs(step), dtype)
    for length in (0, 1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 511, 512, 513, 600):
        assert_same(ufunc(*(operand[:length] for operand in wide)), expected[:length])
        for inputs in (x, wide):
            room[...] = guard
            ufunc(*(operand[:length] for operand in inputs), out=room[::step][:length])
            assert_same(room[::step][:length], expected[:length])
            untouched = np.ones(room.size, bool)
            untouched[::step][:length] = False
            assert (room[untouched] == guard).all()


def call_at_the_edges_of_memory():
    """Run in a separate process, which the first access outside an operand ends."""
    page = mmap.PAGESIZE
    calls = 0
    for declared in of_each_kind(element_wise()).values():
        # For each operand, a page between two pages that cannot be accessed.
        pages = [mmap.mmap(-1, 3 * page) for _ in range(declared.nin + len(declared.results))]
        for memory in pages:
            address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
            for forbidden in (address, address + 2 * page):
                mprotect = ctypes.CDLL(None, use_errno=True).mprotect
                assert mprotect(ctypes.c_void_p(forbidden), ctypes.c_size_t(page), 0) == 0
        for dtype in FLOATS:
            places = [np.frombuffer(m, np.uint8)[page : 2 * page].view(dtype) for m in pages]
            for length, step in itertools.product([*range(1, 70), 127, 128, 129], [1, 2, 3]):
                span = (length - 1) * step + 1
                for part in (slice(None, span, step), slice(places[0].size - span, None, step)):
                    for order in (slice(None), slice(None, None, -1)):
                        getattr(fastact, declared.name)(*(place[part][order] for place in places))
                        calls += 1
    print(calls > 1000)


@pytest.mark.skipif(os.name != "posix", reason="protects pages by mprotect")
def test_nothing_outside_the_operands_is_accessed():
    code = f"import runpy; runpy.run_path({__file__!r})['call_at_the_edges_of_memory']()"
    assert run_python(code) == "True\n"


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 2, 0)])
def test_empty(activation, ufunc, dtype, shape):
    assert_same(ufunc(*sample(activation, dtype, shape)), np.empty(shape, dtype))


def test_no_dimensions(activation, ufunc, dtype):
    x = sample(activation, dtype)
    assert all(operand.shape == () for operand in x)
    y = ufunc(*x)
    assert type(y) is dtype.type
    assert_same(y, ufunc(*(operand[None] for operand in x))[0])
    out = np.zeros((), dtype)
    assert ufunc(*x, out=out) is out
    assert_same(out, y)


# Layout. More than 8192 elements, so that NumPy's own buffers are filled more than once.

SHAPE = (7, 1300)


def unaligned(x):
    memory = bytearray(b"\0" + x.tobytes())
    return np.frombuffer(memory, x.dtype, offset=1).reshape(x.shape)


def field(x):
    """Return a field of packed records, which is strided and unaligned."""
    records = np.zeros(x.shape, [("tag", np.uint8), ("value", x.dtype)])
    records["value"] = x
    return records["value"]


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


LAYOUTS = {
    "Fortran order": np.asfortranarray,
    "every other column": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "every other row": lambda x: np.repeat(x, 2, axis=0)[::2],
    "rows reversed": lambda x: x[::-1].copy()[::-1],
    "columns reversed": lambda x: x[:, ::-1].copy()[:, ::-1],
    "all reversed": lambda x: np.flip(np.flip(x).copy()),
    "transposed and reversed": lambda x: np.flip(np.flip(x.T).copy()).T,
    "unaligned": unaligned,
    "field": field,
    "read-only": read_only,
}


@pytest.mark.parametrize("arrange", LAYOUTS.values(), ids=LAYOUTS)
def test_layout(activation, ufunc, peer, dtype, arrange):
    x = sample(activation, dtype, SHAPE)
    arranged = [arrange(operand) for operand in x]
    y = ufunc(*arranged)
    assert_same(y, ufunc(*x))
    alike = [arrange(operand.astype(np.float64)) for operand in x]
    steps = [stride // 8 for stride in peer(*alike).strides]
    assert [stride // dtype.itemsize for stride in y.strides] == steps


WRITABLE = {name: arrange for name, arrange in LAYOUTS.items() if arrange is not read_only}


@pytest.mark.parametrize("arrange", WRITABLE.values(), ids=WRITABLE)
def test_layout_of_the_output(activation, ufunc, dtype, arrange):
    x = sample(activation, dtype, SHAPE)
    out = arrange(np.zeros(SHAPE, dtype))
    ufunc(*x, out=out)
    assert_same(out, ufunc(*x))


@pytest.mark.parametrize("code", [*"efd", *np.typecodes["AllInteger"]])
def test_byte_order(ufunc, code):
    """For floats and integers; bfloat16 has no other byte order than the machine's."""
    x = np.resize(np.arange(100), SHAPE).astype(code)
    swapped = x.astype(x.dtype.newbyteorder())
    assert not swapped.dtype.isnative or x.itemsize == 1
    expected = ufunc(*[x] * ufunc.nin)
    assert_same(ufunc(*[swapped] * ufunc.nin), expected)
    out = np.zeros(SHAPE, expected.dtype.newbyteorder())
    ufunc(*[swapped] * ufunc.nin, out=out)
    assert_same(out.astype(expected.dtype), expected)


def test_broadcasting(activation, ufunc, dtype):
    """Strides may be 0 in one input or in all of them."""
    x = sample(activation, dtype, (40, 600))
    for k in range(ufunc.nin):
        for part in (np.s_[:1], np.s_[:, :1], np.s_[:1, :1], np.s_[0, 0]):
            narrow = [operand[part] if i == k else operand for i, operand in enumerate(x)]
            full = [np.broadcast_to(operand, (40, 600)) for operand in narrow]
            expected = ufunc(*(operand.copy() for operand in full))
            assert_same(ufunc(*full), expected)
            assert_same(np.broadcast_to(ufunc(*narrow), (40, 600)), expected)


def test_memory_map(activation, ufunc, peer, dtype, tmp_path):
    x = sample(activation, dtype, SHAPE)
    mapped = []
    for k, operand in enumerate(x):
        file = tmp_path / str(k)
        operand.tofile(file)
        mapped.append(np.memmap(file, dtype, "r", offset=0, shape=SHAPE))
    y = ufunc(*mapped)
    assert_same(np.asarray(y), ufunc(*x))
    assert type(y) is type(peer(*mapped))
    out = np.memmap(tmp_path / "out", dtype, "w+", shape=SHAPE)
    assert ufunc(*mapped, out=out) is out
    out.flush()
    assert_same(np.fromfile(tmp_path / "out", dtype).reshape(SHAPE), ufunc(*x))


@st.composite
def layouts(draw, shape):
    """Draw a function that copies an array of `shape` to permuted axes with steps along them."""
    axes = draw(st.permutations(range(len(shape))))
    steps = draw(st.tuples(*[st.sampled_from([1, 1, 1, -1, 2, -2, 3, -3])] * len(shape)))
    offset = draw(st.integers(0, 3))

    def place(values):
        sizes = [shape[axis] * abs(steps[axis]) for axis in axes]
        base = np.full(int(np.prod(sizes)) + offset, 7, values.dtype)[offset:].reshape(sizes)
        view = base.transpose(np.argsort(axes))[..., *(slice(None, None, s) for s in steps)]
        view[...] = values
        return view

    return place


@given(data=st.data())
@repeatable
def test_any_layout(activation, ufunc, data):
    dtype = data.draw(st.sampled_from(FLOATS), "dtype")
    side = data.draw(st.sampled_from([3, 8, 70]), "longest side")
    dimensions = 3 if side < 70 else 1
    drawn = mutually_broadcastable_shapes(
        num_shapes=ufunc.nin, min_dims=0, max_dims=dimensions, min_side=0, max_side=side
    )
    shapes = data.draw(drawn, "shapes")
    x = [
        data.draw(layouts(shape), "layout")(sample(activation, dtype, shape, seed)[seed])
        for seed, shape in enumerate(shapes.input_shapes)
    ]
    expected = one_by_one(ufunc, *x)
    assert_same(ufunc(*x), expected)
    out = data.draw(layouts(shapes.result_shape), "output")(np.zeros(shapes.result_shape, dtype))
    ufunc(*x, out=out)
    assert_same(out, expected)


# Inputs that share memory with the output: results are the same as for copies.

SIZE = 2000
OVERLAPS = {
    "in place": (np.s_[:], np.s_[:]),
    "in place, strided": (np.s_[::3], np.s_[::3]),
    "in place, reversed": (np.s_[::-1], np.s_[::-1]),
    "one ahead": (np.s_[1:], np.s_[:-1]),
    "one behind": (np.s_[:-1], np.s_[1:]),
    "a block ahead": (np.s_[16:], np.s_[:-16]),
    "a block behind": (np.s_[:-16], np.s_[16:]),
    "a buffer ahead": (np.s_[512:], np.s_[:-512]),
    "a buffer behind": (np.s_[:-512], np.s_[512:]),
    "output reversed": (np.s_[:], np.s_[::-1]),
    "input reversed": (np.s_[::-1], np.s_[:]),
    "both reversed, one ahead": (np.s_[:0:-1], np.s_[-2::-1]),
    "both reversed, one behind": (np.s_[-2::-1], np.s_[:0:-1]),
    "interleaved": (np.s_[::2], np.s_[1::2]),
    "strided, one ahead": (np.s_[2::2], np.s_[:-2:2]),
    "strided, one behind": (np.s_[:-2:2], np.s_[2::2]),
    "spread": (np.s_[: SIZE // 2], np.s_[::2]),
    "gathered": (np.s_[::2], np.s_[: SIZE // 2]),
    "spread from the end": (np.s_[SIZE // 2 :], np.s_[::2]),
    "gathered to the end": (np.s_[::2], np.s_[SIZE // 2 :]),
}


@pytest.mark.parametrize(("source", "sink"), OVERLAPS.values(), ids=OVERLAPS)
def test_overlap(activation, ufunc, dtype, source, sink):
    """Each input in turn overlaps the output while the others do not; then all inputs do."""
    others = sample(activation, dtype, SIZE, seed=1)
    for k in range(ufunc.nin + 1):
        x = sample(activation, dtype, SIZE)[0]
        views = [x[source] if k in (i, ufunc.nin) else others[i][source] for i in range(ufunc.nin)]
        expected, rest = x.copy(), np.ones(SIZE, bool)
        expected[sink] = ufunc(*(view.copy() for view in views))
        rest[sink] = False
        assert ufunc(*views, out=x[sink]).size
        assert_same(x, expected)
        assert rest.any() or x[sink].size == SIZE


def test_overlap_of_unequal_inputs(binary_activation, binary, dtype):
    for first, second, sink in [(1, 0, 2), (2, 0, 1), (0, 2, 1), (0, 1, 0), (1, 0, 0), (2, 1, 2)]:
        x = sample(binary_activation, dtype, SIZE)[0]
        a, b, y = (x[i : i + SIZE - 2] for i in (first, second, sink))
        expected = binary(a.copy(), b.copy())
        binary(a, b, out=y)
        assert_same(y, expected)


def test_transposed_in_place(activation, ufunc, dtype):
    x = sample(activation, dtype, (90, 90))[0]
    expected = ufunc(*[x.T.copy()] * ufunc.nin)
    ufunc(*[x.T] * ufunc.nin, out=x)
    assert_same(x, expected)


@given(data=st.data())
@repeatable
def test_any_overlap(activation, ufunc, data):
    dtype = data.draw(st.sampled_from(FLOATS), "dtype")
    x = sample(activation, dtype, 700)[0]
    length = data.draw(st.integers(1, 200), "length")

    def view():
        step = data.draw(st.sampled_from([-3, -2, -1, 1, 2, 3]), "step")
        span = (length - 1) * abs(step) + 1
        start = data.draw(st.integers(0, x.size - span), "start")
        return x[start : start + span][::step]

    views = [view() for _ in range(ufunc.nin)]
    out = view()
    expected = ufunc(*(operand.copy() for operand in views))
    ufunc(*views, out=out)
    assert_same(out, expected)


# Subclasses of arrays, and objects like arrays.


class Tagged(np.ndarray):
    """A subclass with an attribute that shows whether ``__array_finalize__`` is called."""

    def __array_finalize__(self, parent):
        self.tag = getattr(parent, "tag", None)


class Senior(Tagged):
    __array_priority__ = 10


def test_subclass(activation, ufunc, dtype):
    x = sample(activation, dtype, 5)
    tagged = [operand.view(Tagged) for operand in x]
    for operand in tagged:
        operand.tag = "kept"
    y = ufunc(*tagged)
    assert type(y) is Tagged
    assert y.tag == "kept"
    assert_same(np.asarray(y), ufunc(*x))
    out = np.zeros(5, dtype).view(Tagged)
    assert ufunc(*x, out=out) is out


def test_the_senior_subclass_wins(binary):
    junior, senior = np.zeros(3).view(Tagged), np.zeros(3).view(Senior)
    assert type(binary(junior, senior)) is Senior
    assert type(binary(senior, junior)) is Senior
    assert type(binary(np.zeros(3), junior)) is Tagged


def test_override(ufunc):
    """An object of another library gets the call instead, whichever operand it is."""

    class Other:
        def __array_ufunc__(self, *call, **keywords):
            return call, keywords

    other = Other()
    for k in reversed(range(ufunc.nin)):
        x = [1.0] * ufunc.nin
        x[k] = other
        assert ufunc(*x, dtype="f4") == ((ufunc, "__call__", *x), {"dtype": "f4"})
    (called, method, *_), keywords = ufunc(*[1.0] * ufunc.nin, out=other)
    assert (called, method, keywords) == (ufunc, "__call__", {"out": (other,)})
    assert ufunc.at(other, [0], *x[1:])[0][:2] == (ufunc, "at")


def test_opting_out(ufunc):
    class Aloof:
        __array_ufunc__ = None

    with pytest.raises(TypeError, match="does not support ufuncs"):
        ufunc(*[Aloof()] * ufunc.nin)


def test_array_like(activation, ufunc, dtype):
    class Like:
        def __init__(self, array):
            self.array = array

        def __array__(self, dtype=None, copy=None):
            return self.array

    x = sample(activation, dtype, (2, 3))
    assert_same(ufunc(*map(Like, x)), ufunc(*x))


@pytest.mark.parametrize("code", "efd")
def test_masked_array(activation, ufunc, peer, code):
    mask = np.arange(12).reshape(3, 4) % 5 == 0
    x = [np.ma.array(np.nan_to_num(v), mask=mask) for v in sample(activation, code, (3, 4))]
    y, alike = ufunc(*x), peer(*x)
    assert type(y) is type(alike) is np.ma.MaskedArray
    np.testing.assert_array_equal(y.mask, mask)
    np.testing.assert_array_equal(y.mask, alike.mask)
    assert_same(y.data[~mask], ufunc(*(operand.data for operand in x))[~mask])
    assert y.dtype == np.dtype(code)


def test_bits_tell_zeros_and_nans_apart():
    """All tests above rely on this comparison."""
    assert bits(np.float32(0.0)) != bits(np.float32(-0.0))
    assert bits(np.float64(np.nan)) != bits(np.float64(-np.nan))
    with pytest.raises(AssertionError):
        assert_same(np.zeros(3, np.float32), np.zeros(3))


LARGE = (16 << 20) + 300  # bytes; from 16 MiB on, stores bypass the caches


@functools.lru_cache(maxsize=1)  # tests of one function and type follow one another
def large(name, dtype):
    """Inputs, and the results of calls of parts that stay in the caches."""
    activation, ufunc = element_wise()[name], getattr(fastact, name)
    n = LARGE // dtype.itemsize
    x = [np.resize(v, n) for v in sample(activation, dtype, (10_007,))]
    part = n // 9
    with fastact.num_threads(1):
        parts = [ufunc(*(v[i : i + part] for v in x)) for i in range(0, n, part)]
    return x, np.concatenate(parts)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("shift", [0, 8, 1])  # bytes
@pytest.mark.parametrize("name", ["relu", "softplus", "heaviside"])
def test_large_outputs(name, dtype, shift, threads):
    ufunc = getattr(fastact, name)
    (first, *others), expected = large(name, dtype)
    memory = np.full(expected.nbytes + 4 * dtype.itemsize, 7, np.uint8)
    y = memory[shift : shift + expected.nbytes].view(dtype)
    with fastact.num_threads(threads):
        ufunc(first, *others, out=y)
        assert_same(y, expected)
        assert (memory[:shift] == 7).all() and (memory[shift + y.nbytes :] == 7).all()
        if shift == 0:
            first = first.copy()
            ufunc(first, *others, out=first)  # in place
            assert_same(first, expected)
