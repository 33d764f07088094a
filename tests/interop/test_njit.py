"""The activations inside Numba's compiled functions: types, values, bits, and machine code."""

import functools
import itertools
import platform
import re
import sys
import textwrap
import tomllib

import numba
import numpy as np
import pytest
from conftest import ROOT, assert_same, bits, nans, run_python, sample
from kinds import IN_NUMBA, TYPICAL
from numba import prange, types
from numba.core.registry import cpu_target

import fastact
import fastact.numba  # if the package is installed, Numba's entry point does this
from fastact import sigmoid
from fastact._compiler import host
from fastact._kernels.vocabulary import variants_of

# Numba compiles for the processor that it finds, whatever FASTACT_CPU says. At lower levels, only
# the tests marked `functional` differ: they compare results with the ufuncs', or look for tables.
NUMBERS = [np.dtype(t) for t in (np.float32, np.float64)]
INTEGERS = [np.dtype(t) for t in "?bBhHiIlL"]
UNARY = [name for name, declared in TYPICAL.items() if declared.nin == 1]


NUMBAS_FEATURES = cpu_target.target_context.codegen().magic_tuple()[2]
# FASTACT_CPU applies to the ufuncs only: Numba compiles for the processor that it finds.
FUSED = platform.machine() not in ("x86_64", "AMD64") or (
    host.host().has_fma and "+fma" in NUMBAS_FEATURES
)
ULPS = 0 if FUSED else 2
"""The largest difference allowed between results; they have the same bits if both use fma."""


def assert_agree(actual, expected):
    """Assert the same type and shape, and the same bits or a difference of at most `ULPS`."""
    if FUSED:
        assert_same(actual, expected)
    assert actual.dtype == expected.dtype
    assert np.shape(actual) == np.shape(expected)
    bad = np.isnan(expected)
    assert_same(actual[bad], expected[bad])
    a, b = actual[~bad], expected[~bad]
    assert (np.signbit(a) == np.signbit(b)).all()
    kind = f"i{a.itemsize}"
    assert np.abs(a.view(kind) - b.view(kind)).max(initial=0) <= ULPS


@pytest.fixture(scope="session", params=IN_NUMBA.values(), ids=lambda declared: declared.name)
def activation(request):
    return request.param


@pytest.fixture(scope="session")
def ufunc(activation):
    """The public ufunc of `activation`.

    That of ``conftest.py`` would be kept with the last activation of another file's tests.
    """
    return getattr(fastact, activation.name)


@pytest.fixture(scope="session", params=NUMBERS, ids=str)
def number(request):
    return request.param


@functools.cache
def compiled(ufunc, fast=False):
    """Return a compiled loop that calls `ufunc` for each element of one-dimensional arrays."""
    options = {"fastmath": True, "error_model": "numpy"} if fast else {}
    nin, nout = ufunc.nin, ufunc.nout
    if nin == 1:

        @numba.njit(**options)
        def loop(x, y):
            for i in range(y.size):
                y[i] = ufunc(x[i])

        return loop

    elements = elements_of(nin)

    @numba.njit(**options)
    def loop(*arrays):
        for i in range(arrays[0].size):
            found = ufunc(*elements(arrays, i))
            if nout == 1:
                arrays[nin][i] = found
            else:
                for k in range(nout):
                    arrays[nin + k][i] = found[k]

    return loop


def elements_of(count):
    """Return a compiled function for the elements at an index of the first so many arrays."""
    if count == 0:
        return numba.njit(lambda arrays, i: ())
    others, last = elements_of(count - 1), count - 1
    return numba.njit(lambda arrays, i: (*others(arrays, i), arrays[last][i]))


def results_of(loop, ufunc, operands):
    """Return what `loop` writes, and the results of `ufunc`."""
    results = [np.empty_like(operands[0]) for _ in range(ufunc.nout)]
    loop(*operands, *results)
    return zip(results, as_tuple(ufunc(*operands)), strict=True)


def as_tuple(found):
    return found if isinstance(found, tuple) else (found,)


