"""What the compiled loops of dense layers need: packed weights, plans, and compiled functions."""

import functools
import math
from _thread import _local  # as in threading, whose import takes longer than ours
from collections.abc import Callable
from ctypes import CFUNCTYPE, addressof, c_int64, py_object

import numpy as np

from fastact._compiler.gemm.interface import FIELDS, lanes_for
from fastact._compiler.symbols import SETTING
from fastact._declarations.records import ACTIVATIONS, ROW_ACTIVATIONS
from fastact._loading import loader
from fastact._machine.formats import FORMATS
from fastact._runtime import engine

_Words = c_int64 * len(FIELDS)

_ALIGNMENT = 64  # a vector that crosses two cache lines takes twice as long to load

# A call reuses the buffer in which the last call packed its weights, since page faults of new
# memory take longer than packing (bench/NOTES.md).
_SCRATCH_LIMIT = 1 << 24  # bytes in each thread
_scratch = _local()


class Kernels:
    """The compiled loops for one dtype and one number of lanes."""

    def __init__(self, dtype: np.dtype, lanes: int):
        self.dtype, self.lanes = dtype, lanes
        addresses = engine.gemm_addresses(FORMATS[dtype.name], lanes)
        # ctypes releases the GIL during the call.
        self.packed = CFUNCTYPE(c_int64, c_int64, py_object, py_object)(addresses["packed"])
        self.direct = CFUNCTYPE(c_int64, c_int64, *[py_object] * 4)(addresses["direct"])
        self.pack = CFUNCTYPE(c_int64, *[c_int64] * 7)(addresses["pack"])
        from fastact._parallel import pool  # here, to keep the import of the package short

        pool.attach(addresses[SETTING], self._cost())

    def _cost(self) -> float:
        """Nanoseconds per multiply-add, with operands in cache."""
        from fastact._runtime import loop_timing

        plan, shape = self.plan(None), (64, 64, 4 * self.lanes)
        x, w, b, y = (
            np.zeros(size, self.dtype) for size in (shape[:2], shape[1:], shape[2], shape[::2])
        )
        return loop_timing.fastest(lambda: self.direct(plan, x, w, b, y)) / math.prod(shape)

    def plan(self, activation: str | None, **fields: "int | Address") -> "Address":
        """A plan with `activation` and the given `fields`; all other fields are 0."""
        loop, row_wise = _epilogue(activation, self.dtype)
        fields |= {"loop": loop, "row_wise": row_wise, "dtype": id(self.dtype)}
        values = [fields.get(name, 0) for name in FIELDS]
        words = _Words(*values)
        return Address(addressof(words), words, self.dtype, values)


class Address(int):
    """An address that keeps alive the object there, and all objects that are found from there.

    Compiled code receives everything but the arguments of the call as such addresses.
    """

    keeps: tuple[object, ...]

    def __new__(cls, address: int, *keeps: object) -> "Address":
        self = int.__new__(cls, address)
        self.keeps = keeps
        return self


def kernels(dtype: np.dtype, columns: int) -> Kernels:
    """The compiled loops for weights of `dtype`, float32 or float64, with so many `columns`."""
    return _kernels(dtype.name, lanes_for(columns, FORMATS[dtype.name], loader.host()))


@functools.cache
def _kernels(name: str, lanes: int) -> Kernels:
    return Kernels(np.dtype(name), lanes)


@functools.cache
def _epilogue(activation: str | None, dtype: np.dtype) -> tuple[int, int]:
    if activation is None:
        return 0, 0
    if activation in ROW_ACTIVATIONS:
        return engine.rows_address(ROW_ACTIVATIONS[activation].steps, type(dtype), alone=True), 1
    declared = ACTIVATIONS[activation]
    return engine.loop_address(declared.kernel, declared.nin, type(dtype), alone=True), 0


class Weights:
    """W and b packed for the tiles: vectors of columns, each contiguous along k.

    Parameters
    ----------
    w : ndarray, shape (K, N)
        float32 or float64, aligned, with any strides.
    b : ndarray, shape (N,), or None
        The bias.
    activation : str or None
        The name of the activation.
    temporary : bool
        Whether to pack into a buffer that :meth:`give_back` keeps for the next weights.
    """

    def __init__(
        self,
        w: np.ndarray,
        b: np.ndarray | None,
        activation: str | None,
        temporary: bool = False,
    ):
        depth, columns = w.shape
        self.shape = w.shape
        self.kernels = kernels(w.dtype, columns)
        # Not w.dtype, which may be equal without being the object that compiled code compares with.
        self.dtype = self.kernels.dtype
        lanes, itemsize = self.kernels.lanes, w.itemsize
        vectors = -(-columns // lanes)
        # Vectors at a distance of a multiple of 4 KB would share the same sets of the cache.
        row = depth * lanes
        row += _ALIGNMENT // itemsize * (row * itemsize % 4096 == 0)
        if temporary:
            self._packed, self._buffer = _borrowed((vectors, row), w.dtype)
        else:
            self._packed = aligned((vectors, row), w.dtype)
        self._plans: dict[str | None, Address] = {}
        self.bias = np.zeros(columns, w.dtype) if b is None else np.array(b, w.dtype)
        packed = Address(self._packed.ctypes.data, self._packed)
        self.kernels.pack(w.ctypes.data, *w.strides, depth, columns, packed, row * itemsize)
        self._fields = {
            "w": packed,
            "w_vector": row * itemsize,
            "w_final": (vectors - 1) * row * itemsize,
            "w_k": lanes * itemsize,
            "depth": depth,
            "columns": columns,
            "bias": Address(self.bias.ctypes.data, self.bias),
        }
        self.call = self.bound(activation)

    def bound(self, activation: str | None) -> Callable[[np.ndarray, np.ndarray], int]:
        """The compiled function of x and out with this activation. It keeps alive all it reads."""
        plan = self._plans.get(activation)
        if plan is None:
            made = self.kernels.plan(activation, **self._fields)
            plan = self._plans.setdefault(activation, made)
        return functools.partial(self.kernels.packed, plan)

    def give_back(self) -> None:
        """Keep the buffer for the next temporary weights of this thread; these become unusable."""
        del self.call
        if len(self._buffer) <= _SCRATCH_LIMIT:
            _scratch.buffer = self._buffer

    def unpacked(self) -> np.ndarray:
        """W as a new array."""
        depth, columns = self.shape
        lanes = self.kernels.lanes
        w = np.empty(self.shape, self.dtype)
        for p, vector in enumerate(self._packed):
            start = min(p * lanes, columns - lanes)
            w[:, start : start + lanes] = vector[: depth * lanes].reshape(depth, lanes)
        return w


def aligned(shape: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    """An uninitialised array that starts at a cache line."""
    size = shape[0] * shape[1] * dtype.itemsize
    buffer = np.empty(size + _ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % _ALIGNMENT
    return buffer[start : start + size].view(dtype).reshape(shape)


def _borrowed(shape: tuple[int, int], dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """An aligned array, and the buffer that it is in: the last one that this thread gave back.

    The buffer is removed from `_scratch`, so that a signal handler, trace function or destructor
    that runs while it is in use gets another one.
    """
    size = shape[0] * shape[1] * dtype.itemsize
    buffer = vars(_scratch).pop("buffer", None)
    if buffer is None or len(buffer) < size:
        buffer = aligned((1, size), np.dtype(np.uint8))[0]
    return buffer[:size].view(dtype).reshape(shape), buffer
