"""Every polynomial of the kernels is the one that its derivation gives, with the stated error."""

import importlib

import numpy as np
import pytest
from mpmath import mp

from fastact._kernels import elementary, gates, log1pexp, logarithm, normal, vocabulary
from fastact._kernels import tables as kernel_tables
from fastact._kernels.elementary import BELOW, EXP, LN2_LOW, reflected
from fastact._kernels.logarithm import LOG
from fastact._kernels.vocabulary import ENTRIES
from tools import minimax, tables

sigmoid_module, tanh_module, softplus_module, selu_module, erf_module, erfc_module = (
    importlib.import_module(f"fastact._functions.{name}")
    for name in ("sigmoid", "tanh", "softplus", "selu", "erf", "erfc")
)

log_ndtr_module = importlib.import_module("fastact._functions.log_ndtr")
gelu_module = importlib.import_module("fastact._functions.gelu")
FITS = (
    elementary.FITS
    | log1pexp.FITS
    | logarithm.FITS
    | normal.FITS
    | gelu_module.FITS
    | erf_module.FITS
    | log_ndtr_module.FITS
)

SIGNIFICAND = {"single": 24, "double": 53}
CASES = [
    (name, precision)
    for name, fit in FITS.items()
    for precision in SIGNIFICAND
    if getattr(fit.coefficients, precision) is not None
]


@pytest.mark.parametrize(("name", "precision"), CASES)
def test_tail_is_what_its_derivation_gives(name, precision):
    fit = FITS[name]
    tail = getattr(fit.coefficients, precision)
    derived = minimax.fit(
        lambda x: fit.function(mp, x),
        fit.interval,
        len(tail) - 1,
        fit.weight,
        SIGNIFICAND[precision],
    )
    assert [float(c) for c in tail] == derived


@pytest.mark.parametrize(("name", "precision"), CASES)
def test_tail_has_the_stated_error(name, precision):
    fit = FITS[name]
    tail = [float(c) for c in getattr(fit.coefficients, precision)]
    error = minimax.error(tail, lambda x: fit.function(mp, x), fit.interval, fit.weight)
    stated = getattr(fit.error, precision)
    assert 0.8 * stated < error <= stated


@pytest.mark.parametrize("precision", SIGNIFICAND)
def test_constants_of_the_reductions(precision):
    bits = SIGNIFICAND[precision]
    exp, log, below = (getattr(table, precision) for table in (EXP, LOG, BELOW))
    with mp.workprec(300):
        ln2 = mp.log(2)
        assert float(exp.log2_e) == minimax.round_to(1 / ln2, bits)
        # n has 8 or 11 bits, so that n * ln2_high is exact.
        short = minimax.round_to(ln2, {24: 16, 53: 42}[bits])
        assert (float(exp.ln2_high), float(exp.ln2_low)) == (
            short,
            minimax.round_to(ln2 - short, bits),
        )
        assert (log.ln2_high, log.ln2_low) == (exp.ln2_high, exp.ln2_low)
        full = minimax.round_to(ln2, bits)
        low = minimax.round_to(ln2 - full, bits) if precision == "double" else 0
        assert (float(below.ln2), float(below.ln2_low)) == (full, low)
        assert float(log.root) == minimax.round_to(mp.sqrt(0.5), bits)
    # Around this number, the numbers of the precision are the integers.
    assert float(exp.shift) == 1.5 * 2.0 ** (bits - 1)


@pytest.mark.parametrize("precision", SIGNIFICAND)
def test_constants_that_are_sums_of_two_numbers(precision):
    selu = getattr(selu_module._SELU, precision)
    density, slope = (getattr(table, precision) for table in (normal.DENSITY, normal.ERROR_SLOPE))
    root = getattr(erfc_module._ROOT, precision)
    with mp.workprec(300):
        scale = mp.mpf("1.0507009873554804934193349852946")
        alpha = mp.mpf("1.6732632423543772848170429916717")
        for high, low, exact in (
            (selu.scale, selu.scale_low, scale),
            (selu.product, selu.product_low, scale * alpha),
            (getattr(BELOW, precision).ln2, getattr(LN2_LOW, precision), mp.log(2)),
            (density.factor, density.factor_low, 1 / mp.sqrt(2 * mp.pi)),
            (slope.factor, slope.factor_low, 2 / mp.sqrt(mp.pi)),
            (root.high, root.low, mp.sqrt(2)),
        ):
            rest = exact - mp.mpf(float(high))
            assert float(low) == minimax.round_to(rest, SIGNIFICAND[precision])
            assert abs(rest) < abs(exact) * mp.mpf(2) ** (1 - SIGNIFICAND[precision])
        for rest, exact in ((selu.scale_rest, scale), (selu.product_rest, scale * alpha)):
            assert float(rest) == minimax.round_to(exact - 1, SIGNIFICAND[precision])


