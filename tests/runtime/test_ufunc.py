"""Every activation behaves like NumPy's own ufuncs."""

import functools
import inspect
import itertools
import pickle
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from conftest import FLOATS, PEERS, assert_same, is_nan, run_python, sample

import fastact
from fastact._declarations.records import OBJECTIVES, along_rows, element_wise
from fastact._runtime import engine
from fastact._runtime import ufunc as ufunc_module

functional = pytest.mark.functional  # others test what NumPy does around the code

INTEGERS = np.typecodes["AllInteger"]


def quietly(function, *args, **kwargs):
    """Return the exception that a peer raises for the same call; fail if it raises none."""
    with pytest.raises(Exception) as raised:
        function(*args, **kwargs)
    return raised.value


# Attributes.


def test_public_names():
    ufuncs = {name for name in dir(fastact) if isinstance(getattr(fastact, name), np.ufunc)}
    assert ufuncs == {*element_wise(), *along_rows(), *OBJECTIVES}


def test_attributes(every_activation, every_ufunc):
    activation, ufunc, peer = every_activation, every_ufunc, PEERS[every_activation.nin]
    assert type(ufunc) is np.ufunc
    assert ufunc.__name__ == activation.name
    assert repr(ufunc) == f"<ufunc '{activation.name}'>"
    assert (ufunc.nin, ufunc.nout, ufunc.nargs) == (peer.nin, peer.nout, peer.nargs)
    assert ufunc.identity is None
    assert ufunc.signature is None
    codes = "efd" + INTEGERS * activation.keeps_integers
    chars = {np.dtype(code).char for code in codes}
    assert set(ufunc.types) == {f"{char * ufunc.nin}->{char}" for char in chars}
    assert ufunc.ntypes == len(ufunc.types)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(ufunc, protocol)) is ufunc


def test_docstring(every_activation):
    activation = every_activation
    lines = inspect.getdoc(getattr(fastact, activation.name)).splitlines()
    assert lines[0].startswith(f"{activation.name}(x")  # NumPy's, whatever the names of parameters
    assert f"{', '.join(activation.inputs)} : array_like" in lines
    underlined = [i for i, line in enumerate(lines) if line and set(line) == {"-"}]
    sections = [lines[i - 1] for i in underlined]
    assert sections == ["Parameters", "Returns", "Raises", "Notes", "Examples"]
    assert all(len(lines[i]) == len(lines[i - 1]) and not lines[i - 2] for i in underlined)
    text = "\n".join(lines)
    for part in (activation.summary, activation.formula, activation.notes):
        assert part in text
    for *inputs, value in activation.specials:
        assert f"{activation.name}({', '.join(map(str, inputs))}) = {value}" in text
    for name, ulp in activation.ulp.items():
        assert any(line.split() == [name, str(ulp), "ulp"] for line in lines)


def test_every_function_is_called_in_every_way(every_activation, every_ufunc):
    """All other tests of calls are for one function of each kind."""
    for dtype in FLOATS:
        x = sample(every_activation, dtype, 70)
        y = every_ufunc(*x)
        assert y.dtype == dtype
        out = np.zeros(140, dtype)[::2]
        assert every_ufunc(*(np.repeat(operand, 3)[::3] for operand in x), out=out) is out
        assert_same(out, y)
        every_ufunc.at(x[0], np.arange(70), *x[1:])
        assert_same(x[0], y)
    for code in (np.int8, np.int64, np.bool_):
        x = [np.arange(3).astype(code)] * every_ufunc.nin
        kept = every_activation.keeps_integers and code is not np.bool_
        expected = every_ufunc(*(operand.astype(np.float64) for operand in x))
        assert_same(every_ufunc(*x), expected.astype(code) if kept else expected)


# The keyword arguments of a call.


@pytest.mark.parametrize("wrap", [lambda y: y, lambda y: (y,)], ids=["array", "tuple"])
def test_out(activation, ufunc, dtype, wrap):
    x = sample(activation, dtype, (4, 5))
    y = np.zeros((4, 5), dtype)
    assert ufunc(*x, out=wrap(y)) is y
    assert_same(y, ufunc(*x))


def test_out_may_be_positional_or_larger(activation, ufunc):
    x = sample(activation, np.float32, 5)
    y = np.zeros((3, 5), np.float32)
    assert ufunc(*x, y) is y
    assert_same(y, np.stack([ufunc(*x)] * 3))


