"""What the compiled loops of dense layers need: packed weights, plans, and compiled functions."""

import functools
from _thread import _local  # as in threading, whose import takes longer than ours
from collections.abc import Callable
from ctypes import CFUNCTYPE, addressof, c_int64, py_object
from math import inf, prod
from typing import TypeAlias

import numpy as np

from fastact._compiler.gemm.interface import (
    FIELDS,
    Storage,
    bits_of,
    lanes_for,
    memory_order,
    shared_panel,
)
from fastact._compiler.symbols import SETTING
from fastact._declarations.records import ACTIVATIONS, FAST, NORMALIZATIONS, ROW_ACTIVATIONS
from fastact._dense.activated import Activated
from fastact._dense.compact import INT8, MEMORY, Compact
from fastact._kernels.products import rounded_product
from fastact._loading import loader
from fastact._machine.formats import FORMATS
from fastact._runtime import engine, layer_calls
from fastact._runtime.undisturbed import undisturbed

# Activations that only limit results from below, which the tiles do in registers. A pass over the
# results took a fifth of the time of 65536 x 10 x 32 (bench/NOTES.md).
_FLOORS = {"relu": 0.0}

# The activations whose product with another number has a function of its own, rounded once.
_PRODUCTS = {"silu": "swiglu", "gelu": "geglu", "relu": "reglu", "sigmoid": "glu"}

_Words = c_int64 * len(FIELDS)

Layer: TypeAlias = Callable[..., "np.ndarray | None"]
"""``layer(x)`` or ``layer(x, out)``: the result, or None for operands that need more care."""

_ALIGNMENT = 64  # a vector that crosses two cache lines takes twice as long to load

# A call reuses the buffer in which the last call packed its weights, since page faults of new
# memory take longer than packing (bench/NOTES.md).
_SCRATCH_LIMIT = 1 << 24  # bytes in each thread
_scratch = _local()


