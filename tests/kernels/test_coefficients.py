"""Every polynomial of the kernels is the one that its derivation gives, with the stated error."""

import numpy as np
import pytest
from mpmath import mp

from fastact._kernels import tables as kernel_tables
from fastact._kernels import vocabulary
from fastact._kernels.elementary import EXP, FITS, LOG, RANGE
from fastact._kernels.vocabulary import ENTRIES
from tools import minimax, tables

SIGNIFICAND = {"single": 24, "double": 53}
CASES = [(name, precision) for name in FITS for precision in SIGNIFICAND]


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
    exp, log = getattr(EXP, precision), getattr(LOG, precision)
    with mp.workprec(300):
        ln2 = mp.log(2)
        assert float(exp.log2_e) == minimax.round_to(1 / ln2, bits)
        # n has 8 or 11 bits, so that n * ln2_high is exact.
        short = minimax.round_to(ln2, {24: 16, 53: 42}[bits])
        assert (float(exp.ln2_high), float(exp.ln2_low)) == (
            short,
            minimax.round_to(ln2 - short, bits),
        )
        full = minimax.round_to(ln2, bits)
        assert (float(log.ln2_high), float(log.ln2_low)) == (
            full,
            minimax.round_to(ln2 - full, bits),
        )
    # Around this number, the numbers of the precision are the integers.
    assert float(exp.shift) == 1.5 * 2.0 ** (bits - 1)


def test_single_tables_hold_single_values():
    for fit in FITS.values():
        assert all(type(c) is np.float32 for c in fit.coefficients.single)


ROWS = {
    "tanh": (
        kernel_tables.TANH,
        kernel_tables._TANH_ROWS,
        tables.row_of_tanh,
        tables.value_of_tanh,
    ),
    "sigmoid": (
        kernel_tables.SIGMOID,
        kernel_tables._SIGMOID_ROWS,
        tables.row_of_sigmoid,
        tables.value_of_sigmoid,
    ),
}
every_table = pytest.mark.parametrize("name", ROWS)


@every_table
def test_rows_are_what_their_derivation_gives(name):
    _, rows, row_of, _ = ROWS[name]
    assert len(rows) == ENTRIES
    for k, row in enumerate(rows):
        assert [np.float32(v) for v in row] == [np.float32(v) for v in row_of(k)], k


@every_table
def test_rows_have_the_error_that_is_stated(name):
    """Relative to the result, including the rounding of the coefficients."""
    _, rows, _, value_of = ROWS[name]
    stated = {"tanh": 2.0**-28.6, "sigmoid": 2.0**-26.4}[name]
    errors = []
    for k, (centre, *coefficients) in enumerate(rows):
        value, ends = value_of(k, float(np.float32(centre)))
        single = [float(np.float32(c)) for c in coefficients]
        if (name, k) == ("tanh", 0):
            single = [1 + single[1], *single[2:]]
        errors.append(minimax.error(single, value, ends, lambda t, value=value: 1 / value(t)))
    assert 0.9 * stated < max(errors) <= stated


@every_table
def test_tables_are_looked_up_by_the_number_of_the_row(name):
    table, rows, _, _ = ROWS[name]
    for k, row in enumerate(rows):
        number = np.float32(k)
        total = table.shift + number if name == "tanh" else table.shift - number
        entry = int(total.view(np.uint32)) % ENTRIES
        pieces = table.pieces
        columns = (pieces.centre, pieces.value, *pieces.slope)
        assert [column.values[entry] for column in columns] == list(row)


def test_constants_of_the_tables():
    assert float(np.tanh(np.float64(kernel_tables.TANH.enough))) > 1 - 2.0**-25
    assert kernel_tables.TANH.enough <= tables.interval_of_tanh(ENTRIES - 1)[1]
    sigmoid = kernel_tables.SIGMOID
    # For n = 0, pow2_of_sum returns `upsplit`, the scaled 2^n.
    bits = np.array(sigmoid.shift).view(np.uint32) << np.uint32(23)
    assert bits.view(np.float32) == RANGE.single.upsplit
    assert sigmoid.shift - sigmoid.last == ENTRIES - 1


def test_a_table_has_as_many_entries_as_a_lookup():
    assert len(vocabulary.Table(range(ENTRIES)).values) == ENTRIES
    with pytest.raises(ValueError, match="expected 32 numbers, got 31"):
        vocabulary.Table(range(ENTRIES - 1))
