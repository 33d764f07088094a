"""Python code that runs with the floating-point environment put aside.

For NumPy's arithmetic, which else depends on the caller's rounding mode and flush-to-zero, and
leaves status flags raised or lowered. It is machine code that calls the function, so that the
environment comes back however the function ends, and no exception can come in between.
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
    """What `function` returns, in the default environment and without warnings of NumPy's."""
    with np.errstate(all="ignore"):
        result: T = _run()(_CALL, function)
        return result


_CALL = ctypes.cast(ctypes.pythonapi.PyObject_CallNoArgs, c_void_p).value


@functools.cache
def _run() -> Callable[..., Any]:
    return PYFUNCTYPE(py_object, c_void_p, py_object)(engine.undisturbed_address())