class Kernels:
    """The compiled loops for one dtype, number of lanes and storage of the weights."""

    def __init__(self, dtype: np.dtype, lanes: int, stored: Storage):
        self.dtype, self.lanes, self.stored = dtype, lanes, stored
        self.memory = MEMORY[stored.form.name]
        self.order = memory_order(stored.form, lanes, loader.host())
        addresses = engine.gemm_addresses(FORMATS[dtype.name], lanes, stored)
        self._packed = addresses["packed"]
        # ctypes releases the GIL during the call.
        if "direct" in addresses:
            self.direct = CFUNCTYPE(c_int64, c_int64, *[py_object] * 4)(addresses["direct"])
        self.pack = CFUNCTYPE(c_int64, *[c_int64] * 7)(addresses["pack"])
        self.panel: np.ndarray | None = None  # for widened weights; its first element is 0 if free
        if stored.form.name != dtype.name:
            self.panel = aligned((shared_panel(loader.host()) // 8,), np.dtype(np.int64))
            self.panel[0] = 0
        from fastact._parallel import pool  # here, to keep the import of the package short

        pool.attach(addresses[SETTING], self._cost())

    def _cost(self) -> float:
        """Nanoseconds per multiply-add, with operands in cache."""
        from fastact._runtime import loop_timing

        rows, depth, vectors = 64, 64, 4
        columns = vectors * self.lanes
        x, y = (np.zeros((rows, width), self.dtype) for width in (depth, columns))
        packed = aligned((vectors, depth * self.lanes), self.memory)
        packed[...] = 0
        terms = np.zeros(self.stored.terms * columns, self.dtype)
        plan = self.plan(None, **self.places(packed, terms, depth, columns))
        layer = self.bound(plan, (depth, columns))
        return loop_timing.fastest(lambda: layer(x, y)) / (rows * depth * columns)

    def places(
        self, packed: np.ndarray, terms: np.ndarray, depth: int, columns: int
    ) -> "dict[str, int | Address]":
        """The fields of a plan for weights that are packed in the rows of an array.

        If it has three axes, the first one is that of layers.
        """
        return {
            "w": Address(packed.ctypes.data, packed),
            "w_vector": packed.strides[-2],
            "w_final": (packed.shape[-2] - 1) * packed.strides[-2],
            "w_k": self.lanes * packed.itemsize,
            "depth": depth,
            "columns": columns,
            "bias": Address(terms.ctypes.data, terms),
        }

    def plan(
        self, activation: Activated | None, gated: bool = False, /, **fields: "int | Address"
    ) -> "Address":
        """A plan with `activation` and the given `fields`; all other fields are 0."""
        name = None if activation is None else activation.name
        floor = -inf
        if self.panel is not None:
            fields["panel"] = Address(self.panel.ctypes.data, self.panel)
        if gated:
            fields["gate"], fields["product"] = gate_loops(name, self.dtype)
        else:
            fields["loop"], fields["row_wise"] = _epilogue(name, self.dtype)
            floor = _FLOORS.get(name or "", floor)
        fields["floor"] = bits_of(floor, FORMATS[self.dtype.name])
        fields["dtype"] = id(self.dtype)
        parameters = [] if activation is None else activation.arrays(self.dtype, fields["columns"])
        if name in NORMALIZATIONS:
            fields["row_parameters"] = len(NORMALIZATIONS[name].columns)
            parameters = [np.concatenate([np.atleast_1d(values) for values in parameters])]
        for parameter in parameters:
            fields["parameter"] = Address(parameter.ctypes.data, parameter)
            fields["parameter_column"] = parameter.itemsize * (parameter.ndim > 0)
        values = [fields.get(name, 0) for name in FIELDS]
        words = _Words(*values)
        return Address(addressof(words), words, self.dtype, values)

    def bound(self, plan: "Address", shape: tuple[int, int]) -> Layer:
        """The layer of packed weights with this plan."""
        return layer_calls.bound(self._packed, plan, shape, self.dtype)


class Address(int):
    """An address that keeps alive the object there, and all objects that are found from there.

    Compiled code receives everything but the arguments of the call as such addresses.
    """

    keeps: tuple[object, ...]

    def __new__(cls, address: int, *keeps: object) -> "Address":
        self = int.__new__(cls, address)
        self.keeps = keeps
        return self


def kernels(dtype: np.dtype, columns: int, compact: str | None = None) -> Kernels:
    """The compiled loops that compute in `dtype`, float32 or float64, with so many `columns`.

    `compact` is the `weights_dtype` of a layer. Columns that fill no vector have few weights. These
    are widened once, so that the ways to compute such layers need not know of other formats.
    """
    form, host = FORMATS[dtype.name], loader.host()
    lanes = lanes_for(columns, form, host)
    few = lanes * form.bits < host.vector_bits
    stored = Storage(form if few or compact is None else FORMATS[compact], compact == INT8)
    return _kernels(dtype.name, lanes, stored)


@functools.cache
def _kernels(name: str, lanes: int, stored: Storage) -> Kernels:
    return Kernels(np.dtype(name), lanes, stored)


@functools.cache
def _epilogue(activation: str | None, dtype: np.dtype) -> tuple[int, int]:
    if activation is None or activation in _FLOORS:
        return 0, 0
    if activation in NORMALIZATIONS:
        steps = NORMALIZATIONS[activation].steps
        return engine.normalization_address(steps, type(dtype), alone=True), 1
    if activation in ROW_ACTIVATIONS:
        return engine.rows_address(ROW_ACTIVATIONS[activation].steps, type(dtype), alone=True), 1
    declared = FAST.get(activation) or ACTIVATIONS[activation]
    return engine.loop_address(declared.kernel, declared.nin, type(dtype), alone=True), 0


@functools.cache
def gate_loops(activation: str | None, dtype: np.dtype) -> tuple[int, int]:
    """The loop of the activation of a gate, 0 if there is none, and that of the product."""
    name = _PRODUCTS.get(activation or "")
    loop, _ = (0, 0) if name else _epilogue(activation, dtype)
    kernel = ACTIVATIONS[name].kernel if name else rounded_product
    return loop, engine.loop_address(kernel, 2, type(dtype), alone=True)


class Weights:
    """W and b packed for the tiles: vectors of columns, each contiguous along k.

    Parameters
    ----------
    w : ndarray or Compact, shape (K, N)
        float32 or float64, aligned, with any strides; or weights of fewer bits, for float32.
    b : ndarray, shape (N,), or None
        The bias.
    activation : Activated or None
    temporary : bool
        Whether to pack into a buffer that :meth:`give_back` keeps for the next weights.
    second : tuple of w and b, optional
        Those of a second layer with the same input, in the same types. Then the result is the
        product of both. The inputs of a product with a function of its own (swiglu, glu, ...) are
        the sums of the first layer and of the second; otherwise the first sum is the input of the
        activation.

    Attributes
    ----------
    biases : list of ndarray, shape (N,)
        Of each layer.
    """

    def __init__(
        self,
        w: np.ndarray | Compact,
        b: np.ndarray | None,
        activation: Activated | None,
        temporary: bool = False,
        second: "tuple[np.ndarray | Compact, np.ndarray | None] | None" = None,
    ):
        given = [(w, b), second] if second else [(w, b)]
        self._compact: list[Compact] = []
        name = w.name if isinstance(w, Compact) else None
        self.kernels = kernels(np.dtype(np.float32) if name else w.dtype, w.shape[1], name)
        depth, columns = w.shape
        self.shape = depth, columns
        # Not w.dtype, which may be equal without being the object that compiled code compares with.
        self.dtype = self.kernels.dtype
        lanes, memory = self.kernels.lanes, self.kernels.memory
        vectors = -(-columns // lanes)
        # Vectors at a distance of a multiple of 4 KB would share the same sets of the cache.
        row = depth * lanes
        row += _ALIGNMENT // memory.itemsize * (row * memory.itemsize % 4096 == 0)
        shape = len(given), vectors, row
        if temporary:
            self._packed, self._buffer = _borrowed(shape, memory)
        else:
            self._packed = aligned(shape, memory)
        self._plans: dict[Activated | None, Address] = {}
        self._activation = activation
        self.biases, terms = [], []
        for packed, (w, b) in zip(self._packed, given, strict=True):
            factors = np.empty(0)
            if isinstance(w, Compact):
                self._compact.append(w._replace(values=np.empty(0)))  # `w` is not kept
                factors = factors if w.scale is None else w.scale
                w = w.values if w.values.dtype == memory else w.unscaled()
            bias = np.zeros(columns, self.dtype) if b is None else np.array(b, self.dtype)
            self.biases.append(bias)
            scaled = self.kernels.stored.scaled
            terms.append(np.stack([bias, factors], axis=1) if scaled else bias)
            place = packed.ctypes.data, packed.strides[0]
            if columns:  # or it would take one step for each of any number of empty rows
                self.kernels.pack(w.ctypes.data, *w.strides, depth, columns, *place)
        together = np.concatenate(terms) if second else terms[0]
        self._fields = self.kernels.places(self._packed, together, depth, columns)
        self.call = self.bound(activation)

    def bound(self, activation: Activated | None) -> Layer:
        """The compiled function of x and out with this activation. It keeps alive all it reads."""
        plan = self._plans.get(activation)
        if plan is None:
            made = self.kernels.plan(activation, len(self.biases) > 1, **self._fields)
            plan = self._plans.setdefault(activation, made)
        return self.kernels.bound(plan, self.shape)

    def call_saving(self, x: np.ndarray, y: np.ndarray, saved: np.ndarray) -> np.ndarray | None:
        """Like `call`, in two passes: the input of the activation stays in `saved`."""
        if y.dtype != self.dtype or self.bound(None)(x, saved) is None:
            return None
        if self._activation is None:
            y[...] = saved
        else:
            self._activation.applied(saved, y)
        return y

    def give_back(self) -> None:
        """Keep the buffer for the next temporary weights of this thread; these become unusable."""
        del self.call
        if len(self._buffer) <= _SCRATCH_LIMIT:
            _scratch.buffer = self._buffer

    def unpacked(self, layer: int = 0) -> np.ndarray:
        """W, as it is used, as a new array."""
        return self.compact(layer).widened() if self._compact else self._in_memory(layer)

    def compact(self, layer: int = 0) -> Compact:
        """The weights of fewer bits that were given."""
        return self._compact[layer].of(self._in_memory(layer))

    def _in_memory(self, layer: int) -> np.ndarray:
        depth, columns = self.shape
        lanes, order = self.kernels.lanes, self.kernels.order
        w = np.empty(self.shape, self.kernels.memory)

        def fill() -> None:
            for p, vector in enumerate(self._packed[layer]):
                start = min(p * lanes, columns - lanes)
                w[:, [start + k for k in order]] = vector[: depth * lanes].reshape(depth, lanes)

        undisturbed(fill)  # NumPy clears status flags when it assigns to a list of columns
        return w


def aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An uninitialised array that starts at a cache line."""
    size = prod(shape) * dtype.itemsize
    buffer = np.empty(size + _ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % _ALIGNMENT
    return buffer[start : start + size].view(dtype).reshape(shape)


def _borrowed(shape: tuple[int, ...], dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """An aligned array, and the buffer that it is in: the last one that this thread gave back.

    The buffer is removed from `_scratch`, so that a signal handler, trace function or destructor
    that runs while it is in use gets another one.
    """
    size = prod(shape) * dtype.itemsize
    buffer = vars(_scratch).pop("buffer", None)
    if buffer is None or len(buffer) < size:
        buffer = aligned((1, size), np.dtype(np.uint8))[0]
    return buffer[:size].view(dtype).reshape(shape), buffer