def called(ufunc):
    """Return a compiled function that calls `ufunc` with its arguments."""

    @numba.njit
    def call(*operands):
        return ufunc(*operands)

    return call


def patterns(declared, number, count=20_000):
    """Return random bit patterns, with subnormals, zeros, infinities and extremes; no NaN."""
    rng = np.random.default_rng(3)
    kind, largest = f"u{number.itemsize}", np.finfo(number).max
    tiny = np.finfo(number).smallest_subnormal
    rare = np.array([0.0, -0.0, np.inf, -np.inf, tiny, -tiny, largest, -largest], number)
    result = []
    for usual in sample(declared, number, (count,)):
        anything = rng.integers(np.iinfo(kind).max, size=count, dtype=kind, endpoint=True)
        subnormal = anything & (bits(np.array(np.finfo(number).tiny, number)) - 1)
        mixed = np.concatenate([usual, rare, *(a.view(number) for a in (anything, subnormal))])
        result.append(rng.permutation(np.where(np.isnan(mixed), number.type(0.5), mixed)))
    return result


# With fastmath first: if kernels inherited it, the test without it would show that, too.
@pytest.mark.functional
@pytest.mark.parametrize("fast", [True, False])
def test_same_bits_as_the_ufunc(activation, ufunc, number, fast):
    for result, wanted in results_of(compiled(ufunc, fast), ufunc, patterns(activation, number)):
        assert_agree(result, wanted)


@pytest.mark.functional
def test_nan_gives_that_nan(activation, ufunc, number):
    """Also after a call with fastmath, whose own results for NaN are not specified."""
    for length in (1, 7, 64, 100):
        bad = np.resize(nans(number), length)
        for operands in itertools.product([bad, np.ones_like(bad)], repeat=activation.nin):
            results_of(compiled(ufunc, True), ufunc, operands)
            for result, wanted in results_of(compiled(ufunc), ufunc, operands):
                assert_agree(result, wanted)


@pytest.mark.parametrize("kind", NUMBERS + INTEGERS, ids=str)
def test_scalars_and_arrays_have_the_type_of_the_ufunc(kind):
    @numba.njit
    def call(x, y):
        return (fastact.relu(x), fastact.step(x), fastact.heaviside(x, y))

    x = np.array([[0, 1, 3], [5, 7, 1]]).astype(kind)
    expected = fastact.relu(x), fastact.step(x), fastact.heaviside(x, x)
    for result, wanted in zip(call(x, x), expected, strict=True):
        assert_same(result, wanted)
    call(x[0, 1], x[0, 1])  # Numba returns Python numbers, so compare inferred types
    inferred = call.nopython_signatures[-1].return_type
    assert [*inferred] == [numba.from_dtype(wanted.dtype) for wanted in expected]


def test_integers(ufunc):
    call = called(ufunc)
    x = np.arange(-4, 5, dtype=np.int8).reshape(3, 3)
    for operands in ([x] * ufunc.nin, [True] * ufunc.nin):
        pair = as_tuple(call(*operands)), as_tuple(ufunc(*operands))
        for result, wanted in zip(*pair, strict=True):
            assert_agree(np.asarray(result), np.asarray(wanted))


@pytest.mark.parametrize("view", [np.s_[::2, ::-1], np.s_[:0], np.s_[1], np.s_[...]], ids=str)
def test_layouts(view):
    x = np.linspace(-5, 5, 24).reshape(4, 6)
    for array in (x[view], x.T[view], np.broadcast_to(x[0], (4, 6))[view]):
        assert_same(CALL_SIGMOID(array), fastact.sigmoid(array))


@pytest.mark.parametrize("kinds", ["fd", "hf", "Qf", "hd", "ff"])
def test_two_operands_are_broadcast_and_promoted_as_by_numpy(kinds):
    for shapes in [((3, 1), (1, 2)), ((1, 3), (2, 1)), ((1, 3), (0, 1))]:
        pairs = zip(shapes, kinds, strict=True)
        x, value = (np.arange(np.prod(s)).reshape(s).astype(k) for s, k in pairs)
        assert_same(CALL_HEAVISIDE(x, value), fastact.heaviside(x, value))
    with pytest.raises(ValueError, match="broadcast"):
        CALL_HEAVISIDE(np.zeros((2, 2), kinds[0]), np.zeros((3, 1), kinds[1]))


