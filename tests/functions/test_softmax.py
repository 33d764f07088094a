"""softmax: its values, the independence of its rows, and its behaviour as a ufunc."""

import ctypes
import functools
import pickle
import platform
import re

import gmpy2
import ml_dtypes
import numpy as np
import pytest
from assembly import CALL, DOUBLE, PACKED, POINTER, SCALAR, TARGETS, every_target
from conftest import FLOATS, assert_same, bits, is_nan, nans, run_python
from hypothesis import given, settings
from hypothesis import strategies as st
from registers import REGISTERS, STATES, needs_registers

import fastact
from bench.accuracy import PRECISION
from fastact._compiler import host, pipeline
from fastact._compiler.loops import lane_loops
from fastact._compiler.loops import rows as row_loops
from fastact._compiler.loops.loop_metadata import LoopMetadata
from fastact._declarations.records import ROW_ACTIVATIONS
from fastact._kernels import row_steps
from fastact._machine import formats
from fastact._runtime import engine, ufunc

pytestmark = pytest.mark.functional

SOFTMAX = ROW_ACTIVATIONS["softmax"]

ONE = gmpy2.mpfr(1)  # ONE * x takes 0.3 us, mpfr(x) 3 us

repeatable = settings(derandomize=True, max_examples=40)

# Lengths around those at which a row takes all lanes instead of one, fills whole vectors, fills
# whole chunks of either precision, and takes several chunks.
LENGTHS = [1, 2, 3, 7, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 127, 129, 1000]
LONG = [1023, 1024, 1025, 2047, 2048, 2049, 4096, 4097, 8191, 8192, 10_000]


def rows(dtype, count, length, seed=0):
    """Rows of different scales and offsets, some with entries that are masked or tiny."""
    rng = np.random.default_rng([seed, length])
    scale = rng.choice([0.1, 1.0, 4.0, 30.0], (count, 1))
    offset = rng.choice([0.0, 0.0, 3.0, -90.0, 150.0, 1000.0], (count, 1))
    x = rng.standard_normal((count, length)) * scale + offset
    x = np.where(rng.random(x.shape) < 0.03, rng.choice([-1e4, -np.inf, -95.0], x.shape), x)
    x[:, rng.integers(length)] = offset[:, 0]  # not only -inf
    return x.astype(dtype)


def errors(x, y):
    """The largest error in ulp of each row of results `y`, against MPFR with 160 bits."""
    significand, lowest = PRECISION[x.dtype.name]
    worst = []
    with gmpy2.context(precision=160):
        for row, got in zip(x.astype(float).tolist(), y.astype(float).tolist(), strict=True):
            largest = max(row)
            terms = [gmpy2.exp(ONE * v - largest) for v in row]
            total = gmpy2.fsum(terms)
            worst.append(0.0)
            for term, value in zip(terms, got, strict=True):
                want = term / total
                exponent = max(gmpy2.get_exp(want) - 1, lowest) if want else lowest
                error = abs((value - want) * gmpy2.exp2(significand - 1 - exponent))
                worst[-1] = max(worst[-1], float(error))
    return worst


# Values.


