"""Calls neither read nor change the caller's floating-point environment; threads may race."""

import functools
import itertools
import json
import os
import platform
import signal

import ml_dtypes
import numpy as np
import pytest
from conftest import FLOATS, assert_same, bits, is_nan, nans, run_python, sample
from kinds import TYPICAL, of_each_kind
from registers import REGISTERS, STATES, needs_registers

import fastact
from fastact._declarations.records import DERIVATIVES, OBJECTIVES, ROW_ACTIVATIONS, element_wise
from fastact._machine.formats import FORMATS, INTEGERS
from fastact._runtime import convert, engine

pytestmark = pytest.mark.functional

LENGTHS = [1, 7, 67, 600]


def hard(declared, dtype, length, turn=0):
    """Return operands whose intermediate results may overflow, underflow, be subnormal or NaN."""
    info = ml_dtypes.finfo(dtype)
    tiny, normal, big = (
        float(v) for v in (info.smallest_subnormal, info.smallest_normal, info.max)
    )
    limits = [0, tiny, 3 * tiny, normal - tiny, normal, 1, 9, 17, 88, 104, 709, 746, big / 2, big]
    values = np.array([*limits, np.inf])
    pool = np.concatenate([np.concatenate([values, -values]).astype(dtype), nans(dtype)])
    return [np.resize(np.roll(pool, turn + 11 * k), length) for k in range(declared.nin)]


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("step", [1, 2])
def test_no_floating_point_error(activation, ufunc, dtype, length, step):
    for turn in range(40 if length == 1 else 1):
        x = [v[::step] for v in hard(activation, dtype, length * step, turn)]
        with np.errstate(all="raise"):
            y = ufunc(*x)
        assert is_nan(y[is_nan(x[0])]).all()


@pytest.fixture(scope="module")
def registers():
    return REGISTERS[platform.machine()]


@needs_registers
def test_registers_can_be_set(registers):
    """Otherwise the tests below would pass because nothing was set."""
    one, little, tiny = np.ones(4), np.full(4, 1e-20), np.full(4, 5e-324)
    low, high, flushed = np.empty((3, 4))
    with registers.set(registers.value("down")):
        np.subtract(one, little, out=low)
    with registers.set(registers.value("up")):
        np.add(one, little, out=high)
    with registers.set(registers.value("flushing")):
        np.multiply(tiny, one, out=flushed)
    assert (low < 1).all() and (high > 1).all() and not flushed.view(np.uint64).any()
    with registers.set(registers.value("as usual")):
        before = registers.read()
        np.add(one, little, out=high)
        after = registers.read()
    assert after != before
    assert (after ^ before) & ~registers.flags == 0


@needs_registers
@pytest.mark.parametrize("state", STATES)
def test_registers_neither_matter_nor_change(activation, ufunc, dtype, registers, state):
    wanted = registers.value(state)
    for length in LENGTHS:
        for step in (1, 2):
            x = [v[::step] for v in hard(activation, dtype, length * step)]
            expected, out = ufunc(*x), np.zeros(length * step, dtype)[::step]
            with registers.set(wanted):
                before = registers.read()
                ufunc(*x, out=out)
                after = registers.read()
            assert before == wanted
            assert after == before
            assert_same(out, expected)


@needs_registers
@pytest.mark.parametrize("code", np.typecodes["AllInteger"])
def test_registers_and_integers(activation, ufunc, registers, code):
    """Neither conversion from integers nor arithmetic with them uses the registers."""
    x = [np.arange(600).astype(code)] * ufunc.nin
    kept = activation.keeps_integers
    expected, out = ufunc(*x), np.zeros(600, code if kept else np.float64)
    wanted = registers.value("up")
    with registers.set(wanted):
        ufunc(*x, out=out)
        after = registers.read()
    assert after == wanted
    assert_same(out, expected)


@needs_registers
@pytest.mark.parametrize(
    "state", ["all at once", pytest.param("towards zero", marks=pytest.mark.exhaustive)]
)
def test_registers_at_first_use(activation, ufunc, fresh, monkeypatch, registers, state):
    """A kernel that is compiled in that state has the same constants, too."""
    monkeypatch.setattr(engine, "loop_address", engine.loop_address.__wrapped__)
    monkeypatch.setenv("FASTACT_CACHE", "0")
    new = fresh(activation)
    x = hard(activation, np.dtype(np.float64), 600)
    with registers.set(registers.value(state)):
        y = new(*x)
    assert_same(y, ufunc(*x))


