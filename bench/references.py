"""The module that references of functions get for arrays: NumPy, and what only SciPy has."""

import functools
from typing import Any

import numpy as np


def _special(name: str, x: Any) -> Any:
    if np.asarray(x).dtype != np.longdouble:
        from scipy import special

        return getattr(special, name)(x)
    import mpmath

    def of_number(value: np.longdouble) -> np.longdouble:
        high = float(value)
        with mpmath.workdps(40):
            exact = getattr(mpmath, name)(mpmath.mpf(high) + mpmath.mpf(float(value - high)))
            return np.longdouble(mpmath.nstr(exact, 30))

    return np.frompyfunc(of_number, 1, 1)(x).astype(np.longdouble)


class _ForArrays:
    """NumPy with the functions erf and erfc of ``scipy.special``, and of mpmath in longdouble."""

    def __getattr__(self, name: str) -> Any:
        if name in ("erf", "erfc"):
            return functools.partial(_special, name)
        return getattr(np, "arctan" if name == "atan" else name)


FOR_ARRAYS = _ForArrays()
"""As mpmath's ``mp`` and gmpy2, but for arrays of float64."""
