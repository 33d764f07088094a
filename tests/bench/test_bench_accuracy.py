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


def reports(*results, want, x=None, consecutive=False):
    """Reports on these `results`, arrays or numbers, if `want` is correct."""
    size = max(map(np.size, (*results, want)))
    x = np.arange(size, dtype=np.float32) if x is None else np.asarray(x, np.float32)

    def function(y):
        return lambda x: np.broadcast_to(np.asarray(y, np.float32), x.shape)

    def reference(m, at):
        right = np.broadcast_to(np.asarray(want, np.float64), x.shape)
        return right if len(at) == len(x) else right[np.searchsorted(x, at)]

    functions = [function(y) for y in results]
    return accuracy.narrow_reports(functions, reference, x, "float32", consecutive)


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


@pytest.mark.parametrize(
    ("got", "power", "right"),
    [(np.inf, 1025, True), (-np.inf, 1025, False), (1e308, 1025, False), (np.inf, 1023, False)],
)
def test_overflow_of_float64(got, power, right):
    """The reference has a wider range."""
    report = accuracy.float64_report(
        lambda x: np.full_like(x, got), lambda m, x: x * m.exp2(power), np.ones(3)
    )
    assert report.ulp == 0 if right else report.ulp > 1


@pytest.mark.parametrize("got", [0.999, 1.0, 1.5, 2.0, 2.001, np.nan])
@pytest.mark.parametrize("size", [1, 2, 6000])
def test_equal_results_for_consecutive_inputs(got, size):
    """The comparison of some inputs finds what that of all finds."""
    want = np.linspace(1, 2, size)
    (report,) = reports(np.full(size, got), want=want, consecutive=True)
    assert report == reports(np.full(size, got), want=want)[0]
    assert report.count == size


@pytest.mark.parametrize("power", [-1, 0, 3])
@pytest.mark.parametrize("wrong", [None, 0, 1234, 5999])
def test_results_that_are_the_inputs_times_a_power_of_2(power, wrong):
    """The same, for an error that grows; one result that differs makes the comparison complete."""
    x = np.arange(2**23, 2**23 + 6000).astype(np.float32)
    y = x * 2.0**power
    want = y.astype(np.float64) * (1 + np.linspace(0, 2**-24, 6000))
    if wrong is not None:
        y[wrong] *= 2
    (report,) = reports(y, want=want, x=x, consecutive=True)
    assert report == reports(y, want=want, x=x)[0]
    assert report.count == 6000 and (report.ulp > 100) == (wrong is not None)


def test_results_that_are_all_nan():
    """Compared as the others, and completely if the reference is a number at either end."""
    want = np.full(6000, np.nan)
    (report,) = reports(want, want=want, consecutive=True)
    assert (report.ulp, report.wrong, report.count) == (0, 0, 6000)
    want[2500:] = 1
    (report,) = reports(np.full(6000, np.nan), want=want, consecutive=True)
    assert (report.ulp, report.wrong, report.count) == (0, 3500, 6000)


CHUNK = np.arange(0x3FA00000 - 1, 0x3FA20000, dtype=np.uint32).view(np.float32)


def smooth(reference, x=CHUNK):
    return accuracy._smooth(lambda m, x: reference(x), x.astype(np.float64), *PRECISION["float32"])


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    "reference", [np.exp, np.tanh, lambda x: x**9, lambda x: np.exp(-60 * x), lambda x: 1e-44 / x]
)
def test_polynomials_are_as_good_as_a_smooth_reference(reference, sign):
    x = sign * CHUNK
    exact = reference(x.astype(np.float64))
    np.testing.assert_allclose(smooth(reference, x), exact, rtol=2**-40, atol=2**-165)
    y = exact.astype(np.float32)
    y[70_000] = np.nextafter(y[70_000], np.float32(np.inf))
    given = [lambda x: y], lambda m, x: reference(x), x, "float32"
    (found,), (full,) = (accuracy.narrow_reports(*given, consecutive) for consecutive in (1, 0))
    assert full.ulp > 0.5 and abs(found.ulp - full.ulp) <= 2**-16
    assert (found.worst, found.wrong, found.count) == (full.worst, full.wrong, full.count)


def test_polynomials_of_several_results():
    def both(x):
        return np.stack([np.exp(x), np.log(x)])

    np.testing.assert_allclose(smooth(both), both(CHUNK.astype(np.float64)), rtol=2**-40)
    assert smooth(lambda x: np.stack([np.exp(x), abs(x - 1.2501)])) is None


@pytest.mark.parametrize("place", [1, 2, 500, 70_000, len(CHUNK) - 500, len(CHUNK) - 2])
@pytest.mark.parametrize("feature", ["bend", "jump", "nan"])
def test_polynomials_do_not_replace_a_reference_with_a(feature, place):
    at = float(CHUNK[place])
    reference = {
        "bend": lambda x: x + 0.01 * np.maximum(x - at, 0),
        "jump": lambda x: x + 1e-9 * (x >= at),
        "nan": lambda x: np.where((x >= at) == (place < 1000), x, np.nan),
    }[feature]
    assert smooth(reference) is None


@pytest.mark.parametrize(
    "reference",
    [
        lambda x: x - 1.2505,  # has a zero
        lambda x: np.exp(x) * (1 + 2**-38 * np.sin(1e9 * x)),  # has errors
        lambda x: np.sin(3000 * x) + 2,  # changes too fast
    ],
)
def test_polynomials_do_not_replace_a_reference_that(reference):
    assert smooth(reference) is None


@pytest.mark.parametrize("place", [1, 4095, 4096, 4097, 5999])
def test_decreases_are_counted_across_blocks(place):
    y = np.arange(6000.0)
    y[place:] -= 1.5
    (report,) = reports(y, want=y)
    assert report.decreases == 1
    (report,) = reports(y, want=y, x=-np.arange(6000.0))
    assert report.decreases == 0  # the inputs descend
