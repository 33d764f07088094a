"""Where algorithms are from that several functions use: ends of their notes."""

EXP_AND_SUMS = """

The argument of exp is reduced as by W. J. Cody and W. Waite, "Software Manual for the
Elementary Functions" (1980); sums carry their rounding errors as by T. J. Dekker, "A
floating-point technique for extending the available precision" (1971)."""

BY_TABLES = """

On processors with AVX-512, float32 and the 16-bit formats are computed from tables in vector
registers instead, {},
where p is one of 32 polynomials around centres at which their first coefficients are nearly exact
(S. Gal, "An accurate elementary mathematical library for the IEEE floating point standard", ACM
TOMS 17, 1991)."""
