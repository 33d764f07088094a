"""LLVM IR of NumPy inner loops "(n)->(n)" around the steps of a function of whole rows.

A row is read three times: for its largest element, for the sum of the terms of its elements, and
for the results. Everything is computed element by element in lanes, which LLVM turns into vectors.
Each lane has its own largest element, sum and so on. There are two ways to fill the lanes. Only the
length of the row decides between them, so that the result of a row depends on nothing but the row:

``across``
    Short rows, one per lane: lanes never exchange anything.
``along``
    Longer rows, one at a time, with the element i in lane i mod the number of lanes. The values
    of the lanes are merged by halves, always in the same order. Rows that are longer than the
    buffers are read chunk by chunk, and their terms are computed twice.

Short rows are transposed into a buffer. The whole vectors of longer rows are read and written in
place; the rest of a row, and rows of any other stride, are padded in a buffer. So one copy of the
computation serves every stride, and the input may be the output.
"""

from math import inf

from fastact._compiler.conversions import compute_type, conversions_ir, storage_type
from fastact._compiler.environment import environment_ir
from fastact._compiler.frontend import scalar_ir
from fastact._compiler.loops.lane_loops import ACROSS, ALONG, LARGEST, TOTAL, Shape
from fastact._compiler.loops.loop_metadata import NO_CALLS, LoopMetadata
from fastact._compiler.loops.overlap import ANY, rows_relation_ir
from fastact._compiler.loops.row_along_lanes import along_ir, fetch_ir, fold_ir
from fastact._compiler.loops.rows_across_lanes import across_ir, transposes_ir
from fastact._compiler.loops.scalar_call import scalar_call_ir
from fastact._compiler.loops.strided_copies import copies_ir
from fastact._compiler.pipeline import ScalarIR
from fastact._compiler.symbols import ALONE, ENTRY
from fastact._compiler.threads.fan_out import FAN_OUT_IR, chunk_ir, sharing_ir
from fastact._kernels.row_steps import STEPS
from fastact._machine.formats import FORMATS, Format
from fastact._machine.targets import Target

BUFFER = 8192  # bytes of each of the buffers, which should stay in L1 together
# Terms that a lane adds before its sum is collected. The error of the low part grows with them:
# with 128 equal terms at a time, softmax of a million elements was wrong by 2.2 ulp.
ROUNDS = 64
# Elements of the longest row that is computed in one lane. For longer rows, merging lanes pays off
# (bench/NOTES.md). In one lane, a single row takes as long as a whole vector of rows.
ONE_LANE = 128


def steps_ir(steps: type, form: Format, target: Target) -> dict[str, ScalarIR]:
    """The IR of each of the `steps` of a function of rows, by name."""
    return {
        name: scalar_ir(getattr(steps, name), form, arity, target, results)
        for name, (arity, results) in STEPS.items()
    }


def rows_ir(steps: dict[str, ScalarIR], form: Format, target: Target, padding: float = -inf) -> str:
    """LLVM IR of the module described above, to be linked with `steps`."""
    types = storage_type(form, target), compute_type(form)
    vector = target.vector_bits // FORMATS[form.compute].bits
    notes = LoopMetadata()
    # LLVM does not vectorise loops over two elements.
    narrow = Shape(*types, vector, 1 if vector > 2 else 2, notes, target, padding)
    double = Shape(*types, vector, 2, notes, target, padding)
    wide = Shape(*types, vector, target.interleave, notes, target, padding)
    chunk = min(BUFFER // (FORMATS[form.compute].bits // 8), ROUNDS * wide.lanes)
    return "\n".join(
        [
            *(scalar_call_ir(name, step, types[1], *STEPS[name]) for name, step in steps.items()),
            conversions_ir(form, target),
            environment_ir(target),
            copies_ir(types[0], form, notes, target),
            *(loop.define(wide) for loop in ALONG.values()),
            fold_ir("merge_largest", "larger", LARGEST, wide),
            fold_ir("merge_totals", "merge", TOTAL, wide),
            fetch_ir(form, wide, chunk),
            along_ir(wide, chunk),
            transposes_ir(form, vector, target),
            *(loop.define(double, ".wide") for loop in ACROSS.values()),
            across_ir(double, chunk, ".wide"),
            *(loop.define(narrow, ".narrow") for loop in ACROSS.values()),
            across_ir(narrow, chunk, ".narrow"),
            _run(double, chunk),
            FAN_OUT_IR,
            _run_chunk(),
            rows_relation_ir(),
            *(_entry(name, form.itemsize) for name in (ENTRY, ALONE)),
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
  %short = icmp ule i64 %n, {ONE_LANE}
  br i1 %short, label %across, label %along
across:
  %fits = icmp ule i64 %n, {chunk // shape.lanes}
  %eligible = select i1 %fits, i64 %rows, i64 0
  %groups = udiv i64 %eligible, {shape.lanes}
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
  %row = phi i64 [ 0, %entry ], [ %row.next, %along ]
  %from.offset = mul i64 %row, %from.row
  %from.this = getelementptr i8, ptr %from, i64 %from.offset
  %to.offset = mul i64 %row, %to.row
  %to.this = getelementptr i8, ptr %to, i64 %to.offset
  call void @along(ptr %from.this, i64 %from.stride, ptr %to.this, i64 %to.stride, i64 %n)
  %row.next = add i64 %row, 1
  %more = icmp ult i64 %row.next, %rows
  br i1 %more, label %along, label %finish
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


def _entry(name: str, size: int) -> str:
    """@NAME: int (context, char **data, npy_intp *dimensions, npy_intp *strides, auxdata).

    The dimensions are the number of rows and their length. The strides are those of input and
    output from row to row, then those from element to element.
    """
    names = ["from.row", "to.row", "from.stride", "to.stride"]
    strides = "".join(
        f"""
  %{name}.slot = getelementptr i64, ptr %strides, i64 {k}
  %{name} = load i64, ptr %{name}.slot"""
        for k, name in enumerate(names)
    )
    shared = f"""
  %work = mul i64 %rows, %n
  %in.groups = icmp ule i64 %n, {ONE_LANE}
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
  br i1 %some, label %start, label %end
start:
  %relation = call i32 @relation({arguments}, i64 {size})
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
