"""LLVM IR that finds whether operands share memory, and which orders of elements a loop may use.

The results of a loop are those of one element after the other, in order. Any other order has the
same results if no element reads or writes what another element writes; then threads may share the
work. Blocks of elements, each read before it is written, have the same results if no element reads
what an earlier one has written.

NumPy copies an output that shares memory with an input before it calls a loop, with three
exceptions: the output is exactly the input; it starts behind the input and moves no faster; or
NumPy's short search finds that the two are interleaved. NumPy does not compare an output with other
outputs or with itself. In reductions, the output of an element is an input of the next.
"""

from collections.abc import Mapping, Sequence

from fastact._compiler.loops.loop_metadata import NO_CALLS

ANY, BLOCKS, SINGLY = range(3)
"""The orders of elements that have the right results: any, in blocks, or singly in order."""


def apart_ir(inputs: Sequence[str], outputs: Sequence[str], sizes: Mapping[str, int]) -> str:
    """%apart: whether a quick test finds that `n` > 0 elements may be computed in any order.

    That is so if no output overlaps itself or another operand, except an input that is exactly the
    output. ``@relation`` decides the other cases. Operand P has the address %P and the stride
    %P.stride.
    """
    text = "\n  %span = sub i64 %n, 1"
    for p in (*inputs, *outputs):
        text += f"""
  %{p}.int = ptrtoint ptr %{p} to i64
  %{p}.span = mul i64 %{p}.stride, %span{bounds_ir(p, f"%{p}.int", [f"%{p}.span"], sizes[p])}"""
    apart = "true"
    for k, y in enumerate(outputs):
        text += f"{_separate(y, sizes[y])}\n  %apart.{y} = and i1 {apart}, %{y}.separate"
        apart = f"%apart.{y}"
        for x in (*inputs, *outputs[:k]):
            text += disjoint_ir(x, y)
            fine = f"%{x}.{y}.disjoint"
            if x in inputs and sizes[x] == sizes[y]:
                text += f"""
  %{x}.{y}.here = icmp eq ptr %{x}, %{y}
  %{x}.{y}.alike = icmp eq i64 %{x}.stride, %{y}.stride
  %{x}.{y}.same = and i1 %{x}.{y}.here, %{x}.{y}.alike
  %{x}.{y}.fine = or i1 {fine}, %{x}.{y}.same"""
                fine = f"%{x}.{y}.fine"
            text += f"\n  %apart.{x}.{y} = and i1 {apart}, {fine}"
            apart = f"%apart.{x}.{y}"
    return f"{text}\n  %one = icmp eq i64 %n, 1\n  %apart = or i1 %one, {apart}"


def bounds_ir(name: str, first: str, spans: Sequence[str], size: int | str) -> str:
    """%NAME.low and %NAME.high: the bounds of an operand that reaches `spans` from `first`."""
    text, low, high = "", first, first
    for k, span in enumerate(spans):
        text += f"""
  %{name}.back.{k} = call i64 @llvm.smin.i64(i64 {span}, i64 0)
  %{name}.ahead.{k} = call i64 @llvm.smax.i64(i64 {span}, i64 0)
  %{name}.low.{k} = add i64 {low}, %{name}.back.{k}
  %{name}.high.{k} = add i64 {high}, %{name}.ahead.{k}"""
        low, high = f"%{name}.low.{k}", f"%{name}.high.{k}"
    return f"""{text}
  %{name}.low = add i64 {low}, 0
  %{name}.high = add i64 {high}, {size}"""


def disjoint_ir(x: str, y: str) -> str:
    """%X.Y.disjoint, from the bounds of both."""
    return f"""
  %{x}.{y}.below = icmp ule i64 %{x}.high, %{y}.low
  %{x}.{y}.above = icmp ule i64 %{y}.high, %{x}.low
  %{x}.{y}.disjoint = or i1 %{x}.{y}.below, %{x}.{y}.above"""


def _separate(y: str, size: int) -> str:
    """%Y.separate: |stride| >= size."""
    return f"""
  %{y}.shifted = add i64 %{y}.stride, {size - 1}
  %{y}.separate = icmp uge i64 %{y}.shifted, {2 * size - 1}"""


