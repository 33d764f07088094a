"""Built-in functions that call the compiled loops of a layer (``_compiler/layer_call.py``)."""

import ctypes
import functools
from collections.abc import Callable
from ctypes import byref, c_char_p, c_int, c_void_p, py_object
from typing import Any

import numpy as np

from fastact._compiler.symbols import LAYER_WORDS
from fastact._loading.lasting import lasting
from fastact._runtime import engine
from fastact._runtime.direct_calls import python_function
from fastact._runtime.ufunc import numpy_function

_NEW_FROM_DESCR = 94  # in _ARRAY_API
_METH_FASTCALL = 0x80


class _Method(ctypes.Structure):
    """PyMethodDef."""

    _fields_ = (
        ("name", c_char_p),
        ("function", c_void_p),
        ("flags", c_int),
        ("doc", c_char_p),
    )


_make = ctypes.PYFUNCTYPE(py_object, c_void_p, py_object, c_void_p)(
    ("PyCFunction_NewEx", ctypes.pythonapi)
)


class _Words(np.ndarray):
    """The words that a function is bound to. Its attribute `plan` keeps alive all it reads."""


@functools.cache
def _method() -> _Method:
    return lasting(_Method(b"layer", engine.layer_call_address(), _METH_FASTCALL, None))


def bound(packed: int, plan: int, shape: tuple[int, int], dtype: np.dtype) -> Callable[..., Any]:
    """The layer with a `plan`, as a function of x and, optionally, out.

    Parameters
    ----------
    packed : int
        The address of the compiled function ``packed``.
    plan : int
        The address of the plan, which keeps alive all that is found from there.
    shape : tuple of int
        The shape (K, N) of the weights.
    dtype : dtype
        The dtype object that arrays have to have.

    Returns
    -------
    callable
        ``function(x)`` or ``function(x, out)``. It returns the result, or None, with `out`
        untouched, for arguments that need more care.
    """
    known = {
        "packed": packed,
        "plan": plan,
        "depth": shape[0],
        "columns": shape[1],
        "dtype": id(dtype),
        "ndarray": id(np.ndarray),
        "None": id(None),
        "PyArray_NewFromDescr": numpy_function(_NEW_FROM_DESCR),
    }
    words = np.array(
        [known[name] if name in known else python_function(name) for name in LAYER_WORDS], np.int64
    ).view(_Words)
    words.plan = plan  # type: ignore[attr-defined] # of a subclass
    words.flags.writeable = False
    return _make(byref(_method()), words, None)  # type: ignore[no-any-return] # a function
