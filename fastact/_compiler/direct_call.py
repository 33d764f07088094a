"""Machine code that calls the loop of a ufunc without NumPy, for arrays that NumPy would copy.

NumPy copies operands in pieces before it calls a loop if they are not aligned, whatever the loop
declares, and if the output has the order of a C array and the input that of a transposed one. This
code is called in place of NumPy's. It calls the loop for the whole of unaligned arrays, and
transposes other arrays by vectors. Anything else is left to NumPy: other objects than two ndarrays
of one dtype and shape, other keywords than `out`, and arrays that overlap.

``PyObject *ENTRY(PyObject *ufunc, PyObject *const *args, size_t nargsf, PyObject *kwnames)`` is a
``vectorcallfunc`` of Python. The exported `WORDS` hold the addresses that `CALL_WORDS` lists,
followed by `DTYPES` times the address of a dtype object, its size, and the address of a loop.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from llvmlite import ir

from fastact._compiler import pipeline
from fastact._compiler.builder import Function, Integer
from fastact._compiler.loops.loop_metadata import LoopMetadata, wide_vectors
from fastact._compiler.ndarray_fields import NDArray
from fastact._compiler.python_calls import GIL_IR, REFERENCE_IR
from fastact._compiler.symbols import CALL_WORDS, DTYPES, ENTRY, WORDS
from fastact._compiler.transpose import rows_to_cells
from fastact._machine.targets import Target

_TYPE = object.__basicsize__ - 8  # offset of ob_type
_TUPLE_SIZE, _TUPLE_ITEMS = object.__basicsize__, tuple.__basicsize__
_ARGUMENTS = (1 << 63) - 1  # without PY_VECTORCALL_ARGUMENTS_OFFSET
_NEW, _FAILED = -1, -1

_FEW = 500  # elements: up to this number, NumPy does not release the GIL either

_LINE = 64  # bytes of a cache line: of each column of x, one line is read at a time
_COLUMNS = 256  # that many at a time: 16 KB are transposed, a third of L1
_SIZES = (2, 4, 8)  # bytes of elements that are transposed
_SMALL = 8  # rows or columns; smaller arrays are left to NumPy


def object_code(target: Target) -> bytes:
    """A relocatable object file with `ENTRY` and `WORDS`."""
    machine = pipeline.machine_of(target)
    module = pipeline.parse(_logic_ir(target), target, machine)
    module.link_in(pipeline.parse(_support_ir(target), target, machine))
    pipeline.hide(module, {ENTRY, WORDS})
    pipeline.optimise(module, machine)
    return pipeline.emit(module, machine)


def _side(size: int, target: Target) -> int:
    """Rows and columns of a patch that is transposed in registers."""
    return min(target.vector_bits // 8, _LINE, 32) // size


def _logic_ir(target: Target) -> str:
    module = ir.Module()
    attempt = _attempt(module, target)
    f = Function(module, f"inner.{ENTRY}", "args", "nargsf", "names", "words")
    args, nargsf, names, words = f.arguments
    count, out = nargsf & _ARGUMENTS, f.variable(0)
    with f.when(names.equals(0)):
        with f.when(count.equals(1)):
            out.set(_NEW)
        with f.when(count.equals(2)):
            out.set(f.load(args + 8))
    with f.when(names.differs(0) & count.equals(1)), f.when(f.load(names + _TUPLE_SIZE).equals(1)):
        keyword = f.load(names + _TUPLE_ITEMS)
        out.set(f.select(keyword.equals(_word(f, words, "out")), f.load(args + 8), 0))
    with f.when(out.get().equals(0)):
        f.return_(0)
    f.return_(f.call(attempt, f.load(args), out.get(), words))
    return str(module)


def _word(f: Function, words: Integer, name: str) -> Integer:
    return f.load(words + 8 * CALL_WORDS.index(name))


def _attempt(module: ir.Module, target: Target) -> Function:
    """The result for `x` and `out`, 0 for arrays that are left to NumPy, or `_FAILED`."""
    whole, matrix = _whole(module), _matrix(module, target)
    f = Function(module, "attempt", "x", "out", "words")
    source, out, words = f.arguments
    ndarray, x = _word(f, words, "ndarray"), NDArray(f, source)
    with f.when(f.load(source + _TYPE).differs(ndarray)):
        f.return_(0)
    with f.when(out.equals(_NEW)):
        with f.when(x.aligned | x.orders.equals(0) | (x.dimensions < 1)):
            f.return_(0)
        loop, size = _loop_of(f, x, words)
        with f.when(loop.equals(0)):
            f.return_(0)
        new = f.call("new_like", _word(f, words, "PyArray_NewLikeArray"), source)
        with f.when(new.equals(0)):
            f.return_(_FAILED)
        f.call(whole, source, new, loop, size, words)
        f.return_(new)
    with f.when(f.load(out + _TYPE).differs(ndarray)):
        f.return_(0)
    y = NDArray(f, out)
    single = (x.orders & y.orders).differs(0) | x.dimensions.equals(1)
    with f.when(single & x.aligned & y.aligned):
        f.return_(0)
    alike = x.dimensions.equals(y.dimensions) & x.dtype.equals(y.dtype) & (x.dimensions > 0)
    loop, size = _loop_of(f, x, words)
    with f.when((alike & y.writeable & loop.differs(0)).equals(0)):
        f.return_(0)
    with f.when(x.count(y).equals(0)):
        f.return_(0)
    with f.when(single), f.when(f.call(whole, source, out, loop, size, words).equals(0)):
        f.return_(0)
    with f.when(single.equals(0)):
        with f.when(x.dimensions.differs(2)):
            f.return_(0)
        with f.when(f.call(matrix, source, out, loop, size, words).equals(0)):
            f.return_(0)
    f.call("count", _word(f, words, "Py_IncRef"), out)
    f.return_(out)
    return f


def _loop_of(f: Function, x: NDArray, words: Integer) -> tuple[Integer, Integer]:
    """The loop for the dtype of `x`, or 0, and the size of an element."""
    loop, size = f.variable(0), f.variable(0)
    table = words + 8 * len(CALL_WORDS)
    with f.loop(f.constant(DTYPES)) as k, f.when(f.load(table + k * 24).equals(x.dtype)):
        size.set(f.load(table + k * 24 + 8))
        loop.set(f.load(table + k * 24 + 16))
    return loop.get(), size.get()


def _whole(module: ir.Module) -> Function:
    """Call the loop once for arrays with a single stride; 0 if they may share memory."""
    f = Function(module, "whole", "x", "y", "loop", "size", "words")
    x, y = (NDArray(f, address) for address in f.arguments[:2])
    loop, size, words = f.arguments[2:]
    n = x.count(y)
    strides = []
    for array in (x, y):
        stride = f.variable(size)
        with f.when(array.dimensions.equals(1) & (n > 1)):
            stride.set(array.stride(0))
        strides.append(stride.get())
    # In place, the elements must not overlap each other.
    separate = (strides[1] >= size) | (strides[1] <= size * -1)
    same = x.data.equals(y.data) & strides[0].equals(strides[1]) & separate
    with f.when(same.equals(0) & x.overlaps(y, size)):
        f.return_(0)
    with _without_gil(f, n, words):
        f.call("compute", loop, x.data, strides[0], y.data, strides[1], n)
    f.return_(1)
    return f


@contextmanager
def _without_gil(f: Function, n: Integer, words: Integer) -> Iterator[None]:
    state = f.variable(0)
    with f.when(n > _FEW):
        state.set(f.call("save", _word(f, words, "PyEval_SaveThread")))
    yield
    with f.when(n > _FEW):
        f.call("restore", _word(f, words, "PyEval_RestoreThread"), state.get())


def _matrix(module: ir.Module, target: Target) -> Function:
    """Compute a matrix whose input is transposed; 0 if it is not, or if memory may be shared."""
    transposed = _transposed(module, target)
    f = Function(module, "matrix", "x", "y", "loop", "size", "words")
    x, y = (NDArray(f, address) for address in f.arguments[:2])
    loop, size, words = f.arguments[2:]
    columns_first = y.stride(1).equals(size)
    inner = f.select(columns_first, 1, 0)
    outer = inner * -1 + 1
    rows, columns = x.length(outer), x.length(inner)
    x_pitch, y_pitch = x.stride(inner), y.stride(outer)
    units = y.stride(inner).equals(size) & x.stride(outer).equals(size)
    apart = y_pitch >= columns * size
    large = (rows >= _SMALL) & (columns >= _SMALL)
    known = size.equals(_SIZES[0])
    for other in _SIZES[1:]:
        known = known | size.equals(other)
    with f.when((units & apart & large & known).equals(0) | x.overlaps(y, size)):
        f.return_(0)
    with _without_gil(f, rows * columns, words):
        f.call(transposed, x.data, x_pitch, y.data, y_pitch, rows, columns, size, loop)
    f.return_(1)
    return f


def _transposed(module: ir.Module, target: Target) -> Function:
    """Compute `rows` x `columns` elements of y, whose columns are contiguous in x, by tiles."""
    f = Function(module, "transposed", "x", "xp", "y", "yp", "rows", "columns", "size", "loop")
    f.function.attributes.add("noinline")  # other calls need no buffer on the stack
    x, x_pitch, y, y_pitch, rows, columns, size, loop = f.arguments
    side = f.constant(_side(_SIZES[0], target))
    for other in _SIZES[1:]:
        side = f.select(size.equals(other), _side(other, target), side)
    buffer = f.array(_COLUMNS * _LINE // 8 + 8)
    buffer = (buffer + (_LINE - 1)) & -_LINE
    height = f.constant(_LINE) // size
    with f.loop(rows, step=height) as i:
        m = f.minimum(height, rows - i)
        with f.loop(columns, step=_COLUMNS) as j:
            n = f.minimum(f.constant(_COLUMNS), columns - j)
            source, pitch = x + i * size + j * x_pitch, n * size
            m_whole, n_whole = m - m % side, n - n % side
            with f.loop(n_whole, step=side) as k, f.loop(m_whole, step=side) as r:
                here = source + r * size + k * x_pitch
                f.call("patch", size, here, x_pitch, buffer + r * pitch + k * size, pitch)
            with f.loop(n) as k:
                # the rows that no patch has reached
                start = f.select(k < n_whole, m_whole, 0)
                with f.loop(m, start=start) as r:
                    here = source + r * size + k * x_pitch
                    f.call("element", size, here, buffer + r * pitch + k * size)
            f.call("compute", loop, buffer, size, buffer, size, m * n)
            with f.loop(m) as r:
                f.call("copy", buffer + r * pitch, y + (i + r) * y_pitch + j * size, pitch)
    f.return_(0)
    return f


def _support_ir(target: Target) -> str:
    """The entry, calls of other functions, and moves of elements."""
    moves, patches, elements = "", "", ""
    for size in _SIZES:
        side = _side(size, target)
        places = "".join(
            f"""
  %skip.{k} = mul i64 %pitch, {k}
  %row.at.{k} = getelementptr i8, ptr %from, i64 %skip.{k}
  %offset.{k} = mul i64 %to.pitch, {k}
  %cell.at.{k} = getelementptr i8, ptr %to, i64 %offset.{k}"""
            for k in range(side)
        )
        moves += f"""
