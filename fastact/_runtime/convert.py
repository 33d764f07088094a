"""Conversion of arrays to another type, whatever the caller's floating-point environment.

Machine code converts float16, bfloat16, float32 and float64 to each other, and integers and bool
to them, in native byte order. NumPy converts the others, in the default environment.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from ctypes import CFUNCTYPE, c_int64, py_object

import numpy as np

from fastact._compiler.gemm.interface import DONE
from fastact._machine.formats import CONVERSIONS, Format, conversion_format
from fastact._runtime import engine
from fastact._runtime.undisturbed import undisturbed


def copy(source: np.ndarray, sink: np.ndarray) -> None:
    """Convert `source` into `sink`: of the same shape, with at least one axis, not overlapping."""
    if sink.flags.fnc:  # column by column, in the order of memory
        source, sink = source.T, sink.T
    convert = _compiled(source.dtype, sink.dtype)
    if convert is None:
        undisturbed(lambda: np.copyto(sink, source, casting="same_kind"))
    elif convert(source, sink) != DONE:
        for part, sink_part in zip(source, sink, strict=True):
            copy(part, sink_part)


def converted(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """`array` itself if its type is `dtype`, or else a new array; at least one axis."""
    if array.dtype == dtype:
        return array
    result = np.empty_like(array, dtype, subok=False)
    copy(array, result)
    return result


@functools.lru_cache(256)
def _compiled(source: np.dtype, sink: np.dtype) -> Callable[[np.ndarray, np.ndarray], int] | None:
    pair = conversion_format(source.type), conversion_format(sink.type)
    if pair not in CONVERSIONS or not (source.isnative and sink.isnative):
        return None
    return compiled(*pair)


@functools.cache
def compiled(source: Format, sink: Format) -> Callable[[np.ndarray, np.ndarray], int]:
    """The machine code for a pair of the `CONVERSIONS`; it does not look at the types of arrays."""
    from fastact._compiler.symbols import ENTRY

    # CFUNCTYPE releases the GIL during the call.
    return CFUNCTYPE(c_int64, py_object, py_object)(engine.convert_addresses(source, sink)[ENTRY])
