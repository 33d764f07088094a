"""logaddexp: errors where terms cancel, of tiny results and of gradients, infinities and NaN."""

import numpy as np
import pytest
from conftest import assert_same, bits, is_nan, nans, quieted

import fastact
from bench import accuracy
from fastact._declarations.records import ACTIVATIONS, DERIVATIVES

pytestmark = pytest.mark.functional

DECLARED = ACTIVATIONS["logaddexp"]
COUNT = {"float16": 200_000, "bfloat16": 200_000, "float32": 400_000, "float64": 15_000}
LIMITS = [0.0, -0.0, 0.5, -np.inf, np.inf]

each_format = pytest.mark.parametrize("name", COUNT)


def report(x1, x2, name, cancelling=DECLARED.cancelling):
    dtype = accuracy.dtype_of(name)
    operands = [x1.astype(dtype), x2.astype(dtype)]
    measure = accuracy.float64_report if name == "float64" else accuracy.narrow_report
    named = {} if name == "float64" else {"name": name}
    found = measure(fastact.logaddexp, DECLARED.reference, operands, **named, cancelling=cancelling)
    assert found.count == COUNT[name] and found.wrong == 0
    return found.ulp


@each_format
def test_where_the_terms_cancel(name):
    """Around e^x1 + e^x2 = 1, at all distances from it, also with a tiny x1."""
    rng, count = np.random.default_rng(1), COUNT[name]
    x1 = np.where(
        np.arange(count) % 2, -rng.uniform(0, 0.7, count), -(2.0 ** -rng.uniform(0, 20, count))
    )
    x2 = np.log(-np.expm1(x1))
    x2 *= 1 + rng.choice([-1, 1], count) * 2.0 ** -rng.uniform(0, 50, count)
    assert report(x1, x2, name) <= DECLARED.ulp[name]
    assert report(x2, x1, name) <= DECLARED.ulp[name]


@each_format
def test_where_the_distance_has_a_rounding_error(name):
    """The terms do not cancel here, so that errors are in ulp alone."""
    rng, count = np.random.default_rng(2), COUNT[name]
    x1 = rng.uniform(0, 1, count) * 2.0 ** -rng.uniform(0, 30, count)
    assert report(x1, x1 - rng.uniform(0, 5, count), name, None) <= DECLARED.ulp[name]


@pytest.mark.parametrize("name", ["bfloat16", "float32", "float64"])
def test_tiny_results(name):
    rng, count = np.random.default_rng(3), COUNT[name]
    lowest = -745 if name == "float64" else -103
    x1 = 2.0 ** rng.uniform(1.4 * lowest, 0, count)
    assert report(x1, rng.uniform(lowest, 0, count), name, None) <= DECLARED.ulp[name]
    assert report(np.zeros(count), rng.uniform(lowest, 0, count), name, None) <= DECLARED.ulp[name]


@pytest.mark.parametrize("low", [17.0, 37.0])
@pytest.mark.parametrize("name", ["float32", "float64"])
def test_gradients_where_one_is_tiny(name, low):
    """Here the smaller term of 1 + e^-x is about an ulp."""
    declared = DERIVATIVES["logaddexp"]
    rng, dtype = np.random.default_rng(4), accuracy.dtype_of(name)
    x2 = rng.uniform(low, low + 2, COUNT[name]).astype(dtype)
    x1 = (rng.uniform(-1, 1, len(x2)) * np.spacing(x2)).astype(dtype)
    operands = [rng.uniform(1, 2, len(x2)).astype(dtype), x1, x2]
    for k in range(2):
        function = lambda *x: fastact.logaddexp_backward(*x)[k]  # noqa: B023, E731
        reference = lambda *x: declared.reference(*x)[k]  # noqa: B023, E731
        if name == "float64":
            found = accuracy.float64_report(function, reference, operands)
        else:
            found = accuracy.narrow_report(function, reference, operands, name)
        assert found.ulp <= declared.ulp[name]


def test_limits(dtype):
    x1, x2 = (v.ravel().astype(dtype) for v in np.meshgrid(LIMITS, LIMITS))
    with np.errstate(all="ignore"):
        expected = np.logaddexp(x1.astype(np.float64), x2.astype(np.float64)).astype(dtype)
    assert_same(fastact.logaddexp(x1, x2), expected)


def test_nan(dtype):
    """Of two NaNs, the first is returned, and a NaN also beside an infinity."""
    bad = nans(dtype)
    one = np.ones_like(bad)
    for number in np.array(LIMITS).astype(dtype):
        other = np.full_like(bad, number)
        assert_same(fastact.logaddexp(bad, other), quieted(bad))
        assert_same(fastact.logaddexp(other, bad), quieted(bad))
        for operands in ((bad, other, one), (one, bad, other), (one, other, bad)):
            for gradient in fastact.logaddexp_backward(*operands):
                assert_same(gradient, quieted(bad))
    first, second = (np.ascontiguousarray(v.ravel()) for v in np.meshgrid(bad, bad))
    assert is_nan(first).all() and bits(second).any()
    assert_same(fastact.logaddexp(first, second), quieted(first))
    for gradient in fastact.logaddexp_backward(np.ones_like(first), first, second):
        assert_same(gradient, quieted(first))
