"""Scalar functions for callers in C: addresses, ctypes, and ``scipy.LowLevelCallable``.

Each function is ``double f(double)`` or ``float f(float)``, with one argument for each input of the
ufunc. If the ufunc has several results, it is ``void f(double, ..., double *, ...)``, with an
address for each of them. The results have the same bits as those of the ufunc. Unlike the ufunc, it
leaves the floating-point environment alone: the caller's rounding mode and flush-to-zero setting
apply, and status flags may be raised. It is compiled at the first request, stored in the cache on
disk, needs no GIL, and keeps its address as long as the process lives.
"""

import ctypes
import functools
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike

from fastact._declarations.declare import ufunc_of
from fastact._declarations.records import FAST, OBJECTIVES, Activation, element_wise
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
        An element-wise function of this package, such as ``NAME``, ``NAME_backward`` or
        ``fast.NAME``, by name or as the function itself.
    dtype : dtype_like
        The type of the arguments and the results: float64 or float32.

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

    A function with several results returns None, and stores them at the addresses that it gets.

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
    >>> from ctypes import byref, c_double
    >>> grad, hess = c_double(), c_double()
    >>> fastact.c.function("logistic_grad_hess")(0.0, 1.0, byref(grad), byref(hess))
    >>> grad.value, hess.value
    (-0.5, 0.25)
    """
    declared, number = _declared("function", activation), _number("function", dtype)
    operands, results = [number] * declared.nin, len(declared.results)
    if results == 1:
        signature = ctypes.CFUNCTYPE(number, *operands)
    else:
        signature = ctypes.CFUNCTYPE(None, *operands, *[ctypes.POINTER(number)] * results)
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
    declared = _known()[name]
    nout = len(declared.results)
    return engine.scalar_address(declared.kernel, declared.nin, type(dtype), nout)


def _known() -> dict[str, Activation]:
    return element_wise() | FAST | OBJECTIVES


def _declared(caller: str, activation: Any) -> Activation:
    known = _known()
    for name, declared in known.items():
        ufunc = ufunc_of(name)
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