@pytest.mark.parametrize("length", [*LENGTHS, 2100])
def test_accuracy(dtype, length):
    x = rows(dtype, max(1, 600 // length), length)
    assert max(errors(x, fastact.softmax(x))) <= SOFTMAX.ulp[dtype.name]


@pytest.mark.parametrize("length", [1, 20, 100])
def test_accuracy_where_the_subtraction_of_the_largest_would_round(dtype, length):
    """Offsets on both sides of every power of 2, and of numbers around 106, 212, 746 and 1494."""
    largest = float(ml_dtypes.finfo(dtype).max)
    powers = 2.0 ** np.arange(-20, min(np.log2(largest), 60))
    centres = np.concatenate([powers, [105, 106, 211, 212, 213, 745, 747, 1493, 1494, 1495]])
    offsets = np.concatenate([centres, -centres]) * (1 - 2.0**-9)
    rng = np.random.default_rng(length)
    span = 700 if dtype == np.float64 else 85  # further down results are subnormal
    x = offsets[:, None] - rng.uniform(0, span, (len(offsets), length))
    x *= rng.uniform(1 - 2.0**-9, 1, x.shape)  # adds bits that the difference has no room for
    x[:, 0] = offsets
    x = x.clip(-largest, largest).astype(dtype)
    assert max(errors(x, fastact.softmax(x))) <= SOFTMAX.ulp[dtype.name]


@pytest.mark.parametrize(
    ("dtype", "length", "seed", "row"), [("f", 2048, 243, 1), ("d", 10, 131, 1320)]
)
def test_accuracy_where_one_term_is_most_of_the_sum(dtype, length, seed, row):
    """The error of that term enters every result: 1.64 and 1.57 ulp without its last
    rounding error, in the worst of 8 million results each."""
    rng = np.random.default_rng(seed)
    x = (20 * rng.standard_normal((row + 1, length)))[row:].astype(dtype)
    assert max(errors(x, fastact.softmax(x))) <= SOFTMAX.ulp[x.dtype.name]


@pytest.mark.parametrize("low", [-0.34, -0.7, -2.0, -17.0, -60.0])
@pytest.mark.parametrize("length", [30, 1500])
def test_accuracy_of_sums_of_equal_terms(dtype, length, low):
    """The rounding errors of a plain sum would all have the same sign."""
    x = np.full((2, length), low, dtype)
    x[:, 0], x[:, 1] = 0, [low, 0.35]
    assert max(errors(x, fastact.softmax(x))) <= SOFTMAX.ulp[dtype.name]


def test_a_million_equal_terms():
    """So many chunks that the rounding errors in the low parts of their sums could add up."""
    for low in (-0.34, -1.1, -14.0, -14.823742):
        x = np.full(1 << 20, low, np.float32)
        x[0] = 0
        y = fastact.softmax(x)
        with gmpy2.context(precision=100):
            term = gmpy2.exp(gmpy2.mpfr(float(x[1])))
            total = 1 + (len(x) - 1) * term
            for got, want in ((y[0], 1 / total), (y[-1], term / total)):
                unit = np.spacing(np.float32(want))
                assert abs(float((gmpy2.mpfr(float(got)) - want) / float(unit))) <= 1.5
        assert (y[1:] == y[-1]).all()


@pytest.mark.parametrize("width", [1.0, 2.0, 5.0, 12.0])
@pytest.mark.parametrize("length", [2, 3, 10, 50])
def test_sums_to_one(dtype, length, width):
    x = (np.random.default_rng(1).standard_normal((200, length)) * width).astype(dtype)
    totals = fastact.softmax(x).astype(np.float64).sum(-1)
    assert abs(totals - 1).max() <= length * 2.0 ** -PRECISION[dtype.name][0]


def test_subnormal_results(dtype):
    """Results down to the smallest subnormal number, and 0 below it, are within the bound."""
    bits, lowest = PRECISION[dtype.name]
    span = (bits - lowest + 3) * np.log(2)
    x = -np.linspace(0, span, 997).astype(dtype)
    for part in (x, x[::40]):
        (error,) = errors(part[None], fastact.softmax(part)[None])
        assert error <= SOFTMAX.ulp[dtype.name]
    assert fastact.softmax(x).astype(float)[-1] == 0


@pytest.mark.parametrize("length", [*LENGTHS, 5000])
def test_special_values(dtype, length):
    for pair, result in SOFTMAX.specials:
        x = np.full(length, -np.inf, dtype)
        with np.errstate(over="ignore"):  # -1e9 is -inf in float16
            x[-len(pair) :] = np.array(pair)[-length:].astype(dtype)
        if length >= len(pair):
            y = fastact.softmax(x)
            assert_same(y[-len(pair) :], np.array(result, dtype))
            assert not bits(y[: -len(pair)]).any()
    y = fastact.softmax(np.zeros(length, dtype))
    assert_same(y, np.full(length, 1 / length).astype(dtype))


@pytest.mark.parametrize("function", [fastact.softmax, fastact.log_softmax])
@pytest.mark.parametrize("length", [*LENGTHS, 5000])
def test_rows_without_a_result_are_nan(function, dtype, length):
    """NaN or inf anywhere in a row turns that row, and no other, into the same NaN."""
    x = rows(dtype, 40, length)
    expected = function(x)
    quiet = np.array(np.nan, dtype)
    for bad in (*nans(dtype), np.inf):
        for place in {0, length // 2, length - 1}:
            spoiled = x.copy()
            spoiled[7, place] = bad
            y = function(spoiled)
            assert_same(y[7], np.full(length, quiet))
            assert_same(np.delete(y, 7, 0), np.delete(expected, 7, 0))
    x[7] = -np.inf
    assert_same(function(x)[7], np.full(length, quiet))


def test_masked_entries_change_nothing(dtype):
    """Entries of -inf or of the lowest number leave all other results unchanged, bit for bit."""
    for length in (20, 100, 3000):
        x = rows(dtype, 1, length)[0]
        for low in (-np.inf, float(ml_dtypes.finfo(dtype).min)):
            low_row, none = x.copy(), x.copy()
            low_row[::3], none[::3] = low, -np.inf
            low_row[1] = none[1] = 3
            y = fastact.softmax(low_row)
            assert_same(y, fastact.softmax(none))
            assert not bits(y[::3]).any()


def test_zeros_of_either_sign_are_equal(dtype):
    for length in (5, 70):
        x = np.zeros(length, dtype)
        assert_same(fastact.softmax(-x), fastact.softmax(x))
        x[::2] *= -1
        assert_same(fastact.softmax(x), fastact.softmax(abs(x)))


# A row's result depends on the row alone.


def alone(x):
    """softmax of each row, in a separate call."""
    result = np.empty_like(x)
    for index in np.ndindex(x.shape[:-1]):
        result[index] = fastact.softmax(x[index].copy())
    return result


@pytest.mark.parametrize("length", [*LENGTHS, *LONG])
def test_as_if_alone(dtype, length):
    """Batches around the sizes that are computed together; no other element is written."""
    x = rows(dtype, 200 if length <= 33 else 5, length)
    expected = alone(x)
    for count in {1, 2, 3, 5, 15, 16, 17, 31, 33, 63, 64, 65, 127, 130, 200}:
        if count > len(x):
            continue
        part = x[-count:]
        assert_same(fastact.softmax(part), expected[-count:])
        room = np.full((count + 2, length + 2), 7, dtype)
        fastact.softmax(part, out=room[1:-1, 1:-1])
        assert_same(room[1:-1, 1:-1], expected[-count:])
        room[1:-1, 1:-1] = 7
        assert (room == 7).all()


@pytest.mark.parametrize("length", [1, 5, 32, 33, 100, 2049, 4097])
def test_in_place(dtype, length):
    x = rows(dtype, 70 if length < 100 else 3, length)
    expected = fastact.softmax(x)
    for arrange in (np.ascontiguousarray, np.asfortranarray, lambda v: v[::-1].copy()[::-1]):
        y = arrange(x.copy())
        assert fastact.softmax(y, out=y) is y
        assert_same(y, expected)
    wide = np.repeat(x, 2, axis=-1)
    fastact.softmax(wide[:, ::2], out=wide[:, ::2])
    assert_same(wide[:, ::2], expected)
    assert_same(wide[:, 1::2], x)


@pytest.mark.parametrize("shift", [-3, 1, 40])
def test_overlap(dtype, shift):
    """NumPy copies overlapping operands first."""
    for length in (20, 300):
        x = rows(dtype, 9, length).ravel()
        low, high = x[: -abs(shift)], x[abs(shift) :]
        source, sink = (low, high) if shift > 0 else (high, low)
        expected = fastact.softmax(source.copy())
        fastact.softmax(source, out=sink)
        assert_same(sink, expected)


@given(data=st.data())
@repeatable
def test_any_layout(data):
    dtype = data.draw(st.sampled_from(FLOATS), "dtype")
    length = data.draw(st.sampled_from([0, 1, 2, 9, 31, 32, 33, 47, 65, 130, 1100, 2100]), "length")
    outer = data.draw(st.lists(st.integers(0, 5 if length > 100 else 20), max_size=3), "outer")
    axis = data.draw(st.integers(0, len(outer)), "axis")
    values = rows(dtype, int(np.prod(outer)), length) if length else np.empty((1, 0), dtype)
    values = values[: int(np.prod(outer))].reshape(*outer, length)
    expected = np.moveaxis(alone(values), -1, axis)
    values = np.moveaxis(values, -1, axis)

    def place(contents):
        """The same elements with permuted axes, steps along them, and an offset in memory."""
        axes = data.draw(st.permutations(range(contents.ndim)))
        steps = data.draw(
            st.tuples(*[st.sampled_from([1, 1, -1, 2, -2, 3])] * contents.ndim), "steps"
        )
        sizes = [contents.shape[a] * abs(steps[a]) for a in axes]
        offset = data.draw(st.integers(0, 3))
        memory = np.full(int(np.prod(sizes)) + offset, 7, dtype)[offset:].reshape(sizes)
        view = memory.transpose(np.argsort(axes))[tuple(slice(None, None, s) for s in steps)]
        view[...] = contents
        return view

    x = place(values)
    assert_same(fastact.softmax(x, axis=axis), expected)
    out = place(np.zeros_like(values))
    assert fastact.softmax(x, axis=axis - x.ndim, out=out) is out
    assert_same(out, expected)
    fastact.softmax(x, axis=axis, out=x)
    assert_same(x, expected)


def test_unaligned_and_swapped():
    for code in "efd":
        for length in (10, 200):
            x = rows(np.dtype(code), 33, length)
            expected = fastact.softmax(x)
            memory = np.frombuffer(bytearray(b"\0" + x.tobytes()), x.dtype, offset=1)
            unaligned = memory.reshape(x.shape)
            assert_same(fastact.softmax(unaligned), expected)
            fastact.softmax(unaligned, out=unaligned)
            assert_same(unaligned, expected)
            swapped = x.astype(x.dtype.newbyteorder())
            assert_same(fastact.softmax(swapped), expected)


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 3), (0, 0)])
def test_empty(dtype, shape):
    assert_same(fastact.softmax(np.empty(shape, dtype)), np.empty(shape, dtype))


