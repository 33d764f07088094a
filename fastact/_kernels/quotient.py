"""Gradients divided by sums of two terms."""

from typing import Any, NamedTuple

import numpy as np

from fastact._kernels.vocabulary import PerFormat, fma, like, magnitude, pick, scalar


class _Scales(NamedTuple):
    """How gradients are scaled so that residuals are not subnormal, nor fail without fma."""

    tiny: Any  # below this, they are multiplied by `up`
    up: Any
    down: Any
    large: Any  # from here on, they are multiplied by `shrink`
    shrink: Any
    grow: Any


_SCALES = PerFormat(
    single=_Scales(
        *map(np.float32, (2.0**-80, 2.0**40, 2.0**-40)),
        *map(np.float32, (2.0**50, 2.0**-25, 2.0**25)),
    ),
    double=_Scales(2.0**-800, 2.0**200, 2.0**-200, 2.0**450, 2.0**-225, 2.0**225),
)


@scalar
def quotient(a, d, d_low):
    """(q, scaled, down) with a / (d + d_low) = q * down, for `d` up to 1, also where it is 0.

    The quotient is corrected once. `scaled` is a / down: NaN in `a`, but quiet.
    """
    limits = pick(_SCALES, a)
    one = like(a, 1)
    tiny = magnitude(a) < limits.tiny
    large = magnitude(a) >= limits.large
    up, down = limits.up if tiny else one, limits.down if tiny else one
    up, down = limits.shrink if large else up, limits.grow if large else down
    scaled = a * up
    q = scaled / d
    y = q + (fma(-q, d, scaled) - q * d_low) / d
    return y if y == y else q, scaled, down
