"""Objectives for boosting: ufuncs with two outputs, both accurate."""

import concurrent.futures
import functools
import itertools
import platform

import gmpy2
import ml_dtypes
import numpy as np
import pytest
from conftest import assert_same, bits, is_nan, nans, run_python
from hypothesis import given
from hypothesis import strategies as st

import fastact
from bench import accuracy
from fastact._declarations.records import OBJECTIVES
from fastact._machine.targets import BASELINES
from fastact._runtime import engine, ufunc

pytestmark = pytest.mark.functional

DECLARED = OBJECTIVES["logistic_grad_hess"]
FUNCTION = fastact.logistic_grad_hess
OUTPUTS = {"grad": 0, "hess": 1}

each_output = pytest.mark.parametrize("output", OUTPUTS)


def operands(dtype, shape, seed=0):
    rng = np.random.default_rng(seed)
    rare = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-6, 30.0, -30.0]
    score = np.where(rng.random(shape) < 0.2, rng.choice(rare, shape), rng.normal(0, 4, shape))
    label = np.where(rng.random(shape) < 0.8, rng.integers(0, 2, shape), rng.random(shape))
    return score.astype(dtype), label.astype(dtype)


def same(actual, expected):
    assert len(actual) == len(expected) == 2
    for one, other in zip(actual, expected, strict=True):
        assert_same(one, other)


# Errors.


def report(function, output, name, scores, labels):
    k = OUTPUTS[output]
    x = [scores, labels]

    def ours(*x):
        return function(*x)[k]

    def reference(m, *x):
        return DECLARED.reference(m, *x)[k]

    if name == "float64":
        return accuracy.float64_report(ours, reference, x)
    return accuracy.narrow_report(ours, reference, x, name)