def relation_ir(inputs: Sequence[str], outputs: Sequence[str], sizes: Mapping[str, int]) -> str:
    """@relation: which of the orders is right for `n` > 0 elements."""
    text, worst = "", "0"
    for k, y in enumerate(outputs):
        # Blocks write their elements in order.
        text += f"""{_separate(y, sizes[y])}
  %{y}.relation = select i1 %{y}.separate, i32 {ANY}, i32 {BLOCKS}
  %worst.{y} = call i32 @llvm.umax.i32(i32 {worst}, i32 %{y}.relation)"""
        worst = f"%worst.{y}"
        for x in (*inputs, *outputs[:k]):
            text += f"""
  %{x}.{y}.relation = call i32 @pair(ptr %{x}, i64 %{x}.stride, i64 {sizes[x]}, \
ptr %{y}, i64 %{y}.stride, i64 {sizes[y]}, i64 %n, i1 {"true" if x in inputs else "false"})
  %worst.{x}.{y} = call i32 @llvm.umax.i32(i32 {worst}, i32 %{x}.{y}.relation)"""
            worst = f"%worst.{x}.{y}"
    operands = ", ".join(f"ptr %{p}, i64 %{p}.stride" for p in (*inputs, *outputs))
    return f"""{INTERLEAVED_IR}{_PAIR_IR}
define internal i32 @relation({operands}, i64 %n) noinline {NO_CALLS} {{{text}
  ret i32 {worst}
}}"""


INTERLEAVED_IR = f"""
declare i64 @llvm.abs.i64(i64, i1)
declare i64 @llvm.smin.i64(i64, i64)
declare i64 @llvm.smax.i64(i64, i64)
declare i32 @llvm.umax.i32(i32, i32)

define internal i64 @divisor(i64 %x, i64 %y) noinline {NO_CALLS} {{
entry:
  %x.abs = call i64 @llvm.abs.i64(i64 %x, i1 false)
  %y.abs = call i64 @llvm.abs.i64(i64 %y, i1 false)
  br label %try
try:
  %a = phi i64 [ %x.abs, %entry ], [ %b, %again ]
  %b = phi i64 [ %y.abs, %entry ], [ %r, %again ]
  %divides = icmp eq i64 %b, 0
  br i1 %divides, label %found, label %again
again:
  %r = urem i64 %a, %b
  br label %try
found:
  ret i64 %a
}}

; Whether pieces x and y, with `distance` from y to x, are apart wherever both are moved by
; multiples of `divisor`.
define internal i1 @interleaved(i64 %distance, i64 %divisor, i64 %x.size, i64 %y.size) \
noinline {NO_CALLS} {{
entry:
  %none = icmp eq i64 %divisor, 0
  br i1 %none, label %no, label %place
place:
  %signed = srem i64 %distance, %divisor
  %raised = add i64 %signed, %divisor
  %offset = urem i64 %raised, %divisor
  %end = add i64 %offset, %x.size
  %after = icmp uge i64 %offset, %y.size
  %before = icmp ule i64 %end, %divisor
  %apart = and i1 %after, %before
  ret i1 %apart
no:
  ret i1 false
}}
"""

_PAIR_IR = f"""
; The order for two operands. The second is an output; the order may be blocks only if the first is
; an input.
define internal i32 @pair(ptr %x, i64 %x.stride, i64 %x.size, ptr %y, i64 %y.stride, \
i64 %y.size, i64 %n, i1 %is.input) noinline {NO_CALLS} {{
entry:
  %last = sub i64 %n, 1
  %x.span = mul i64 %x.stride, %last
  %y.span = mul i64 %y.stride, %last
  %x.first = ptrtoint ptr %x to i64
  %y.first = ptrtoint ptr %y to i64\
{bounds_ir("x", "%x.first", ["%x.span"], "%x.size")}\
{bounds_ir("y", "%y.first", ["%y.span"], "%y.size")}{disjoint_ir("x", "y")}
  br i1 %x.y.disjoint, label %any, label %close
close:
  %distance = sub i64 %x.first, %y.first
  %divisor = call i64 @divisor(i64 %x.stride, i64 %y.stride)
  %interleaved = call i1 @interleaved(i64 %distance, i64 %divisor, i64 %x.size, i64 %y.size)
  br i1 %interleaved, label %any, label %shared
shared:
  br i1 %is.input, label %compare, label %singly
compare:
  ; No element reads what an earlier one has written if the second element read is past the first
  ; result, and reads move on from there at least as fast as results.
  %x.second = add i64 %x.first, %x.stride
  %x.second.end = add i64 %x.second, %x.size
  %y.first.end = add i64 %y.first, %y.size
  %up = icmp sge i64 %x.stride, 0
  %up.past = icmp uge i64 %x.second, %y.first.end
  %up.fast = icmp sge i64 %x.stride, %y.stride
  %up.both = and i1 %up.past, %up.fast
  %upwards = and i1 %up, %up.both
  %down = icmp sle i64 %x.stride, 0
  %down.past = icmp ule i64 %x.second.end, %y.first
  %down.fast = icmp sle i64 %x.stride, %y.stride
  %down.both = and i1 %down.past, %down.fast
  %downwards = and i1 %down, %down.both
  %unwritten = or i1 %upwards, %downwards
  br i1 %unwritten, label %equal, label %singly
equal:
  %here = icmp eq i64 %distance, 0
  %alike = icmp eq i64 %x.stride, %y.stride
  %as.large = icmp eq i64 %x.size, %y.size
  %in.place = and i1 %here, %alike
  %same = and i1 %in.place, %as.large
  br i1 %same, label %any, label %blocks
any:
  ret i32 {ANY}
blocks:
  ret i32 {BLOCKS}
singly:
  ret i32 {SINGLY}
}}
"""


