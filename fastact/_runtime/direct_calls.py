"""Calls of ufuncs that do without NumPy's copies of operands (``_compiler/direct_call.py``).

NumPy calls a ufunc by the ``vectorcallfunc`` that every ufunc object has (PEP 590). We put ours in
place of NumPy's, which it calls for everything that needs more care.
"""

import ctypes
import sys
from ctypes import c_int64, c_ssize_t, c_void_p
from typing import Any

import numpy as np

from fastact._compiler.symbols import CALL_WORDS, DTYPES
from fastact._runtime import engine

# The offset of tp_vectorcall_offset in PyTypeObject: behind the header with the size, tp_name,
# tp_basicsize, tp_itemsize and tp_dealloc. It is fixed for a version of Python.
_OFFSET_AT = object.__basicsize__ + 5 * 8


_words: dict[np.ufunc, tuple[Any, list[int]]] = {}


def fits(ufunc: np.ufunc) -> bool:
    """Whether there are direct calls of functions like `ufunc`: of one input and one output."""
    return (ufunc.nin, ufunc.nout, ufunc.signature) == (1, 1, None)


def attach(ufunc: np.ufunc, dtype: engine.DType, loop: int, new_like: int) -> None:
    """Let calls of `ufunc`, which :func:`fits`, use its `loop` for `dtype` directly.

    `new_like` is the address of ``PyArray_NewLikeArray``.
    """
    if ufunc not in _words:
        _words[ufunc] = _install(ufunc, new_like), []
    words, known = _words[ufunc]
    instance = np.dtype(dtype.type)
    if len(known) < DTYPES and id(instance) not in known:
        first = len(CALL_WORDS) + 3 * len(known)
        known.append(id(instance))
        # The dtype comes last, because code that finds it uses the others.
        words[first + 1], words[first + 2] = instance.itemsize, loop
        words[first] = id(instance)


def _install(ufunc: np.ufunc, new_like: int) -> Any:
    entry, at = engine.direct_call_addresses()
    words = (c_int64 * (len(CALL_WORDS) + 3 * DTYPES)).from_address(at)
    offset = c_ssize_t.from_address(id(np.ufunc) + _OFFSET_AT).value
    call = c_void_p.from_address(id(ufunc) + offset)
    addresses = {
        "call": call.value,
        "ndarray": id(np.ndarray),
        "out": id(sys.intern("out")),
        "PyArray_NewLikeArray": new_like,
    }
    for k, name in enumerate(CALL_WORDS):
        words[k] = addresses.get(name) or python_function(name) or 0
    call.value = entry
    return words


def python_function(name: str) -> int | None:
    """The address of a function of Python's C API."""
    return ctypes.cast(getattr(ctypes.pythonapi, name), c_void_p).value
