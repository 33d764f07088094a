"""Inputs of several types, which loops convert themselves."""

import itertools

import numpy as np
import pytest
from conftest import FLOATS, assert_same, run_python
from kinds import ONE_RESULT
from numpy.lib.stride_tricks import as_strided

import fastact
from fastact._declarations.records import OBJECTIVES, ROW_ACTIVATIONS, element_wise

# Loops convert chunks of 512 elements.
LENGTHS = [1, 5, 511, 512, 513, 2000]
PAIRS = ["fd", "df", "ef", "fe", "ed", "ld", "dl", "lf", "ll", "?d", "bf", "Qf", "qL"]


def common(*operands):
    dtype = np.result_type(*operands)
    return dtype if dtype in FLOATS else np.dtype(np.float64)


def plain(function, *operands, **kwargs):
    """Return the result for operands that have been converted to one type."""
    return function(*(np.asarray(x).astype(common(*operands)) for x in operands), **kwargs)


def some(code, length, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(0 if code in "?Q" else -20, 20, length).astype(code)


LAYOUTS = {
    "contiguous": lambda x: x,
    "backwards": lambda x: x[::-1],
    "steps": lambda x: np.repeat(x, 2)[::2],
    "long steps": lambda x: np.repeat(x, 5)[::5],
    "one number": lambda x: np.broadcast_to(x[0], x.shape),
    "unaligned": lambda x: np.frombuffer(b"-" + x.tobytes(), x.dtype, offset=1),
    "other byte order": lambda x: x.astype(x.dtype.newbyteorder()),
}


@pytest.mark.parametrize("codes", PAIRS)
def test_layouts(codes):
    for length, names in itertools.product(LENGTHS, itertools.product(LAYOUTS, repeat=2)):
        x = [
            LAYOUTS[n](some(c, length, k))
            for k, (c, n) in enumerate(zip(codes, names, strict=True))
        ]
        expected = plain(fastact.heaviside, *x)
        assert_same(fastact.heaviside(*x), expected)
        out = np.zeros(3 * length, expected.dtype)[::3]
        assert fastact.heaviside(*x, out=out) is out
        assert_same(out, expected)


@pytest.mark.parametrize("name", [*ONE_RESULT, *OBJECTIVES, *ROW_ACTIVATIONS])
def test_every_function(name):
    function = getattr(fastact, name)
    for code in "?bHlQ":
        codes = [code] if function.nin == 1 else [code + "d", "f" + code, code * 2]
        for pair in codes:
            x = [some(c, (3, 700), k) for k, c in enumerate(pair)]
            keeps = getattr(element_wise().get(name), "keeps_integers", False) and code != "?"
            expected = function(*x) if keeps else plain(function, *x)
            found = function(*x)
            for y, z in zip(np.atleast_3d(found), np.atleast_3d(expected), strict=True):
                assert_same(y, z)
            assert_same(np.asarray(function(*(v[1] for v in x))), np.asarray(expected)[..., 1, :])


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_rows_of_integers(axis):
    x = np.arange(-30, 30).reshape(3, 4, 5) % 7
    for part in (x, x[::-1], x[:, ::2], x.T, x[..., 1:2], x[:0], np.asfortranarray(x)):
        expected = plain(fastact.softmax, part, axis=axis)
        assert_same(fastact.softmax(part, axis=axis), expected)
        out = np.zeros((*part.shape, 2))[..., 0]
        fastact.softmax(part, axis=axis, out=out)
        assert_same(out, expected)
    y = x.copy()
    fastact.softmax(y, out=y.view(np.float64))
    assert_same(y.view(np.float64), plain(fastact.softmax, x))


@pytest.mark.parametrize("length", [2, 5, 40, 3000])
def test_rows_of_an_output_with_stride_zero(length):
    # Elements that overlap in another way are not aligned, and NumPy itself writes them.
    x = some("l", 3 * length).reshape(3, length)
    memory = np.zeros(3)
    fastact.softmax(x, out=as_strided(memory, x.shape, (8, 0)))
    assert_same(memory, plain(fastact.softmax, x)[:, -1])


def test_no_memory_for_a_row_of_stride_zero():
    x = np.broadcast_to(np.int8(1), (1 << 58,))
    out = as_strided(np.full(1, 7.0), x.shape, (0,))
    with pytest.raises(MemoryError):
        fastact.softmax(x, out=out)
    assert out[0] == 7
    assert_same(fastact.softmax(np.array([1, 1])), np.array([0.5, 0.5]))


def test_numbers():
    for x, y in itertools.product(
        [np.float32(2), np.int8(0), np.True_], [np.float64(3), np.uint64(7)]
    ):
        assert_same(fastact.heaviside(x, y), plain(fastact.heaviside, x, y))
        assert type(fastact.heaviside(x, y)) is np.float64
    assert_same(fastact.sigmoid(np.int16(0)), np.float64(0.5))


def test_where_and_broadcasting():
    x, y = some("f", (7, 1)), some("l", (1, 900))
    where = some("?", (7, 900)) & (np.arange(900) % 3 > 0)
    out, expected = np.full((2, 7, 900), 9.0)
    fastact.heaviside(x, y, out=out, where=where)
    plain(fastact.heaviside, x, y, out=expected, where=where)
    assert_same(out, expected)


REDUCE = """
import numpy as np, fastact

x = np.arange(-3, 6)
wide = x.astype(float)
for code in "?bhilqLfd":
    narrow, same = x.astype(code), x.astype(code).astype("f" if code in "ef" else "d")
    if BEFORE:
        fastact.heaviside(wide, narrow), fastact.heaviside(narrow, wide)
    for method in (fastact.heaviside.reduce, fastact.heaviside.accumulate):
        y, z = method(narrow), method(same)
        assert y.dtype == z.dtype and (y == z).all(), (code, y, z)
        y = method(narrow, dtype="d")
        assert y.dtype == "d" and (y == method(narrow.astype("d"))).all(), (code, y)
    y = fastact.heaviside.reduceat(narrow, [0, 4, 5], dtype="d")
    assert (y == fastact.heaviside.reduceat(narrow.astype("d"), [0, 4, 5])).all()
    out = np.zeros(())
    fastact.heaviside.reduce(narrow, out=out)
    assert out == fastact.heaviside.reduce(narrow.astype("d"))
print("done")
"""


@pytest.mark.parametrize("before", [False, True])
def test_reductions(before):
    """Before and after calls that add loops for inputs of several types."""
    assert run_python(REDUCE.replace("BEFORE", str(before))) == "done\n"


def test_outer_and_at():
    for code in "?blQfd":
        x, y = some(code, 9), some("e", 4)
        expected = plain(fastact.heaviside, *np.broadcast_arrays(x[:, None], y))
        assert_same(fastact.heaviside.outer(x, y), expected)
        for target in "fd":
            at, expected = np.arange(2 * 9).astype(target).reshape(2, 9)[:, ::-1] % 3
            fastact.heaviside.at(at, [0, 3, 3], x[:3])
            for k, v in zip([0, 3, 3], x[:3], strict=True):
                expected[k] = fastact.heaviside(expected[k], v)
            assert_same(at, expected)


def overlapping(rng, memory, code, length):
    """Return a view of `memory` with a random start and stride."""
    size = np.dtype(code).itemsize
    stride = int(rng.choice([size, size, size, -size, 2 * size, 3 * size, 16]))
    span = abs(stride) * (length - 1) + size
    first = int(rng.integers(0, (memory.nbytes - span) // size)) * size
    start = memory[first : first + span].view(code) if stride > 0 else None
    if start is None:
        start = memory[first + span - size : first + span].view(code)
    return as_strided(start, (length,), (stride,))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("codes", ["lld", "fdd", "dfd", "ldd", "eff", "fef"])
def test_overlap(codes, threads):
    rng = np.random.default_rng(3)
    with fastact.num_threads(threads):
        for turn in range(150):
            length = int(rng.choice([3, 700, 3000]))
            memory = np.frombuffer(
                bytearray(rng.integers(0, 3, 9 * 8 * length).astype(np.uint8).tobytes()), np.uint8
            )
            x, y, out = (overlapping(rng, memory, code, length) for code in codes)
            if turn % 4 == 0:  # just ahead of the output, which NumPy allows
                x = overlapping(rng, memory, codes[0], length)[: length - 1]
                step = x.strides[0]
                if abs(step) >= out.itemsize and step % out.itemsize == 0:
                    y, out = y[:-1], as_strided(memory[:8].view(codes[2]), (length - 1,), (8,))
                else:
                    y, out = y[:-1], out[:-1]
            with np.errstate(all="ignore"):
                expected = fastact.softplus_backward(x.copy(), y.copy())
                fastact.softplus_backward(x, y, out=out)
            np.testing.assert_array_equal(out, expected)


def test_unary_overlap():
    for length, shift in itertools.product([1, 600, 3000], range(-2, 3)):
        memory = np.arange(length + 4) % 50 - 25
        x = memory[2 : length + 2]
        out = memory.view(np.float64)[2 + shift : length + 2 + shift]
        expected = fastact.tanh(x.astype(np.float64))
        fastact.tanh(x, out=out)
        assert_same(out.copy(), expected)


def test_shared_among_threads():
    """Calls with a number and a large array use threads."""
    x = some("f", 2_000_000)
    for number in (np.float64(0.25), np.int8(3)):
        with fastact.num_threads(1):
            expected = fastact.softplus_backward(x, number)
        with fastact.num_threads(2):
            assert_same(fastact.softplus_backward(x, number), expected)


CASTING = """
import itertools, json
import numpy as np, fastact

results = {}
for casting, codes in itertools.product(("no", "equiv", "safe", "same_kind", "unsafe"), ORDER):
    x = [np.ones(3, code) for code in codes[:2]]
    out = np.ones(3, codes[2])
    try:
        y = fastact.heaviside(*x, out=out, casting=casting)
    except TypeError as error:
        results[f"{casting} {codes}"] = "TypeError"
    else:
        results[f"{casting} {codes}"] = "done"
print(json.dumps(results, sort_keys=True))
"""


def test_casting_rules_are_those_of_numpy():
    """They do not depend on earlier calls."""
    codes = ["fdd", "fdf", "fff", "lfd", "lff", "llf", "lld", "ddf", "ddd", "eed", "ede"]
    found = [run_python(CASTING.replace("ORDER", repr(order))) for order in (codes, codes[::-1])]
    assert found[0] == found[1]
    for casting, three in itertools.product(("no", "equiv", "safe", "same_kind"), codes):
        dtypes = [np.dtype(code) for code in three]
        wide = common(*(np.ones(1, d) for d in dtypes[:2]))
        allowed = all(np.can_cast(d, wide, casting) for d in dtypes[:2])
        allowed &= np.can_cast(wide, dtypes[2], casting)
        assert (f'"{casting} {three}": "{"done" if allowed else "TypeError"}"') in found[0]


ORDERS = """
import numpy as np, fastact

signalling = np.array([0x7F800001], np.uint32).view(np.float32)
wide = np.ones(1)

def own():  # NumPy's cast would raise
    with np.errstate(all="raise"):
        assert np.isnan(fastact.softplus_backward(wide, signalling))
        assert np.isnan(fastact.softplus_backward(signalling, wide))

def cast():
    for x in ((wide, signalling), (signalling, wide)):
        with np.errstate(all="raise"):
            try:
                fastact.softplus_backward(*x, dtype="d")
            except FloatingPointError:
                continue
            raise AssertionError

def accumulate():
    fastact.softplus_backward.accumulate(np.ones(3, "f"), dtype="d")
    fastact.softplus_backward.reduceat(np.ones(3, "f"), [0, 1], dtype="d")

for step in ORDER:
    step()
print("done")
"""


@pytest.mark.parametrize(
    "order", list(itertools.permutations(["own", "cast", "accumulate"])), ids=str
)
def test_the_choice_of_loops_does_not_depend_on_earlier_calls(order):
    names = ", ".join([*order, *order])
    assert run_python(ORDERS.replace("ORDER", f"({names})")) == "done\n"


def test_accumulate_into_a_wider_output():
    """NumPy refuses this for loops of several types, but not for an array of the wider type."""
    x, out = np.ones(3, np.float32), np.zeros(3)
    with pytest.raises(TypeError, match="resolved dtypes are not compatible"):
        fastact.heaviside.accumulate(x, out=out)
    fastact.heaviside.accumulate(x.astype(np.float64), out=out)
    fastact.heaviside.accumulate(x, out=out, dtype=np.float64)
    fastact.heaviside.reduce(x, out=out[0, ...])