def layer_operands(dtype, shape=(5, 6, 37)):
    """Return x, W and b whose products overflow, underflow, are subnormal or need rounding."""
    rng = np.random.default_rng(3)
    m, k, n = shape
    info = ml_dtypes.finfo(dtype)
    special = np.array([float(info.smallest_subnormal), float(info.smallest_normal), 1e-3, 1, 3])
    special = np.concatenate([special, -special, [float(info.max), np.inf, np.nan]])

    def draw(*size):
        some = rng.standard_normal(size)
        return np.where(rng.random(size) < 0.3, rng.choice(special, size), some).astype(dtype)

    return draw(m, k), draw(k, n), draw(n)


layer_dtype = pytest.mark.parametrize("layer_dtype", [np.float32, np.float64])


@layer_dtype
def test_layers_raise_no_floating_point_error(layer_dtype):
    x, W, b = layer_operands(layer_dtype)
    with np.errstate(all="raise"):
        for name in ("identity", "sigmoid"):
            y = fastact.dense(x, W, b, name)
            assert_same(fastact.Dense(W, b, name)(x), y)
            fastact.dense(x[::-1, ::-1], np.asfortranarray(W), b, name)
            fastact.Gated(W, W, name, b)(x)


@needs_registers
@layer_dtype
@pytest.mark.parametrize("state", STATES)
def test_registers_and_layers(layer_dtype, registers, state):
    wanted = registers.value(state)
    for rows in (1, 5, 40):
        x, W, b = layer_operands(layer_dtype, (rows, 6, 37))
        for name in ("identity", "sigmoid"):
            layer = fastact.Dense(W, b, name)
            expected, out, packed = layer(x), *np.zeros((2, rows, 37), layer_dtype)
            assert not is_nan(expected).all() and is_nan(expected).any()
            with registers.set(wanted):
                before = registers.read()
                fastact.dense(x, W, b, name, out=out)
                layer(x, out=packed)
                after = registers.read()
            assert before == wanted
            assert after == before
            assert_same(out, expected)
            assert_same(packed, expected)


@needs_registers
@layer_dtype
@pytest.mark.parametrize("state", STATES)
def test_registers_and_gated_layers(layer_dtype, registers, state):
    wanted = registers.value(state)
    x, W, b = layer_operands(layer_dtype, (5, 6, 37))
    for name in ("identity", "silu", "tanh"):
        layer = fastact.Gated(W, W[::-1], name, b)
        expected, out = layer(x), np.zeros((5, 37), layer_dtype)
        assert not is_nan(expected).all() and is_nan(expected).any()
        with registers.set(wanted):
            layer(x, out=out)
            after = registers.read()
        assert after == wanted
        assert_same(out, expected)


# Layers that convert operands or results.

TYPES = [np.dtype("?"), *map(np.dtype, INTEGERS), *FLOATS]
SWAPPED = [np.dtype(code).newbyteorder() for code in "efdhq"]
OUTPUTS = [*FLOATS, *SWAPPED[:3], np.dtype(np.complex64)]


def hard_to_convert(dtype, shape, seed=5):
    """Return values that are rounded, subnormal, too large or NaN in another type."""
    rng = np.random.default_rng(seed)
    if dtype.kind == "b":
        return rng.random(shape) < 0.5
    if dtype.kind in "iu":
        limits, native = np.iinfo(dtype), dtype.newbyteorder("=")
        drawn = rng.integers(limits.min, limits.max, shape, native, endpoint=True)
        return (drawn >> rng.integers(0, limits.bits, shape, native)).astype(dtype)
    limits, native = ml_dtypes.finfo(dtype), dtype.newbyteorder("=")
    tiny, normal = float(limits.smallest_subnormal), float(limits.smallest_normal)
    rare = np.array([tiny, -tiny, normal, -normal, 1e-41, 1 / 3, 1e-3, 1e5, float(limits.max), 0])
    drawn = np.where(rng.random(shape) < 0.5, rng.choice(rare, shape), rng.normal(size=shape))
    drawn = drawn.astype(native)
    drawn.flat[-1] = nans(native)[0]  # a signalling NaN
    return drawn.astype(dtype) if dtype != native else drawn