CALL_SIGMOID = called(sigmoid)
CALL_HEAVISIDE = called(fastact.heaviside)


@numba.njit
def positional(x, out):
    return fastact.sigmoid(x, out)


@numba.njit
def by_name(x, out):
    return fastact.sigmoid(x, out=out)


@pytest.mark.parametrize("call", [positional, by_name])
def test_out(call):
    x = np.linspace(-3, 3, 12).reshape(3, 4)
    y = np.full((2, 3, 4), 7.0, np.float32)
    assert call(x, y) is y
    assert_same(y, np.broadcast_to(fastact.sigmoid(x).astype(np.float32), y.shape))
    assert call(x, x) is x
    assert call(0.0, y[0]) is not None and (y[0] == 0.5).all()


@pytest.mark.parametrize("shape", [(4,), (2,), (0,), (3, 4)])
def test_out_of_another_shape_is_refused(shape):
    y = np.full(shape, 7.0)
    with pytest.raises(ValueError, match="out must have the shape"):
        positional(np.zeros(3), y)
    assert (y == 7).all()


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ((np.zeros(3), np.zeros((), np.float64)), "out must have at least 1 dimensions"),
        (
            (np.zeros(3), np.zeros(3, np.int64)),
            "out must be an array of float64 .* got an array of int64",
        ),
        ((1j, np.zeros(3)), "expected float32, float64, integers or bool, got complex128"),
        ((np.zeros(3, np.float16), np.zeros(3)), "expected float32, .*, got float16"),
        (("1", np.zeros(3)), "expected float32, float64, integers or bool, got unicode_type"),
    ],
)
def test_other_operands_are_refused(arguments, expected):
    with pytest.raises(numba.TypingError, match=expected):
        positional(*arguments)


@numba.njit
def with_dtype(x):
    return fastact.sigmoid(x, dtype=np.float32)


@numba.njit
def without_second(x, out):
    return fastact.heaviside(x, out=out)


# Functions of several results, as numpy.divmod is for Numba.

CALL_PRELU_BACKWARD = called(fastact.prelu_backward)
GRADIENT, INPUT = np.linspace(1, 2, 3)[:, None], np.linspace(-3, 3, 7)


@pytest.mark.parametrize("number", NUMBERS, ids=str)
def test_several_results_are_a_tuple(number):
    operands = GRADIENT.astype(number), INPUT.astype(number), number.type(0.25)
    results = CALL_PRELU_BACKWARD(*operands)
    for result, wanted in zip(results, fastact.prelu_backward(*operands), strict=True):
        assert_same(result, wanted)
    assert CALL_PRELU_BACKWARD(2.0, -1.5, 0.25) == (0.5, -3.0)


def test_outputs_by_position():
    expected = fastact.prelu_backward(GRADIENT, INPUT, 0.25)
    first, second = np.zeros((3, 7)), np.zeros((3, 7), np.float32)
    for outputs in ((), (first,), (first, second), (None, None), (first, None)):
        results = CALL_PRELU_BACKWARD(GRADIENT, INPUT, 0.25, *outputs)
        for result, wanted in zip(results, expected, strict=True):
            np.testing.assert_array_equal(result, wanted)
        assert all(r is o for r, o in zip(results, outputs, strict=False) if o is not None)
        first[:], second[:] = 0, 0


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ((3, 7), [(3, 7), (3, 1)]),
        ((3, 7), [(1, 7), (3, 7)]),
        ((1, 7), [(2, 7), (3, 7)]),
        ((1, 7), [(3, 7), (2, 7)]),
        ((1, 7), [(1, 7), (2, 7)]),
    ],
    ids=str,
)
def test_outputs_of_other_shapes_are_refused(inputs, outputs):
    results = [np.full(shape, 7.0) for shape in outputs]
    with pytest.raises(ValueError, match="out must have the shape"):
        CALL_PRELU_BACKWARD(np.ones(inputs), INPUT, 0.25, *results)
    assert all((result == 7).all() for result in results)


