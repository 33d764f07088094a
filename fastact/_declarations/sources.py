"""The sources of algorithms that several functions use, to be appended to their notes."""

EXP_AND_SUMS = """

The argument of exp is reduced as in W. J. Cody and W. Waite, "Software Manual for the
Elementary Functions" (1980). Sums carry their rounding errors as in T. J. Dekker, "A
floating-point technique for extending the available precision" (1971)."""

BY_TABLES = """

On processors with AVX-512, float32 and the 16-bit formats are computed from tables in vector
registers instead, {},
where p is one of 32 polynomials. Their centres are chosen so that the first two coefficients are
nearly exact (S. Gal, "An accurate elementary mathematical library for the IEEE floating point
standard", ACM TOMS 17, 1991)."""
