"""Numba: other spellings of our functions inside compiled functions, for those who ask.

``fa.sigmoid(x)`` and every other element-wise activation work there without this module, as
Numba finds them by the entry point of the installed package; in a tree that is not installed,
``import fastact.numba`` does the same.
"""

from typing import Any

import numpy as np

import _fastact_numba
from fastact._functions.sigmoid import sigmoid
from fastact._functions.softplus import softplus
from fastact._interop import njit
from fastact._interop.extras import require

__all__ = ["overload_scipy"]

_fastact_numba.init()


def overload_scipy() -> None:
    """Use our kernels for SciPy's and NumPy's spellings in functions compiled from now on.

    They are ``scipy.special.expit``, which is sigmoid; ``scipy.special.log_expit``, which is
    -softplus(-x); and ``numpy.logaddexp``, of which ``np.logaddexp(0, x)`` is softplus(x).
    Neither changes outside of compiled functions, and functions that Numba has compiled
    already stay as they are, in its cache as well.

    Raises
    ------
    ImportError
        Without SciPy.

    Notes
    -----
    float32 and float64 keep their type, integers and bool give float64 (SciPy computes small
    integers in less). Numba itself has no ``expit`` and no ``log_expit``.

    Examples
    --------
    >>> import numba, fastact.numba
    >>> from scipy.special import expit
    >>> fastact.numba.overload_scipy()
    >>> numba.njit(lambda x: expit(x))(0)
    0.5
    """
    special = require("scipy.special", "scipy")
    stand_ins: dict[np.ufunc, np.ufunc] = {special.expit: sigmoid}
    for theirs, kernel in ((special.log_expit, _log_expit), (np.logaddexp, _logaddexp)):
        if theirs not in njit.STAND_INS:
            stand_ins[theirs] = np.frompyfunc(kernel, theirs.nin, 1)
            njit.register(stand_ins[theirs], kernel, weak_integers=True)
    njit.STAND_INS.update(stand_ins)


def _log_expit(x: Any) -> Any:
    return -softplus(-x)


def _logaddexp(x1: Any, x2: Any) -> Any:
    distance = abs(x1 - x2)
    larger = x1 if x1 > x2 else x2
    # Of two equal infinities the distance is NaN.
    return larger if distance != distance and x1 == x2 else larger + softplus(-distance)