def test_other_outputs_are_refused():
    both = np.zeros((3, 7))
    for outputs, expected in [
        ((both[0], both), "out must have at least 2 dimensions"),
        ((both, both.astype(int)), "out must be an array of float64 .* got an array of int64"),
        ((None, both), "explicit output that is not an array"),
        ((both, both, both), "too many positional arguments"),
    ]:
        with pytest.raises(numba.TypingError, match=expected):
            CALL_PRELU_BACKWARD(GRADIENT, INPUT, 0.25, *outputs)
    by_name = numba.njit(lambda x, y: fastact.prelu_backward(x, x, x, out=(y, y)))
    with pytest.raises(numba.TypingError, match="unexpected keyword argument 'out'"):
        by_name(both, both)


@pytest.mark.parametrize("parallel", [False, True])
def test_objectives_in_array_expressions(parallel):
    @numba.njit(parallel=parallel)
    def newton(score, label):
        grad, hess = fastact.logistic_grad_hess(score, label)
        return score - grad / hess

    label = np.resize([0.0, 1.0], 7)
    grad, hess = fastact.logistic_grad_hess(INPUT, label)
    assert_agree(newton(INPUT, label), INPUT - grad / hess)


def test_other_arguments_are_refused():
    with pytest.raises(numba.TypingError, match="unexpected keyword argument 'dtype'"):
        with_dtype(np.zeros(3))
    with pytest.raises(numba.TypingError):
        without_second(np.zeros(3), np.zeros(3))


# Operands that may be None.

PRESENT = [True, np.int8(2), 3, np.float32(0.5), 0.25, np.array([0.5, 2.0]), np.ones((2, 1), "f")]


def perhaps(value):
    """Return a compiled function that returns `value` if its argument is true, else None."""
    return numba.njit(lambda there: value if there else None)


@functools.cache
def of_optional(ufunc):
    """Return compiled calls of `ufunc` in which the first, second or both operands may be None."""
    if ufunc.nin == 1:
        return [numba.njit(lambda get, there: ufunc(get(there)))]
    return [
        numba.njit(lambda get, there: ufunc(get(there), 0.5)),
        numba.njit(lambda get, there: ufunc(0.5, get(there))),
        numba.njit(lambda get, there: ufunc(get(there), get(there))),
    ]


@pytest.mark.parametrize("value", PRESENT, ids=lambda value: str(numba.typeof(value)))
@pytest.mark.parametrize("name", ["relu", "sigmoid", "heaviside", "tanh_backward"])
def test_optional_operands(name, value):
    ufunc, get, half = getattr(fastact, name), perhaps(value), np.float64(0.5)
    cases = [(value,)] if ufunc.nin == 1 else [(value, half), (half, value), (value, value)]
    for call, operands in zip(of_optional(ufunc), cases, strict=True):
        expected = np.asarray(ufunc(*map(np.asarray, operands)))
        assert_same(np.asarray(call(get, True), expected.dtype), expected)
        result = call.nopython_signatures[-1].return_type
        assert numba.from_dtype(expected.dtype) == getattr(result, "dtype", result)
        with pytest.raises(TypeError, match=r"expected .*, got None"):
            call(get, False)


def test_missing_keys_of_a_typed_dict():
    """The exception has the type and the message of NumPy's own function."""
    d = numba.typed.Dict.empty(types.unicode_type, types.float64)
    d["a"] = 0.5
    ours = numba.njit(lambda d, k: fastact.tanh(d.get(k)))
    theirs = numba.njit(lambda d, k: np.tanh(d.get(k)))
    assert ours(d, "a") == fastact.tanh(0.5)
    messages = []
    for call in (ours, theirs):
        with pytest.raises(TypeError) as caught:
            call(d, "b")
        messages.append(str(caught.value))
    assert messages[0] == messages[1] == "expected float64, got None"