def layers_that_convert():
    """Yield x, W and the type of out for all combinations of types that a layer accepts."""
    for x_type, W_type in itertools.product([*TYPES, *SWAPPED], TYPES):
        try:
            common = np.result_type(x_type, W_type)
        except TypeError:
            assert "bfloat16" in {x_type.name, W_type.name}  # no common type
            continue
        common = common if common.name in FORMATS and common.kind not in "iu" else np.dtype("d")
        with np.errstate(all="ignore"):
            x, W = hard_to_convert(x_type, (9, 5)), hard_to_convert(W_type, (5, 3), seed=6)
        for out_type in OUTPUTS:
            if np.can_cast(common, out_type, "same_kind"):
                yield x, W, out_type


@needs_registers
@pytest.mark.parametrize("state", STATES)
def test_registers_and_layers_that_convert(registers, state):
    wanted = registers.value(state)
    wrong, count = [], 0
    for x, W, out_type in layers_that_convert():
        layer = fastact.Dense(W, W[0])
        functions = {
            "dense": functools.partial(fastact.dense, x, W, W[0]),
            "Dense": functools.partial(layer, x),
            "Sequential": functools.partial(fastact.Sequential([layer, "softplus"]), x),
        }
        for name, function in functions.items():
            expected, out = np.zeros((2, 9, 3), out_type)
            with np.errstate(all="raise"):
                function(out=expected)
            with registers.set(wanted):
                function(out=out)
                after = registers.read()
            count += 1
            if after != wanted or out.tobytes() != expected.tobytes():
                wrong.append(f"{name}({x.dtype}, {W.dtype}, {out_type}): {after ^ wanted:#x}")
    assert count > 2000
    assert not wrong, (len(wrong), wrong[:20])


@needs_registers
@pytest.mark.parametrize("state", STATES)
def test_registers_and_weights(registers, state):
    """It makes no difference if a layer is built and read in another environment."""
    wanted = registers.value(state)
    for W_type in TYPES:
        W = hard_to_convert(W_type, (5, 3)) if W_type.kind in "biu" else quiet(W_type, (5, 3))
        for x_type in FLOATS:
            if "bfloat16" in {W_type.name, x_type.name} and W_type != x_type:
                continue  # not all pairs have a common type
            x = np.linspace(-2, 2, 10).reshape(2, 5).astype(x_type)
            layer = fastact.Dense(W, W[0])
            expected = layer(x), layer.W, layer.b
            with registers.set(wanted):
                other = fastact.Dense(W, W[0])
                found = other(x), other.W, other.b
                after = registers.read()
            assert after == wanted
            for one, another in zip(found, expected, strict=True):
                assert_same(one, another)


def quiet(dtype, shape):
    values = hard_to_convert(dtype, shape)
    return np.where(is_nan(values), np.ones((), dtype), values)


TOLD_BY_OUTPUT = of_each_kind(
    {name: declared for name, declared in DERIVATIVES.items() if declared.output_tells}
)


@needs_registers
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", [*TOLD_BY_OUTPUT, *ROW_ACTIVATIONS, "identity"])
def test_registers_and_backward_functions(name, dtype, registers, state):
    wanted = registers.value(state)
    x, W, b = layer_operands(dtype)
    x, W = (np.where(is_nan(v) | np.isinf(v), np.ones((), dtype), v) for v in (x, W))
    y = fastact.dense(x, W, b, name)
    y = np.where(is_nan(y), np.ones((), dtype), y)
    y[0, :4] = ml_dtypes.finfo(dtype).smallest_subnormal
    g = np.resize(hard_to_convert(dtype, (37,)), y.shape)[::-1, ::-1]
    types = [dtype, *(other for other in FLOATS[2:] if other != dtype)]
    with np.errstate(all="ignore"):
        gradients = [g.astype(t) for t in types]
    calls = [functools.partial(fastact.dense_backward, g, x, W, y, name) for g in gradients]
    if name in ROW_ACTIVATIONS:
        function = getattr(fastact, f"{name}_backward")
        calls += [functools.partial(function, g, y) for g in gradients]
    for call in calls:
        with np.errstate(all="raise"):
            expected = call()
        with registers.set(wanted):
            found = call()
            after = registers.read()
        assert after == wanted
        expected, found = (v if isinstance(v, tuple) else (v,) for v in (expected, found))
        for one, another in zip(found, expected, strict=True):
            assert_same(one, another)


