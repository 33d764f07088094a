"""Near-minimax polynomials with coefficients that are exact in a float format.

The coefficients in ``fastact/_kernels`` come from :func:`fit`, and
``test_coefficients.py`` runs it again and compares.

Method: weighted least squares on Chebyshev nodes of the second kind in 300-bit arithmetic, which is
within a small factor of the minimax error. Then one coefficient after another, from the lowest
power up, is rounded to the format, and the remaining ones are fitted again, so that they absorb the
rounding of those before them. This is the sequential form of the idea of N. Brisebarre and
S. Chevillard, "Efficient polynomial L-infinity-approximations" (ARITH 2007).
"""

from collections.abc import Callable

from mpmath import mp, mpf


def nodes(low: float, high: float, count: int) -> list[mpf]:
    """Chebyshev points of the second kind on [low, high], without those next to 0.

    The functions have a removable singularity there.
    """
    mid, half = (mpf(low) + mpf(high)) / 2, (mpf(high) - mpf(low)) / 2
    points = (mid + half * mp.cos(mp.pi * k / (count - 1)) for k in range(count))
    return [x for x in points if abs(x) > 1e-9]


def round_to(value: mpf, bits: int) -> float:
    """`value` rounded to nearest with a significand of `bits` bits."""
    with mp.workprec(bits):
        return float(+value)


def fit(
    function: Callable[[mpf], mpf],
    interval: tuple[float, float],
    degree: int,
    weight: Callable[[mpf], mpf],
    bits: int,
) -> list[float]:
    """Coefficients, lowest power first, of p with weight * (p - function) small."""
    with mp.workprec(300):
        points = nodes(*interval, 4 * degree + 11)
        weights = [weight(x) for x in points]
        rest = [function(x) for x in points]
        done: list[float] = []
        for power in range(degree + 1):
            columns = range(power, degree + 1)
            rows = [[w * x**k for k in columns] for x, w in zip(points, weights, strict=True)]
            rhs = [w * y for w, y in zip(weights, rest, strict=True)]
            size = len(columns)
            normal = mp.matrix(size, size)
            vector = mp.matrix(size, 1)
            for i in range(size):
                vector[i] = mp.fdot((row[i], y) for row, y in zip(rows, rhs, strict=True))
                for j in range(i, size):
                    normal[i, j] = normal[j, i] = mp.fdot((row[i], row[j]) for row in rows)
            coefficient = round_to(mp.lu_solve(normal, vector)[0], bits)
            done.append(coefficient)
            rest = [y - mpf(coefficient) * x**power for x, y in zip(points, rest, strict=True)]
        return done


def error(
    coefficients: list[float],
    function: Callable[[mpf], mpf],
    interval: tuple[float, float],
    weight: Callable[[mpf], mpf],
) -> float:
    """Largest weight * |p - function| on a dense grid of `interval`."""
    with mp.workprec(300):
        terms = [mpf(c) for c in coefficients]

        def distance(x: mpf) -> mpf:
            return weight(x) * (sum(c * x**k for k, c in enumerate(terms)) - function(x))

        return float(max(abs(distance(x)) for x in nodes(*interval, 1501)))
