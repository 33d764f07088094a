"""layer_norm and rms_norm: their values, the independence of rows, and their behaviour."""

import itertools
import platform
import re

import gmpy2
import numpy as np
import pytest
from assembly import CALL, POINTER, SCALAR, TARGETS, every_target
from conftest import FLOATS, assert_same, is_nan
from numpy.lib.stride_tricks import as_strided
from registers import REGISTERS, STATES, needs_registers

import fastact as fa
from bench import machine_code
from bench.accuracy import PRECISION
from fastact._compiler import pipeline
from fastact._compiler.loops import normalization as loops
from fastact._declarations.records import NORMALIZATIONS
from fastact._kernels.normalization_steps import steps_for
from fastact._machine.formats import FORMATS
from fastact._parallel import helpers, pool

pytestmark = pytest.mark.functional

each = pytest.mark.parametrize("name", NORMALIZATIONS)

ONE = gmpy2.mpfr(1)  # ONE * x takes 0.3 us, mpfr(x) 3 us

# Around the lengths that fill all lanes, and a chunk.
LENGTHS = [1, 2, 7, 31, 32, 33, 129, 1024, 1025]


def operands(name, dtype, shape, seed=0, eps=1e-5):
    """The input, and the other operands for all rows."""
    rng = np.random.default_rng([seed, *shape])
    x = rng.choice([0.0, 3.0, -40.0], (shape[0], 1)) + 4 * rng.standard_normal(shape)
    columns = [rng.standard_normal(shape[1]) for _ in NORMALIZATIONS[name].columns]
    return [v.astype(dtype) for v in (x, *columns, np.array(eps))]


def exact(name, x, weight, *others):
    """The results, and the largest terms that a result was computed from, in 200 bits."""
    *bias, eps = others
    results, errors = [], []
    with gmpy2.context(precision=200, emin=-50_000, emax=50_000):
        numbers = lambda v: [ONE * float(e) for e in v]  # noqa: E731
        eps, weight = ONE * float(eps), numbers(weight)
        summands = numbers(bias[0]) if bias else [gmpy2.mpfr(0)] * len(weight)
        for row in map(numbers, x):
            mean = gmpy2.fsum(row) / len(row) if name == "layer_norm" else gmpy2.mpfr(0)
            d = [v - mean for v in row]
            deviation = gmpy2.sqrt(gmpy2.fsum([v * v for v in d]) / len(d) + eps)
            columns = list(zip(d, weight, summands, strict=True))
            results.append([v / deviation * w + b for v, w, b in columns])
            largest = max(map(abs, row)) if name == "layer_norm" else 0
            errors.append([largest / deviation * abs(w) + abs(b) for _, w, b in columns])
    return np.array(results), np.array(errors)


def worst(found, name, given):
    """The largest error in ulp, beyond what the mean and the bias cost where they cancel."""
    results, terms = exact(name, *given)
    significand, lowest = PRECISION[found.dtype.name]
    cancelled = 2.0**-100 if found.dtype == np.float64 else 2.0**-48
    largest = 0.0
    assert np.isfinite(found.astype(float)).all()
    with gmpy2.context(precision=200, emin=-50_000, emax=50_000):
        for y, result, term in zip(found.ravel(), results.ravel(), terms.ravel(), strict=True):
            exponent = max(gmpy2.get_exp(result) - 1, lowest) if result else lowest
            error = max(abs(float(y) - result) - term * cancelled, 0)
            largest = max(largest, float(gmpy2.mul_2exp(error, significand - 1)
                                         / gmpy2.exp2(exponent)))  # fmt: skip
    return largest


@each
@pytest.mark.parametrize("length", LENGTHS)
def test_accuracy(name, dtype, length):
    x, *others = operands(name, dtype, (2, length))
    found = getattr(fa, name)(x, *others)
    assert worst(found, name, (x, *others)) <= NORMALIZATIONS[name].ulp[dtype.name]


@each
@pytest.mark.parametrize(
    ("mean", "deviation"), [(1e4, 1), (-3e4, 1e-2), (1.0, 1e-7), (0.1, 0), (7e-3, 1e-3)]
)
@pytest.mark.parametrize("length", [3, 33, 200])
def test_a_mean_beyond_the_deviation(name, dtype, mean, deviation, length):
    x, *others = operands(name, dtype, (3, length))
    x = (mean + deviation * x.astype(float)).astype(dtype)
    found = getattr(fa, name)(x, *others)
    assert worst(found, name, (x, *others)) <= NORMALIZATIONS[name].ulp[dtype.name]


