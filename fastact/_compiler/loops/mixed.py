"""Machine code of ufuncs' loops for inputs of other types than the type of the computation.

Such a loop converts the inputs and calls the loop for operands of one type. It knows neither the
activation nor the types. The exported `WORDS` hold the address of the loop that it calls, the size
of an element there, and for each input the address of the function that converts it
(``convert.py``), or 0. It runs in one thread, unless all inputs that it converts are single
numbers.
"""

from collections.abc import Sequence

from fastact._compiler import pipeline
from fastact._compiler.environment import environment_ir
from fastact._compiler.loops.overlap import ANY, rows_relation_ir
from fastact._compiler.symbols import ENTRY, ROWS_CALLS, WORDS
from fastact._machine.targets import Target

CHUNK = 512  # elements converted at a time: two inputs of 8 bytes are 8 KB, within L1

_SIGNATURE = "ptr %context, ptr %data, ptr %dimensions, ptr %strides, ptr %auxdata"


def object_code(nin: int, nout: int, target: Target) -> bytes:
    """A relocatable object file of the loop for `nin` inputs and `nout` outputs."""
    return _emit(_element_wise(nin, nout), 2 + nin, target)


def rows_object_code(target: Target) -> bytes:
    """The same for functions of rows, which have one input."""
    return _emit(_ROWS, 3 + len(ROWS_CALLS), target)


def _emit(loop: str, words: int, target: Target) -> bytes:
    machine = pipeline.machine_of(target)
    text = f"""
@{WORDS} = global [{words} x i64] zeroinitializer
{environment_ir(target)}
declare i64 @llvm.umin.i64(i64, i64)
{loop}"""
    module = pipeline.parse(text, target, machine)
    pipeline.hide(module, {ENTRY, WORDS})
    pipeline.optimise(module, machine)
    return pipeline.emit(module, machine)


def _leave(status: str) -> str:
    """The end of @ENTRY: restores the environment; at label %end, it was not changed."""
    return f"""
  call void @leave(ptr %saved)
  ret i32 {status}
end:
  ret i32 0
}}"""


def _word(name: str, index: int, kind: str = "ptr") -> str:
    return f"""
  %{name}.at = getelementptr i64, ptr @{WORDS}, i64 {index}
  %{name} = load {kind}, ptr %{name}.at"""


def _words(names: Sequence[str], first: int) -> str:
    return "".join(_word(name, first + k) for k, name in enumerate(names))


