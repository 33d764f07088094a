"""LLVM IR of a function of rows for short rows, one in each lane."""

from fastact._compiler.loops.lane_loops import (
    TERM,
    Shape,
    across,
    allocate,
    begin,
)
from fastact._compiler.loops.loop_metadata import NO_CALLS, wide_vectors
from fastact._compiler.transpose import cells_to_rows, rows_to_cells
from fastact._kernels.row_steps import Source
from fastact._machine.formats import Format
from fastact._machine.targets import Target


def transposes_ir(form: Format, rows: int, target: Target) -> str:
    """@read.patches and @write.patches: move as many rows as a vector has lanes to lanes, and back.

    Patches of `rows` rows and as many elements are transposed by vectors (``transpose.py``), the
    remaining elements in patches half as wide, and so on.
    """
    kind = f"i{form.bits}"
    widths = [rows >> k for k in range(rows.bit_length())]

    def walk(name: str) -> str:
        """All patches of a group of rows."""
        text, start, before = "", "0", "entry"
        for width in widths:
            after = f"try.{width // 2}" if width > 1 else "done"
            text += f"""
try.{width}:
  %i.{width} = phi i64 [ {start}, %{before} ], [ %end.{width}, %do.{width} ]
  %end.{width} = add i64 %i.{width}, {width}
  %room.{width} = icmp ule i64 %end.{width}, %n
  br i1 %room.{width}, label %do.{width}, label %{after}
do.{width}:
  %offset.{width} = mul i64 %i.{width}, {form.itemsize}
  %here.{width} = getelementptr i8, ptr %at, i64 %offset.{width}
  %above.{width} = mul i64 %i.{width}, %lanes
  %cells.{width} = getelementptr {kind}, ptr %x, i64 %above.{width}
  call void @{name}.patch.{width}(ptr %here.{width}, i64 %stride, ptr %cells.{width}, i64 %lanes)
  br label %try.{width}"""
            start, before = f"%i.{width}", f"try.{width}"
        return f"""
define internal void @{name}.patches(ptr %at, i64 %stride, ptr %x, i64 %lanes, i64 %n) \
noinline {NO_CALLS} {{
entry:
  br label %try.{rows}{text}
done:
  ret void
}}"""

    def patch(name: str, width: int) -> str:
        at_rows = "".join(
            f"""
  %skip.{k} = mul i64 %stride, {k}
  %row.at.{k} = getelementptr i8, ptr %here, i64 %skip.{k}"""
            for k in range(rows)
        )
        at_cells = "".join(
            f"""
  %pitch.{k} = mul i64 %lanes, {k}
  %cell.at.{k} = getelementptr {kind}, ptr %cells, i64 %pitch.{k}"""
            for k in range(width)
        )
        move = rows_to_cells if name == "read" else cells_to_rows
        return f"""
define internal void @{name}.patch.{width}(ptr noalias %here, i64 %stride, ptr noalias %cells, \
i64 %lanes) noinline {wide_vectors(target)} {{{at_rows}{at_cells}{move(kind, rows, width)}
  ret void
}}"""

    return "".join(
        walk(name) + "".join(patch(name, width) for width in widths) for name in ("read", "write")
    )


def across_ir(shape: Shape, chunk: int, suffix: str) -> str:
    """@across: compute `%rows` rows of `%n` elements, as many at a time as there are lanes.

    `suffix` follows its name, and those of the loops.
    """
    storage, lanes = shape.storage, shape.lanes
    size = {"half": 2, "i16": 2, "float": 4, "double": 8}[storage]
    vector = shape.vector

    def elements(label: str, before: str, after: str, action: str, memory: str) -> str:
        """Loops that move elements: by patches, or by `action` for one element of every row."""
        return f"""
  %{label}.apart = icmp ne i64 %{memory}.stride, {size}
  %{label}.any = or i1 %{label}.apart, %final
  br i1 %{label}.any, label %{label}.before, label %{label}.patches
{label}.patches:
  %{label}.lane = phi i64 [ 0, %{before} ], [ %{label}.lane.next, %{label}.patches ]
  %{label}.skip = mul i64 %{label}.lane, %{memory}.row
  %{label}.rows = getelementptr i8, ptr %{memory}.group, i64 %{label}.skip
  %{label}.x = getelementptr {storage}, ptr %x, i64 %{label}.lane
  call void @{label}.patches(ptr %{label}.rows, i64 %{memory}.row, ptr %{label}.x, i64 {lanes}, \
i64 %n)
  %{label}.lane.next = add i64 %{label}.lane, {vector}
  %{label}.lanes.more = icmp ult i64 %{label}.lane.next, {lanes}
  br i1 %{label}.lanes.more, label %{label}.patches, label %{after}
{label}.before:
  br label %{label}
{label}:
  %{label}.i = phi i64 [ 0, %{label}.before ], [ %{label}.next, %{label} ]
  %{label}.at = mul i64 %{label}.i, {lanes}
  %{label}.cells = getelementptr {storage}, ptr %x, i64 %{label}.at{action}
  %{label}.next = add i64 %{label}.i, 1
  %{label}.more = icmp ult i64 %{label}.next, %n
  br i1 %{label}.more, label %{label}, label %{after}"""

    # Lanes without a row are computed too, and must not be subnormal (slow) by chance.
    read = f"""
  store <{lanes} x {storage}> zeroinitializer, ptr %read.cells, align 1
  %read.offset = mul i64 %read.i, %from.stride
  %source = getelementptr i8, ptr %from.group, i64 %read.offset
  call void @gather(ptr %source, ptr %read.cells, i64 %from.row, i64 %m)"""
    write = """
  %write.offset = mul i64 %write.i, %to.stride
  %sink = getelementptr i8, ptr %to.group, i64 %write.offset
  call void @scatter(ptr %write.cells, ptr %sink, i64 %to.row, i64 %m)"""
    per_element = ("find", "add_terms", "add_and_keep_terms", "subtract", "divide_terms")
    rounds = dict.fromkeys(per_element, "%n")
    compute = ""
    for name, loop in across(shape).items():
        compute += loop.call(shape, rounds.get(name, "1"), suffix, y="x")
    give = elements("write", "compute", "finish", write, "to")
    if shape.scheme.results is Source.NOTHING:
        give = """
  call void @scatter(ptr %x, ptr %to.group, i64 %to.row, i64 %m)
  br label %finish"""
    return f"""
define internal void @across{suffix}(ptr %from, i64 %from.row, i64 %from.stride, \
ptr %to, i64 %to.row, i64 %to.stride, i64 %rows, i64 %n) \
noinline {NO_CALLS} {{
entry:{allocate(shape, dict.fromkeys(TERM, chunk), shape.state)}
  br label %group
group:
  %row = phi i64 [ 0, %entry ], [ %row.next, %finish ]
  %left = sub i64 %rows, %row
  %final = icmp ult i64 %left, {lanes}
  %m = select i1 %final, i64 %left, i64 {lanes}
  %from.offset = mul i64 %row, %from.row
  %from.group = getelementptr i8, ptr %from, i64 %from.offset
  %to.offset = mul i64 %row, %to.row
  %to.group = getelementptr i8, ptr %to, i64 %to.offset\
{elements("read", "group", "compute", read, "from")}
compute:{begin(shape, shape.state)}{compute}{give}
finish:
  %row.next = add i64 %row, {lanes}
  %more = icmp ult i64 %row.next, %rows
  br i1 %more, label %group, label %done
done:
  ret void
}}"""