@pytest.mark.parametrize("length", [1, 3, 31, 100, 1000, 1025, 5000])
def test_equal_elements_have_no_deviation(dtype, length):
    for number in (0.1, -1234.5, 3e4, 6e-5):
        x, weight, bias, eps = operands("layer_norm", dtype, (3, length))
        x[...] = number
        assert_same(fa.layer_norm(x, weight, bias, eps), np.broadcast_to(bias, x.shape))
        assert not fa.layer_norm(x, weight, 0 * bias, eps).any()


@each
@pytest.mark.parametrize("scale", [2.0**-1060, 2.0**-700, 2.0**-450, 2.0**500, 2.0**1015])
@pytest.mark.parametrize("length", [5, 40])
def test_squares_beyond_the_exponents(name, scale, length):
    x, *others, _ = operands(name, np.float64, (3, length))
    x *= scale
    # The mean of subnormal numbers is one of them, unless there is no epsilon.
    for eps in (0.0, 1e-5, 2.0**-900, 1e300)[: 1 if scale < 2.0**-1000 else 4]:
        given = (x, *others, np.array(eps))
        if name == "layer_norm":
            given = (x, others[0], np.zeros(length), given[-1])
        found = getattr(fa, name)(*given)
        small = abs(found) < 2.0**-900  # twice rounded, or of elements that were
        found[small] = exact(name, *given)[0][small].astype(float)
        assert worst(found, name, given) <= 0.51


@each
@pytest.mark.parametrize("scale", [1e-44, 1e-30, 1e30, 1e36])
def test_squares_beyond_the_exponents_of_float32(name, scale):
    x, *others, _ = operands(name, np.float32, (3, 70))
    given = ((x * np.float64(scale)).astype("f"), *others, np.float32(0))
    assert worst(getattr(fa, name)(*given), name, given) <= 0.51


def test_a_million_elements():
    """The same one many times, so that all rounding errors have the same sign."""
    x = np.full((1, 1 << 20), 1.1, np.float32)
    one = np.ones(x.shape[1], np.float32)
    found = fa.rms_norm(x, one, np.float32(0))
    assert_same(found, np.ones_like(x))
    x[0, ::2] = -1.3
    given = np.array([[-1.3, 1.1]], np.float32), *np.float32([[1, 1], [0, 0]]), np.float32(0)
    results = exact("layer_norm", *given)[0].astype(float).astype(np.float32)
    found = fa.layer_norm(x, one, 0 * one, np.float32(0))
    assert_same(found, np.resize(results, x.shape))


@each
def test_special_values(name, dtype):
    declared = NORMALIZATIONS[name]
    for *given, result in declared.specials:
        expected = np.array(result).astype(dtype)
        found = getattr(fa, name)(*(np.array(v).astype(dtype) for v in given))
        assert found.dtype == dtype
        np.testing.assert_array_equal(found.astype(float), expected.astype(float))
        assert (np.signbit(found) == np.signbit(expected))[~is_nan(found)].all()
        with np.errstate(all="ignore"):
            wide = declared.reference(np, *map(np.array, given))
        number = ~np.isnan(result)
        np.testing.assert_allclose(wide[number], np.array(result)[number], rtol=1e-14)


@each
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rows_without_a_result_are_nan(name, dtype, bad):
    for length, place in itertools.product((1, 20, 40, 1100), (0, -1)):
        x, *others = operands(name, dtype, (5, length))
        good = getattr(fa, name)(x, *others)
        x[2, place] = bad
        found = getattr(fa, name)(x, *others)
        assert is_nan(found[2]).all()
        assert_same(np.delete(found, 2, 0), np.delete(good, 2, 0))


@each
@pytest.mark.parametrize("length", [1, 7, 32, 45, 1024, 1500])
def test_rows_depend_on_themselves_alone(name, dtype, length):
    """Also rows in groups of any size, at any place in them."""
    function = getattr(fa, name)
    x, *others = operands(name, dtype, (37, length))
    expected = np.concatenate([function(row[np.newaxis].copy(), *others) for row in x])
    for rows in (slice(None), slice(1, 17), slice(5, None, 3), slice(None, None, -1)):
        assert_same(function(x[rows], *others), expected[rows])
    assert_same(function(x[3], *others), expected[3])


