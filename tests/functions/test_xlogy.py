"""xlogy: its errors near the zero of the logarithm and at the limits of the formats, and zeros."""

import numpy as np
import pytest
from conftest import assert_same, bits, is_nan, nans, quieted
from scipy import special

import fastact
from bench import accuracy
from fastact._declarations.records import ACTIVATIONS, DERIVATIVES

pytestmark = pytest.mark.functional

DECLARED = ACTIVATIONS["xlogy"]
NUMBERS = [0.0, -0.0, 0.5, 1.0, -1.0, 2.0, np.inf, -np.inf]


def operands(name, count, seed):
    """Numbers of all magnitudes, with logarithms of numbers near 1 and of all magnitudes."""
    rng, dtype = np.random.default_rng(seed), accuracy.dtype_of(name)

    def patterns(size):
        unsigned = f"u{dtype.itemsize}"
        return (
            rng.integers(0, 1 << 8 * dtype.itemsize, size, np.uint64).astype(unsigned).view(dtype)
        )

    part = count // 4
    near = 1 + rng.standard_normal(part) * 2.0 ** -rng.uniform(0, 20, part)
    with np.errstate(all="ignore"):
        x = np.concatenate([rng.standard_normal(2 * part).astype(dtype), patterns(2 * part)])
        y = np.concatenate([near.astype(dtype), rng.uniform(0, 2, part).astype(dtype)])
        y = np.concatenate([y, abs(patterns(2 * part))])
        rng.shuffle(x)
        finite = np.isfinite(x) & np.isfinite(y)
    return [x[finite], y[finite]]


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32"])
def test_errors(name):
    function, reference = fastact.xlogy, DECLARED.reference
    report = accuracy.narrow_report(function, reference, operands(name, 400_000, 1), name)
    assert report.count > 300_000
    assert report.ulp <= DECLARED.ulp[name]
    assert report.wrong == 0


@pytest.mark.parametrize("name", ["float32", "float64"])
def test_products_just_below_a_power_of_2(name):
    """There, errors of the logarithm are most ulp. Its own are largest where f is sqrt(2) - 1."""
    rng, dtype = np.random.default_rng(3), accuracy.dtype_of(name)
    count = {"float32": 400_000, "float64": 20_000}[name]
    y = np.sqrt(0.5) - rng.uniform(0, 0.01, count)
    x = 2 / abs(np.log(y)) * (1 - rng.uniform(0, 0.03, count))
    pairs = [x.astype(dtype), y.astype(dtype)]
    if name == "float64":
        report = accuracy.float64_report(fastact.xlogy, DECLARED.reference, pairs)
    else:
        report = accuracy.narrow_report(fastact.xlogy, DECLARED.reference, pairs, name)
    assert report.ulp <= DECLARED.ulp[name]


def test_errors_of_float64():
    x = operands("float64", 40_000, 2)
    report = accuracy.float64_report(fastact.xlogy, DECLARED.reference, x)
    assert report.ulp <= DECLARED.ulp["float64"]


def test_zeros_and_infinities(dtype):
    x, y = (v.ravel().astype(dtype) for v in np.meshgrid(NUMBERS, NUMBERS))
    with np.errstate(all="ignore"):
        expected = special.xlogy(x.astype(np.float64), y.astype(np.float64)).astype(dtype)
    found = fastact.xlogy(x, y).astype(np.float64)
    np.testing.assert_array_equal(found, expected.astype(np.float64))


def test_nan(dtype):
    """Of two NaNs, the first is returned, and a NaN also where the other operand is 0."""
    bad = nans(dtype)
    for number in np.array(NUMBERS).astype(dtype):
        assert_same(fastact.xlogy(bad, np.full_like(bad, number)), quieted(bad))
        assert_same(fastact.xlogy(np.full_like(bad, number), bad), quieted(bad))
    first, second = (np.ascontiguousarray(v.ravel()) for v in np.meshgrid(bad, bad))
    assert is_nan(first).all() and bits(second).any()
    assert_same(fastact.xlogy(first, second), quieted(first))


def test_nan_in_gradients(dtype):
    bad, one = nans(dtype), np.ones(len(nans(dtype)), dtype)
    for number in np.array([0.0, -1.0, 2.0]).astype(dtype):
        other = np.full_like(bad, number)
        for operands in ((bad, other, bad), (one, bad, other), (one, other, bad)):
            for gradient in fastact.xlogy_backward(*operands):
                assert_same(gradient, quieted(bad))


@pytest.mark.parametrize("name", ["float32", "float64"])
def test_gradients_of_all_magnitudes(name):
    """The quotient may be finite where the product is not."""
    declared = DERIVATIVES["xlogy"]
    count = {"float32": 300_000, "float64": 10_000}[name]
    rng, dtype = np.random.default_rng(5), accuracy.dtype_of(name)
    highest = {"float32": 120, "float64": 1000}[name]
    g, x, y = (
        rng.uniform(1, 2, count) * 2.0 ** rng.uniform(-highest, highest, count) for _ in "gxy"
    )
    y = np.where(np.arange(count) % 2, y, np.sqrt(0.5) * (1 - rng.uniform(0, 0.01, count)))
    operands = [v.astype(dtype) for v in (g, x, y)]
    for k in range(2):
        function = lambda *given: fastact.xlogy_backward(*given)[k]  # noqa: B023, E731
        reference = lambda *given: declared.reference(*given)[k]  # noqa: B023, E731
        if name == "float64":
            report = accuracy.float64_report(function, reference, operands)
        else:
            report = accuracy.narrow_report(function, reference, operands, name)
        assert report.wrong == 0
        assert report.ulp <= declared.ulp[name]
