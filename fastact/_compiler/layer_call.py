"""Machine code that calls the loops of a layer as a built-in function of Python.

A call through ctypes takes 0.9 us, and one of ``numpy.empty`` 0.45 us; for a small layer, that is
most of the time. ``PyObject *ENTRY(PyObject *self, PyObject *const *args, Py_ssize_t nargs)`` is a
method with the convention METH_FASTCALL, for the arguments (x) and (x, out), where `out` may be
None. It returns the result, or None for arguments that the loops refuse. `self` is an ndarray of
the words that `LAYER_WORDS` lists.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from llvmlite import ir

from fastact._compiler import pipeline
from fastact._compiler.builder import Function, Integer
from fastact._compiler.gemm.interface import DONE
from fastact._compiler.ndarray_fields import NDArray
from fastact._compiler.python_calls import GIL_IR, REFERENCE_IR
from fastact._compiler.symbols import ENTRY, LAYER_WORDS
from fastact._machine.targets import Target

_TYPE = object.__basicsize__ - 8  # offset of ob_type

_MOST_AXES = 64  # of an ndarray

# Multiply-adds: calls with fewer keep the GIL, which takes 0.1 us to release and acquire again.
# They take a microsecond or two, and are never shared among threads.
_FEW = 1 << 14

_SUPPORT_IR = f"""{GIL_IR}{REFERENCE_IR}
define i64 @compute(i64 %packed, i64 %plan, i64 %x, i64 %y) {{
  %call = inttoptr i64 %packed to ptr
  %status = call i64 %call(i64 %plan, i64 %x, i64 %y)
  ret i64 %status
}}
define i64 @new(i64 %function, i64 %type, i64 %dtype, i64 %dimensions, i64 %shape) {{
  %call = inttoptr i64 %function to ptr
  %nd = trunc i64 %dimensions to i32
  %sizes = inttoptr i64 %shape to ptr
  %array = call i64 %call(i64 %type, i64 %dtype, i32 %nd, ptr %sizes, ptr null, ptr null, i32 0, \
i64 0)
  ret i64 %array
}}
"""


def object_code(target: Target) -> bytes:
    """A relocatable object file with `ENTRY`."""
    machine = pipeline.machine_of(target)
    module = pipeline.parse(_logic_ir(), target, machine)
    module.link_in(pipeline.parse(_SUPPORT_IR, target, machine))
    pipeline.hide(module, {ENTRY})
    pipeline.optimise(module, machine)
    return pipeline.emit(module, machine)


class _Words:
    """The words of the layer, read from the array that the function is bound to."""

    def __init__(self, function: Function, array: Integer):
        self.function, self.address = function, NDArray(function, array).data

    def get(self, name: str) -> Integer:
        return self.function.load(self.address + 8 * LAYER_WORDS.index(name))


def _logic_ir() -> str:
    module = ir.Module()
    refused, new = _refused(module), _new(module)
    f = Function(module, ENTRY, "self", "args", "count")
    layer, args, count = f.arguments
    words = _Words(f, layer)
    none, ndarray, source = words.get("None"), words.get("ndarray"), f.load(args)
    with f.when(f.load(source + _TYPE).differs(ndarray)):
        f.return_(f.call(refused, layer))
    x = NDArray(f, source)
    with f.when(x.unusable(words.get("dtype"))):
        f.return_(f.call(refused, layer))
    with f.when(x.length(x.dimensions - 1).differs(words.get("depth"))):
        f.return_(f.call(refused, layer))
    out = f.variable(none)
    with f.when(count > 1):
        out.set(f.load(args + 8))
    made = out.get().equals(none)
    with f.when(made):
        out.set(f.call(new, layer, source))
        with f.when(out.get().equals(0)):
            f.return_(0)
    y = out.get()
    with f.when(f.load(y + _TYPE).differs(ndarray)):
        f.return_(f.call(refused, layer))
    with _without_gil(f, x, words):
        status = f.call("compute", words.get("packed"), words.get("plan"), source, y)
    with f.when(status.differs(DONE)):
        with f.when(made):
            f.call("count", words.get("Py_DecRef"), y)
        f.return_(f.call(refused, layer))
    with f.when(made.equals(0)):
        f.call("count", words.get("Py_IncRef"), y)
    f.return_(y)
    return str(module)


def _refused(module: ir.Module) -> Function:
    f = Function(module, "refused", "self")
    words = _Words(f, f.arguments[0])
    f.call("count", words.get("Py_IncRef"), words.get("None"))
    f.return_(words.get("None"))
    return f


def _new(module: ir.Module) -> Function:
    """A new array for the result; 0, with an exception set, if there is no memory."""
    f = Function(module, "new_result", "self", "x")
    layer, source = f.arguments
    words, x, shape = _Words(f, layer), NDArray(f, source), f.array(_MOST_AXES)
    last = x.dimensions - 1
    with f.loop(last) as axis:
        f.store(shape + axis * 8, x.length(axis))
    f.store(shape + last * 8, words.get("columns"))
    dtype = words.get("dtype")
    f.call("count", words.get("Py_IncRef"), dtype)  # the new array takes over a reference
    make = words.get("PyArray_NewFromDescr")
    f.return_(f.call("new", make, words.get("ndarray"), dtype, x.dimensions, shape))
    return f


@contextmanager
def _without_gil(f: Function, x: NDArray, words: _Words) -> Iterator[None]:
    work, state = f.variable(words.get("columns")), f.variable(0)
    with f.loop(x.dimensions) as axis:
        work.set(work.get() * x.length(axis))
    with f.when(work.get() > _FEW):
        state.set(f.call("save", words.get("PyEval_SaveThread")))
    yield
    with f.when(work.get() > _FEW):
        f.call("restore", words.get("PyEval_RestoreThread"), state.get())