def test_out_of_another_type(activation, ufunc):
    x = sample(activation, np.float64, 9)
    assert_same(ufunc(*x, out=np.zeros(9, np.float32)), ufunc(*x).astype(np.float32))
    single = [operand.astype(np.float32) for operand in x]
    assert_same(ufunc(*single, out=np.zeros(9)), ufunc(*single).astype(np.float64))
    whole = [np.array([-3.0, 0.0, 3.0])] * ufunc.nin
    with np.errstate(invalid="ignore"):  # some results are NaN
        rounded = ufunc(*whole, out=np.zeros(3, np.int32), casting="unsafe")
        assert_same(rounded, ufunc(*whole).astype(np.int32))


MISUSES = {
    "output of another shape": dict(out=np.zeros(4)),
    "two outputs": dict(out=(np.zeros(5), np.zeros(5))),
    "output that is no array": dict(out=[0.0] * 5),
    "read-only output": dict(out=np.broadcast_to(0.0, 5)),
    "output of integers": dict(out=np.zeros(5, np.int64)),
    "output not safe to cast to": dict(out=np.zeros(5, np.float32), casting="safe"),
    "dtype not safe to cast to": dict(dtype=np.float32, casting="safe"),
    "unknown casting": dict(casting="wild"),
    "unknown order": dict(order="X"),
    "unknown keyword": dict(colour="red"),
    "axis": dict(axis=0),
    "where of another shape": dict(where=[True, False]),
    "where of floats": dict(where=np.ones(5)),
    "dtype and signature": dict(dtype=np.float32, signature="f->f"),
    "short signature": dict(signature=("f",)),
    "two types in a signature": dict(signature="f->d"),
}


@pytest.mark.parametrize("misuse", MISUSES.values(), ids=MISUSES)
def test_misuse_raises_as_numpy_does(ufunc, peer, misuse):
    x = [np.zeros(5)] * ufunc.nin
    if misuse.get("signature") == "f->d":
        misuse = {"signature": f"{'f' * ufunc.nin}->d"}
    expected = quietly(peer, *x, **misuse)
    with pytest.raises(type(expected)) as raised:
        ufunc(*x, **misuse)
    if peer.__name__ in str(expected):
        assert ufunc.__name__ in str(raised.value)


def test_wrong_number_of_operands(ufunc):
    for count in (0, ufunc.nin - 1, ufunc.nargs + 1):
        with pytest.raises(TypeError, match=ufunc.__name__):
            ufunc(*[1.0] * count)


def test_where(activation, ufunc, dtype):
    x = sample(activation, dtype, (40, 3))
    chosen = np.random.default_rng(1).random((40, 3)) < 0.5
    y = np.full((40, 3), 7, dtype)
    ufunc(*x, out=y, where=chosen)
    assert_same(y, np.where(chosen, ufunc(*x), np.asarray(7, dtype)))


@pytest.mark.parametrize("spell", ["dtype", "inputs", "output", "text"])
@pytest.mark.parametrize("requested", [np.float16, np.float32, np.float64])
def test_requested_type(activation, ufunc, dtype, requested, spell):
    char = np.dtype(requested).char
    keyword = {
        "dtype": {"dtype": requested},
        "inputs": {"signature": (*[char] * ufunc.nin, None)},
        "output": {"signature": (*[None] * ufunc.nin, char)},
        "text": {"signature": f"{char * ufunc.nin}->{char}"},
    }[spell]
    x = sample(activation, dtype, 9)
    y = ufunc(*x, **keyword, casting="unsafe")
    assert_same(y, ufunc(*(operand.astype(requested) for operand in x)))


def test_requested_bfloat16(activation, ufunc):
    x = sample(activation, np.float32, 9)
    expected = ufunc(*(operand.astype(ml_dtypes.bfloat16) for operand in x))
    assert_same(ufunc(*x, dtype=ml_dtypes.bfloat16), expected)


@pytest.mark.parametrize("order", "CFAK")
@pytest.mark.parametrize("arrange", [np.ascontiguousarray, np.asfortranarray])
def test_order(activation, ufunc, peer, order, arrange):
    x = [arrange(operand) for operand in sample(activation, np.float64, (3, 4, 5))]
    y = ufunc(*x, order=order)
    assert y.strides == peer(*x, order=order).strides
    assert_same(y, ufunc(*x))


