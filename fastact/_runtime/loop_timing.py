"""The cost of compiled loops on this machine, measured when they are loaded.

It determines how many elements are worth a second thread: many more for relu than for softplus.
"""

import ctypes
import time
from collections.abc import Callable
from ctypes import c_int64, c_void_p

_ELEMENTS = 2048  # three operands of 8 bytes nearly fit into the first level of the cache
_ROW = 128
_SAMPLES = 3

_LOOP = ctypes.CFUNCTYPE(ctypes.c_int, *[c_void_p] * 5)


def of_loop(address: int, operands: int, itemsize: int) -> float:
    """Nanoseconds that a strided loop takes for an element."""
    return _of(address, operands, itemsize, [_ELEMENTS], [itemsize] * operands)


def of_rows(address: int, itemsize: int) -> float:
    """The same for a loop over rows."""
    steps = [_ROW * itemsize] * 2 + [itemsize] * 2
    return _of(address, 2, itemsize, [_ELEMENTS // _ROW, _ROW], steps)


def of_normalization(address: int, columns: int, itemsize: int) -> float:
    """The same for a loop with so many operands for `columns`, the same for all rows."""
    row = _ROW * itemsize
    steps = [row, *[0] * (columns + 1), row, *[itemsize] * (columns + 2)]
    return _of(address, columns + 3, itemsize, [_ELEMENTS // _ROW, _ROW], steps)


def _of(
    address: int, operands: int, itemsize: int, lengths: list[int], strides: list[int]
) -> float:
    size = _ELEMENTS * itemsize
    buffer = ctypes.create_string_buffer(operands * size)  # zeros: every kernel is fastest for them
    start = ctypes.addressof(buffer)
    data = (c_void_p * operands)(*(start + k * size for k in range(operands)))
    steps = (c_int64 * len(strides))(*strides)
    loop = _LOOP(address)

    def call(dimensions: list[int]) -> Callable[[], int]:
        counts = (c_int64 * len(dimensions))(*dimensions)
        return lambda: loop(None, data, counts, steps, None)

    full, empty = (fastest(call(dims)) for dims in (lengths, [0] * len(lengths)))
    return max(full - empty, 0) / _ELEMENTS


def fastest(call: Callable[[], object]) -> int:
    """Nanoseconds of the fastest of several calls."""
    times = []
    for _ in range(_SAMPLES):
        start = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - start)
    return min(times)