# Inputs of several types.


def inputs_of_several_types(function):
    """Yield inputs that are not all of the type of the computation, and this type.

    One function gets all pairs of types, since the code that converts is the same for all; others
    get each type together with float64 and float32.
    """
    kinds = [*TYPES, *SWAPPED]
    if function.nin == 1:
        choices = [(kind,) for kind in kinds if kind not in FLOATS]
    elif function is fastact.heaviside:
        choices = itertools.product(kinds, kinds)
    else:
        wide = FLOATS[2:]
        choices = [*itertools.product(kinds, wide), *itertools.product(wide, kinds)]
    for types in choices:
        if len(set(types)) == 1 and types[0] in FLOATS:
            continue
        try:
            common = np.result_type(*types)
        except TypeError:
            assert FLOATS[1] in types
            continue
        common = common if common in FLOATS else np.dtype(np.float64)
        with np.errstate(all="ignore"):
            yield [hard_to_convert(t, (3, 700), k) for k, t in enumerate(types)], common


FUNCTIONS = [*TYPICAL, *OBJECTIVES, *ROW_ACTIVATIONS]


@needs_registers
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_registers_and_inputs_of_several_types(name, registers, state):
    function = getattr(fastact, name)
    wanted = registers.value(state)
    # NumPy itself clears the flags before the loop of a generalized ufunc.
    flags = registers.flags if function.signature else 0
    wrong, count = [], 0
    for x, dtype in inputs_of_several_types(function):
        if getattr(element_wise().get(name), "keeps_integers", False) and x[0].dtype.kind in "iu":
            continue
        native = [v.astype(v.dtype.newbyteorder("="), copy=False) for v in x]
        expected = function(*(convert.converted(v, dtype) for v in native))
        expected = expected if function.nout > 1 else (expected,)
        assert expected[0].dtype == dtype
        for step in (1, 2):
            out = tuple(np.zeros((3, 700 * step), dtype)[:, ::step] for _ in expected)
            with np.errstate(all="raise"):
                function(*x, out=out)
            with registers.set(wanted):
                function(*x, out=out)
                after = registers.read()
            count += 1
            same = all(np.array_equal(bits(v), bits(w)) for v, w in zip(out, expected, strict=True))
            if (after ^ wanted) & ~flags or not same:
                wrong.append(f"{[str(v.dtype) for v in x]}: {after ^ wanted:#x}, {same}")
    assert count
    assert not wrong, (len(wrong), count, wrong[:20])


@needs_registers
@pytest.mark.parametrize("state", STATES)
def test_registers_and_numbers_beside_arrays(binary, registers, state):
    """NumPy passes its scalars as arrays of one element."""
    wanted = registers.value(state)
    x = np.linspace(-1, 1, 700, dtype=np.float32)
    for number in (np.float64(1 / 3), np.float64(1e-310), np.int64(2**53 + 1), np.uint8(3)):
        for operands in ((x, number), (number, x), (x[::2], number), (x[:3], number)):
            dtype = np.result_type(*operands)
            if dtype.kind in "iu":
                dtype = np.dtype(np.float64)
            expected = binary(*(np.asarray(v).astype(dtype) for v in operands))
            out = np.empty_like(expected)
            with registers.set(wanted):
                binary(*operands, out=out)
                after = registers.read()
            assert after == wanted
            assert_same(out, expected)


@needs_registers
def test_registers_and_rows_of_long_integers(registers):
    x, out = np.array([2**53 + 1, 2**53]), np.zeros(2)
    with registers.set(registers.value("up")):
        fastact.softmax(x, out=out)
    assert_same(out, np.full(2, 0.5))


CAST_BY_NUMPY = {
    "out": lambda unary, binary, large, few: unary(large, out=few),
    "dtype": lambda unary, binary, large, few: unary(large, dtype=few.dtype),
    "signature": lambda unary, binary, large, few: unary(large, signature="f->f"),
    "number of Python's": lambda unary, binary, large, few: binary(few, 1e300),
    "reduction": lambda unary, binary, large, few: binary.reduce(large, dtype=few.dtype),
}


