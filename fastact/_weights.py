"""Dense layers as the compiled loops see them: packed weights, plans, and compiled functions."""

import functools
import math
from _thread import _local  # as threading does, whose import takes longer than ours
from collections.abc import Callable
from ctypes import CFUNCTYPE, c_int64, py_object

import numpy as np

from . import _engine
from ._declare import ACTIVATIONS, ROW_ACTIVATIONS
from ._fan_out import SETTING
from ._formats import FORMATS
from ._plan import FIELDS, lanes_for

_ALIGNMENT = 64  # a vector that straddles two lines of the cache takes twice as long to load

# Packed weights of one call are put where those of the last were: the pages of new memory take
# longer than packing (bench/NOTES.md).
_SCRATCH_LIMIT = 1 << 24  # bytes in each thread
_scratch = _local()


class Kernels:
    """The compiled loops for one dtype and one number of lanes."""

    def __init__(self, dtype: np.dtype, lanes: int):
        self.dtype, self.lanes = dtype, lanes
        addresses = _engine.gemm_addresses(FORMATS[dtype.name], lanes)
        # ctypes lets other threads run meanwhile.
        self.packed = CFUNCTYPE(c_int64, c_int64, py_object, py_object)(addresses["packed"])
        self.direct = CFUNCTYPE(c_int64, c_int64, *[py_object] * 4)(addresses["direct"])
        self.pack = CFUNCTYPE(c_int64, *[c_int64] * 7)(addresses["pack"])
        from . import _pool  # not with the package, whose import it would lengthen

        _pool.attach(addresses[SETTING], self._cost())

    def _cost(self) -> float:
        """Nanoseconds for a product, in cache."""
        from . import _cost

        plan, shape = self.plan(None), (64, 64, 4 * self.lanes)
        x, w, b, y = (
            np.zeros(size, self.dtype) for size in (shape[:2], shape[1:], shape[2], shape[::2])
        )
        return _cost.fastest(lambda: self.direct(plan.ctypes.data, x, w, b, y)) / math.prod(shape)

    def plan(self, activation: str | None, **fields: int) -> np.ndarray:
        """A plan with the `activation` and what `fields` give of the rest."""
        loop, row_wise = _epilogue(activation, self.dtype)
        fields |= {"loop": loop, "row_wise": row_wise, "dtype": id(self.dtype)}
        return np.array([fields.get(name, 0) for name in FIELDS], np.int64)


def kernels(dtype: np.dtype, columns: int) -> Kernels:
    """The compiled loops for weights of `dtype`, float32 or float64, with so many columns."""
    return _kernels(dtype.name, lanes_for(columns, FORMATS[dtype.name], _engine.host()))


@functools.cache
def _kernels(name: str, lanes: int) -> Kernels:
    return Kernels(np.dtype(name), lanes)


@functools.cache
def _epilogue(activation: str | None, dtype: np.dtype) -> tuple[int, int]:
    if activation is None:
        return 0, 0
    if activation in ROW_ACTIVATIONS:
        return _engine.rows_address(ROW_ACTIVATIONS[activation].steps, type(dtype), alone=True), 1
    declared = ACTIVATIONS[activation]
    return _engine.loop_address(declared.kernel, declared.nin, type(dtype), alone=True), 0


class Weights:
    """W and b packed for the tiles: vectors of columns, each with its k one after another.

    Parameters
    ----------
    w : ndarray
        (K, N) float32 or float64, aligned, of any strides.
    b : ndarray or None
        (N,)
    activation : str or None
        By its name.
    temporary : bool
        Whether they are needed only until this thread packs others.
    """

    def __init__(
        self,
        w: np.ndarray,
        b: np.ndarray | None,
        activation: str | None,
        temporary: bool = False,
    ):
        depth, columns = w.shape
        self.shape, self.dtype = w.shape, w.dtype
        self.kernels = kernels(w.dtype, columns)
        lanes, itemsize = self.kernels.lanes, w.itemsize
        vectors = -(-columns // lanes)
        # Vectors a multiple of 4 KB apart would all fall into the same sets of the cache.
        row = depth * lanes
        row += _ALIGNMENT // itemsize * (row * itemsize % 4096 == 0)
        self._packed = (_borrowed if temporary else aligned)((vectors, row), w.dtype)
        self._plans: dict[str | None, np.ndarray] = {}  # compiled code has their addresses
        self.bias = np.zeros(columns, w.dtype) if b is None else np.array(b, w.dtype)
        self.kernels.pack(
            w.ctypes.data, *w.strides, depth, columns, self._packed.ctypes.data, row * itemsize
        )
        self._fields = {
            "w": self._packed.ctypes.data,
            "w_vector": row * itemsize,
            "w_final": (vectors - 1) * row * itemsize,
            "w_k": lanes * itemsize,
            "depth": depth,
            "columns": columns,
            "bias": self.bias.ctypes.data,
        }
        self.call = self.bound(activation)

    def bound(self, activation: str | None) -> Callable[[np.ndarray, np.ndarray], int]:
        """The compiled function from x to out with this activation; valid as long as `self`."""
        if activation not in self._plans:
            self._plans[activation] = self.kernels.plan(activation, **self._fields)
        return functools.partial(self.kernels.packed, self._plans[activation].ctypes.data)

    def unpacked(self) -> np.ndarray:
        """W again."""
        depth, columns = self.shape
        lanes = self.kernels.lanes
        w = np.empty(self.shape, self.dtype)
        for p, vector in enumerate(self._packed):
            start = min(p * lanes, columns - lanes)
            w[:, start : start + lanes] = vector[: depth * lanes].reshape(depth, lanes)
        return w


def aligned(shape: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    """An uninitialised array that starts on a line of the cache."""
    size = shape[0] * shape[1] * dtype.itemsize
    buffer = np.empty(size + _ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % _ALIGNMENT
    return buffer[start : start + size].view(dtype).reshape(shape)


def _borrowed(shape: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    """The same, in memory of this thread that its next call gives again."""
    size = shape[0] * shape[1] * dtype.itemsize
    if size > _SCRATCH_LIMIT:
        return aligned(shape, dtype)
    buffer = getattr(_scratch, "buffer", None)
    if buffer is None or len(buffer) < size:
        buffer = _scratch.buffer = aligned((1, size), np.dtype(np.uint8))[0]
    return buffer[:size].view(dtype).reshape(shape)