def _element_wise(nin: int, nout: int) -> str:
    operands = range(nin + nout)
    allocate, unpack, fill = "", "", ""
    for k in operands:
        unpack += f"""
  %data.{k} = getelementptr ptr, ptr %data, i64 {k}
  %p.{k} = load ptr, ptr %data.{k}
  %strides.{k} = getelementptr i64, ptr %strides, i64 {k}
  %stride.{k} = load i64, ptr %strides.{k}
  %data.to.{k} = getelementptr ptr, ptr %data.to, i64 {k}
  %strides.to.{k} = getelementptr i64, ptr %strides.to, i64 {k}"""
    # A single number is converted once, an input with a stride one chunk at a time.
    moving = "false"
    for k in range(nin):
        allocate += f"\n  %buffer.{k} = alloca [{CHUNK} x i64], align 64"
        unpack += f"""{_word(f"convert.{k}", 2 + k)}
  %other.{k} = icmp ne ptr %convert.{k}, null
  %moves.{k} = icmp ne i64 %stride.{k}, 0
  %buffered.{k} = and i1 %other.{k}, %moves.{k}
  %moving.{k} = or i1 {moving}, %buffered.{k}
  %size.{k} = select i1 %moves.{k}, i64 %size, i64 0
  %stride.to.{k} = select i1 %other.{k}, i64 %size.{k}, i64 %stride.{k}
  store i64 %stride.to.{k}, ptr %strides.to.{k}
  %first.{k} = select i1 %other.{k}, ptr %buffer.{k}, ptr %p.{k}
  store ptr %first.{k}, ptr %data.to.{k}
  br i1 %other.{k}, label %number.{k}, label %known.{k}
number.{k}:
  call void %convert.{k}(ptr %p.{k}, i64 0, ptr %buffer.{k}, i64 0, i64 1)
  br label %known.{k}
known.{k}:"""
        moving = f"%moving.{k}"
        fill += f"""
  br i1 %buffered.{k}, label %fill.{k}, label %pass.{k}
fill.{k}:
  call void %convert.{k}(ptr %at.{k}, i64 %stride.{k}, ptr %buffer.{k}, i64 %size, i64 %m)
  br label %full.{k}
pass.{k}:
  %place.{k} = select i1 %other.{k}, ptr %buffer.{k}, ptr %at.{k}
  store ptr %place.{k}, ptr %data.to.{k}
  br label %full.{k}
full.{k}:"""
    for k in range(nin, nin + nout):
        unpack += f"""
  store ptr %p.{k}, ptr %data.to.{k}
  store i64 %stride.{k}, ptr %strides.to.{k}"""
        fill += f"\n  store ptr %at.{k}, ptr %data.to.{k}"
    there = "".join(
        f"""
  %offset.{k} = mul i64 %i, %stride.{k}
  %at.{k} = getelementptr i8, ptr %p.{k}, i64 %offset.{k}"""
        for k in operands
    )
    call = "ptr %context, ptr %data.to, ptr %{}, ptr %strides.to, ptr %auxdata"
    return f"""
define i32 @{ENTRY}({_SIGNATURE}) {{
entry:
  %saved = alloca [2 x i64]
  %data.to = alloca [{nin + nout} x ptr]
  %strides.to = alloca [{nin + nout} x i64]
  %count = alloca i64{allocate}
  %n = load i64, ptr %dimensions
  %some = icmp sgt i64 %n, 0
  br i1 %some, label %start, label %end
start:
  call void @enter(ptr %saved){_word("loop", 0)}{_word("size", 1, "i64")}{unpack}
  br i1 {moving}, label %chunks, label %whole
whole:
  %status.whole = call i32 %loop({call.format("dimensions")})
  br label %finish
chunks:
  br label %chunk
chunk:
  %i = phi i64 [ 0, %chunks ], [ %next, %done ]
  %left = sub i64 %n, %i
  %m = call i64 @llvm.umin.i64(i64 %left, i64 {CHUNK})
  store i64 %m, ptr %count{there}{fill}
  %status = call i32 %loop({call.format("count")})
  %next = add i64 %i, {CHUNK}
  %more = icmp ult i64 %next, %n
  br label %done
done:
  br i1 %more, label %chunk, label %finish
finish:{_leave("0")}"""