define internal void @patch.{size}(ptr noalias %from, i64 %pitch, ptr noalias %to, \
i64 %to.pitch) noinline {wide_vectors(target)} {{{places}{rows_to_cells(f"i{8 * size}", side, side)}
  ret void
}}"""
        patches += f"""
size.{size}:
  call void @patch.{size}(ptr %source, i64 %pitch, ptr %sink, i64 %to.pitch)
  ret i64 0"""
        elements += f"""
size.{size}:
  %item.{size} = load i{8 * size}, ptr %source, align 1
  store i{8 * size} %item.{size}, ptr %sink, align 1
  ret i64 0"""
    choose = f"""
  %source = inttoptr i64 %from to ptr
  %sink = inttoptr i64 %to to ptr
  switch i64 %size, label %none [ {" ".join(f"i64 {s}, label %size.{s}" for s in _SIZES)} ]
none:
  ret i64 0"""
    words = len(CALL_WORDS) + 3 * DTYPES
    notes = LoopMetadata()
    copy = notes.vectorised()
    return f"""
@{WORDS} = global [{words} x i64] zeroinitializer
declare i64 @inner.{ENTRY}(i64, i64, i64, i64)
{moves}
define i64 @patch(i64 %size, i64 %from, i64 %pitch, i64 %to, i64 %to.pitch) {{{choose}{patches}
}}
define i64 @element(i64 %size, i64 %from, i64 %to) {{{choose}{elements}
}}
define i64 @copy(i64 %from, i64 %to, i64 %bytes) {wide_vectors(target)} {{
entry:
  %source = inttoptr i64 %from to ptr
  %sink = inttoptr i64 %to to ptr
  %n = udiv i64 %bytes, 2
  br label %body
body:
  %i = phi i64 [ 0, %entry ], [ %next, %body ]
  %from.at = getelementptr i16, ptr %source, i64 %i
  %to.at = getelementptr i16, ptr %sink, i64 %i
  %item = load i16, ptr %from.at, align 1, {notes.parallel}
  store i16 %item, ptr %to.at, align 1, {notes.parallel}
  %next = add nuw nsw i64 %i, 1
  %more = icmp ult i64 %next, %n
  br i1 %more, label %body, label %done, {copy}
done:
  ret i64 0
}}
define i64 @compute(i64 %loop, i64 %x, i64 %x.stride, i64 %y, i64 %y.stride, i64 %n) {{
  %data = alloca [2 x i64]
  %strides = alloca [2 x i64]
  %count = alloca i64
  %y.at = getelementptr i64, ptr %data, i64 1
  %y.stride.at = getelementptr i64, ptr %strides, i64 1
  store i64 %x, ptr %data
  store i64 %y, ptr %y.at
  store i64 %x.stride, ptr %strides
  store i64 %y.stride, ptr %y.stride.at
  store i64 %n, ptr %count
  %function = inttoptr i64 %loop to ptr
  %status = call i32 %function(ptr null, ptr %data, ptr %count, ptr %strides, ptr null)
  ret i64 0
}}
define i64 @new_like(i64 %function, i64 %x) {{
  %call = inttoptr i64 %function to ptr
  %new = call i64 %call(i64 %x, i32 2, ptr null, i32 0)
  ret i64 %new
}}
define i64 @{ENTRY}(i64 %ufunc, i64 %args, i64 %nargsf, i64 %names) {{
  %words = ptrtoint ptr @{WORDS} to i64
  %found = call i64 @inner.{ENTRY}(i64 %args, i64 %nargsf, i64 %names, i64 %words)
  switch i64 %found, label %made [ i64 0, label %numpy
                                   i64 {_FAILED}, label %failed ]
made:
  ret i64 %found
failed:
  ret i64 0
numpy:
  %call = load ptr, ptr @{WORDS}
  %result = tail call i64 %call(i64 %ufunc, i64 %args, i64 %nargsf, i64 %names)
  ret i64 %result
}}
{GIL_IR}{REFERENCE_IR}{notes.ir()}"""
