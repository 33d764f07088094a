"""Scalar functions for callers in C: addresses, ctypes, and ``scipy.LowLevelCallable``.

Each function is ``double f(double)`` or ``float f(float)``, with one argument for each input of the
activation. It returns the same bits as the ufunc. Unlike the ufunc, it leaves the floating-point
environment alone: the caller's rounding mode and flush-to-zero setting apply, and status flags may
be raised. It is compiled at the first request, stored in the cache on disk, needs no GIL, and keeps
its address as long as the process lives.
"""

import ctypes
import functools
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike

from fastact._declarations.records import Activation, element_wise
from fastact._functions import UFUNCS
from fastact._interop.extras import require
from fastact._runtime import engine

if TYPE_CHECKING:
    from scipy import LowLevelCallable

__all__ = ["address", "function", "low_level_callable"]

_NUMBERS = {np.dtype(np.float32): ctypes.c_float, np.dtype(np.float64): ctypes.c_double}


def address(activation: str | np.ufunc, dtype: DTypeLike = np.float64) -> int:
    """The address of the scalar function of an activation.

    Parameters
    ----------
    activation : str or ufunc
        An element-wise activation of this package, or ``NAME_backward``, by name or as the
        function itself.
    dtype : dtype_like
        The type of the arguments and the result: float64 or float32.

    Returns
    -------
    int

    Raises
    ------
    ValueError
        For any other `activation`.
    TypeError
        For any other `dtype`.

    Examples
    --------
    >>> import ctypes, fastact.c
    >>> sigmoid = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)(fastact.c.address("sigmoid"))
    >>> sigmoid(0.0)
    0.5
    """
    declared, number = _declared("address", activation), _number("address", dtype)
    return _address(declared.name, np.dtype(number))


def function(activation: str | np.ufunc, dtype: DTypeLike = np.float64) -> Any:
    """The scalar function of an activation, as a ctypes function with its signature.

    Parameters
    ----------
    activation, dtype
        As for :func:`address`.

    Returns
    -------
    ctypes function pointer

    Raises
    ------
    ValueError, TypeError
        As for :func:`address`.

    Examples
    --------
    >>> import fastact.c
    >>> fastact.c.function("softplus", "float32")(-200.0)
    0.0
    """
    declared, number = _declared("function", activation), _number("function", dtype)
    signature = ctypes.CFUNCTYPE(number, *[number] * declared.nin)
    return signature(_address(declared.name, np.dtype(number)))


def low_level_callable(
    activation: str | np.ufunc, dtype: DTypeLike = np.float64
) -> "LowLevelCallable":
    """The scalar function of an activation, as a ``scipy.LowLevelCallable``.

    ``scipy.integrate.quad`` accepts it, for example.

    Parameters
    ----------
    activation, dtype
        As for :func:`address`.

    Returns
    -------
    scipy.LowLevelCallable

    Raises
    ------
    ValueError, TypeError
        As for :func:`address`.
    ImportError
        If SciPy is not installed.

    Examples
    --------
    >>> import fastact as fa, fastact.c
    >>> from scipy.integrate import quad
    >>> round(quad(fastact.c.low_level_callable(fa.sigmoid), -1, 1)[0], 12)
    1.0
    """
    return require("scipy", "scipy").LowLevelCallable(function(activation, dtype))


@functools.cache
def _address(name: str, dtype: np.dtype) -> int:
    declared = element_wise()[name]
    return engine.scalar_address(declared.kernel, declared.nin, type(dtype))


def _declared(caller: str, activation: Any) -> Activation:
    known = element_wise()
    for name, declared in known.items():
        ufunc = UFUNCS[name]
        if activation is ufunc or (isinstance(activation, str) and activation == name):
            return declared
    raise ValueError(
        f"{caller}: activation must be one of {', '.join(known)}, by name or as a function of "
        f"fastact, got {activation!r}"
    )


def _number(caller: str, dtype: DTypeLike) -> Any:
    try:
        return _NUMBERS[np.dtype(dtype)]
    except (KeyError, TypeError):
        raise TypeError(f"{caller}: dtype must be float32 or float64, got {dtype!r}") from None