# The rows are converted into the output and computed there in place, one at a time if rows of the
# output may share memory. If elements of a row share memory, rows are converted into a buffer.
_ROWS = f"""{rows_relation_ir()}
define i32 @{ENTRY}({_SIGNATURE}) {{
entry:
  %saved = alloca [2 x i64]
  %data.to = alloca [2 x ptr]
  %strides.to = alloca [4 x i64]
  %counts = alloca [2 x i64]
  %rows = load i64, ptr %dimensions
  %columns.at = getelementptr i64, ptr %dimensions, i64 1
  %columns = load i64, ptr %columns.at
  %x = load ptr, ptr %data
  %y.at = getelementptr ptr, ptr %data, i64 1
  %y = load ptr, ptr %y.at
  %y.row.at = getelementptr i64, ptr %strides, i64 1
  %x.stride.at = getelementptr i64, ptr %strides, i64 2
  %y.stride.at = getelementptr i64, ptr %strides, i64 3
  %x.row = load i64, ptr %strides
  %y.row = load i64, ptr %y.row.at
  %x.stride = load i64, ptr %x.stride.at
  %y.stride = load i64, ptr %y.stride.at
  %some.rows = icmp sgt i64 %rows, 0
  %some.columns = icmp sgt i64 %columns, 0
  %some = and i1 %some.rows, %some.columns
  br i1 %some, label %start, label %end
start:
  call void @enter(ptr %saved){_word("loop", 0)}{_word("size", 1, "i64")}{_word("convert", 2)}\
{_words(ROWS_CALLS, 3)}
  %relation = call i32 @relation(ptr %y, i64 %y.row, i64 %y.stride, ptr %y, i64 %y.row, \
i64 %y.stride, i64 %rows, i64 %columns, i64 %size)
  %apart = icmp eq i32 %relation, {ANY}
  %several = icmp ne i64 %columns, 1
  %stride.abs = call i64 @llvm.abs.i64(i64 %y.stride, i1 false)
  %near = icmp ult i64 %stride.abs, %size
  %tight = and i1 %several, %near
  %loose = xor i1 %tight, true
  %at.once.too = and i1 %apart, %loose
  %at.once = select i1 %at.once.too, i64 %rows, i64 1
  br i1 %tight, label %allocate, label %allocated
allocate:
  %nbytes = mul i64 %columns, %size
  %memory = call ptr %PyMem_RawMalloc(i64 %nbytes)
  %lacking = icmp eq ptr %memory, null
  br i1 %lacking, label %fail, label %allocated
fail:
  %gil = call i32 %PyGILState_Ensure()
  %error = call ptr %PyErr_NoMemory()
  call void %PyGILState_Release(i32 %gil)
  br label %finish
allocated:
  %spare = phi ptr [ null, %start ], [ %memory, %allocate ]
  %between.stride = select i1 %tight, i64 %size, i64 %y.stride
  %data.to.1 = getelementptr ptr, ptr %data.to, i64 1
  %strides.to.1 = getelementptr i64, ptr %strides.to, i64 1
  %strides.to.2 = getelementptr i64, ptr %strides.to, i64 2
  %strides.to.3 = getelementptr i64, ptr %strides.to, i64 3
  store i64 %y.row, ptr %strides.to
  store i64 %y.row, ptr %strides.to.1
  store i64 %between.stride, ptr %strides.to.2
  store i64 %y.stride, ptr %strides.to.3
  %counts.1 = getelementptr i64, ptr %counts, i64 1
  store i64 %at.once, ptr %counts
  store i64 %columns, ptr %counts.1
  br label %group
group:
  %first = phi i64 [ 0, %allocated ], [ %beyond, %computed ]
  %beyond = add i64 %first, %at.once
  br label %row
row:
  %i = phi i64 [ %first, %group ], [ %next, %row ]
  %x.offset = mul i64 %i, %x.row
  %y.offset = mul i64 %i, %y.row
  %from = getelementptr i8, ptr %x, i64 %x.offset
  %in.place = getelementptr i8, ptr %y, i64 %y.offset
  %to = select i1 %tight, ptr %spare, ptr %in.place
  call void %convert(ptr %from, i64 %x.stride, ptr %to, i64 %between.stride, i64 %columns)
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %beyond
  br i1 %more, label %row, label %converted
converted:
  %y.first = mul i64 %first, %y.row
  %here = getelementptr i8, ptr %y, i64 %y.first
  %source = select i1 %tight, ptr %spare, ptr %here
  store ptr %source, ptr %data.to
  store ptr %here, ptr %data.to.1
  %ignored = call i32 %loop(ptr %context, ptr %data.to, ptr %counts, ptr %strides.to, \
ptr %auxdata)
  br label %computed
computed:
  %again = icmp slt i64 %beyond, %rows
  br i1 %again, label %group, label %free
free:
  br i1 %tight, label %give.back, label %finish
give.back:
  call void %PyMem_RawFree(ptr %spare)
  br label %finish
finish:
  %status = phi i32 [ -1, %fail ], [ 0, %free ], [ 0, %give.back ]{_leave("%status")}"""
