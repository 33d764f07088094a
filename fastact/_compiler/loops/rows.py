"""LLVM IR of NumPy inner loops "(n)->(n)" around the steps of a function of whole rows.

A row is read three times: for its largest element, for the sum of the terms of its elements, and
for the results. Everything is computed element by element in lanes, which LLVM turns into vectors.
Each lane has its own largest element, sum and so on. There are three ways to fill the lanes. Only
the length of the row decides between them, so that the result of a row depends on nothing but the
row:

``across``
    Short rows, one per lane: lanes never exchange anything.
``groups``
    Longer rows, each in the lanes of one vector: the element i is in lane i mod the number of
    lanes. The values of lanes are merged for as many rows at a time as there are lanes, after a
    transposition.
``along``
    Still longer rows, in the lanes of several vectors. The values of the lanes are merged by
    halves, always in the same order. Each of the three passes is made over several rows before the
    next one, so that a row need not wait for the values of the row before. Rows that are longer
    than the buffers are read chunk by chunk. Their terms are kept, one half of them as exponents
    and the other in the output, if both are contiguous. Otherwise, and if a row has more than four
    chunks, its terms are computed twice.

Short rows are transposed into a buffer. The whole vectors of longer rows are read and written in
place; the rest of a row, and rows of any other stride, are padded in a buffer. So one copy of the
computation serves every stride, and the input may be the output.
"""

from math import inf

from fastact._compiler.conversions import compute_type, conversions_ir, storage_type
from fastact._compiler.environment import environment_ir
from fastact._compiler.frontend import scalar_ir
from fastact._compiler.loops.lane_loops import TOTAL, Shape, across, along
from fastact._compiler.loops.loop_metadata import NO_CALLS, LoopMetadata
from fastact._compiler.loops.overlap import ANY, rows_relation_ir
from fastact._compiler.loops.row_along_lanes import along_ir, fetch_ir, fold_ir, padding_ir
from fastact._compiler.loops.row_groups import groups_ir
from fastact._compiler.loops.rows_across_lanes import across_ir, transposes_ir
from fastact._compiler.loops.scalar_call import scalar_call_ir
from fastact._compiler.loops.strided_copies import copies_ir
from fastact._compiler.pipeline import ScalarIR
from fastact._compiler.symbols import ALONE, ENTRY
from fastact._compiler.threads.fan_out import FAN_OUT_IR, chunk_ir, sharing_ir
from fastact._kernels.row_steps import Source, counts, scheme_of
from fastact._machine.formats import FORMATS, Format
from fastact._machine.targets import Target

BUFFER = 8192  # bytes of each of the buffers, which should stay in L1 together
# Terms that a lane adds before its sum is collected. The error of the low part grows with them:
# with 128 equal terms at a time, softmax of a million elements was wrong by 2.2 ulp.
ROUNDS = 64
# Vectors of the longest row that is computed in one lane, if the rows of all lanes fit into the
# buffers. Transposing longer rows costs more than merging lanes (bench/NOTES.md).
IN_LANE = 6
# Elements of the longest row that is computed in a group of rows: merging the lanes of several rows
# together pays off.
GROUPED = 256


def steps_ir(steps: type, form: Format, target: Target) -> dict[str, ScalarIR]:
    """The IR of each of the `steps` of a function of rows, by name."""
    return {
        name: scalar_ir(getattr(steps, name), form, arity, target, results)
        for name, (arity, results) in counts(scheme_of(steps)).items()
    }