def test_optional_in_a_signature():
    call = numba.njit("f4[:](optional(f4[:]), optional(f4))")(lambda x, y: fastact.heaviside(x, y))
    x = np.array([-1, 0, 1], "f")
    assert_same(call(x, 0.5), fastact.heaviside(x, np.float32(0.5)))
    for operands in ((None, 0.5), (x, None)):
        with pytest.raises(TypeError, match=r"expected .*float32.*, got None"):
            call(*operands)


@pytest.mark.parametrize("call", [positional, by_name])
def test_optional_out(call):
    x, y = np.linspace(-3, 3, 5), np.empty(5)
    d = numba.typed.Dict.empty(types.intp, types.float64[::1])
    d[0] = y
    given = numba.njit(lambda x, d, k: call(x, d.get(k)))
    counts = []
    for _ in range(3):
        assert_same(given(x, d, 0), fastact.sigmoid(x))
        assert_same(y, fastact.sigmoid(x))
        counts.append(sys.getrefcount(y))
    assert len(set(counts)) == 1
    with pytest.raises(TypeError, match=r"expected array.*, got None"):
        given(x, d, 1)


@pytest.mark.parametrize("call", [positional, by_name])
def test_no_out(call):
    """As outside compiled code, None stands for a new array."""
    default = numba.njit(lambda x, out=None: call(x, out))
    constant = numba.njit(lambda x: call(x, None))
    for x in (np.linspace(-3, 3, 5), np.zeros((2, 0), "f"), 0.5, 2):
        for result in (call(x, None), default(x), constant(x)):
            expected = np.asarray(fastact.sigmoid(x))
            assert_same(np.asarray(result), expected)


@numba.njit
def of_default(x=0.5, y=True):
    return fastact.heaviside(x, y), fastact.heaviside(0, 1), fastact.relu(-7)


def test_literals_and_defaults():
    assert of_default() == (1, 1, 0)
    assert of_default(0.0) == (1, 1, 0)
    assert numba.njit(lambda x: fastact.relu(numba.literally(x)))(3) == 3
    for nothing in (numba.njit(lambda: sigmoid(None)), numba.njit(lambda x=None: sigmoid(x))):
        with pytest.raises(numba.TypingError, match=r"sigmoid inside Numba: expected .*, got none"):
            nothing()


def test_array_expressions_and_parallel_loops():
    x = np.linspace(-5, 5, 1003)
    expected = fastact.sigmoid(x) * 2 + fastact.heaviside(x, 0.5)

    def expression(x):
        return fastact.sigmoid(x) * 2 + fastact.heaviside(x, 0.5)

    @numba.njit(parallel=True)
    def loop(x):
        y = np.empty_like(x)
        for i in prange(x.size):
            y[i] = sigmoid(x[i]) * 2 + fastact.heaviside(x[i], 0.5)
        return y

    for function in (numba.njit(expression), numba.njit(parallel=True)(expression), loop):
        assert_agree(function(x), expected)


def test_vectorize_guvectorize_and_stencil():
    x = np.linspace(-5, 5, 40)

    @numba.vectorize(["f4(f4)", "f8(f8)"], nopython=True)
    def silu(x):
        return x * sigmoid(x)

    @numba.guvectorize(["f8[:], f8[:]"], "(n)->(n)", nopython=True)
    def shifted(x, y):
        for i in range(x.size):
            y[i] = sigmoid(x[i] - x[0])

    @numba.stencil
    def smooth(a):
        return sigmoid(a[-1]) + sigmoid(a[1])

    assert_same(silu(x), x * sigmoid(x))
    assert_same(silu(x.astype("f")), x.astype("f") * sigmoid(x.astype("f")))
    assert_same(shifted(x.reshape(4, 10)), sigmoid(x.reshape(4, 10) - x.reshape(4, 10)[:, :1]))
    expected = np.zeros_like(x)
    expected[1:-1] = sigmoid(x[:-2]) + sigmoid(x[2:])
    assert_same(smooth(x), expected)
    assert_same(numba.njit(lambda x: smooth(x))(x), expected)


