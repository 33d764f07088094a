"""Steps of functions of rows that need log(sum(e^x)), as in log_softmax.

They are those of ``_kernels/row_steps.py`` up to `finish`. The largest element m is left out of the
sum, so that sums R of the other e^(x - m) are accurate even where R is far below 1:
log(sum(e^x)) = m + log(1 + R). If the largest element occurs several times, none is left out.
"""

from math import inf
from typing import Any, NamedTuple

import numpy as np

from fastact._kernels import exp_sums
from fastact._kernels.elementary import EXP, exp_remainder, exp_tail, two_sum
from fastact._kernels.logarithm import LOG, binary_exponent, log_of_product
from fastact._kernels.vocabulary import (
    PerFormat,
    at_least,
    at_most,
    fma,
    like,
    muladd,
    pick,
    pow2,
    scalar,
    significand,
    with_variants,
)


class _Reach(NamedTuple):
    most: Any  # the largest finite number
    second: Any  # e^-second is 0, even for billions of elements
    scale: Any  # terms are 2**scale times too large; see SHARES


_REACH = PerFormat(
    single=_Reach(np.finfo(np.float32).max, np.float32(130), np.float32(25)),
    double=_Reach(float(np.finfo(np.float64).max), 800.0, 54.0),
)


def larger(a, a_second, b, b_second):
    """The two largest elements of two pairs."""
    return at_least(a, b), at_least(at_least(a_second, b_second), at_most(a, b))


@scalar
def _next(largest, second):
    """`second`, but finite, and not so small that it does not matter.

    So no term is NaN unless an element is.
    """
    limits = pick(_REACH, largest)
    return at_most(at_least(at_least(second, largest - limits.second), -limits.most), limits.most)


@scalar
def _left_out(largest, second):
    """The element that is left out of the sum, or infinity."""
    return largest if second < largest else like(largest, inf)


def _prepare_by_tables(largest, second):
    base, lowest, shift = exp_sums.prepare_by_tables(_next(largest, second))
    return base, lowest, shift, _left_out(largest, second)


@with_variants(tables=_prepare_by_tables)
def prepare(largest, second):
    base, lowest, shift = exp_sums.prepare(_next(largest, second))
    return base, lowest, shift, _left_out(largest, second)


def _term_by_tables(x, base, lowest, shift, left_out):
    return exp_sums.term_by_tables(like(x, -inf) if x == left_out else x, base, lowest, shift)


@with_variants(tables=_term_by_tables)
def term(x, base, lowest, shift, left_out):
    return exp_sums.term(like(x, -inf) if x == left_out else x, base, lowest, shift)


@scalar
def finish(total, rest, largest, second):
    """log(sum(e^x)) as a pair."""
    exp = pick(EXP, total)
    base, n = exp_sums.base_and_exponent(_next(largest, second))
    # R is the total times 2^n e^x, where x is base - largest, and that is 2^n e^r.
    x, x_low = two_sum(base, -largest)
    k = muladd(x, exp.log2_e, exp.shift) - exp.shift
    r, r_low = exp_remainder(k, x)
    power = like(r, 1) + r
    power_low = (r - (power - like(r, 1))) + (exp_tail(r) + (r_low + x_low))
    product = total * power
    low = fma(total, power, -product) + muladd(total, power_low, rest * power)
    high = product + low
    low = low - (high - product)
    n = n + k - pick(_REACH, total).scale
    # In two steps, since R can be subnormal.
    half = muladd(n, like(n, 0.5), exp.shift) - exp.shift
    up, on = pow2(half, 0), pow2(n - half, 0)
    high, low = high * up * on, low * up * on
    # The largest element is added, unless it was not left out.
    one = like(high, 1) if second < largest else like(high, 0)
    high, rest = two_sum(high, one)
    low = low + rest
    k = binary_exponent(high)
    near = significand(high, pick(LOG, high).root) - like(high, 1)
    low = low * pow2(-k, 0)
    # Where R is small, `near` is too, and may have no correct digit.
    f = near + low
    low = low - (f - near)
    high, low = log_of_product(k, f, muladd(-f, low, low))
    high, rest = two_sum(largest, high)
    # NaN if the largest element is infinite.
    low = low + rest + (largest - largest)
    total = high + low
    return total, low - (total - high)


start, add = exp_sums.start, exp_sums.add
collect, merge = exp_sums.collect, exp_sums.merge