# Behaviour.


def hard(dtype, count, length):
    info = ml_dtypes.finfo(dtype)
    limits = [0, float(info.smallest_subnormal), float(info.smallest_normal), 1, 17, 88, 104, 746]
    limits += [float(info.max) / 2, float(info.max), np.inf]
    pool = np.concatenate([np.array([*limits, *(-v for v in limits)]).astype(dtype), nans(dtype)])
    return np.random.default_rng(length).choice(pool, (count, length))


@pytest.mark.parametrize("length", [1, 2, 9, 33, 300, 3000])
def test_no_floating_point_error(dtype, length):
    operands = hard(dtype, 70, length), rows(dtype, 70, length)
    with np.errstate(all="raise"):
        for x in operands:
            fastact.softmax(x)


@needs_registers
@pytest.mark.parametrize("state", STATES)
def test_registers_neither_matter_nor_change(dtype, state):
    """Except for the flags, which NumPy clears before it calls a generalized ufunc's loop."""
    registers = REGISTERS[platform.machine()]
    wanted = registers.value(state)
    call = raw(dtype)
    for length in (3, 50, 3000):
        for x in (hard(dtype, 20, length), rows(dtype, 20, length)):
            expected, out, direct = fastact.softmax(x), np.zeros_like(x), np.zeros_like(x)
            with registers.set(wanted):
                before = registers.read()
                call(x, direct)
                between = registers.read()
                fastact.softmax(x, out=out)
                after = registers.read()
            assert before == between == wanted
            assert (after ^ wanted) & ~registers.flags == 0
            assert after & ~wanted == 0
            assert_same(out, expected)
            assert_same(direct, expected)