@each
@pytest.mark.parametrize("length", [1, 5, 32, 77, 1024, 1300])
def test_any_layout(name, dtype, length):
    function = getattr(fa, name)
    x, *columns, eps = operands(name, dtype, (19, length))
    expected = function(x, *columns, eps)
    wide = np.repeat(x, 3, axis=1)
    for strided in (wide[:, ::3], wide[:, ::-3][:, ::-1], np.asfortranarray(x)):
        assert_same(function(strided, *columns, eps), expected)
    spaced = [np.repeat(v, 2)[::2] for v in columns]
    assert_same(function(x, *spaced, eps), expected)
    turned = [v[::-1].copy()[::-1] for v in columns]
    assert_same(function(x, *turned, eps), expected)
    out = np.zeros((19, 2 * length), dtype)
    function(x, *columns, eps, out=out[:, ::2])
    assert_same(out[:, ::2], expected)
    assert not out[:, 1::2].any()
    out = np.zeros((length, 19), dtype).T
    assert_same(function(x, *columns, eps, out=out), expected)
    raw = np.zeros(x.nbytes + 1, np.uint8)[1:].view(dtype).reshape(x.shape)
    raw[...] = x
    assert_same(function(raw, *columns, eps), expected)
    # One number for all columns.
    ones = [np.broadcast_to(v[0], length) for v in columns]
    assert_same(function(x, *ones, eps), function(x, *map(np.array, ones), eps))


@each
@pytest.mark.parametrize("length", [6, 40, 1100])
def test_rows_with_operands_of_their_own(name, dtype, length):
    function = getattr(fa, name)
    x, *columns, _ = operands(name, dtype, (9, length))
    own = [np.stack([v * dtype.type(1 + k) for k in range(9)]) for v in columns]
    eps = np.linspace(0.1, 2, 9).astype(dtype)
    expected = np.stack([function(*row) for row in zip(x, *own, eps, strict=True)])
    assert_same(function(x, *own, eps), expected)
    for k in range(len(columns)):  # one of them alone
        given = [v if j == k else v[0] for j, v in enumerate(own)]
        every = [np.broadcast_to(v, x.shape) for v in given]
        alone = np.stack([function(*row) for row in zip(x, *every, eps, strict=True)])
        assert_same(function(x, *given, eps), alone)
    # One row of x, broadcast.
    alone = np.stack([function(x[0], *row) for row in zip(*own, eps, strict=True)])
    assert_same(function(x[0], *own, eps), alone)


@each
def test_axis(name):
    function = getattr(fa, name)
    x, *columns, eps = operands(name, np.float32, (6, 5))
    expected = function(x, *columns, eps)
    assert_same(function(x.T, *columns, eps, axis=0), expected.T)
    cube = np.stack([x, 2 * x], axis=-1)  # rows lie along the axis 1
    axes = [1, *[0] * len(columns), (), 1]
    found = function(cube, *columns, eps, axes=axes)
    assert_same(found[..., 0], expected)


@each
def test_in_place_and_overlapping_operands(name, dtype):
    function = getattr(fa, name)
    for shape in ((1, 5), (20, 33), (5, 1200)):
        given = operands(name, dtype, shape)
        expected = function(*given)
        x = given[0].copy()
        function(x, *given[1:], out=x)
        assert_same(x, expected)
        # Rows of one array: the input starts in the output, and the weight is one of its rows.
        both = np.zeros((shape[0] + 1, shape[1]), dtype)
        both[:-1] = given[0]
        function(both[:-1], *given[1:], out=both[1:])
        assert_same(both[1:], expected)
        both[:-1], both[-1] = given[0], given[1]
        function(both[:-1], both[-1], *given[2:], out=both[1:])
        assert_same(both[1:], expected)


@pytest.fixture
def sharing(monkeypatch):
    """Threads share even the least work."""
    pool._reset()
    monkeypatch.setenv("FASTACT_THREADING_LAYER", "fastact")
    pool.start()
    monkeypatch.setattr(helpers.team(), "worth_waking", 0)
    pool._fields.share = 1
    yield
    pool._reset()


@each
def test_rows_of_the_output_in_one_place(name, sharing):
    x, *others = operands(name, np.float64, (3000, 40))
    out = np.zeros(40)
    same = as_strided(out, x.shape, (0, 8))
    expected = getattr(fa, name)(x[-1], *others)
    for _ in range(10):
        with fa.num_threads(4):
            getattr(fa, name)(x, *others, out=same)
        assert_same(out, expected)


