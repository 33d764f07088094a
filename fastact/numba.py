"""Numba: our kernels for functions of SciPy and NumPy inside compiled functions, on request.

``fa.sigmoid(x)`` and every other element-wise activation work in compiled functions without this
module, since Numba finds them by the entry point of the installed package. In a source tree that is
not installed, ``import fastact.numba`` does the same.
"""

from typing import Any

import numpy as np

import _fastact_numba
from fastact._declarations.records import ACTIVATIONS
from fastact._functions.sigmoid import sigmoid
from fastact._functions.softplus import softplus
from fastact._interop import njit
from fastact._interop.extras import require

__all__ = ["overload_scipy"]

_fastact_numba.init()

_LOGADDEXP = ACTIVATIONS["logaddexp"].kernel


def overload_scipy() -> None:
    """Use our kernels for functions of SciPy and NumPy in functions that Numba compiles afterwards.

    These are ``scipy.special.expit``, which is sigmoid(x); ``scipy.special.log_expit``, which is
    -softplus(-x); and ``numpy.logaddexp``, where ``np.logaddexp(0, x)`` is softplus(x). They do
    not change outside compiled functions. Functions that Numba has already compiled, or keeps in
    its cache, do not change either.

    Raises
    ------
    ImportError
        If SciPy is not installed.

    Notes
    -----
    float32 and float64 keep their type; integers and bool are converted to float64 (SciPy converts
    small integers to a narrower type). Numba itself supports neither ``expit`` nor ``log_expit``.

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
    for theirs, kernel in ((special.log_expit, _log_expit), (np.logaddexp, _LOGADDEXP)):
        if theirs not in njit.STAND_INS:
            stand_ins[theirs] = np.frompyfunc(kernel, theirs.nin, 1)
            njit.register(stand_ins[theirs], kernel, weak_integers=True)
    njit.STAND_INS.update(stand_ins)


def _log_expit(x: Any) -> Any:
    return -softplus(-x)