@functools.cache
def raw(dtype):
    """``call(x, y)``, which calls the loop as other loops of this package do, without NumPy."""
    address = engine.rows_address(SOFTMAX.steps, type(np.dtype(dtype)))
    pointer = ctypes.c_void_p
    loop = ctypes.CFUNCTYPE(ctypes.c_int, *[pointer] * 5)(address)

    def call(x, y):
        data = (pointer * 2)(x.ctypes.data, y.ctypes.data)
        strides = (ctypes.c_ssize_t * 4)(x.strides[0], y.strides[0], x.strides[1], y.strides[1])
        assert loop(None, data, (ctypes.c_ssize_t * 2)(*x.shape), strides, None) == 0

    return call


def test_attributes():
    assert type(fastact.softmax) is np.ufunc
    assert repr(fastact.softmax) == "<ufunc 'softmax'>"
    assert fastact.softmax.signature == "(n)->(n)"
    assert fastact.softmax.types == ["e->e", "f->f", "d->d"]
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(fastact.softmax, protocol)) is fastact.softmax
    for part in (SOFTMAX.summary, SOFTMAX.formula, SOFTMAX.notes, "1.5 ulp"):
        assert part in fastact.softmax.__doc__


def test_axis():
    x = rows(np.float64, 6, 35).reshape(2, 3, 5, 7)
    for axis in range(-4, 4):
        moved = np.moveaxis(x, axis, -1).copy()
        expected = np.moveaxis(fastact.softmax(moved), -1, axis)
        assert_same(fastact.softmax(x, axis=axis), expected)
        assert_same(fastact.softmax(x, axes=[axis, axis]), expected)
    with pytest.raises(np.exceptions.AxisError):
        fastact.softmax(x, axis=4)


