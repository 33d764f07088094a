"""Steps of functions that normalise rows, as in ``_kernels/normalization_steps.py``.

Those for float64 carry rounding errors, as in T. J. Dekker, "A floating-point technique for
extending the available precision" (1971). Those for narrower formats need not, since binary64 has
29 bits more than float32.
"""

from math import inf, nan

from fastact._kernels.elementary import normalised, two_sum
from fastact._kernels.vocabulary import fma, like, magnitude, muladd, scalar, sqrt

# Sums of squares from LEAST to MOST are of squares that neither overflow nor are subnormal. So are
# those of a row multiplied by UP or DOWN. An epsilon of NOTABLE decides the result without them.
LEAST, MOST = 2.0**-900, 2.0**1000
UP, DOWN = 2.0**600, 2.0**-540
NOTABLE = 2.0**-800


def add(x, scale, high, low):
    high, error = two_sum(high, x * scale)
    return high, low + error


def merge(high, low, other, other_low):
    high, error = two_sum(high, other)
    return high, low + other_low + error


def center(high, low, n):
    mean = high / n
    mean, mean_low = normalised(mean, (fma(-mean, n, high) + low) / n)
    return mean, mean_low, like(high, -1)


@scalar
def add_square_of(d, d_low, high, low):
    square = d * d
    rest = muladd(d + d, d_low, fma(d, d, -square))
    high, error = two_sum(high, square)
    return high, low + (error + rest)


def add_square(x, scale, high, low):
    return add_square_of(x * scale, like(x, 0), high, low)


@scalar
def deviation(x, mean, mean_low):
    d, error = two_sum(x, -mean)
    # The rest can be larger than the difference, if the row has nearly equal elements.
    return two_sum(d, error - mean_low)


def add_square_of_deviation(x, scale, mean, mean_low, high, low):
    d, d_low = deviation(x * scale, mean, mean_low)
    return add_square_of(d, d_low, high, low)


def rescale(high, low, epsilon):
    one = like(high, 1)
    # A sum of 0 is of squares that are 0 or too small, which matters only without an epsilon.
    relevant = like(high, NOTABLE) if high > like(high, 0) else like(high, 5e-324)
    up = like(high, UP) if epsilon < relevant else one
    scale = up if high < like(high, LEAST) else one
    return scale if high < like(high, MOST) else like(high, DOWN)


def invert(high, low, n, scale, epsilon):
    mean = high / n
    mean_low = (fma(-mean, n, high) + low) / n
    square, error = two_sum(mean, epsilon * scale * scale)
    root = sqrt(square)
    root_low = (fma(-root, root, square) + (error + mean_low)) / (root + root)
    inverse = like(high, 1) / root
    low = inverse * fma(-inverse, root_low, fma(-inverse, root, like(high, 1)))
    return inverse if magnitude(low) < like(low, inf) else like(low, nan), low


@scalar
def product_and_sum(d, d_low, inverse, inverse_low, weight, bias):
    z = d * inverse
    z_low = muladd(d, inverse_low, muladd(d_low, inverse, fma(d, inverse, -z)))
    term = z * weight
    term_low = muladd(z_low, weight, fma(z, weight, -term))
    high, error = two_sum(term, bias)
    low = error + term_low
    # The error of an infinite sum is NaN or infinite. Adding an error of 0 could change the sign
    # of a zero.
    total = high + low if magnitude(low) < like(low, inf) else high
    return high if low == like(low, 0) else total


def result(x, scale, inverse, inverse_low, weight):
    return product_and_sum(x * scale, like(x, 0), inverse, inverse_low, weight, like(x, -0.0))


def result_of_deviation(x, scale, mean, mean_low, inverse, inverse_low, weight, bias):
    d, d_low = deviation(x * scale, mean, mean_low)
    return product_and_sum(d, d_low, inverse, inverse_low, weight, bias)


# The same for elements of narrower formats. The second number of a pair is 0, but that of a sum of
# elements is the sum of their squares: if these are not much larger than the squared deviations,
# the sum of the latter is the difference of two sums.

SHARE = 2.0**-6


def plain_add(x, scale, total, squares):
    return total + x, muladd(x, x, squares)


def plain_merge(high, low, other, other_low):
    return high + other, low + other_low


def plain_center(total, squares, n):
    mean = total / n
    of_deviations = fma(-mean, total, squares)
    known = of_deviations > squares * like(total, SHARE)
    return mean, like(total, 0), of_deviations if known else like(total, -1)


def plain_add_square(x, scale, high, low):
    return muladd(x, x, high), low


def plain_add_square_of_deviation(x, scale, mean, mean_low, high, low):
    d = x - mean
    return muladd(d, d, high), low


def plain_rescale(high, low, epsilon):
    return like(high, 1)


def plain_invert(high, low, n, scale, epsilon):
    square = high / n + epsilon
    inverse = like(high, 1) / sqrt(square)
    return inverse if square < like(square, inf) else like(square, nan), low


def plain_result(x, scale, inverse, inverse_low, weight):
    return x * inverse * weight


def plain_result_of_deviation(x, scale, mean, mean_low, inverse, inverse_low, weight, bias):
    return muladd((x - mean) * inverse, weight, bias)