def rows_ir(steps: type, scalars: dict[str, ScalarIR], form: Format, target: Target) -> str:
    """LLVM IR of the module described above, to be linked with `scalars`, the IR of `steps`."""
    scheme, padding = scheme_of(steps), getattr(steps, "padding", -inf)
    types = storage_type(form, target), compute_type(form)
    vector = target.vector_bits // FORMATS[form.compute].bits
    notes = LoopMetadata()
    # LLVM does not vectorise loops over two elements.
    narrow = Shape(*types, vector, 1 if vector > 2 else 2, notes, target, padding, scheme)
    double = Shape(*types, vector, 2, notes, target, padding, scheme)
    wide = Shape(*types, vector, target.interleave, notes, target, padding, scheme)
    chunk = min(BUFFER // (FORMATS[form.compute].bits // 8), ROUNDS * wide.lanes)
    return "\n".join(
        [
            *(
                scalar_call_ir(name, scalars[name], types[1], *count)
                for name, count in counts(scheme).items()
            ),
            conversions_ir(form, target),
            environment_ir(target),
            copies_ir(types[0], form, notes, target),
            *(loop.define(wide) for loop in along(wide).values()),
            fold_ir("merge_largest", "larger", wide.largest, wide),
            fold_ir("merge_totals", "merge", TOTAL, wide),
            fetch_ir(form, wide, chunk),
            along_ir(wide, chunk),
            transposes_ir(form, vector, target),
            *(loop.define(double, ".wide") for loop in across(double).values()),
            across_ir(double, chunk, ".wide"),
            *(loop.define(narrow, ".narrow") for loop in across(narrow).values()),
            across_ir(narrow, chunk, ".narrow"),
            groups_ir(form, narrow, chunk, ".narrow"),
            _run(double, chunk),
            FAN_OUT_IR,
            _run_chunk(),
            rows_relation_ir(),
            *(_entry(name, form, double) for name in (ENTRY, ALONE)),
            notes.ir(),
        ]
    )


_ROW_WORDS = [
    *(("ptr", "from"), ("i64", "from.row"), ("i64", "from.stride")),
    *(("ptr", "to"), ("i64", "to.row"), ("i64", "to.stride")),
    *(("i64", "rows"), ("i64", "n")),
]


def _run(shape: Shape, chunk: int) -> str:
    """@run: compute rows, none of them empty."""

    def across(suffix: str, start: str, rows: str) -> str:
        return f"""
  call void @across.{suffix}(ptr {start.format("from")}, i64 %from.row, i64 %from.stride, \
ptr {start.format("to")}, i64 %to.row, i64 %to.stride, i64 {rows}, i64 %n)"""

    parameters = ", ".join(f"{kind} %{name}" for kind, name in _ROW_WORDS)
    return f"""
define internal void @run({parameters}) noinline {NO_CALLS} {{
entry:
  %saved = alloca [2 x i64]
  call void @enter(ptr %saved)
  %short = icmp ule i64 %n, {min(IN_LANE * shape.vector, chunk // shape.lanes)}
  br i1 %short, label %in.lanes, label %longer
longer:
  %medium = icmp ule i64 %n, {GROUPED}
  br i1 %medium, label %by.groups, label %along
by.groups:
  call void @groups(ptr %from, i64 %from.row, i64 %from.stride, \
ptr %to, i64 %to.row, i64 %to.stride, i64 %rows, i64 %n)
  br label %finish
in.lanes:
  %groups = udiv i64 %rows, {shape.lanes}
  %grouped = mul i64 %groups, {shape.lanes}
  %many = icmp ne i64 %groups, 0
  br i1 %many, label %wide, label %across.rest
wide:{across("wide", "%{}", "%grouped")}
  br label %across.rest
across.rest:
  %left = sub i64 %rows, %grouped
  %few = icmp ne i64 %left, 0
  br i1 %few, label %narrow, label %finish
narrow:
  %from.skip = mul i64 %grouped, %from.row
  %from.narrow = getelementptr i8, ptr %from, i64 %from.skip
  %to.skip = mul i64 %grouped, %to.row
  %to.narrow = getelementptr i8, ptr %to, i64 %to.skip{across("narrow", "%{}.narrow", "%left")}
  br label %finish
along:
  %once = icmp ule i64 %n, {chunk}
  br i1 %once, label %together, label %singly
together:
  %most = call i64 @together(i64 %n)
  br label %group
group:
  %first = phi i64 [ 0, %together ], [ %first.next, %group ]
  %remain = sub i64 %rows, %first
  %last = icmp ult i64 %remain, %most
  %size = select i1 %last, i64 %remain, i64 %most
  %from.first = mul i64 %first, %from.row
  %from.group = getelementptr i8, ptr %from, i64 %from.first
  %to.first = mul i64 %first, %to.row
  %to.group = getelementptr i8, ptr %to, i64 %to.first
  call void @along_short(ptr %from.group, i64 %from.row, i64 %from.stride, \
ptr %to.group, i64 %to.row, i64 %to.stride, i64 %size, i64 %n)
  %first.next = add i64 %first, %size
  %first.more = icmp ult i64 %first.next, %rows
  br i1 %first.more, label %group, label %finish
singly:
  %row = phi i64 [ 0, %along ], [ %row.next, %singly ]
  %from.offset = mul i64 %row, %from.row
  %from.this = getelementptr i8, ptr %from, i64 %from.offset
  %to.offset = mul i64 %row, %to.row
  %to.this = getelementptr i8, ptr %to, i64 %to.offset
  %row.next = add i64 %row, 1
  %more = icmp ult i64 %row.next, %rows
  ; The next row arrives from memory meanwhile.
  %ahead = select i1 %more, i64 %from.row, i64 0
  call void @along(ptr %from.this, i64 %from.stride, ptr %to.this, i64 %to.stride, i64 %n, \
i64 %ahead)
  br i1 %more, label %singly, label %finish
finish:
  call void @leave(ptr %saved)
  ret void
}}"""


def _run_chunk() -> str:
    """@run_chunk: compute one chunk of the rows of a job."""
    places = {"from": "%from.start", "to": "%to.start", "rows": "%m"}
    arguments = ", ".join(f"{kind} {places.get(name, '%' + name)}" for kind, name in _ROW_WORDS)
    work = f"""
  %from.offset = mul i64 %start, %from.row
  %from.start = getelementptr i8, ptr %from, i64 %from.offset
  %to.offset = mul i64 %start, %to.row
  %to.start = getelementptr i8, ptr %to, i64 %to.offset
  call void @run({arguments})"""
    return chunk_ir(_ROW_WORDS, "rows", work)


def _entry(name: str, form: Format, shape: Shape) -> str:
    """@NAME: int (context, char **data, npy_intp *dimensions, npy_intp *strides, auxdata).

    The dimensions are the number of rows and their length. The strides are those of input and
    output from row to row, then those from element to element; of an output with one result for
    each row, there is only the first.
    """
    names = ["from.row", "to.row", "from.stride", "to.stride"]
    one = shape.scheme.results is Source.NOTHING
    if one:
        names.pop()
    strides = "".join(
        f"""
  %{name}.slot = getelementptr i64, ptr %strides, i64 {k}
  %{name} = load i64, ptr %{name}.slot"""
        for k, name in enumerate(names)
    )
    strides += "\n  %to.stride = add i64 0, 0" if one else ""
    # The sum of no terms is 0, and its logarithm is that infinity.
    empty = f"""
none:
  br i1 %some.rows, label %empty, label %end
empty:
  %e = phi i64 [ 0, %none ], [ %e.next, %empty ]
  %e.offset = mul i64 %e, %to.row
  %e.to = getelementptr i8, ptr %to, i64 %e.offset
  store {padding_ir(form, shape, 1)}, ptr %e.to, align 1
  %e.next = add i64 %e, 1
  %e.more = icmp slt i64 %e.next, %rows
  br i1 %e.more, label %empty, label %end"""
    shared = f"""
  %work = mul i64 %rows, %n
  %in.groups = icmp ule i64 %n, {GROUPED}
  %granule = select i1 %in.groups, i64 64, i64 1"""
    shared += sharing_ir(_ROW_WORDS, "rows", "%work", "%granule")
    arguments = ", ".join(f"{kind} %{word}" for kind, word in _ROW_WORDS)
    this = {"from": "%from.this", "to": "%to.this", "rows": "1"}
    row = ", ".join(f"{kind} {this.get(word, '%' + word)}" for kind, word in _ROW_WORDS)
    return f"""
define i32 @{name}(ptr %context, ptr %data, ptr %dimensions, ptr %strides, ptr %auxdata) \
{NO_CALLS} {{
entry:
  %rows = load i64, ptr %dimensions
  %n.slot = getelementptr i64, ptr %dimensions, i64 1
  %n = load i64, ptr %n.slot
  %from = load ptr, ptr %data
  %to.slot = getelementptr ptr, ptr %data, i64 1
  %to = load ptr, ptr %to.slot{strides}
  %some.rows = icmp sgt i64 %rows, 0
  %some.elements = icmp sgt i64 %n, 0
  %some = and i1 %some.rows, %some.elements
  br i1 %some, label %start, label %{"none" if one else "end"}{empty if one else ""}
start:
  %relation = call i32 @relation({arguments}, i64 {form.itemsize})
  %apart = icmp eq i32 %relation, {ANY}
  br i1 %apart, label %parallel, label %singly
singly:
  ; Rows of the output may share memory.
  %k = phi i64 [ 0, %start ], [ %k.next, %singly ]
  %from.offset = mul i64 %k, %from.row
  %from.this = getelementptr i8, ptr %from, i64 %from.offset
  %to.offset = mul i64 %k, %to.row
  %to.this = getelementptr i8, ptr %to, i64 %to.offset
  call void @run({row})
  %k.next = add i64 %k, 1
  %k.more = icmp ult i64 %k.next, %rows
  br i1 %k.more, label %singly, label %end
parallel:{shared if name == ENTRY else chr(10) + "  br label %single"}
single:
  call void @run({arguments})
  br label %end
end:
  ret i32 0
}}"""
