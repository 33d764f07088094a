"""Errors in ulp are measured as defined."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import accuracy
from bench.accuracy import PRECISION

LARGEST = float(np.finfo(np.float32).max)
HALF_ULP = 2.0**103  # at the largest number


@pytest.fixture(scope="module", autouse=True)
def compiled():
    """Compile first, so that no test includes the 4 s that Numba takes."""
    reports(1, want=1)


floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
scaled = st.builds(lambda x, e: x * 2.0**e, st.floats(-2, 2), st.integers(-152, 126))


def reports(*results, want, x=None, nondecreasing=False):
    """Reports on these `results`, arrays or numbers, if `want` is correct."""
    size = max(map(np.size, (*results, want)))
    x = np.arange(size, dtype=np.float32) if x is None else np.asarray(x, np.float32)

    def function(y):
        return lambda x: np.broadcast_to(np.asarray(y, np.float32), x.shape)

    def reference(m, at):
        right = np.broadcast_to(np.asarray(want, np.float64), x.shape)
        return right if len(at) == len(x) else right[np.searchsorted(x, at)]

    functions = [function(y) for y in results]
    return accuracy.narrow_reports(functions, reference, x, "float32", nondecreasing)


def error(got: float, want: float) -> Fraction:
    bits, lowest = PRECISION["float32"]
    right = Fraction(float(want))
    exponent = abs(right.numerator).bit_length() - right.denominator.bit_length()
    ulp = Fraction(2) ** ((max(exponent, lowest) if right else lowest) - bits + 1)
    return abs(Fraction(float(got)) - right) / ulp


@given(floats, scaled | floats)
def test_error_of_any_number(got, want):
    (report,) = reports(got, want=want)
    assert report.ulp == float(error(got, want))
    assert report.count == 1 and report.wrong == 0


@pytest.mark.parametrize("size", [1, 100, 4096, 4097, 20_000])
def test_the_largest_error_is_found_wherever_it_is(size):
    rng = np.random.default_rng(size)
    for place in {0, size - 1, *rng.integers(0, size, 5).tolist()}:
        want = rng.uniform(1, 2, size)
        got = want.astype(np.float32)
        got[place] += 3 * np.float32(2**-23)
        other = want.astype(np.float32)
        first, second = reports(got, other, want=want)
        assert first.ulp == float(error(got[place], want[place])) > 2
        assert first.worst == (place,)
        assert second.ulp == max(float(error(*pair)) for pair in zip(other, want, strict=True))
        assert first.count == second.count == size


@pytest.mark.parametrize(
    ("got", "want", "ulp", "wrong"),
    [
        (np.nan, 1, 0, 1),
        (1, np.nan, 0, 1),
        (np.nan, np.nan, 0, 0),
        (np.inf, 1e39, 0, 0),
        (-np.inf, -np.inf, 0, 0),
        (-np.inf, 1e39, np.inf, 0),
        (LARGEST, 1e39, np.inf, 0),
        (np.inf, LARGEST, np.inf, 0),
        (np.inf, LARGEST + HALF_ULP, 0, 0),
        (LARGEST, np.nextafter(LARGEST + HALF_ULP, 0), 0.5, 0),
        (0.0, 2.0**-151, 0.25, 0),
    ],
)
@pytest.mark.parametrize("place", [0, 5000])
def test_errors_at_the_ends_of_the_format(got, want, ulp, wrong, place):
    results, wants = np.ones((2, 6000))
    results[place], wants[place] = got, want
    (report,) = reports(results, want=wants)
    assert (round(report.ulp, 6), report.wrong) == (ulp, wrong)
    x = np.zeros(6000)
    x[place] = np.inf  # infinite inputs are not compared
    (report,) = reports(results, want=wants, x=x)
    assert (report.ulp, report.wrong) == (0, 0)


@pytest.mark.parametrize("got", [0.999, 1.0, 1.5, 2.0, 2.001, np.nan])
@pytest.mark.parametrize("size", [1, 2, 6000])
def test_equal_results_of_a_nondecreasing_function(got, size):
    """The comparison of two inputs finds what that of all finds."""
    want = np.linspace(1, 2, size)
    (report,) = reports(np.full(size, got), want=want, nondecreasing=True)
    assert report == reports(np.full(size, got), want=want)[0]
    assert report.count == size


@pytest.mark.parametrize("place", [1, 4095, 4096, 4097, 5999])
def test_decreases_are_counted_across_blocks(place):
    y = np.arange(6000.0)
    y[place:] -= 1.5
    (report,) = reports(y, want=y)
    assert report.decreases == 1
    (report,) = reports(y, want=y, x=-np.arange(6000.0))
    assert report.decreases == 0  # the inputs descend
