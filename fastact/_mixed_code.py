"""Machine code of ufuncs' loops whose inputs are not of the type that is computed in.

Such a loop converts inputs, rounded to nearest even, and leaves the rest to the loop for operands
of one type, whose address is to be put into the exported `TARGET`. It knows no activation, and
goes in one thread unless all that it converts are single numbers.
"""

from collections.abc import Sequence

from . import _codegen
from ._convert_code import metadata_ir, run_ir
from ._environment import ENVIRONMENT_IR, UNTOUCHED_IR
from ._formats import Format
from ._machine_code import ENTRY, TARGET
from ._targets import Target

CHUNK = 512  # elements converted at a time: two operands of 8 bytes are 8 KB, within L1

_LOOP = f"{ENTRY}(ptr %context, ptr %data, ptr %dimensions, ptr %strides, ptr %auxdata)"


def object_code(inputs: Sequence[Format], form: Format, results: int, target: Target) -> bytes:
    """A relocatable object file of the loop for `inputs` and computation in `form`."""
    return _emit(_element_wise(inputs, form, results, target), inputs, form, target)


def rows_object_code(source: Format, form: Format, target: Target) -> bytes:
    """The same for functions of rows, of one input."""
    return _emit(_ROWS, [source], form, target)


def _emit(loop: str, inputs: Sequence[Format], form: Format, target: Target) -> bytes:
    machine = _codegen.machine_of(target)
    conversions = (run_ir(_name(source), source, form, target) for source in set(inputs) - {form})
    text = f"""
@{TARGET} = global ptr null
{ENVIRONMENT_IR.get(target.architecture, UNTOUCHED_IR)}
{"".join(conversions)}
{loop.replace("@convert", f"@{_name(inputs[0])}")}
{metadata_ir(target)}"""
    module = _codegen.parse(text, target, machine)
    _codegen.hide(module, {ENTRY, TARGET})
    _codegen.optimise(module, machine)
    return machine.emit_object(module)


def _name(source: Format) -> str:
    return f"from_{source.name}"


def _element_wise(inputs: Sequence[Format], form: Format, results: int, target: Target) -> str:
    operands = [*inputs, *[form] * results]
    converted = [k for k, source in enumerate(operands) if source != form]
    size = form.itemsize
    allocate = "".join(
        f"""
  %slot.{k} = alloca i64, align 8
  %buffer.{k} = alloca [{CHUNK * size} x i8], align 64"""
        for k in converted
    )
    # A single number is converted once.
    unpack, moving = "", "false"
    for k, source in enumerate(operands):
        unpack += f"""
  %data.{k} = getelementptr ptr, ptr %data, i64 {k}
  %p.{k} = load ptr, ptr %data.{k}
  %strides.{k} = getelementptr i64, ptr %strides, i64 {k}
  %stride.{k} = load i64, ptr %strides.{k}
  %data.to.{k} = getelementptr ptr, ptr %data.to, i64 {k}
  %strides.to.{k} = getelementptr i64, ptr %strides.to, i64 {k}"""
        if k in converted:
            unpack += f"""
  call void @{_name(source)}(ptr %p.{k}, i64 0, ptr %slot.{k}, i64 0, i64 1)
  store ptr %slot.{k}, ptr %data.to.{k}
  %moves.{k} = icmp ne i64 %stride.{k}, 0
  %moving.{k} = or i1 {moving}, %moves.{k}
  %stride.to.{k} = select i1 %moves.{k}, i64 {size}, i64 0
  store i64 %stride.to.{k}, ptr %strides.to.{k}"""
            moving = f"%moving.{k}"
        else:
            unpack += f"""
  store ptr %p.{k}, ptr %data.to.{k}
  store i64 %stride.{k}, ptr %strides.to.{k}"""
    fill = ""
    for k, source in enumerate(operands):
        fill += f"""
  %offset.{k} = mul i64 %i, %stride.{k}
  %at.{k} = getelementptr i8, ptr %p.{k}, i64 %offset.{k}"""
        if k in converted:
            fill += f"""
  %some.{k} = select i1 %moves.{k}, i64 %m, i64 0
  call void @{_name(source)}(ptr %at.{k}, i64 %stride.{k}, ptr %buffer.{k}, i64 {size}, \
i64 %some.{k})
  %place.{k} = select i1 %moves.{k}, ptr %buffer.{k}, ptr %slot.{k}
  store ptr %place.{k}, ptr %data.to.{k}"""
        else:
            fill += f"\n  store ptr %at.{k}, ptr %data.to.{k}"
    call = "ptr %context, ptr %data.to, ptr %{}, ptr %strides.to, ptr %auxdata"
    return f"""
declare i64 @llvm.umin.i64(i64, i64)
define i32 @{_LOOP} {{
entry:
  %saved = alloca [2 x i64]
  %data.to = alloca [{len(operands)} x ptr]
  %strides.to = alloca [{len(operands)} x i64]
  %count = alloca i64{allocate}
  %n = load i64, ptr %dimensions
  %empty = icmp sle i64 %n, 0
  br i1 %empty, label %end, label %start
start:
  call void @enter(ptr %saved)
  %function = load ptr, ptr @{TARGET}{unpack}
  br i1 {moving}, label %chunk, label %whole
whole:
  %status.whole = call i32 %function({call.format("dimensions")})
  br label %finish
chunk:
  %i = phi i64 [ 0, %start ], [ %next, %chunk ]
  %left = sub i64 %n, %i
  %m = call i64 @llvm.umin.i64(i64 %left, i64 {CHUNK})
  store i64 %m, ptr %count{fill}
  %status = call i32 %function({call.format("count")})
  %next = add i64 %i, {CHUNK}
  %more = icmp ult i64 %next, %n
  br i1 %more, label %chunk, label %finish
finish:
  call void @leave(ptr %saved)
  br label %end
end:
  ret i32 0
}}"""


# The rows are converted into the output, and computed there in place.
_ROWS = f"""
define i32 @{_LOOP} {{
entry:
  %saved = alloca [2 x i64]
  %data.to = alloca [2 x ptr]
  %strides.to = alloca [4 x i64]
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
  %some = icmp sgt i64 %rows, 0
  br i1 %some, label %start, label %end
start:
  call void @enter(ptr %saved)
  br label %row
row:
  %i = phi i64 [ 0, %start ], [ %next, %row ]
  %x.offset = mul i64 %i, %x.row
  %y.offset = mul i64 %i, %y.row
  %from = getelementptr i8, ptr %x, i64 %x.offset
  %to = getelementptr i8, ptr %y, i64 %y.offset
  call void @convert(ptr %from, i64 %x.step, ptr %to, i64 %y.step, i64 %columns)
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %rows
  br i1 %more, label %row, label %finish
finish:
  %data.to.1 = getelementptr ptr, ptr %data.to, i64 1
  store ptr %y, ptr %data.to
  store ptr %y, ptr %data.to.1
  %strides.to.1 = getelementptr i64, ptr %strides.to, i64 1
  %strides.to.2 = getelementptr i64, ptr %strides.to, i64 2
  %strides.to.3 = getelementptr i64, ptr %strides.to, i64 3
  store i64 %y.row, ptr %strides.to
  store i64 %y.row, ptr %strides.to.1
  store i64 %y.step, ptr %strides.to.2
  store i64 %y.step, ptr %strides.to.3
  %function = load ptr, ptr @{TARGET}
  %status = call i32 %function(ptr %context, ptr %data.to, ptr %dimensions, ptr %strides.to, \
ptr %auxdata)
  call void @leave(ptr %saved)
  br label %end
end:
  ret i32 0
}}"""
