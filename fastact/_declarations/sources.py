"""The sources of algorithms that several functions use, to be appended to their notes."""

EXP_AND_SUMS = """

The argument of exp is reduced as in W. J. Cody and W. Waite, "Software Manual for the
Elementary Functions" (1980). Sums carry their rounding errors as in T. J. Dekker, "A
floating-point technique for extending the available precision" (1971)."""

LOG_AND_SUMS = """

The argument of log is reduced by a power of 2, as in W. J. Cody and W. Waite, "Software Manual for
the Elementary Functions" (1980). Sums carry their rounding errors as in T. J. Dekker, "A
floating-point technique for extending the available precision" (1971)."""

BY_TABLES = """

On processors with AVX-512, float32 is computed from tables in vector registers instead, {},
where p is one of 32 polynomials. Their centres are chosen so that the first two coefficients are
nearly exact (S. Gal, "An accurate elementary mathematical library for the IEEE floating point
standard", ACM TOMS 17, 1991)."""

BELL_BY_TABLES = """

On processors with AVX-512, float32 is computed from tables in vector registers instead: the
exponential from four powers of 2, and the other factor as one of 32 polynomials, whose centres are
chosen so that the first coefficient is nearly exact (S. Gal, "An accurate elementary mathematical
library for the IEEE floating point standard", ACM TOMS 17, 1991)."""

PIECES_BY_TABLES = """

On processors with AVX-512, float32 is computed from tables in vector registers instead, {}: as one
of 32 polynomials, whose centres are chosen so that the first coefficient is nearly exact (S. Gal,
"An accurate elementary mathematical library for the IEEE floating point standard", ACM TOMS 17,
1991)."""

NARROW = """

The 16-bit formats are computed in float32 by a shorter formula. Its coefficients are such that no
result is rounded incorrectly, which was tried for every input."""