def power_of_sum(total):
    """2^n as the operation `pow2_of_sum` gives it."""
    if isinstance(total, np.float32):
        return (total.view(np.uint32) << np.uint32(23)).view(np.float32)
    return (np.float64(total).view(np.uint64) << np.uint64(52)).view(np.float64)


@pytest.mark.parametrize("precision", SIGNIFICAND)
def test_sums_select_the_stated_powers(precision):
    sigmoid = getattr(sigmoid_module._LOGISTIC, precision)
    number, ln2 = type(sigmoid.unit), np.log(2.0)
    assert power_of_sum(sigmoid.shift) == -sigmoid.unit
    for argument, expected in (
        (sigmoid.enough, None),
        (sigmoid.lowest, None),
        (sigmoid.infinite, -np.inf),
    ):
        power = power_of_sum(number(sigmoid.shift + np.round(-argument / ln2)))
        assert power == expected if expected else -np.inf < power < 0
    softplus = getattr(log1pexp.LOG1PEXP, precision)
    assert power_of_sum(softplus.shift) == 1 / softplus.unit
    assert power_of_sum(number(softplus.shift + np.round(softplus.lowest / ln2))) == 0
    tanh = getattr(tanh_module._TANH, precision)
    assert power_of_sum(tanh.shift) == 0.5
    assert power_of_sum(tanh.lowest) == 2.0 ** -SIGNIFICAND[precision] / 2


