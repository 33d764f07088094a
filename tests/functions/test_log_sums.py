"""Functions of rows that need the logarithm of a sum: their values, and rows of special values."""

import functools

import gmpy2
import ml_dtypes
import numpy as np
import pytest
from assembly import TARGETS
from conftest import assert_same, bits, is_nan, nans

import fastact
from bench.accuracy import PRECISION
from fastact._compiler import host
from fastact._declarations.records import ROW_ACTIVATIONS, ROW_REDUCTIONS
from fastact._runtime import engine, ufunc

pytestmark = pytest.mark.functional

LOG_SOFTMAX = ROW_ACTIVATIONS["log_softmax"]

LOGSUMEXP = ROW_REDUCTIONS["logsumexp"]

ONE = gmpy2.mpfr(1)  # ONE * x takes 0.3 us, mpfr(x) 3 us
LENGTHS = [1, 2, 3, 10, 17, 33, 65, 128, 129, 1000]


def rows(dtype, count, length, seed=0):
    """Rows of different scales and offsets, most with a dominant element."""
    rng = np.random.default_rng([seed, length])
    scale = rng.choice([0.1, 1.0, 4.0, 30.0], (count, 1))
    offset = rng.choice([0.0, 0.0, 3.0, -90.0, 150.0, 1000.0], (count, 1))
    ahead = rng.choice([0.0, 0.0, 1.0, 10.0, 40.0, 95.0], count)
    x = rng.standard_normal((count, length)) * scale + offset
    x = np.where(rng.random(x.shape) < 0.03, rng.choice([-1e4, -np.inf, -95.0], x.shape), x)
    x[:, rng.integers(length)] = offset[:, 0] + ahead
    return x.astype(dtype)


precision = functools.cache(lambda dtype: PRECISION[dtype.name])


def error(dtype, value, exact):
    """The error of a result in ulp."""
    if not gmpy2.is_finite(exact):
        return 0.0 if value == float(exact) else float("inf")
    significand, lowest = precision(dtype)
    unit = max(gmpy2.get_exp(exact) - 1, lowest) if exact else lowest
    return abs(float((value - exact) * gmpy2.exp2(significand - 1 - unit)))


def logarithm(row):
    """log(sum(e^(x - max))) in MPFR, without cancellation; and the largest element."""
    largest = max(row)
    others = sorted(row)[:-1]
    total = gmpy2.fsum([gmpy2.exp(ONE * x - largest) for x in others]) if others else 0
    return gmpy2.log1p(gmpy2.mpfr(total)), largest


def errors(x, y):
    """The largest error in ulp of each row of log_softmax, against MPFR with 200 bits."""
    worst = []
    with gmpy2.context(precision=200):
        for row, got in zip(x.astype(float).tolist(), y.astype(float).tolist(), strict=True):
            log, largest = logarithm(row)
            exact = [ONE * v - largest - log for v in row]
            worst.append(max(error(x.dtype, *pair) for pair in zip(got, exact, strict=True)))
    return worst