def test_subok(ufunc):
    class Marked(np.ndarray):
        pass

    x = [np.zeros(3).view(Marked)] * ufunc.nin
    assert type(ufunc(*x)) is Marked
    assert type(ufunc(*x, subok=False)) is np.ndarray


def test_resolve_dtypes(ufunc, dtype):
    assert ufunc.resolve_dtypes((*[dtype] * ufunc.nin, None)) == (dtype,) * ufunc.nargs


# The methods.


@functional
def test_at_takes_repeated_indices_one_after_the_other(activation, ufunc, dtype):
    x, *others = sample(activation, dtype, 40)
    index = np.random.default_rng(2).integers(0, 40, 100)
    others = [other[index] for other in others]
    expected = x.copy()
    for k, i in enumerate(index):
        expected[i] = ufunc(expected[i], *(other[k] for other in others))
    ufunc.at(x, index, *others)
    assert_same(x, expected)


@pytest.mark.parametrize("method", ["reduce", "accumulate", "reduceat", "outer"])
def test_methods_for_two_inputs_refuse_others(activation, ufunc, peer, method):
    x = np.zeros(5)
    arguments = {"reduceat": (x, [0, 2]), "outer": (x, x)}.get(method, (x,))
    if activation.nin == 2:
        getattr(ufunc, method)(*arguments)
        return
    expected = quietly(getattr(peer, method), *arguments)
    with pytest.raises(type(expected), match=str(expected)):
        getattr(ufunc, method)(*arguments)


@functional
def test_outer(binary_activation, binary, dtype):
    x, y = sample(binary_activation, dtype, 70)
    assert_same(binary.outer(x, y), binary(x[:, None], y))


def accumulated(function, x):
    return np.array(list(itertools.accumulate(x, function)), x.dtype)


# Each step needs the result of the one before, which vectors and blocks must not break.
LENGTHS = [1, 2, 3, 8, 33, 64, 130, 600, 1100]


@functional
def test_reduce_and_accumulate_go_in_order(binary_activation, binary, dtype):
    for length in LENGTHS:
        x = np.nan_to_num(sample(binary_activation, dtype, length)[0])
        for ordered in (x, x[::-1]):
            steps = accumulated(binary, ordered)
            assert_same(binary.accumulate(ordered), steps)
            assert_same(binary.reduce(ordered), steps[-1])


@functional
@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_reduce_and_accumulate_along_an_axis(binary_activation, binary, dtype, axis):
    x = np.nan_to_num(sample(binary_activation, dtype, (7, 40, 33))[0])
    steps = np.apply_along_axis(functools.partial(accumulated, binary), axis, x)
    assert_same(binary.accumulate(x, axis=axis), steps)
    assert_same(binary.reduce(x, axis=axis), steps.take(-1, axis))
    kept = binary.reduce(x, axis=axis, keepdims=True)
    assert_same(kept, steps.take([-1], axis))


@functional
def test_reduceat(binary_activation, binary, dtype):
    x = np.nan_to_num(sample(binary_activation, dtype, 1000)[0])
    starts = [0, 1, 40, 41, 300, 990]
    segments = np.split(x, starts[1:])
    expected = np.array([accumulated(binary, part)[-1] for part in segments], dtype)
    assert_same(binary.reduceat(x, starts), expected)


def test_reduce_of_nothing_and_from_an_initial_value(binary):
    with pytest.raises(ValueError, match="no identity"):
        binary.reduce(np.zeros(0))
    assert binary.reduce(np.zeros(0), initial=3) == 3
    x = np.array([1.0, 0.5])
    assert binary.reduce(x, initial=2) == binary(binary(2.0, 1.0), 0.5)
    assert binary.reduce(np.arange(3), dtype=np.float32).dtype == np.float32


# Types of inputs and results.


def test_floats_keep_their_type(activation, ufunc, dtype):
    for shape in (5, (2, 3)):
        assert ufunc(*sample(activation, dtype, shape)).dtype == dtype
    assert type(ufunc(*[dtype.type(1)] * ufunc.nin)) is dtype.type


