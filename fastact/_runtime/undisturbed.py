"""Calls of Python functions in the default floating-point environment.

For NumPy's arithmetic, which otherwise depends on the caller's rounding mode and flush-to-zero,
and changes its status flags. Machine code calls the function, so that the environment is restored
however the function ends, and no exception can come in between.
"""

import ctypes
import functools
from collections.abc import Callable
from ctypes import PYFUNCTYPE, c_void_p, py_object
from typing import Any, TypeVar

import numpy as np

from fastact._runtime import engine

T = TypeVar("T")


def undisturbed(function: Callable[[], T]) -> T:
    """Return what `function` returns in the default environment, without NumPy's warnings."""
    with np.errstate(all="ignore"):
        result: T = _run()(_CALL, function)
        return result


_CALL = ctypes.cast(ctypes.pythonapi.PyObject_CallNoArgs, c_void_p).value


@functools.cache
def _run() -> Callable[..., Any]:
    return PYFUNCTYPE(py_object, c_void_p, py_object)(engine.undisturbed_address())
