"""Steps of functions of rows that add e^(x - max) for the elements of a row.

They are those of ``_kernels/row_steps.py`` from `prepare` to `merge`. A term e^(x - max) is
s (1 + t), where s is a power of two and t is from `expm1_reduced`.
"""

from fastact._kernels.elementary import EXP, SHARES, expm1_reduced, two_sum
from fastact._kernels.tables import EXP2
from fastact._kernels.vocabulary import (
    ENTRIES,
    at_least,
    fma,
    horner,
    like,
    lookup,
    magnitude,
    muladd,
    pick,
    pow2_of_sum,
    raised,
    scalar,
    with_variants,
)

# With tables in vector registers, a term is s (1 + t) with |t| < 0.013, where s is a power of two
# times one of 32 numbers of 8 bits. That takes fewer operations and shorter chains of them than the
# steps below, and the results in float32 are wrong by 0.6 ulp instead of 1.3.


@scalar
def base_and_exponent(largest):
    """What is subtracted from elements, and the exponent of e^(largest - base)."""
    exp = pick(EXP, largest)
    base = like(largest, 0) if magnitude(largest) < pick(SHARES, largest).exact else largest
    return base, muladd(largest - base, exp.log2_e, exp.shift) - exp.shift


@scalar
def prepare_by_tables(largest):
    exp = pick(EXP, largest)
    base, n = base_and_exponent(largest)
    zero = n - pick(SHARES, largest).zero
    # As below, but in 32nds; 127 is the bias of the entries' own exponents.
    return base, zero * exp.ln2_high, exp.shift - like(n, ENTRIES) * (zero + like(n, 127))


@scalar
def power_by_tables(x, lowest, shift):
    """The term for the difference `x` of an element and the base."""
    x = at_least(x, lowest)
    total = muladd(x, EXP2.log2_e, shift)
    n = total - shift
    r = muladd(n, -EXP2.ln2_low, fma(n, -EXP2.ln2_high, x) + lookup(EXP2.rest, total))
    return raised(lookup(EXP2.power, total), total, ENTRIES), muladd(r * r, horner(r, EXP2.tail), r)


@scalar
def add_by_tables(s, t, high, low):
    # As below, but s t is so small that it does not have to be added to `high`.
    total = high + s
    return total, low + muladd(s, t, s - (total - high))


@scalar
@with_variants(tables=prepare_by_tables)
def prepare(largest):
    limits, exp = pick(SHARES, largest), pick(EXP, largest)
    base, n = base_and_exponent(largest)
    return base, (n - limits.zero) * exp.ln2_high, exp.shift + (limits.zero - n)


@scalar
def power(x, lowest, shift):
    """The term for the difference `x` of an element and the base."""
    x = at_least(x, lowest)
    total = muladd(x, pick(EXP, x).log2_e, shift)
    return pow2_of_sum(total), expm1_reduced(total - shift, x)


@scalar
def term_by_tables(x, base, lowest, shift):
    return power_by_tables(x - base, lowest, shift)


@scalar
@with_variants(tables=term_by_tables)
def term(x, base, lowest, shift):
    return power(x - base, lowest, shift)


def start(largest):
    return pick(SHARES, largest).above, like(largest, 0)


@scalar
@with_variants(tables=add_by_tables)
def add(s, t, high, low):
    # Both sums are exact, since `high` starts above every term; so is s * t.
    total = muladd(s, t, high + s)
    return total, low + muladd(s, t, s - (total - high))


def collect(sum_high, sum_low, high, low):
    high, rest = two_sum(sum_high, high - pick(SHARES, high).above)
    low = sum_low + low + rest
    total = high + low
    return total, low - (total - high)


def merge(high, low, other, other_low):
    total, rest = two_sum(high, other)
    return total, low + other_low + rest