def extremes(dtype):
    info = np.iinfo(dtype)
    values = {0, 1, 2, 3, 10, info.max // 2, info.max - 1, info.max, info.min, info.min // 2}
    values |= {-v for v in values if -v >= info.min}
    return np.array(sorted(v for v in values if v <= info.max), dtype)


@functional
@pytest.mark.parametrize("code", INTEGERS)
def test_integers(activation, ufunc, code):
    x = np.meshgrid(*[extremes(code)] * ufunc.nin)
    if not activation.keeps_integers:
        assert_same(ufunc(*x), ufunc(*(operand.astype(np.float64) for operand in x)))


@functional
@pytest.mark.parametrize("code", INTEGERS)
@pytest.mark.parametrize(
    "name", [name for name, declared in element_wise().items() if declared.keeps_integers]
)
def test_integers_that_are_kept(name, code):
    activation, ufunc = element_wise()[name], getattr(fastact, name)
    x = np.meshgrid(*[extremes(code)] * ufunc.nin)
    y = ufunc(*x)
    exact = [
        activation.reference(None, *map(Fraction, row))
        for row in zip(*(operand.ravel().tolist() for operand in x), strict=True)
    ]
    assert y.dtype.char == np.dtype(code).char
    assert y.ravel().tolist() == exact
    with pytest.raises(TypeError, match=activation.name):
        ufunc(*x, dtype=np.bool_)


def test_bool_gives_float64(ufunc):
    x = np.meshgrid(*[[False, True]] * ufunc.nin)
    assert_same(ufunc(*x), ufunc(*(operand.astype(np.float64) for operand in x)))
    expected = ufunc(*[1.0] * ufunc.nin)
    for true in (True, np.True_):
        assert_same(ufunc(*[true] * ufunc.nin), expected)


@pytest.mark.parametrize("value", [2, 2.0, [2], [[2.0]], (2.0, 2)])
def test_python_numbers_and_sequences(activation, ufunc, value):
    y = ufunc(*[value] * ufunc.nin)
    given = np.asarray(value)
    kept = activation.keeps_integers and given.dtype.kind == "i"
    assert_same(y, ufunc(*[given if kept else given.astype(np.float64)] * ufunc.nin))


REFUSED = [
    np.zeros(2, np.longdouble),
    np.zeros(2, np.complex64),
    np.zeros(2, np.complex128),
    np.zeros(2, np.clongdouble),
    np.array(["1"]),
    np.array([b"1"]),
    np.array(["1"], np.dtypes.StringDType()),
    np.array([1.0], object),
    np.array(["2020"], "M8[D]"),
    np.array([1], "m8[s]"),
    np.zeros(2, "V8"),
    np.zeros(2, "f4,f4"),
]


@pytest.mark.parametrize("bad", REFUSED, ids=lambda array: type(array.dtype).__name__)
def test_other_types_are_refused(ufunc, bad):
    good = np.zeros(bad.shape, np.float32)
    for k in range(ufunc.nin + 1):
        x = [bad if i == k or k == ufunc.nin else good for i in range(ufunc.nin)]
        for _ in range(2):  # the second time, NumPy may have cached something
            with pytest.raises(TypeError, match=f"'{ufunc.__name__}'"):
                ufunc(*x)
    assert_same(ufunc(*[good] * ufunc.nin), ufunc(*[np.zeros(bad.shape, np.float32)] * ufunc.nin))


@pytest.mark.parametrize(
    "requested", ["g", "F", "D", "?", "O", "U", "M", "m", "V", np.int32, np.uint8]
)
def test_requests_for_other_types_are_refused(activation, ufunc, requested):
    if activation.keeps_integers and np.dtype(requested).kind in "iu":
        expected = ufunc(*[np.arange(5, dtype=requested)] * ufunc.nin)
        y = ufunc(*[np.arange(5.0)] * ufunc.nin, dtype=requested, casting="unsafe")
        assert_same(y, expected)
        return
    for casting in ("same_kind", "unsafe"):
        with pytest.raises(TypeError, match=activation.name):
            ufunc(*[np.zeros(2)] * ufunc.nin, dtype=requested, casting=casting)


TYPES = [*FLOATS, *map(np.dtype, "bBhHiIlL?")]


def common(*types):
    try:
        return np.result_type(*types)
    except TypeError:  # bfloat16 has no common type with float16 and wide integers
        return None


PAIRS = [pair for pair in itertools.product(TYPES, repeat=2) if common(*pair)]


@pytest.mark.parametrize(("left", "right"), PAIRS, ids=str)
def test_two_types_are_promoted_as_numpy_does(binary_activation, binary, left, right):
    expected = common(left, right)
    if expected not in FLOATS and (expected.kind == "b" or not binary_activation.keeps_integers):
        expected = np.dtype(np.float64)
    x = np.array([0, 1, 1, 0, 1]).astype(left)
    y = np.array([1, 0, 1, 0, 1]).astype(right)
    assert_same(binary(x, y), binary(x.astype(expected), y.astype(expected)))


@pytest.mark.parametrize("number", [0.5, 1], ids=type)
def test_python_numbers_are_weak(binary, dtype, number):
    x = np.array([-1, 0, 1], dtype)
    strong = np.asarray(number, dtype)
    assert_same(binary(x, number), binary(x, strong))
    assert_same(binary(number, x), binary(strong, x))


# Values that no accuracy statistic covers.


@functional
def test_special_values(every_activation, every_ufunc, dtype):
    for *inputs, value in every_activation.specials:
        for length in (1, 100):
            x = [np.full(length, number).astype(dtype) for number in inputs]
            y = every_ufunc(*x)
            if np.isnan(value):
                assert is_nan(y).all()
            else:
                assert_same(y, np.full(length, value).astype(dtype))


@functional
def test_heaviside_is_that_of_numpy(dtype):
    info = ml_dtypes.finfo(dtype)
    values = [0.0, 1.0, np.inf, np.nan, float(info.smallest_subnormal), float(info.max)]
    x1, x2 = np.meshgrid(*[np.array([*values, *(-v for v in values)])] * 2)
    expected = np.heaviside(x1, x2).astype(dtype)
    y = fastact.heaviside(x1.astype(dtype), x2.astype(dtype))
    np.testing.assert_array_equal(is_nan(y), is_nan(expected))
    number = ~is_nan(y)
    assert_same(y[number], expected[number])


@functional
def test_step_is_heaviside_of_one(dtype):
    x = np.array([-np.inf, -1, -0.0, 0, 1, np.inf, np.nan], dtype)
    assert_same(fastact.step(x), np.heaviside(x.astype(np.float64), 1).astype(dtype))


# First use. Nothing is compiled, or even imported, before.


def test_importing_is_light():
    heavy = "{'numba', 'llvmlite', 'ml_dtypes', 'scipy'}"
    assert run_python(f"import fastact, sys; print({heavy} & set(sys.modules))") == "set()\n"


FIRST_CALLS = {
    "array": (np.float32, {}, np.float32),
    "bfloat16": (ml_dtypes.bfloat16, {}, ml_dtypes.bfloat16),
    "integers": (np.int16, {}, None),
    "dtype as given": (np.float32, {"dtype": np.float32}, np.float32),
    "bfloat16 as given": (
        ml_dtypes.bfloat16,
        {"dtype": ml_dtypes.bfloat16},
        ml_dtypes.bfloat16,
    ),
    "wider dtype": (np.float32, {"dtype": np.float64}, np.float64),
    "narrower dtype": (np.float64, {"dtype": np.float16}, np.float16),
    "dtype bfloat16": (np.float32, {"dtype": ml_dtypes.bfloat16}, ml_dtypes.bfloat16),
    "dtype for integers": (np.int64, {"dtype": np.float64}, np.float64),
    "output": (np.float32, {"out": np.zeros(4, np.float32)}, np.float32),
    "wider output": (np.float32, {"out": np.zeros(4)}, np.float64),
    "output of integers": (
        np.float32,
        {"out": np.zeros(4, np.int8), "casting": "unsafe"},
        np.int8,
    ),
    "where": (np.float64, {"where": np.ones(4, bool), "out": np.zeros(4)}, np.float64),
}


@pytest.mark.parametrize(("given", "keywords", "result"), FIRST_CALLS.values(), ids=FIRST_CALLS)
def test_first_call(activation, ufunc, fresh, given, keywords, result):
    x = [np.array([0, 1, 2, 3], given)] * ufunc.nin
    new = fresh(activation)
    assert new is not ufunc
    with np.errstate(invalid="ignore"):  # NumPy's casts of infinity to integers
        y = new(*x, **keywords)
    if result is None:
        result = given if activation.keeps_integers else np.float64
    assert y.dtype == result
    used = keywords.get("dtype", given)
    if np.dtype(used).kind in "iu":
        used = result
    with np.errstate(invalid="ignore"):
        expected = ufunc(*(operand.astype(used) for operand in x)).astype(result)
    assert_same(y, expected)


def test_first_call_after_a_refusal(activation, ufunc, fresh):
    new = fresh(activation)
    with pytest.raises(TypeError, match=activation.name):
        new(*[np.zeros(2, complex)] * new.nin)
    assert new.types == ufunc.types
    x = sample(activation, np.float32, 9)
    assert_same(new(*x), ufunc(*x))


def test_first_use_is_a_method(binary_activation, binary, fresh):
    x = np.array([-1.0, 0.5, 2.0], np.float32)
    for use in (
        lambda f: f.reduce(x),
        lambda f: f.accumulate(x),
        lambda f: f.reduceat(x, [0, 1]),
        lambda f: f.outer(x, x),
        lambda f: f.reduce(x.astype(np.int32), dtype=np.float32),
    ):
        assert_same(use(fresh(binary_activation)), use(binary))


FIRST_IN_A_PROCESS = """
import itertools
import ml_dtypes, numpy as np, fastact
from kinds import TYPICAL

cases = itertools.cycle(
    [(np.float32, np.float32), (np.float32, ml_dtypes.bfloat16), (np.int64, np.float64)]
)
for name, (given, requested) in zip(TYPICAL, cases):
    function = getattr(fastact, name)
    y = function(*[np.arange(3, dtype=given)] * function.nin, dtype=requested)
    print(name, y.dtype.name, *y.astype(float).tolist())
"""


@functional
def test_first_call_in_a_process():
    """Like the tests with `fresh`, but nothing is imported before the call that requests a type."""
    for line in run_python(FIRST_IN_A_PROCESS, FASTACT_CACHE="0").splitlines():
        name, dtype, *values = line.split()
        function = getattr(fastact, name)
        expected = function(*[np.arange(3).astype(dtype)] * function.nin)
        assert [float(v) for v in values] == expected.astype(float).tolist()


@pytest.mark.parametrize(
    "error",
    [RuntimeError("broken"), TypeError("broken"), OSError("broken"), KeyboardInterrupt("broken")],
)
def test_failing_compiler(activation, error):
    """The caller gets the compiler's exception, and later calls work."""
    broken = set()

    def make_loop(dtype):
        if dtype in broken:
            raise error
        return engine.loop_address(activation.kernel, activation.nin, dtype)

    choose = functools.partial(engine.choose_dtype, keeps_integers=False)
    new = ufunc_module.create("fragile", activation.nin, "", "efd", choose, make_loop)
    single, half = (sample(activation, t, 9) for t in (np.float32, np.float16))
    expected = getattr(fastact, activation.name)(*half)
    works = new(*single)

    broken.add(type(half[0].dtype))
    for _ in range(2):
        # The loop of float32, which exists and represents every float16, is not used instead.
        with pytest.raises(type(error)) as caught:
            new(*half)
        assert caught.value is error
        assert_same(new(*single), works)

    broken.clear()
    assert_same(new(*half), expected)
    assert new.types == [f"{c * activation.nin}->{c}" for c in "efd"]


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("number", [0.5, 1, True])
def test_numbers_of_python_are_weak_in_objectives(objective, number, dtype):
    x = np.ones(2, dtype)
    for result in getattr(fastact, objective)(x, number):
        assert result.dtype == dtype


@pytest.mark.parametrize("other", [np.float32(1), np.float64(1), np.ones(2, "f"), np.int64(1)])
def test_numbers_of_numpy_are_not_weak(other):
    """They are promoted as by NumPy and ml_dtypes; bfloat16 and int64 have no common type."""
    array = np.ones(2, ml_dtypes.bfloat16)
    found = fastact.heaviside(array, other)
    assert found.dtype == np.result_type(np.float32, other)
    with pytest.raises(TypeError, match="did not contain a loop"):
        fastact.heaviside(array, 2j)


LAZY_MODULE = """
import copy, pickle, sys, types
import fastact as fa
import numpy as np

class Lazy(types.ModuleType):
    def __getattr__(self, name):
        raise RuntimeError(name)

sys.modules = {"aaa": Lazy("aaa")} | sys.modules
for name, function in vars(fa).copy().items():
    if isinstance(function, np.ufunc):
        assert pickle.loads(pickle.dumps(function)) is function is copy.deepcopy(function)
        assert (function.__module__, function.__qualname__) == ("fastact", name)
print("all")
"""


@pytest.mark.skipif(not hasattr(np.exp, "__dict__"), reason="ufuncs of this NumPy have no module")
def test_pickle_beside_a_module_that_raises():
    assert run_python(LAZY_MODULE) == "all\n"
