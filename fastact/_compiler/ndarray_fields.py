"""Reading ndarray objects in compiled code.

Passing the object itself through ctypes costs a fraction of reading its address, shape and strides
in Python.
"""

from llvmlite import ir

from fastact._compiler.builder import Function, Integer

# Offsets in PyArrayObject_fields (numpy/ndarraytypes.h), which follow the object header. They are
# part of NumPy's ABI: every extension has them compiled in.
_HEADER = object.__basicsize__
_DATA, _NDIM, _SHAPE, _STRIDES, _DTYPE, _FLAGS = (_HEADER + o for o in (0, 8, 16, 24, 40, 48))
_ALIGNED, _WRITEABLE = 0x100, 0x400
_C_ORDER, _F_ORDER, _WARN_ON_WRITE = 0x1, 0x2, 0x80000000


class NDArray:
    """The ndarray object at an address."""

    def __init__(self, function: Function, address: Integer):
        self.function, self.address = function, address

    def _field(self, offset: int, bits: int = 64) -> Integer:
        return self.function.load(self.address + offset, ir.IntType(bits))

    @property
    def data(self) -> Integer:
        return self._field(_DATA)

    @property
    def dimensions(self) -> Integer:
        return self._field(_NDIM, 32)

    @property
    def dtype(self) -> Integer:
        """The address of the dtype object."""
        return self._field(_DTYPE)

    @property
    def orders(self) -> Integer:
        """One bit if it is contiguous in C order, and another if it is in Fortran order."""
        return self._field(_FLAGS, 32) & (_C_ORDER | _F_ORDER)

    @property
    def aligned(self) -> Integer:
        return (self._field(_FLAGS, 32) & _ALIGNED).differs(0)

    @property
    def writeable(self) -> Integer:
        """Whether it can be written to without a warning."""
        return (self._field(_FLAGS, 32) & (_WRITEABLE | _WARN_ON_WRITE)).equals(_WRITEABLE)

    def length(self, axis: Integer | int) -> Integer:
        return self.function.load(self._field(_SHAPE) + 8 * self._integer(axis))

    def stride(self, axis: Integer | int) -> Integer:
        return self.function.load(self._field(_STRIDES) + 8 * self._integer(axis))

    def _integer(self, axis: Integer | int) -> Integer:
        return self.function.constant(axis) if isinstance(axis, int) else axis

    def unusable(self, dtype: Integer, writeable: bool = False) -> Integer:
        """Whether it has no axes, has another dtype object, or is not aligned (or `writeable`)."""
        flags = _ALIGNED | (_WRITEABLE if writeable else 0)
        return (
            (self.dimensions < 1)
            | self._field(_DTYPE).differs(dtype)
            | (self._field(_FLAGS, 32) & flags).differs(flags)
        )

    def count(self, other: "NDArray") -> Integer:
        """The number of elements; 0 if `other`, with as many axes, has another shape."""
        f = self.function
        n = f.variable(1)
        with f.loop(self.dimensions) as axis:
            length = self.length(axis)
            n.set(f.select(length.equals(other.length(axis)), n.get() * length, 0))
        return n.get()

    def rows(self) -> tuple[Integer, Integer]:
        """Length and stride of all axes but the last, as one axis; -1 if they cannot be one."""
        f = self.function
        rows, row, regular = f.variable(1), f.variable(0), f.variable(1)
        last = self.dimensions - 1
        with f.loop(last) as d:
            axis = last - 1 - d
            n, stride = self.length(axis), self.stride(axis)
            with f.when(n.differs(1)):
                alone = rows.get().equals(1)
                follows = stride.equals(row.get() * rows.get())
                row.set(f.select(alone, stride, row.get()))
                regular.set(f.select(alone | follows, regular.get(), 0))
                rows.set(rows.get() * n)
        empty = rows.get().equals(0)
        return f.select(empty | regular.get().differs(0), rows.get(), -1), row.get()

    def bounds(self, itemsize: Integer | int) -> tuple[Integer, Integer]:
        """The addresses that the data lie between; (0, 0) if an axis is empty."""
        f = self.function
        low, high, empty = f.variable(self.data), f.variable(self.data + itemsize), f.variable(0)
        with f.loop(self.dimensions) as axis:
            n = self.length(axis)
            span = (n - 1) * self.stride(axis)
            low.set(low.get() + f.minimum(span, 0))
            high.set(high.get() + f.maximum(span, 0))
            empty.set(f.select(n.equals(0), 1, empty.get()))
        some = empty.get().equals(0)
        return f.select(some, low.get(), 0), f.select(some, high.get(), 0)

    def overlaps(self, other: "NDArray", itemsize: Integer | int) -> Integer:
        """Whether the arrays may share elements; interleaved arrays count as sharing."""
        low, high = self.bounds(itemsize)
        other_low, other_high = other.bounds(itemsize)
        return (low < other_high) & (other_low < high)