def rows_relation_ir() -> str:
    """@relation of a function of rows: `ANY` or `SINGLY`, for `rows` > 0 rows of `n` > 0 elements.

    Elements have `size` bytes. The strides of input and output are from.row and to.row from row to
    row, and from.stride and to.stride from element to element. Each row is computed in order.
    """

    def extent(name: str, count: str, stride: str) -> str:
        """%NAME: the bytes from the lowest to the end of the highest of `count` + 1 elements."""
        return f"""
  %{name}.span = mul i64 %{stride}, %{count}
  %{name}.abs = call i64 @llvm.abs.i64(i64 %{name}.span, i1 false)
  %{name} = add i64 %{name}.abs, %size"""

    text = ""
    for p in ("from", "to"):
        text += f"""
  %{p}.int = ptrtoint ptr %{p} to i64
{extent(f"{p}.width", "columns.1", f"{p}.stride")}{extent(f"{p}.height", "rows.1", f"{p}.row")}\
{bounds_ir(f"{p}.line", f"%{p}.int", [f"%{p}.width.span"], "%size")}\
{bounds_ir(f"{p}.column", f"%{p}.int", [f"%{p}.height.span"], "%size")}\
{bounds_ir(p, f"%{p}.int", [f"%{p}.width.span", f"%{p}.height.span"], "%size")}"""

    return f"""{INTERLEAVED_IR}
define internal i32 @relation(ptr %from, i64 %from.row, i64 %from.stride, ptr %to, i64 %to.row, \
i64 %to.stride, i64 %rows, i64 %n, i64 %size) noinline {NO_CALLS} {{
entry:
  %rows.1 = sub i64 %rows, 1
  %columns.1 = sub i64 %n, 1{text}
  ; Rows of the output are one after the other, or interleaved.
  %row.abs = call i64 @llvm.abs.i64(i64 %to.row, i1 false)
  %stride.abs = call i64 @llvm.abs.i64(i64 %to.stride, i1 false)
  %in.turn = icmp uge i64 %row.abs, %to.width
  %beside = icmp uge i64 %row.abs, %size
  %across = icmp uge i64 %stride.abs, %to.height
  %woven = and i1 %beside, %across
  %only = icmp eq i64 %rows, 1
  %separate.1 = or i1 %in.turn, %woven
  %separate = or i1 %separate.1, %only
  br i1 %separate, label %inputs, label %singly
inputs:{disjoint_ir("from", "to")}
  %here = icmp eq ptr %from, %to
  %alike.rows = icmp eq i64 %from.row, %to.row
  %alike.strides = icmp eq i64 %from.stride, %to.stride
  %alike = and i1 %alike.rows, %alike.strides
  %same = and i1 %here, %alike
  %plain.1 = or i1 %from.to.disjoint, %same
  %plain = or i1 %plain.1, %only
  br i1 %plain, label %any, label %close
close:
  %distance = sub i64 %from.int, %to.int
  %distance.lines = sub i64 %from.line.low, %to.line.low
  %distance.columns = sub i64 %from.column.low, %to.column.low
  %by.rows = call i64 @divisor(i64 %from.row, i64 %to.row)
  %by.strides = call i64 @divisor(i64 %from.stride, i64 %to.stride)
  %by.both = call i64 @divisor(i64 %by.rows, i64 %by.strides)
  %lines = call i1 @interleaved(i64 %distance.lines, i64 %by.rows, i64 %from.width, i64 %to.width)
  %columns = call i1 @interleaved(i64 %distance.columns, i64 %by.strides, i64 %from.height, \
i64 %to.height)
  %items = call i1 @interleaved(i64 %distance, i64 %by.both, i64 %size, i64 %size)
  %apart.1 = or i1 %lines, %columns
  %apart = or i1 %apart.1, %items
  br i1 %apart, label %any, label %singly
any:
  ret i32 {ANY}
singly:
  ret i32 {SINGLY}
}}"""