@pytest.mark.parametrize("kind", CAST_BY_NUMPY)
@pytest.mark.parametrize(
    "functions", [(np.positive, np.maximum), (fastact.relu, fastact.heaviside)], ids=str
)
def test_what_numpy_casts_is_cast_as_for_any_ufunc(kind, functions):
    """Casts by NumPy warn, as the docstrings say."""
    with pytest.warns(RuntimeWarning, match="overflow encountered in"):
        CAST_BY_NUMPY[kind](*functions, np.full(3, 1e300), np.ones(3, np.float32))


def call_with_traps():
    """Run in a separate process, which the first floating-point exception ends."""
    registers = REGISTERS[platform.machine()]
    unmasked = registers.value("as usual") & ~registers.masks
    for declared in element_wise().values():
        for dtype in map(np.dtype, (np.float16, np.float32, np.float64)):
            x = hard(declared, dtype, 600)
            out = tuple(np.empty(600, dtype) for _ in declared.results)
            function = getattr(fastact, declared.name)
            function(*x, out=out)
            with registers.set(unmasked):
                function(*x, out=out)
    for dtype in (np.float32, np.float64):
        x, W, b = layer_operands(dtype)
        layer = fastact.Dense(W, b, "sigmoid")
        out = fastact.dense(x, W, b, "sigmoid")
        with registers.set(unmasked):
            fastact.dense(x, W, b, "sigmoid", out=out)
            layer(x, out=out)
        gated = fastact.Gated(W, W, "silu", b)
        gated(x, out=out)
        with registers.set(unmasked):
            gated(x, out=out)
    print("alive", flush=True)
    with registers.set(unmasked):
        np.divide(np.ones(1), np.zeros(1), out=np.empty(1))


@needs_registers
@pytest.mark.skipif(platform.machine() != "x86_64", reason="aarch64 need not have traps")
@pytest.mark.skipif("EMULATED_PYTHON" in os.environ, reason="the emulator has no traps")
def test_no_trap_is_triggered():
    """A host program or a debugger may have unmasked floating-point exceptions."""
    code = f"import runpy; runpy.run_path({__file__!r})['call_with_traps']()"
    # NumPy's division, after the calls, shows that the traps were set.
    assert run_python(code, returncode=-signal.SIGFPE) == "alive\n"


# Threads.

RACE = """
import json, sys, threading
import numpy as np
from conftest import sample
from kinds import TYPICAL
import fastact

sys.setswitchinterval(1e-6)
THREADS = 8
results = [{} for _ in range(THREADS)]
start = threading.Barrier(THREADS)

def work(k):
    jobs = [(declared, code) for code in "fdih" for declared in TYPICAL.values()]
    jobs = jobs[5 * k :] + jobs[: 5 * k] if k % 2 else jobs
    start.wait()
    for declared, code in jobs:
        function = getattr(fastact, declared.name)
        x = [np.nan_to_num(v) for v in sample(declared, "f", 70)]
        try:
            refused = function(*(v.astype(complex) for v in x))
        except TypeError as error:
            refused = str(error)
        y = function(*(v.clip(-100, 100).astype(code) for v in x))
        results[k][f"{declared.name} {code}"] = y.dtype.char, y.tobytes().hex(), refused

threads = [threading.Thread(target=work, args=(k,)) for k in range(THREADS)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps(results))
"""


def test_threads_at_first_use():
    """Threads need the same loops, and others, while these are being compiled."""
    threads = json.loads(run_python(RACE, FASTACT_CACHE="0"))
    assert len(threads) == 8
    for results in threads:
        assert len(results) == 4 * len(TYPICAL)
        for job, (char, digits, refused) in results.items():
            name, code = job.split()
            declared, function = element_wise()[name], getattr(fastact, name)
            x = [np.nan_to_num(v).clip(-100, 100) for v in sample(declared, "f", 70)]
            expected = function(*(v.astype(code) for v in x))
            assert (char, digits) == (expected.dtype.char, expected.tobytes().hex())
            assert f"'{name}'" in refused
