"""Weights in fewer bits than those that layers compute with."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastact._compiler.gemm.interface import DONE
from fastact._machine.formats import BFLOAT16, FLOAT32, FORMATS, Format, format_of
from fastact._runtime import convert
from fastact._runtime.undisturbed import undisturbed

INT8 = "int8"
NAMES = ("bfloat16", "float16", INT8)
"""The values of `weights_dtype`."""

MEMORY = {
    name: np.dtype("uint16" if name == BFLOAT16.name else name)
    for name in ("float32", "float64", *NAMES)
}
"""The types of arrays that hold packed weights; bfloat16 needs no other package."""

_LARGEST = 127
_BLOCK = 1 << 20  # elements that are divided by their scale at a time


class Compact(NamedTuple):
    """Weights in one of the formats of `NAMES`, as pickles of layers have them.

    Attributes
    ----------
    name : str
    values : ndarray, shape (K, N)
        In the type of `MEMORY`.
    scale : ndarray, shape (N,), or None
        Of int8: a float32 for each column, by which its values are multiplied.
    dtype : dtype
        Of the array that was given, or float32 if that is narrower.
    """

    name: str
    values: np.ndarray
    scale: np.ndarray | None
    dtype: np.dtype

    @property
    def ndim(self) -> int:
        return self.values.ndim

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def unscaled(self) -> np.ndarray:
        """The values as float32, exactly."""
        return _converted(self.values, FORMATS[self.name], FLOAT32)

    def widened(self) -> np.ndarray:
        """The weights as float32: those of int8 rounded, others exactly."""
        w, scale = self.unscaled(), self.scale
        return w if scale is None else undisturbed(lambda: np.multiply(w, scale, out=w))

    def of(self, values: np.ndarray) -> Compact:
        """The same with other `values`, which may also be float32 that the format has."""
        if values.dtype != MEMORY[self.name]:
            if self.name == INT8:
                values = values.astype(np.int8)
            else:
                values = _converted(values, FLOAT32, FORMATS[self.name])
        return self._replace(values=values)


def compacted(caller: str, argument: str, W: np.ndarray, name: str) -> Compact:
    """`W`, of float16, bfloat16, float32 or float64, rounded once to nearest even.

    `argument` is its name in error messages.
    """
    form: Format = format_of(W.dtype.type)  # type: ignore[assignment] # has one
    dtype = W.dtype if form.bits == 16 else np.dtype(np.float32)
    if name != INT8:
        return Compact(name, _converted(W, form, FORMATS[name]), None, dtype)
    wide = convert.converted(W, np.dtype(np.float32)) if form.bits == 16 else W
    return Compact(name, *undisturbed(lambda: _in_int8(caller, argument, wide)), dtype)


def _in_int8(caller: str, argument: str, W: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The integers and the scale."""
    columns = W.shape[1]
    if not columns:  # NumPy and the loop below would take a step for each row
        return np.empty(W.shape, np.int8), np.empty(0, np.float32)
    infinite = np.count_nonzero(~np.isfinite(W))
    if infinite:
        raise ValueError(
            f"{caller}: {argument} must be finite for weights_dtype={INT8!r}, got {infinite} of "
            f"{W.size} elements that are infinite or NaN"
        )
    largest = np.abs(W).max(axis=0, initial=0)
    scale = (largest.astype(np.float64) / _LARGEST).astype(np.float32)
    # A subnormal scale may have been rounded so far down that the quotients exceed the largest.
    low = scale.astype(np.float64) * (_LARGEST + 0.5) < largest
    scale = np.where(low, np.nextafter(scale, np.float32(np.inf)), scale)
    if not np.isfinite(scale).all():
        raise ValueError(
            f"{caller}: {argument} must be at most {_LARGEST} times the largest float32 for "
            f"weights_dtype={INT8!r}, got {largest.max()}"
        )
    divisor = np.where(scale == 0, 1, scale).astype(np.float64)  # of columns of zeros
    values = np.empty(W.shape, np.int8)
    rows = max(1, _BLOCK // columns)
    for start in range(0, len(W), rows):
        part = slice(start, start + rows)
        values[part] = np.rint(W[part] / divisor)
    return values, scale


def _converted(array: np.ndarray, source: Format, sink: Format) -> np.ndarray:
    """A new array in C order, of the type in `MEMORY`."""
    found = np.empty(array.shape, MEMORY[sink.name])
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if source == sink:
        found[...] = array.view(found.dtype)
    elif convert.compiled(source, sink)(array, found) != DONE:
        raise RuntimeError("the compiled conversion refused weights")
    return found