def test_powers_of_two_by_tables():
    """Each entry and its rest are 2^(k/32), and the polynomial is e^r for what remains."""
    exp2, exp = kernel_tables.EXP2, EXP.single
    powers, rests = exp2.power.values, exp2.rest.values
    with mp.workprec(100):
        for k in range(-ENTRIES, 2 * ENTRIES):
            entry = np.float32(powers[k % ENTRIES]).view(np.int32)
            power = float((entry + np.int32(k << 18)).view(np.float32))
            exact = mp.mpf(2) ** (mp.mpf(k) / ENTRIES)
            short = mp.mpf(2) ** (k // ENTRIES)
            assert power == minimax.round_to(exact / short, 8) * short
            assert np.float32(rests[k % ENTRIES]) == minimax.round_to(mp.log(exact / power), 24)
    assert [float(c) * ENTRIES for c in (exp2.ln2_high, exp2.ln2_low)] == [
        float(exp.ln2_high),
        float(exp.ln2_low),
    ]
    assert float(exp2.log2_e) == float(exp.log2_e) * ENTRIES
    farthest = np.log(2) / ENTRIES / 2 + max(map(abs, rests))
    tail = [float(c) for c in exp2.tail]
    fit = FITS["exp"]
    error = minimax.error(tail, lambda r: fit.function(mp, r), (-farthest, farthest), fit.weight)
    assert error < 2.0**-29


def test_reflected_coefficients_are_of_the_reflected_polynomial():
    assert reflected((1.0, 2.0, 3.0, 4.0)) == (1.0, -2.0, 3.0, -4.0)


def test_single_tables_hold_single_values():
    for fit in FITS.values():
        assert all(type(c) is np.float32 for c in fit.coefficients.single or ())


ROWS = {"TANH": kernel_tables._TANH_ROWS, "ERF": kernel_tables._ERF_ROWS}
ROW_ERRORS = {"TANH": 2.0**-28.6, "ERF": 2.0**-30.0}
by_tables = pytest.mark.parametrize("name", ROWS)


@by_tables
def test_rows_are_what_their_derivation_gives(name):
    of = tables.DERIVATIONS[name]
    assert len(ROWS[name]) == ENTRIES
    for k, row in enumerate(ROWS[name]):
        assert [np.float32(v) for v in row] == [np.float32(v) for v in tables.row(of, k)], k


@by_tables
def test_rows_have_the_error_that_is_stated(name):
    """Relative to the result, including the rounding of the coefficients."""
    of, stated = tables.DERIVATIONS[name], ROW_ERRORS[name]
    errors = []
    for k, (centre, *coefficients) in enumerate(ROWS[name]):
        value, ends = tables.value(of, k, float(np.float32(centre)))
        single = [float(np.float32(c)) for c in coefficients]
        if k == 0:
            single = [1 + single[1], *single[2:]]
        errors.append(minimax.error(single, value, ends, lambda t, value=value: 1 / value(t)))
    assert 0.9 * stated < max(errors) <= stated


@by_tables
def test_tables_are_looked_up_by_the_number_of_the_row(name):
    table = getattr(kernel_tables, name)
    for k, row in enumerate(ROWS[name]):
        entry = int((table.shift + np.float32(k)).view(np.uint32)) % ENTRIES
        pieces = table.pieces
        columns = (pieces.centre, pieces.value, *pieces.slope)
        assert [column.values[entry] for column in columns] == list(row)


@by_tables
def test_constants_of_the_tables(name):
    of, enough = tables.DERIVATIONS[name], getattr(kernel_tables, name).enough
    assert float(of.arrays(np.float64(enough))) > 1 - 2.0**-25
    assert enough <= tables.interval(of, ENTRIES - 1)[1]


BELL_ROWS = {
    "GELU": kernel_tables._GELU_ROWS,
    "NDTR": kernel_tables._NDTR_ROWS,
    "ERFC": kernel_tables._ERFC_ROWS,
}
BELL_ERRORS = {"GELU": 2.0**-27.7, "NDTR": 2.0**-28.4, "ERFC": 2.0**-28.2}
of_bells = pytest.mark.parametrize("name", BELL_ROWS)


@of_bells
def test_rows_of_bells_are_what_their_derivation_gives(name):
    of = tables.BELLS[name]
    assert len(BELL_ROWS[name]) == ENTRIES
    for k, row in enumerate(BELL_ROWS[name]):
        assert [np.float32(v) for v in row] == [np.float32(v) for v in tables.bell_row(of, k)], k


@of_bells
def test_rows_of_bells_have_the_error_that_is_stated(name):
    """Relative to the result, or to a/2 in the first rows of gelu, which are added to that."""
    of, stated = tables.BELLS[name], BELL_ERRORS[name]
    errors = []
    for k, (centre, *coefficients) in enumerate(BELL_ROWS[name][:-1]):
        function, _ = tables.bell_values(of, k)
        low, high = tables.bell_interval(of, k)
        centre = float(np.float32(centre))
        near = float(of.bell.scale) * high + 1 <= of.bell.near

        def weight(t, centre=centre, function=function, near=near):
            a = centre + t
            return 2 * tables.COMMON / a if near else 1 / function(a)

        errors.append(
            minimax.error(
                [float(np.float32(c)) for c in coefficients],
                lambda t, centre=centre, function=function: function(centre + t),
                (low - centre, high - centre),
                weight,
            )
        )
    assert 0.9 * stated < max(errors) <= stated


@of_bells
def test_tables_of_bells_are_looked_up_by_the_leading_bits(name):
    bell = getattr(kernel_tables, name)
    columns = (bell.pieces.centre, bell.pieces.value, *bell.pieces.slope)
    for k, row in enumerate(BELL_ROWS[name]):
        for d in (2.0 ** (k // 8) * (1 + (k % 8 + part) / 8) for part in (0, 0.99)):
            entry = (int(np.float32(d).view(np.uint32)) >> 20) % ENTRIES
            assert [column.values[entry] for column in columns] == list(row)


@of_bells
def test_constants_of_bells(name):
    bell = getattr(kernel_tables, name)
    step = float(bell.step)
    # n L is exact for every n, and so is the constant that is added to it.
    most = round(float(bell.enough) ** 2 / step)
    assert step.as_integer_ratio()[0].bit_length() + most.bit_length() <= 24
    assert float(bell.shifted) == -float(bell.shift) * step
    assert float(bell.per_square) == float(np.float32(-1 / step))
    with mp.workprec(100):
        # The last row begins where the result is less than half the smallest subnormal number.
        last = tables.bell_interval(tables.BELLS[name], ENTRIES - 1)[0]
        assert 0.1 < tables.BELLS[name].function(mp.mpf(last)) / mp.mpf(2) ** -150 < 1
    assert float(bell.scale) * float(bell.enough) + 1 < 16
    numbers = [
        (np.float32(entry).view(np.int32) + np.int32(i << 21)).view(np.float32)
        for i, entry in enumerate(bell.power.values[:4])
    ]
    for i, number in enumerate(numbers):
        exact = tables.COMMON * 2 ** (40 + i / 4)
        assert abs(float(number) / exact - 1) < 2.0**-31
    c = mp.log(2) / (4 * mp.mpf(step))
    error = minimax.error(
        [float(v) for v in bell.tail],
        lambda r: mp.expm1(-c * r) / r,
        (-step / 2, step / 2),
        abs,
    )
    assert error < 2.0**-28


def test_rows_of_octaves_are_what_their_derivation_gives():
    of = tables.OCTAVES["TANHSHRINK"]
    assert len(kernel_tables._TANHSHRINK_ROWS) == ENTRIES
    for k, row in enumerate(kernel_tables._TANHSHRINK_ROWS):
        assert [np.float32(v) for v in row] == [np.float32(v) for v in tables.octave_row(of, k)], k


def test_rows_of_octaves_have_the_error_that_is_stated():
    """Relative to the result; in the last three rows, no value is nearly a binary32 number."""
    of = tables.OCTAVES["TANHSHRINK"]
    errors = []
    for k, (centre, *coefficients) in enumerate(kernel_tables._TANHSHRINK_ROWS):
        centre = float(np.float32(centre))
        low, high = tables.octave_interval(of, k)

        def function(t, centre=centre):
            return of.function(centre + t)

        single = [float(np.float32(c)) for c in coefficients]
        ends = (low - centre, high - centre)
        errors.append(minimax.error(single, function, ends, lambda t, f=function: 1 / f(t)))
    assert 2.0**-26.6 < max(errors[:29]) <= 2.0**-26.5
    assert 2.0**-25.2 < max(errors[29:]) <= 2.0**-25.1


def test_constants_of_tanhshrink_by_tables():
    of, cubic = kernel_tables.TANHSHRINK, function_file("tanhshrink")._CUBIC_BY_TABLES
    columns = (of.pieces.centre, of.pieces.value, *of.pieces.slope)
    for k, row in enumerate(kernel_tables._TANHSHRINK_ROWS):
        for d in (2.0 ** (k // 8) * (1 + (k % 8 + part) / 8) for part in (0, 0.99)):
            entry = (int(np.float32(d).view(np.uint32)) >> 20) % ENTRIES
            assert [column.values[entry] for column in columns] == list(row)
    assert 15.9 < float(cubic.enough) * float(of.scale) < 16
    # From there on, x - 1 is less than half an ulp from the result.
    with mp.workprec(100):
        assert 1 - mp.tanh(mp.mpf(float(cubic.enough))) < 0.1 * np.spacing(cubic.enough - 1)
        assert float(cubic.third) == float(np.float32(1 / 3))

        def rest(b):
            a = mp.sqrt(b)
            return (a - mp.tanh(a)) / a**3 - mp.mpf(float(cubic.third))

        interval = (0.0, 0.3095)  # to a little above 1 / scale^2
        fitted = minimax.fit(rest, interval, len(cubic.rest) - 1, lambda b: 1, 24)
        assert [np.float32(c) for c in fitted] == list(cubic.rest)
        error = minimax.error([float(c) for c in cubic.rest], rest, interval, lambda b: 3)
        assert 2.0**-29.3 < error <= 2.0**-29.2
        mean = float(cubic.third) + float(rest(mp.mpf(interval[1]))) / 2
        assert abs(float(cubic.mean) - mean) < 0.02


def test_a_table_has_as_many_entries_as_a_lookup():
    assert len(vocabulary.Table(range(ENTRIES)).values) == ENTRIES
    with pytest.raises(ValueError, match="expected 32 numbers, got 31"):
        vocabulary.Table(range(ENTRIES - 1))


def two_terms(value, bits):
    high = minimax.round_to(value, bits)
    return high, minimax.round_to(value - high, bits)


def function_file(name):
    return importlib.import_module(f"fastact._functions.{name}")


@pytest.mark.parametrize("precision", SIGNIFICAND)
def test_zeros_of_the_derivatives_of_gates(precision):
    bits = SIGNIFICAND[precision]
    silu, gelu, mish = (
        [float(v) for v in getattr(table, precision)]
        for table in (
            gates._ZERO,
            function_file("gelu_tanh")._ZERO,
            function_file("mish")._SLOPE,
        )
    )
    with mp.workprec(300):
        zero = mp.findroot(lambda z: 1 + mp.exp(-z) - z, 1.278)
        assert silu == [*two_terms(zero, bits), *two_terms(zero - 1, bits)]
        rate, cubic = mp.sqrt(8 / mp.pi), mp.sqrt(8 / mp.pi) * 44715 / 10**6

        def power(a):
            return mp.exp(-rate * a - cubic * a**3)

        zero = mp.findroot(lambda a: 1 + power(a) - (rate * a + 3 * cubic * a**3), 0.752)
        assert gelu == [*two_terms(zero, bits), *two_terms(power(zero), bits)]
        zero = mp.findroot(lambda x: mp.diff(lambda v: v * mp.tanh(mp.log1p(mp.exp(v))), x), -1.19)
        assert mish[2:6] == [*two_terms(zero, bits), *two_terms(mp.exp(zero), bits)]


@pytest.mark.parametrize("precision", SIGNIFICAND)
def test_constants_of_gelu_tanh_and_quick_gelu(precision):
    bits, short = SIGNIFICAND[precision], {"single": 16, "double": 46}[precision]
    gelu = function_file("gelu_tanh")
    with mp.workprec(300):
        scale = mp.sqrt(8 / mp.pi)
        high = minimax.round_to(scale, short)
        low = minimax.round_to(scale - high, bits)
        for table, factor in ((gelu._ARGUMENT, 1), (gelu._DERIVATIVE, 3)):
            cubic = two_terms(factor * scale * 44715 / 10**6, bits)
            assert [float(v) for v in getattr(table, precision)] == [high, low, *cubic]
        rate = getattr(function_file("quick_gelu")._RATE, precision)
        assert [float(v) for v in rate] == [*two_terms(mp.mpf(1702) / 1000, bits)]


@pytest.mark.parametrize("precision", SIGNIFICAND)
def test_constants_of_tanhshrink(precision):
    with mp.workprec(300):
        x = mp.sqrt(0.5)
        ratio = two_terms((x - mp.tanh(x)) / x**3, SIGNIFICAND[precision])
    near = getattr(function_file("tanhshrink")._NEAR, precision)
    assert (float(near.high), float(near.low)) == ratio


def test_rows_of_spreads_are_what_their_derivation_gives():
    of = tables.SPREADS["MISH"]
    assert len(kernel_tables._MISH_ROWS) == ENTRIES
    for k, row in enumerate(kernel_tables._MISH_ROWS):
        assert [np.float32(v) for v in row] == [np.float32(v) for v in tables.spread_row(of, k)], k


def test_rows_of_spreads_have_the_error_that_is_stated():
    """Relative to the result."""
    of = tables.SPREADS["MISH"]
    errors = []
    for k, (centre, *coefficients) in enumerate(kernel_tables._MISH_ROWS):
        rest, centre = tables.spread_value(of, k), float(np.float32(centre))
        ends = [end - centre for end in tables.spread_interval(of, k)]
        errors.append(
            minimax.error(
                [float(np.float32(c)) for c in coefficients],
                lambda t, rest=rest, centre=centre: rest(centre + t),
                ends,
                lambda t, centre=centre: 1 / abs(of.function(centre + t)),
            )
        )
    assert 2.0**-26.5 < max(errors) <= 2.0**-26.4


def test_constants_of_mish_by_tables():
    of = kernel_tables.MISH
    columns = (of.pieces.centre, of.pieces.value, *of.pieces.slope)
    numbers = [tables.spread_number(tables.SPREADS["MISH"], k) for k in range(ENTRIES)]
    assert sorted(numbers) == list(range(-13, 19))
    for number, row in zip(numbers, kernel_tables._MISH_ROWS, strict=True):
        entry = int((of.shift + np.float32(number)).view(np.uint32)) % ENTRIES
        assert [column.values[entry] for column in columns] == list(row)
    # No row of another number is reached, and what `enough` leaves is less than half an ulp.
    assert float(of.lowest) > (-13 - 0.5) / float(of.per_unit)
    assert float(of.enough) < (18 + 0.5) / float(of.per_unit)
    with mp.workprec(100):
        enough = mp.mpf(float(of.enough))
        assert enough - tables.SPREADS["MISH"].function(enough) < 0.4 * np.spacing(of.enough)
    far = function_file("mish")._FAR
    # At `lowest`, the exponent field of 2^n is 0, and the sum r + w is positive.
    sum_ = np.float32(float(far.lowest) * float(EXP.single.log2_e) + float(far.shift))
    assert sum_ - far.shift == -127 - 40
    assert float(far.lowest) > float(sum_ - far.shift) * np.log(2)
    assert (far.unit, far.half) == (2.0**-40, -(2.0**-41))
