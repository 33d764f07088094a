"""Every polynomial of the kernels is the one that its derivation gives, with that error."""

import minimax
import numpy as np
import pytest
from mpmath import mp

from fastact._elementary import EXP, FITS, LOG

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
    # Above this sum all floats of the precision are integers, and those around it fit.
    assert float(exp.shift) == 1.5 * 2.0 ** (bits - 1)


def test_single_tables_hold_single_values():
    for fit in FITS.values():
        assert all(type(c) is np.float32 for c in fit.coefficients.single)