@each
@pytest.mark.parametrize("shape", [(1, 3000), (700, 9), (50, 600), (9, 3000)])
def test_threads(name, dtype, shape, sharing):
    given, function = operands(name, dtype, shape), getattr(fa, name)
    own = [np.tile(v, (shape[0], 1)) for v in given[1:-1]]
    eps = np.linspace(0.1, 1, shape[0]).astype(dtype)
    with fa.num_threads(1):
        expected = function(*given), function(given[0], *own, eps)
    for threads in (2, 3, 7):
        with fa.num_threads(threads):
            assert_same(function(*given), expected[0])
            assert_same(function(given[0], *own, eps), expected[1])


@needs_registers
@each
@pytest.mark.parametrize("state", STATES)
def test_registers_neither_matter_nor_change(name, state):
    registers = REGISTERS[platform.machine()]
    wanted = registers.value(state)
    for dtype, length in itertools.product(FLOATS, (5, 70)):
        given, function = operands(name, dtype, (3, length)), getattr(fa, name)
        expected, out = function(*given), np.zeros((3, length), dtype)
        with registers.set(wanted):
            function(*given, out=out)
            after = registers.read()
        assert_same(out, expected)
        # NumPy itself clears the flags before the loop of a generalized ufunc.
        assert (after ^ wanted) & ~registers.flags == 0


@each
@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 3), (0, 0)], ids=str)
def test_nothing(name, dtype, shape):
    columns = [np.ones(shape[-1], dtype) for _ in NORMALIZATIONS[name].columns]
    found = getattr(fa, name)(np.ones(shape, dtype), *columns, dtype.type(1))
    assert found.shape == shape and found.dtype == dtype


@each
def test_types(name):
    function, columns = getattr(fa, name), NORMALIZATIONS[name].columns
    x, ones = np.arange(12).reshape(3, 4), [np.ones(4, np.float32) for _ in columns]
    assert function(x.astype("f"), *ones, 1e-5).dtype == np.float32  # a Python number is weak
    assert function(x, *ones, 1e-5).dtype == np.float64
    assert function(x.astype("e"), *ones, 1e-5).dtype == np.float32
    assert_same(
        function(x, *[v.astype(int) for v in ones], 1), function(*map(np.float64, (x, *ones, 1)))
    )
    out = np.zeros((3, 4), np.float64)
    function(x.astype("f"), *ones, 1e-5, out=out)
    assert_same(out, function(x.astype("f"), *ones, 1e-5).astype(float))
    for code in "FgUOM":
        with pytest.raises(TypeError, match=name):
            function(np.zeros((3, 4), code), *ones, 1e-5)


@each
def test_misuse(name):
    function, declared = getattr(fa, name), NORMALIZATIONS[name]
    assert type(function) is np.ufunc and function.signature == declared.signature
    for part in (declared.summary, declared.formula, declared.notes, declared.invalid):
        assert part in function.__doc__
    x, *others = operands(name, np.float64, (3, 4))
    with pytest.raises(TypeError, match="positional arguments"):
        function(x)
    with pytest.raises(ValueError, match="mismatch in its core dimension"):
        function(x[:, :3], *others)
    with pytest.raises(ValueError, match="does not have enough dimensions"):
        function(x, 1.0, *others[1:])
    for k, argument in enumerate(("x", *declared.columns)):
        given = [x, *others]
        given[k] = np.ma.masked_array(given[k], np.zeros_like(given[k]) + np.arange(4) == 1)
        with pytest.raises(ValueError, match=f"{name}: {argument} must have no masked"):
            function(*given)


def assembly(name, form, target):
    steps = NORMALIZATIONS[name].steps
    scalars = loops.steps_ir(steps_for(steps, FORMATS[form].bits), steps.scheme, target)
    text = loops.normalization_ir(steps.scheme, scalars, FORMATS[form], target)
    return pipeline.assembly(text, scalars.values(), target)


@pytest.mark.parametrize("form", ["float32", "float64"])
@every_target
def test_code(form, target):
    """The loops over elements are vectors, and nothing outside is called."""
    text = assembly("layer_norm", form, TARGETS[target])
    own = set(re.findall(r"(?m)^(\w[\w.]*):", text))
    called = {match[2].removesuffix("@PLT") for match in CALL.finditer(text)}
    assert {c for c in called if not POINTER.match(c)} <= own
    for loop in ("add_elements", "add_squares", "normalize"):
        body = text[re.search(rf"(?m)^{loop}:", text).end() :].partition(".Lfunc_end")[0]
        inner_loops = [*machine_code.loops(body)]
        assert inner_loops
        for inner in inner_loops:
            assert not SCALAR[TARGETS[target].architecture].search(inner)