def hot_loop(assembly, packed):
    """Return the highest count of `packed` instructions in a basic block, and that block."""
    blocks = re.split(r"(?m)^[^\t\n].*:.*\n", assembly)
    return max(((len(re.findall(packed, block)), block) for block in blocks), key=lambda b: b[0])


@pytest.mark.functional
@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="reads the assembly of x86-64"
)
@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("name", UNARY)
def test_loops_of_users_are_vectorised(name, number, fast):
    loop = compiled(getattr(fastact, name), fast)
    loop(*[np.ones(100, number)] * 2)
    index = [s.args[0].dtype for s in loop.nopython_signatures].index(numba.from_dtype(number))
    assembly = loop.inspect_asm(loop.signatures[index])
    letter = {4: "s", 8: "d"}[number.itemsize]
    tables = number == np.float32 and variants_of(TYPICAL[name].kernel).tables
    if tables and host.host().lookup:
        variant, register = re.search(
            rf"\tmovabsq\t\$(fastact\w*_{name}\w*_16), (%\w+)", assembly
        ).groups()
        count, block = hot_loop(assembly, r"(?m)^\tvmovup\w\t.*%zmm")
        assert count >= 2
        assert {*re.findall(r"\tcall\w*\t(.*)", block)} == {f"*{register}"}
        vectors = assembly[assembly.index(f"\n{variant}:") :]
        vectors = vectors[: vectors.index("\tretq")]
        assert len(re.findall(r"(?m)^\tv\w+ps\t.*%zmm", vectors)) >= 15
        assert "call" not in vectors
    else:
        count, block = hot_loop(assembly, rf"(?m)^\tv\w+p{letter}\t.*%[yz]mm")
        assert count >= 2
        assert not re.search(rf"(?m)^\tv(add|sub|mul|div|max|min|fn?m\w+)s{letter}\t", block)
        assert "\tcall" not in block
    assert re.search(r"(?m)^\tj\w+\t", block)  # it is a loop


SECOND_PROCESS = """
import sys
sys.path.insert(0, {folder!r})
import numpy as np, fastact.numba, cached_by_users
x = np.linspace(-3, 3, 70, dtype="{dtype}")
result = cached_by_users.call(x)
hits = sum(cached_by_users.call.stats.cache_hits.values())
expected = 2 * fastact.sigmoid(x)
print(hits, np.allclose(result, expected, atol=0, rtol={ulps} * np.finfo(x.dtype).eps))
"""


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_functions_that_numba_keeps_on_disk(tmp_path, dtype):
    (tmp_path / "cached_by_users.py").write_text(
        textwrap.dedent(
            """
            import numba, numpy as np, fastact as fa
            @numba.njit(cache=True)
            def call(x):
                y = np.empty_like(x)
                for i in range(x.size):
                    y[i] = fa.sigmoid(x[i])
                return y + fa.sigmoid(x)
            """
        )
    )
    code = SECOND_PROCESS.format(folder=str(tmp_path), dtype=dtype, ulps=ULPS)
    assert run_python(code, NUMBA_CACHE_DIR=str(tmp_path)).split() == ["0", "True"]
    assert run_python(code, NUMBA_CACHE_DIR=str(tmp_path)).split() == ["1", "True"]


def entry_point(folder):
    """Write the metadata of an installed package with the entry points of this one."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    info = folder / "fastact-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fastact\nVersion: 0\n")
    lines = [
        line
        for group, entries in project["entry-points"].items()
        for line in [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]
    ]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


AS_INSTALLED = """
import sys
sys.path.insert(0, {folder!r})
import numba, numpy as np
from numba.extending import typeof_impl
asked = []

@typeof_impl.register(np.ufunc)  # as another extension may have done
def typeof_ufunc(ufunc, context):
    asked.append(ufunc)