def test_types_are_kept_or_promoted(dtype):
    x = rows(dtype, 3, 8)
    assert fastact.softmax(x).dtype == dtype
    for code in np.typecodes["AllInteger"] + "?":
        integers = (np.arange(21) % 3).astype(code).reshape(3, 7)
        assert_same(fastact.softmax(integers), fastact.softmax(integers.astype(np.float64)))
    assert_same(fastact.softmax([1, 2]), fastact.softmax(np.array([1.0, 2.0])))
    single = fastact.softmax(x.astype(np.float64), dtype=np.float32)
    assert_same(single, fastact.softmax(x.astype(np.float32)))


@pytest.mark.parametrize("code", ["g", "F", "D", "G", "O", "U3", "S3", "M8[s]", "m8[s]", "V8"])
def test_other_types_are_refused(code):
    with pytest.raises(TypeError, match="'softmax'"):
        fastact.softmax(np.zeros((2, 3), code))
    with pytest.raises(TypeError, match="softmax"):
        fastact.softmax(np.zeros((2, 3)), dtype=code[0])


def test_misuse():
    with pytest.raises(ValueError, match="enough dimensions"):
        fastact.softmax(1.0)
    with pytest.raises(ValueError, match="mismatch"):
        fastact.softmax(np.zeros(3), out=np.zeros(4))
    with pytest.raises(TypeError, match="where"):
        fastact.softmax(np.zeros(3), where=True)
    with pytest.raises(TypeError, match="softmax"):
        fastact.softmax()


def test_raw_loop():
    for dtype in (np.float32, np.float64):
        call = raw(dtype)
        for length in (10, 100, 200):
            x = rows(dtype, 20, length)
            y = np.zeros((20, length + 3), dtype)
            call(x, y[:, :length])
            assert_same(y[:, :length], fastact.softmax(x))
            assert not y[:, length:].any()
    with pytest.raises(TypeError, match="int64"):
        engine.rows_address(SOFTMAX.steps, type(np.dtype(np.int64)))


def test_first_use_in_a_process():
    """Importing fastact does not import Numba, and the first call writes nothing to stderr."""
    code = (
        "import fastact, sys, numpy as np; print('numba' in sys.modules,"
        "*fastact.softmax(np.float32([0, 0])))"
    )
    assert run_python(code) == "False 0.5 0.5\n"


# Machine code.


@functools.cache
def assembly(form, target):
    number = formats.FORMATS[form]
    steps = row_loops.steps_ir(SOFTMAX.steps, number, TARGETS[target])
    loop = row_loops.rows_ir(SOFTMAX.steps, steps, number, TARGETS[target])
    return pipeline.assembly(loop, steps.values(), TARGETS[target])


