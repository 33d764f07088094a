"""Machine code of ufuncs' loops for inputs of other types than the one that is computed in.

Such a loop converts inputs and leaves the rest to the loop for operands of one type. It knows
neither the activation nor the types, but has its words in the exported `TABLE`: the address of
that loop, the size of an element there, and for each input the address of what converts it
(``_convert_code.py``), or 0. It goes in one thread unless all that it converts are single numbers.
"""

from . import _codegen
from ._environment import ENVIRONMENT_IR, UNTOUCHED_IR
from ._machine_code import ENTRY, TABLE
from ._overlap import ANY, rows_relation_ir
from ._targets import Target

CHUNK = 512  # elements converted at a time: two inputs of 8 bytes are 8 KB, within L1

_SIGNATURE = "ptr %context, ptr %data, ptr %dimensions, ptr %strides, ptr %auxdata"


def object_code(nin: int, nout: int, target: Target) -> bytes:
    """A relocatable object file of the loop for so many inputs and outputs."""
    return _emit(_element_wise(nin, nout), 2 + nin, target)


def rows_object_code(target: Target) -> bytes:
    """The same for functions of rows, of one input."""
    return _emit(_ROWS, 3, target)


def _emit(loop: str, words: int, target: Target) -> bytes:
    machine = _codegen.machine_of(target)
    text = f"""
@{TABLE} = global [{words} x i64] zeroinitializer
{ENVIRONMENT_IR.get(target.architecture, UNTOUCHED_IR)}
declare i64 @llvm.umin.i64(i64, i64)
{loop}"""
    module = _codegen.parse(text, target, machine)
    _codegen.hide(module, {ENTRY, TABLE})
    _codegen.optimise(module, machine)
    return _codegen.emit(module, machine)


def _word(name: str, index: int, kind: str = "ptr") -> str:
    return f"""
  %{name}.at = getelementptr i64, ptr @{TABLE}, i64 {index}
  %{name} = load {kind}, ptr %{name}.at"""


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
    # A single number is converted once, and what has a stride a chunk at a time.
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
finish:
  call void @leave(ptr %saved)
  br label %end
end:
  ret i32 0
}}"""


# The rows are converted into the output, and computed there in place: one at a time where rows of
# the output may share memory.
_ROWS = f"""{rows_relation_ir()}
attributes #1 = {{ "no-builtins" }}
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
  %x.step.at = getelementptr i64, ptr %strides, i64 2
  %y.step.at = getelementptr i64, ptr %strides, i64 3
  %x.row = load i64, ptr %strides
  %y.row = load i64, ptr %y.row.at
  %x.step = load i64, ptr %x.step.at
  %y.step = load i64, ptr %y.step.at
  %some.rows = icmp sgt i64 %rows, 0
  %some.columns = icmp sgt i64 %columns, 0
  %some = and i1 %some.rows, %some.columns
  br i1 %some, label %start, label %end
start:
  call void @enter(ptr %saved){_word("loop", 0)}{_word("size", 1, "i64")}{_word("convert", 2)}
  %relation = call i32 @relation(ptr %y, i64 %y.row, i64 %y.step, ptr %y, i64 %y.row, \
i64 %y.step, i64 %rows, i64 %columns, i64 %size)
  %apart = icmp eq i32 %relation, {ANY}
  %at.once = select i1 %apart, i64 %rows, i64 1
  %data.to.1 = getelementptr ptr, ptr %data.to, i64 1
  %strides.to.1 = getelementptr i64, ptr %strides.to, i64 1
  %strides.to.2 = getelementptr i64, ptr %strides.to, i64 2
  %strides.to.3 = getelementptr i64, ptr %strides.to, i64 3
  store i64 %y.row, ptr %strides.to
  store i64 %y.row, ptr %strides.to.1
  store i64 %y.step, ptr %strides.to.2
  store i64 %y.step, ptr %strides.to.3
  %counts.1 = getelementptr i64, ptr %counts, i64 1
  store i64 %at.once, ptr %counts
  store i64 %columns, ptr %counts.1
  br label %group
group:
  %first = phi i64 [ 0, %start ], [ %beyond, %converted ]
  %beyond = add i64 %first, %at.once
  br label %row
row:
  %i = phi i64 [ %first, %group ], [ %next, %row ]
  %x.offset = mul i64 %i, %x.row
  %y.offset = mul i64 %i, %y.row
  %from = getelementptr i8, ptr %x, i64 %x.offset
  %to = getelementptr i8, ptr %y, i64 %y.offset
  call void %convert(ptr %from, i64 %x.step, ptr %to, i64 %y.step, i64 %columns)
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %beyond
  br i1 %more, label %row, label %converted
converted:
  %y.first = mul i64 %first, %y.row
  %here = getelementptr i8, ptr %y, i64 %y.first
  store ptr %here, ptr %data.to
  store ptr %here, ptr %data.to.1
  %status = call i32 %loop(ptr %context, ptr %data.to, ptr %counts, ptr %strides.to, \
ptr %auxdata)
  %again = icmp slt i64 %beyond, %rows
  br i1 %again, label %group, label %finish
finish:
  call void @leave(ptr %saved)
  br label %end
end:
  ret i32 0
}}"""