def scores64(count, seed):
    rng = np.random.default_rng(seed)
    x = accuracy.samples64(count, seed)
    return np.concatenate([x, -x[: count // 2], rng.uniform(-800, 800, count // 4)])


@each_output
@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_every_score_of_16_bits(name, label, output):
    scores = np.concatenate(list(accuracy.every_pattern(accuracy.dtype_of(name))))
    labels = np.full(len(scores), label).astype(scores.dtype)
    found = report(FUNCTION, output, name, scores, labels)
    assert found.count >= 1 << 16
    assert found.ulp <= DECLARED.ulp[name] <= 0.51
    assert found.wrong == 0


@each_output
@pytest.mark.parametrize("label", [0, 1])
def test_float32(label, output):
    patterns = np.arange(0, 1 << 32, 2999, dtype=np.uint64).astype(np.uint32).view(np.float32)
    usual = np.random.default_rng(1).uniform(-120, 120, 1_000_000).astype(np.float32)
    scores = np.concatenate([patterns, usual])
    found = report(FUNCTION, output, "float32", scores, np.full_like(scores, label))
    assert found.ulp <= DECLARED.ulp["float32"] <= 1
    assert found.wrong == 0


@each_output
@pytest.mark.parametrize("label", [0, 1])
def test_float64(label, output):
    scores = scores64(20_000, seed=2)
    found = report(FUNCTION, output, "float64", scores, np.full_like(scores, label))
    assert found.ulp <= DECLARED.ulp["float64"] <= 1


@each_output
@given(st.floats(-1e4, 1e4), st.sampled_from([0.0, 1.0]))
def test_any_score(output, score, label):
    found = report(FUNCTION, output, "float64", np.array([score]), np.array([label]))
    assert found.ulp <= DECLARED.ulp["float64"]


@given(st.floats(-800, 800), st.floats(0, 1) | st.floats(-3, 4))
def test_other_labels(score, label):
    """The error is at most half an ulp of the result plus one of the smaller probability."""
    got = float(FUNCTION(score, label)[0])
    with gmpy2.context(precision=300):
        exact, _ = DECLARED.reference(gmpy2, gmpy2.mpfr(score), gmpy2.mpfr(label))
        smaller = 1 / (1 + gmpy2.exp(gmpy2.mpfr(abs(score))))
        allowance = 0.5001 * np.spacing(abs(got)) + np.spacing(float(smaller))
        assert abs(gmpy2.mpfr(got) - exact) <= allowance


@pytest.mark.exhaustive
def test_every_float32():
    """With label 0; `test_labels_are_symmetric_everywhere` shows the same for label 1."""

    def output(k):
        return lambda x: FUNCTION(x, np.float32(0))[k]

    found = accuracy.exhaustive_reports(
        [output(k) for k in OUTPUTS.values()],
        lambda m, x: DECLARED.reference(m, x, 0),
        "float32",
    )
    for name, report in zip(OUTPUTS, found, strict=True):
        print(f"{name}, label 0: {report}")
        assert report.count >= 1 << 32
        assert report.ulp <= DECLARED.ulp["float32"]
        assert report.wrong == 0


def is_symmetric(patterns):
    """Whether swapping the label and the sign of the score negates the gradient only.

    The hessian stays the same, also if only the sign of the score is swapped.
    """
    x = patterns.astype(np.uint32).view(np.float32)
    if np.isnan(x[-1]):  # NaNs have the highest patterns of either sign
        x = x[~np.isnan(x)]
    (grad, hess), (other_grad, other_hess) = FUNCTION(x, np.float32(0)), FUNCTION(-x, np.float32(1))
    of_negative = FUNCTION(-x, np.float32(0))[1]
    pairs = ((other_grad, -grad), (other_hess, hess), (of_negative, hess))
    return all(np.array_equal(one, other) for one, other in pairs)


def test_labels_are_symmetric():
    assert is_symmetric(np.arange(0, 1 << 32, 2999, dtype=np.uint64))


@pytest.mark.exhaustive
def test_labels_are_symmetric_everywhere():
    def check(start):
        return is_symmetric(np.arange(start, start + step, dtype=np.uint64))

    step = 1 << 17
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        assert all(pool.map(check, range(0, 1 << 32, step)))


@pytest.mark.parametrize("target", ["x86-64-v2", "x86-64-v3"])
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="runs code for x86-64")
def test_code_for_lesser_machines_is_as_accurate(target):
    function = ufunc.create(
        name=DECLARED.name,
        nin=2,
        nout=2,
        doc="",
        types="efd",
        choose=functools.partial(engine.choose_dtype, keeps_integers=False),
        make_loop=functools.partial(
            engine.loop_address, DECLARED.kernel, 2, nout=2, target=BASELINES[target]
        ),
    )
    for output, label in itertools.product(OUTPUTS, (0, 1)):
        for name in ("float16", "bfloat16"):
            scores = np.concatenate(list(accuracy.every_pattern(accuracy.dtype_of(name))))
            labels = np.full(len(scores), label).astype(scores.dtype)
            assert report(function, output, name, scores, labels).ulp <= DECLARED.ulp[name]
        for name, count in (("float32", 200_000), ("float64", 4_000)):
            scores = scores64(count, seed=3).clip(-1e30, 1e30).astype(name)
            assert report(function, output, name, scores, np.full_like(scores, label)).ulp <= 1


def test_special_values(dtype):
    for length in (1, 100):
        for score, label, *expected in DECLARED.specials:
            x = [np.full(length, value).astype(dtype) for value in (score, label)]
            same(FUNCTION(*x), [np.full(length, value).astype(dtype) for value in expected])


def test_hessian_is_even_and_independent_of_the_label(dtype):
    score, label = (x.astype(dtype) for x in operands(np.float64, 3000))
    expected = FUNCTION(score, np.zeros_like(label))[1]
    assert_same(FUNCTION(score, label)[1], expected)
    assert_same(FUNCTION(-score, label)[1], expected)


def test_absurd_labels():
    assert FUNCTION(np.float32(0.0), np.float32(1e20))[0] == np.float32(-1e20)
    for sign in (1, -1):
        assert FUNCTION(0.0, sign * 1e157)[0] == -sign * 1e157
        assert np.isnan(FUNCTION(0.0, sign * np.array([1e300, np.inf]))[0]).all()


def test_nan(dtype):
    for length in (1, 5, 40):
        x, ones = np.resize(nans(dtype), length), np.ones(length, dtype)
        grad, hess = FUNCTION(x, ones)
        assert is_nan(grad).all() and is_nan(hess).all()
        grad, hess = FUNCTION(ones, x)
        assert is_nan(grad).all() and not is_nan(hess).any()


# Behaviour as a ufunc.


def test_attributes():
    assert type(FUNCTION) is np.ufunc
    assert (FUNCTION.nin, FUNCTION.nout, FUNCTION.signature) == (2, 2, None)
    assert FUNCTION.types == ["ee->ee", "ff->ff", "dd->dd"]
    for text in (DECLARED.formula, "score, label : array_like", "grad, hess : ndarray"):
        assert text in FUNCTION.__doc__
    for score, label, grad, hess in DECLARED.specials:
        assert f"logistic_grad_hess({score}, {label}) = {grad}, {hess}\n" in FUNCTION.__doc__


@pytest.mark.parametrize("length", [0, 1, 2, 7, 8, 31, 64, 65, 511, 512, 513, 1100])
def test_result_depends_on_its_operands_alone(dtype, length):
    """It does not depend on strides, alignment, position or neighbours."""
    score, label = operands(dtype, length)
    expected = [np.empty(length, dtype) for _ in range(2)]
    for i in range(length):
        expected[0][i], expected[1][i] = FUNCTION(score[i], label[i])
    same(FUNCTION(score, label), expected)
    for step in (2, 3, -1):
        wide = [np.zeros(length * abs(step) + 1, dtype)[1:] for _ in range(4)]
        views = [w[::step][:length] for w in wide]
        views[0][...], views[1][...] = score, label
        same(FUNCTION(*views[:2], out=tuple(views[2:])), expected)
    raw = np.zeros((length + 1) * dtype.itemsize, np.uint8)[1:]
    shifted = raw[: length * dtype.itemsize].view(dtype)
    shifted[...] = score
    same(FUNCTION(shifted, label), expected)


def test_in_place(dtype):
    for order in ((0, 1), (1, 0)):
        x = operands(dtype, 1000)
        expected = FUNCTION(*x)
        out = tuple(x[k] for k in order)
        found = FUNCTION(*x, out=out)
        assert found[0] is out[0] and found[1] is out[1]
        same(found, expected)


def test_broadcasting_and_where(dtype):
    score, label = operands(dtype, (20, 30))
    grad, hess = FUNCTION(score, label[0])
    same((grad, hess), FUNCTION(score, np.broadcast_to(label[0], score.shape).copy()))
    chosen = np.random.default_rng(1).random((20, 30)) < 0.5
    out = np.full((20, 30), 7, dtype), np.full((20, 30), 8, dtype)
    FUNCTION(score, label[0], out=out, where=chosen)
    seven, eight = (np.asarray(v, dtype) for v in (7, 8))
    same(out, (np.where(chosen, grad, seven), np.where(chosen, hess, eight)))


def test_outputs_of_other_types_and_one_alone():
    score, label = operands(np.float32, 50)
    expected = FUNCTION(score, label)
    wide = np.zeros(50), np.zeros(50, np.float32)
    FUNCTION(score, label, out=wide)
    same(wide, (expected[0].astype(float), expected[1]))
    hess = np.zeros(50, np.float32)
    grad, found = FUNCTION(score, label, out=(None, hess))
    assert found is hess
    same((grad, hess), expected)
    same(
        FUNCTION(score, label, dtype=np.float64), FUNCTION(score.astype(float), label.astype(float))
    )
    same(
        FUNCTION(score, label, signature=(None, None, "d", "d")),
        FUNCTION(score.astype(float), label.astype(float)),
    )


def test_types():
    integers = np.arange(-3, 4), np.array([0, 1, 0, 1, 0, 1, 0])
    same(FUNCTION(*integers), FUNCTION(*(x.astype(float) for x in integers)))
    labels = np.array([True, False])
    same(FUNCTION(np.ones(2), labels), FUNCTION(np.ones(2), labels.astype(float)))
    assert FUNCTION(np.ones(2, np.float32), labels)[0].dtype == np.float32
    assert FUNCTION(np.ones(2, ml_dtypes.bfloat16), labels)[1].dtype == ml_dtypes.bfloat16
    for bad in (np.zeros(2, complex), np.zeros(2, np.longdouble), np.array(["1", "2"])):
        for x in ((bad, np.zeros(2)), (np.zeros(2), bad)):
            with pytest.raises(TypeError, match="'logistic_grad_hess'"):
                FUNCTION(*x)
    for dtype in ("i4", "D", "?"):
        with pytest.raises(TypeError, match="logistic_grad_hess"):
            FUNCTION(np.zeros(2), np.zeros(2), dtype=dtype, casting="unsafe")


def test_methods_of_two_outputs_are_refused_as_by_numpy():
    for call in (lambda f: f.reduce(np.zeros(3)), lambda f: f.accumulate(np.zeros(3))):
        with pytest.raises(ValueError) as expected:
            call(np.divmod)
        with pytest.raises(ValueError, match=str(expected.value)):
            call(FUNCTION)
    grad, hess = FUNCTION.outer(np.zeros(2), np.array([0.0, 1.0, 1.0]))
    assert grad.tolist() == [[0.5, -0.5, -0.5]] * 2 and (hess == 0.25).all()


def test_no_warning_and_no_flag(dtype):
    score, label = operands(dtype, 1000)
    with np.errstate(all="raise"):
        FUNCTION(score, label)


FIRST = """
import numpy as np, fastact
grad, hess = fastact.logistic_grad_hess(np.zeros(3, np.int64), np.ones(3, np.int64), dtype="f")
print(grad.dtype, grad.tolist(), hess.tolist())
"""


def test_first_call_in_a_process():
    expected = "float32 [-0.5, -0.5, -0.5] [0.25, 0.25, 0.25]\n"
    assert run_python(FIRST, FASTACT_CACHE="0") == expected


def test_large_arrays(dtype):
    """Threads may share the work."""
    score, label = operands(dtype, 2_000_003)
    grad, hess = FUNCTION(score, label)
    for part in (slice(0, 1000), slice(1_000_000, 1_001_000), slice(-1000, None)):
        same((grad[part], hess[part]), FUNCTION(score[part].copy(), label[part].copy()))
    assert (bits(grad) != 0).any()