def functions(text):
    """The code of each function by name."""
    found = re.findall(r"(?ms)^(\w[\w.]*):.*?^\.Lfunc_end", text)
    return {
        name: re.search(rf"(?ms)^{re.escape(name)}:(.*?)^\.Lfunc_end", text)[1] for name in found
    }


def loops(code):
    """The blocks that jump to themselves."""
    blocks = re.split(r"(?m)^(?=\.LBB)", code)
    return [b for b in blocks if (m := re.match(r"(\.LBB\w+):", b)) and b.count(m[1]) > 1]


def kernels(form, target):
    """The names of the loops over lanes."""
    scheme = row_steps.scheme_of(SOFTMAX.steps)
    shape = lane_loops.Shape(form, form, 2, 2, LoopMetadata(), TARGETS[target], -np.inf, scheme)
    across = [f"{k}.{w}" for k in lane_loops.across(shape) for w in ("wide", "narrow")]
    return [*lane_loops.along(shape), *across]


@pytest.mark.parametrize("form", SOFTMAX.ulp)
@every_target
def test_kernels_are_packed(form, target):
    architecture = TARGETS[target].architecture
    code = functions(assembly(form, target))
    # Terms of 16-bit formats do not fit into the output, so that exponents alone are never kept.
    wide = form in ("float32", "float64")
    names = [name for name in kernels(form, target) if wide or "exponents" not in name]
    assert set(names) <= code.keys()
    for name in names:
        found = loops(code[name]) or [code[name]]  # what is done once need not be a loop
        for loop in found:
            assert PACKED[architecture].search(loop), name
            assert not SCALAR[architecture].search(loop), name
        if form != "float64":
            assert not DOUBLE[architecture].search(code[name]), name


@pytest.mark.parametrize("form", SOFTMAX.ulp)
@every_target
def test_nothing_outside_is_called(form, target):
    text = assembly(form, target)
    own = set(re.findall(r"(?m)^([\w.]+):", text))
    called = {match[2].removesuffix("@PLT") for match in CALL.finditer(text)}
    assert called and {c for c in called if not POINTER.match(c)} <= own


@pytest.mark.parametrize("target", ["x86-64-v2", "x86-64-v3"])
@pytest.mark.skipif("x86_64" not in host.host().triple, reason="runs code for x86-64")
def test_code_for_lesser_machines_is_as_accurate(dtype, target):
    function = ufunc.create(
        name="lesser",
        nin=1,
        doc="",
        types="efd",
        choose=functools.partial(engine.choose_dtype, keeps_integers=False),
        make_loop=functools.partial(engine.rows_address, SOFTMAX.steps, target=TARGETS[target]),
        signature="(n)->(n)",
    )
    for length in (3, 20, 100, 2100):
        x = rows(dtype, max(1, 400 // length), length)
        assert max(errors(x, function(x))) <= SOFTMAX.ulp[dtype.name]
    x = np.full((1, 40), 1493.0 if dtype.itemsize == 8 else 211.0).astype(dtype)
    x[0, :20] = np.linspace(700 if dtype.itemsize == 8 else 150, float(x[0, 30]), 20)
    assert max(errors(x, function(x))) <= SOFTMAX.ulp[dtype.name]


def test_nan_has_one_pattern(dtype):
    assert is_nan(fastact.softmax(np.array([np.nan, 1], dtype))).all()


@pytest.mark.skipif(platform.system() != "Linux", reason="the sizes of stacks are those of Linux")
def test_a_thread_with_a_small_stack():
    code = """
import threading
import numpy as np
import fastact
rows = [np.ones(shape, t) for t in "fd" for shape in
        [(40, 20), (3, 128), (4, 1000), (1, 8000), (1, 10_000)]]
for x in rows:
    fastact.softmax(x)
def run():
    for x in rows:
        fastact.softmax(x)
    print("done")
try:
    threading.stack_size(48 * 1024)
except ValueError:  # the system requires more, as on aarch64
    threading.stack_size(128 * 1024)
thread = threading.Thread(target=run)
thread.start()
thread.join()
"""
    assert run_python(code) == "done\n"