assert numba.njit(lambda x: np.sin(x))(0.0) == 0
assert "_fastact_numba" in sys.modules
assert not [module for module in sys.modules if module.partition(".")[0] == "fastact"]
import fastact as fa
from fastact import softplus as renamed
assert numba.njit(lambda x: fa.sigmoid(x))(0.0) == 0.5
assert numba.njit(lambda x: renamed(x))(1000.0) == 1000
assert numba.njit(lambda x: np.cos(x))(0.0) == 1
assert np.cos in asked
try:
    numba.njit(lambda x: fa.softmax(x))(np.zeros(3))
except numba.TypingError as error:
    print(str(error).count("softmax") > 0)
"""


def test_entry_point_is_all_that_is_needed_and_imports_nothing(tmp_path):
    entry_point(tmp_path)
    assert run_python(AS_INSTALLED.format(folder=str(tmp_path))) == "True\n"


SPELLINGS = """
import numba, numpy as np, scipy.special
from scipy.special import expit, log_expit
before = numba.njit(lambda x: np.logaddexp(0, x))
x = np.linspace(-800, 800, 3001)
before(x)
try:
    numba.njit(lambda x: expit(x))(x)
except numba.TypingError:
    print("unknown")
import fastact.numba
fastact.numba.overload_scipy()
fastact.numba.overload_scipy()
np.seterr(all="ignore")

@numba.njit
def spelled(x):
    return expit(x), scipy.special.log_expit(x), np.logaddexp(0, x), np.logaddexp(x, 0.0)

for number in (np.float32, np.float64):
    v = x.astype(number)
    p, l, s, r = spelled(v)
    wide = v.astype(np.longdouble)
    gap = -np.abs(wide)
    softplus = np.maximum(wide, 0) + np.log1p(np.exp(gap))
    minus = -(np.maximum(-wide, 0) + np.log1p(np.exp(gap)))
    assert p.dtype == l.dtype == s.dtype == number and r.dtype == np.float64
    assert np.allclose(p, fastact.sigmoid(v), atol=0, rtol=ULPS * np.finfo(number).eps)
    for ours, exact in ((l, minus), (s, softplus), (r.astype(number), softplus)):
        error = np.abs(ours - exact) / np.spacing(np.abs(exact).astype(number))
        assert error.max() <= (2 if ours is not r else 0), (number, error.max())
one = numba.njit(lambda x, y: np.logaddexp(x, y))
inf = np.inf
for a, b in [(inf, inf), (-inf, -inf), (inf, -inf), (-inf, 3.0), (np.nan, 1.0), (1.0, np.nan)]:
    assert np.array_equal(one(a, b), np.logaddexp(a, b), equal_nan=True), (a, b)
assert expit(3) == scipy.special.expit(3) and type(expit) is np.ufunc
assert numba.njit(lambda x: expit(x))(True) == fastact.sigmoid(1.0)
"""


def test_spellings_of_scipy_if_asked_for():
    assert run_python(f"ULPS = {ULPS}" + SPELLINGS) == "unknown\n"


def test_missing_scipy_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "scipy.special", None)
    with pytest.raises(ImportError, match=re.escape('pip install "fastact[scipy]"')):
        fastact.numba.overload_scipy()


def test_the_command_that_measures_loops(monkeypatch, capsys):
    pytest.importorskip("tabulate")
    from bench import njit

    monkeypatch.setattr(njit, "NAIVE", {"tanh": njit.NAIVE["tanh"]})
    njit.main(["--size", "100", "--repetitions", "1", "--starts", "1"])
    printed = capsys.readouterr().out
    rows = [line.split("|")[1:-1] for line in printed.splitlines() if line.startswith("| tanh")]
    assert [row[1].strip() for row in rows] == ["float32", "float64"]
    for row in rows:
        ours, naive, ratio = map(float, row[2:])
        assert ours > 0 and ratio == pytest.approx(naive / ours, rel=0.02)
    assert "with the entry point" in printed
    with pytest.raises(SystemExit):
        njit.main(["--size", "0"])