@pytest.mark.parametrize("length", [*LENGTHS, 2100])
def test_log_softmax(dtype, length):
    x = rows(dtype, max(3, 4000 // length), length)
    assert max(errors(x, fastact.log_softmax(x))) <= LOG_SOFTMAX.ulp[dtype.name]


@pytest.mark.parametrize("length", [2, 10, 100, 300])
def test_log_softmax_where_one_element_dominates(dtype, length):
    """The result is about -R, where R is a sum of many terms that are nearly lost beside 1."""
    x = np.random.default_rng(length).uniform(-1, 1, (60, length))
    x -= np.linspace(0, 100 if dtype == np.float32 else 700, 60)[:, None]
    x[:, length // 3] = 0
    for offset in (0, 100, -500):
        moved = (x + offset).clip(-6e4, 6e4).astype(dtype)
        assert max(errors(moved, fastact.log_softmax(moved))) <= LOG_SOFTMAX.ulp[dtype.name]


@pytest.mark.parametrize("length", [20, 100])
def test_log_softmax_where_the_subtraction_of_the_largest_would_round(dtype, length):
    """Offsets on both sides of every power of 2, and of the numbers where the base changes."""
    largest = float(ml_dtypes.finfo(dtype).max)
    powers = 2.0 ** np.arange(-20, min(np.log2(largest), 60))
    centres = np.concatenate([powers, [105, 106, 211, 212, 213, 745, 747, 1493, 1494, 1495]])
    offsets = np.concatenate([centres, -centres]) * (1 - 2.0**-9)
    rng = np.random.default_rng(length)
    x = offsets[:, None] - rng.uniform(0, 20, (len(offsets), length))
    x *= rng.uniform(1 - 2.0**-9, 1, x.shape)  # adds bits that the difference has no room for
    x[:, 0] = offsets + rng.uniform(0, 100, len(offsets))
    x = x.clip(-largest, largest).astype(dtype)
    assert max(errors(x, fastact.log_softmax(x))) <= LOG_SOFTMAX.ulp[dtype.name]


@pytest.mark.parametrize("length", [2, 3, 10, 129, 300])
def test_log_softmax_of_equal_elements(dtype, length):
    """The largest element occurs several times."""
    x = np.full((4, length), -0.7, dtype)
    x[1:, 0] = 0
    x[2:, length // 2] = 0
    x[3, 0] = -np.inf
    assert max(errors(x, fastact.log_softmax(x))) <= LOG_SOFTMAX.ulp[dtype.name]


@pytest.mark.parametrize("length", [*LENGTHS, 5000])
def test_special_values_of_log_softmax(dtype, length):
    for pair, result in LOG_SOFTMAX.specials:
        x = np.full(length, -np.inf, dtype)
        with np.errstate(over="ignore"):  # -1e9 is -inf in float16
            x[-len(pair) :] = np.array(pair)[-length:].astype(dtype)
            expected = np.array(result).astype(dtype)
        if length >= len(pair):
            y = fastact.log_softmax(x)
            assert_same(y[-len(pair) :], expected)
            assert (y[: -len(pair)].astype(float) == -np.inf).all()


def test_largest_numbers(dtype):
    largest = ml_dtypes.finfo(dtype).max
    y = fastact.log_softmax(np.array([largest, -largest, 0], dtype)).astype(float)
    assert y.tolist() == [0, -np.inf, -float(largest)]
    assert is_nan(fastact.log_softmax(np.array([largest, np.inf], dtype))).all()
    assert not bits(fastact.log_softmax(np.array([largest], dtype))).any()


@pytest.mark.parametrize("length", [1, 5, 33, 100, 300, 2100])
def test_in_place(dtype, length):
    x = rows(dtype, 70 if length < 100 else 3, length)
    expected = fastact.log_softmax(x)
    assert_same(np.stack([fastact.log_softmax(row.copy()) for row in x]), expected)
    for arrange in (np.ascontiguousarray, np.asfortranarray, lambda v: v[::-1].copy()[::-1]):
        y = arrange(x.copy())
        assert fastact.log_softmax(y, out=y) is y
        assert_same(y, expected)
    wide = np.repeat(x, 2, axis=-1)
    fastact.log_softmax(wide[:, ::2], out=wide[:, ::2])
    assert_same(wide[:, ::2], expected)
    assert_same(wide[:, 1::2], x)


@pytest.mark.parametrize("target", ["x86-64-v2", "x86-64-v3"])
@pytest.mark.skipif("x86_64" not in host.host().triple, reason="runs code for x86-64")
def test_code_for_lesser_machines_is_as_accurate(dtype, target):
    function = ufunc.create(
        name="lesser",
        nin=1,
        doc="",
        types="efd",
        choose=functools.partial(engine.choose_dtype, keeps_integers=False),
        make_loop=functools.partial(engine.rows_address, LOG_SOFTMAX.steps, target=TARGETS[target]),
        signature="(n)->(n)",
    )
    for length in (3, 20, 100, 2100):
        x = rows(dtype, max(2, 400 // length), length)
        assert max(errors(x, function(x))) <= LOG_SOFTMAX.ulp[dtype.name]


# logsumexp.


def totals(x, y):
    """The errors in ulp of results of logsumexp, and in units of 2^-p of the largest element."""
    found = []
    with gmpy2.context(precision=200):
        for row, got in zip(x.astype(float).tolist(), y.astype(float).tolist(), strict=True):
            log, largest = logarithm(row)
            exact = largest + log
            scaled = abs(got - exact) / abs(largest) if largest else 0
            found.append(
                (error(x.dtype, got, exact), float(scaled * 2 ** PRECISION[x.dtype.name][0]))
            )
    return np.array(found).T


@pytest.mark.parametrize("length", [*LENGTHS, 2100, 9000])
def test_logsumexp(dtype, length):
    x = rows(dtype, max(3, 4000 // length), length)
    x = x[(x > -np.inf).any(1)]
    assert totals(x, fastact.logsumexp(x))[0].max() <= LOGSUMEXP.ulp[dtype.name]


def test_logsumexp_where_one_term_dominates(dtype):
    """The result is the sum of the other terms where the largest element is 0.

    SciPy lost it (https://github.com/scipy/scipy/issues/19521).
    """
    lowest = {"float16": 9, "bfloat16": 80, "float32": 80, "float64": 700}[dtype.name]
    x = np.zeros((80, 3), dtype)
    x[:, 1] = -np.linspace(0.1, lowest, 80)
    x[:, 2] = x[:, 1] - dtype.type(0.5)
    y = fastact.logsumexp(x)
    assert (y > 0).all() and totals(x, y)[0].max() <= LOGSUMEXP.ulp[dtype.name]


@pytest.mark.parametrize("length", [2, 3, 10, 100, 1000])
def test_logsumexp_where_its_parts_cancel(dtype, length):
    """Here the bound is relative to the largest element."""
    rng = np.random.default_rng(length)
    x = rng.uniform(-1, 0, (300, length))
    x -= np.log(np.exp(x).sum(1, keepdims=True)) + rng.choice([0, 1e-3, -1e-3, 0.05], (300, 1))
    x = x.astype(dtype)
    ulp, scaled = totals(x, fastact.logsumexp(x))
    assert np.minimum(ulp - LOGSUMEXP.ulp[dtype.name], scaled - 1).max() <= 0


@pytest.mark.parametrize("length", [*LENGTHS, 5000])
def test_special_values_of_logsumexp(dtype, length):
    for row, result in LOGSUMEXP.specials:
        with np.errstate(over="ignore"):
            x = np.full((3, max(length, len(row))), -np.inf, dtype)
            x[1, -len(row) :] = np.array(row).astype(dtype)
        assert_same(fastact.logsumexp(x), np.array([-np.inf, result, -np.inf], dtype))
    x = rows(dtype, 40, length)
    expected = fastact.logsumexp(x)
    assert_same(expected, np.array([fastact.logsumexp(row) for row in x], dtype))
    for bad in nans(dtype):
        for other in (0, np.inf, -np.inf):
            x[7], x[7, length // 2] = other, bad
            y = fastact.logsumexp(x)
            assert_same(y[7], np.array(np.nan, dtype))
            assert_same(np.delete(y, 7), np.delete(expected, 7))


def test_logsumexp_is_a_reduction(dtype):
    x = rows(dtype, 6, 35).reshape(2, 3, 5, 7)
    for axis in range(-4, 4):
        expected = fastact.logsumexp(np.moveaxis(x, axis, -1).copy())
        assert_same(fastact.logsumexp(x, axis=axis), expected)
        kept = fastact.logsumexp(x, axis=axis, keepdims=True)
        assert_same(kept, np.expand_dims(expected, axis))
        room = np.full((*expected.shape, 2), 7, dtype)
        fastact.logsumexp(x, axis=axis, out=room[..., 0])
        assert_same(room[..., 0], expected)
        assert (room[..., 1] == 7).all()
    assert fastact.logsumexp.signature == "(n)->()" and fastact.logsumexp(x[0, 0, 0]).ndim == 0
    assert_same(fastact.logsumexp([1, 2]), fastact.logsumexp([1.0, 2.0]))


@pytest.mark.parametrize("shape", [(0,), (3, 0), (2, 3, 0)])
def test_the_logarithm_of_an_empty_sum(dtype, shape):
    room = np.full((*shape[:-1], 2), 7, dtype)
    fastact.logsumexp(np.empty(shape, dtype), out=room[..., 0])
    assert (room[..., 0].astype(float) == -np.inf).all() and (room[..., 1] == 7).all()
    assert fastact.logsumexp(np.empty((0, 3), dtype)).shape == (0,)


def test_reference_and_docstring_of_logsumexp():
    for row, result in LOGSUMEXP.specials[:3]:
        np.testing.assert_allclose(LOGSUMEXP.reference(np, np.array(row)), result, rtol=1e-14)
    for part in (LOGSUMEXP.summary, LOGSUMEXP.formula, LOGSUMEXP.notes, LOGSUMEXP.invalid):
        assert part in fastact.logsumexp.__doc__
