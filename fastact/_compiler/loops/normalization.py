"""LLVM IR of NumPy inner loops "(n),(n),(n),()->(n)" around the steps that normalise rows.

The operands are the input, a row for each of ``Scheme.operands``, and epsilon. All of them are
widened to double in buffers, whatever their strides. There are up to three passes over a row: for
its sum, for the sum of squares, and for the results. They are computed in the lanes of several
vectors: the element i is in lane i mod the number of lanes. Lanes are merged by halves, always in
the same order. So the result of a row depends on nothing but the operands for this row.

Each pass is made over a group of rows before the next one, so that a row need not wait for the
values of the row before. If the rows of a group fit into the buffer together, they are widened
once, and so are the other operands if all rows have the same ones. Longer rows are widened chunk by
chunk in every pass, and the other operands once for a group. If rows have operands of their own, a
group is one row.
"""

from collections.abc import Mapping, Sequence

from fastact._compiler.conversions import storage_type, wide_conversions_ir
from fastact._compiler.environment import environment_ir
from fastact._compiler.frontend import scalar_ir
from fastact._compiler.loops.lane_loops import SUM, LaneLoop, Shape
from fastact._compiler.loops.loop_metadata import NO_CALLS, LoopMetadata, wide_vectors
from fastact._compiler.loops.overlap import ANY, rows_relation_ir
from fastact._compiler.loops.row_along_lanes import fold_ir
from fastact._compiler.loops.scalar_call import scalar_call_ir
from fastact._compiler.loops.strided_copies import copies_ir
from fastact._compiler.pipeline import ScalarIR
from fastact._compiler.symbols import ALONE, ENTRY
from fastact._compiler.threads.fan_out import FAN_OUT_IR, chunk_ir, sharing_ir
from fastact._kernels.normalization_steps import Scheme, counts
from fastact._machine.formats import FLOAT64, Format
from fastact._machine.targets import Target

CHUNK = 1024  # elements that are in a buffer at a time
ROOM = 2 * CHUNK  # elements of all rows of a group that are kept; all buffers should stay in L1
GROUP = 16  # the most rows in a group; with 4 rows of 4096 float32, it took a tenth more time
LONG_ROOM = 1 << 18  # elements of all rows of a group that are not kept, but should stay in L2

_SCALE, _INVERSE, _SQUARES = "p", ["r0", "r1"], "squares"
_WIDE = {"weight": "w", "bias": "b"}
"""The places of widened operands."""


def steps_ir(steps: type, scheme: Scheme, target: Target) -> dict[str, ScalarIR]:
    """The IR of each of the `steps`, by name."""
    return {
        name: scalar_ir(getattr(steps, name), FLOAT64, arity, target, results)
        for name, (arity, results) in counts(scheme).items()
    }


def normalization_ir(
    scheme: Scheme, scalars: dict[str, ScalarIR], form: Format, target: Target
) -> str:
    """LLVM IR of the module described above, to be linked with `scalars`, the IR of the steps."""
    notes = LoopMetadata()
    storage, vector = storage_type(form, target), target.vector_bits // 64
    shape = Shape(storage, "double", vector, target.interleave, notes, target)
    return "\n".join(
        [
            *(
                scalar_call_ir(name, scalars[name], "double", *count)
                for name, count in counts(scheme).items()
            ),
            wide_conversions_ir(form, target),
            environment_ir(target),
            copies_ir(storage, form, notes, target),
            *(loop.define(shape) for loop in _loops(scheme).values()),
            fold_ir("merge_lanes", "merge", SUM, shape),
            _widen(form, shape),
            _load(form, shape),
            _pass_over_sum(scheme, shape) if scheme.centered else "",
            _pass_over_squares(scheme, shape),
            _pass_over_results(scheme, form, shape),
            _run(scheme, shape),
            FAN_OUT_IR,
            chunk_ir(_words(scheme), "rows", _rows_from(scheme, "%start", "%m")),
            rows_relation_ir(),
            *(_entry(name, scheme, form) for name in (ENTRY, ALONE)),
            notes.ir(),
        ]
    )


def _loops(scheme: Scheme) -> dict[str, LaneLoop]:
    center = scheme.center
    square = [("add_square", ["z", _SCALE, *center, *SUM], SUM)]
    wide = [_WIDE[name] for name in scheme.operands]
    of_row = [_SCALE, *center, *_INVERSE]
    loops = [
        LaneLoop("add_squares", square, ["z", *SUM], [_SCALE, *center]),
        LaneLoop(
            "normalize", [("result", ["z", *of_row, *wide], ["y"])], ["z", *wide, "y"], of_row
        ),
    ]
    if scheme.centered:
        add = [("add", ["z", _SCALE, *SUM], SUM)]
        loops.append(LaneLoop("add_elements", add, ["z", *SUM], [_SCALE]))
        # In the lanes beyond the end of a row, both the element and the mean are 0.
        loops.append(LaneLoop("add_last_squares", square, ["z", *center, *SUM], [_SCALE]))
    return {loop.name: loop for loop in loops}


def _widen(form: Format, shape: Shape) -> str:
    """@widen: convert up to `CHUNK` elements of any stride to double; %x is a buffer."""
    return f"""
define internal void @widen(ptr %from, i64 %stride, i64 %m, ptr %x, ptr noalias %to) \
noinline {wide_vectors(shape.target)} {{
entry:
  %unit = icmp eq i64 %stride, {form.itemsize}
  br i1 %unit, label %convert, label %copy
copy:
  call void @gather(ptr %from, ptr %x, i64 %stride, i64 %m)
  br label %convert
convert:
  %source = phi ptr [ %from, %entry ], [ %x, %copy ]
  br label %element
element:
  %i = phi i64 [ 0, %convert ], [ %i.next, %element ]
  %at = getelementptr inbounds {shape.storage}, ptr %source, i64 %i
  %s = load {shape.storage}, ptr %at, align 1
  %v = call double @decode({shape.storage} %s)
  %there = getelementptr inbounds double, ptr %to, i64 %i
  store double %v, ptr %there, align 8
  %i.next = add nuw nsw i64 %i, 1
  %more = icmp ult i64 %i.next, %m
  br i1 %more, label %element, label %done, {shape.notes.vectorised()}
done:
  ret void
}}"""


def _load(form: Format, shape: Shape) -> str:
    """@load: widen the elements of a row from `i` on, padded with 0 to whole rounds.

    @length: the number of these elements, at most `CHUNK`.
    """
    return f"""
define internal i64 @length(i64 %n, i64 %i) alwaysinline {{
  %left = sub i64 %n, %i
  %m = call i64 @llvm.umin.i64(i64 %left, i64 {CHUNK})
  ret i64 %m
}}
define internal void @load(ptr %from, i64 %stride, i64 %i, i64 %m, ptr %x, ptr %z) {NO_CALLS} {{
  %offset = mul i64 %i, %stride
  %at = getelementptr i8, ptr %from, i64 %offset
  %last.up = sub i64 %m, 1
  %last = and i64 %last.up, {-shape.lanes}
  %end = getelementptr double, ptr %z, i64 %last
  store <{shape.lanes} x double> zeroinitializer, ptr %end, align 8
  call void @widen(ptr %at, i64 %stride, i64 %m, ptr %x, ptr %z)
  ret void
}}"""


_ROW = "ptr %from, i64 %from.stride, i64 %n, ptr %x, ptr %z, i1 %loads, ptr %values"
"""Parameters of the passes over a row: %x and %z are buffers for storage and for wide elements, and
%loads says whether the latter have to be loaded. %values are those that are kept between passes."""


def _values(scheme: Scheme) -> list[str]:
    """What is kept for each row between the passes."""
    return [_SCALE, *([_SQUARES, *scheme.center] if scheme.centered else []), *_INVERSE]


def _read(scheme: Scheme, names: Sequence[str]) -> str:
    return _access(scheme, {name: f"%{name} = load double," for name in names})


def _keep(scheme: Scheme, names: Sequence[str]) -> str:
    return _access(scheme, {name: f"store double %{name}," for name in names})


def _access(scheme: Scheme, accesses: Mapping[str, str]) -> str:
    return "".join(
        f"""
  %{name}.kept = getelementptr double, ptr %values, i64 {_values(scheme).index(name)}
  {access} ptr %{name}.kept"""
        for name, access in accesses.items()
    )


def _part(shape: Shape) -> str:
    """Have the elements from `i` on at %z, after block %chunk and in block %loaded."""
    return f"""
  %m = call i64 @length(i64 %n, i64 %i)
  br i1 %loads, label %load, label %loaded
load:
  call void @load(ptr %from, i64 %from.stride, i64 %i, i64 %m, ptr %x, ptr %z)
  br label %loaded
loaded:
  %rounds = udiv i64 %m, {shape.lanes}
  %begun = mul i64 %rounds, {shape.lanes}
  %count = sub i64 %m, %begun
  %left = icmp ne i64 %count, 0
  %more = zext i1 %left to i64
  %all.rounds = add i64 %rounds, %more
  %z.last = getelementptr double, ptr %z, i64 %begun"""


def _sums(shape: Shape, body: str, before: str = "", start: str = "br label %start") -> str:
    """%total.high and %total.low: the sum over the row that `body` adds to, chunk by chunk.

    `start` leaves the entry of the function for block %start, where this begins.
    """
    lanes, zeros = shape.lanes, f"<{shape.lanes} x double> zeroinitializer"
    return f"""
entry:
  %high = alloca [{lanes} x double], align 64
  %low = alloca [{lanes} x double], align 64{before}
  %n.double = uitofp i64 %n to double
  {start}
start:
  store {zeros}, ptr %high, align 64
  store {zeros}, ptr %low, align 64
  br label %chunk
chunk:
  %i = phi i64 [ 0, %start ], [ %i.next, %chunk.end ]{_part(shape)}{body}
  br label %chunk.end
chunk.end:
  %i.next = add i64 %i, {CHUNK}
  %again = icmp ult i64 %i.next, %n
  br i1 %again, label %chunk, label %merged
merged:
  %total = call [2 x double] @merge_lanes(ptr %high, ptr %low)
  %total.high = extractvalue [2 x double] %total, 0
  %total.low = extractvalue [2 x double] %total, 1"""


def _step(name: str, arguments: Sequence[str], results: Sequence[str]) -> str:
    kind, given = f"[{len(results)} x double]", ", ".join(f"double %{a}" for a in arguments)
    text = f"\n  %{name} = call {kind} @{name}({given})"
    for k, result in enumerate(results):
        text += f"\n  %{result} = extractvalue {kind} %{name}, {k}"
    return text


def _pass_over_sum(scheme: Scheme, shape: Shape) -> str:
    """@sum: the mean of a row, and maybe the sum of squares."""
    loop = _loops(scheme)["add_elements"].call(shape, "%all.rounds")
    found = [*scheme.center, _SQUARES]
    return f"""
define internal void @sum({_ROW}) noinline {NO_CALLS} {{\
{_sums(shape, loop, _read(scheme, [_SCALE]))}\
{_step("center", ["total.high", "total.low", "n.double"], found)}{_keep(scheme, found)}
  ret void
}}"""


def _pass_over_squares(scheme: Scheme, shape: Shape) -> str:
    """@squares: the inverse deviation of a row; returns the scale that it should have."""
    body, before, start = _loops(scheme)["add_squares"].call(shape, "%all.rounds"), "", ""
    if scheme.centered:
        body, before = _squares_of_deviations(scheme, shape)
        before += f"""{_read(scheme, [_SQUARES])}
  %known = fcmp oge double %{_SQUARES}, 0.0"""
        start = "br i1 %known, label %found, label %start"
        known = f"double [ %{_SQUARES}, %entry ],", "double [ 0.0, %entry ],"
    else:
        start = "br label %start"
        known = "double", "double"
    read = _read(scheme, [_SCALE, *scheme.center])
    found = ["squares.high", "squares.low"]
    return f"""
define internal double @squares({_ROW}, double %epsilon) noinline {NO_CALLS} {{\
{_sums(shape, body, read + before, start)}
  br label %found
found:
  %squares.high = phi {known[0]} [ %total.high, %merged ]
  %squares.low = phi {known[1]} [ %total.low, %merged ]\
{_step("rescale", [*found, "epsilon"], ["wanted"])}\
{_step("invert", [*found, "n.double", _SCALE, "epsilon"], _INVERSE)}{_keep(scheme, _INVERSE)}
  ret double %wanted
}}"""


def _squares_of_deviations(scheme: Scheme, shape: Shape) -> tuple[str, str]:
    """Add squares in all lanes that the row has; and what is allocated for it."""
    loops, lanes = _loops(scheme), shape.lanes
    allocated = "".join(
        f"\n  %{c}.lanes = alloca [{lanes} x double], align 64" for c in scheme.center
    )
    indices = ", ".join(f"i64 {k}" for k in range(lanes))

    def all_lanes(kind: str, value: str) -> str:
        return f"""
  %{value}.first = insertelement <{lanes} x {kind}> poison, {kind} %{value}, i64 0
  %{value}.all = shufflevector <{lanes} x {kind}> %{value}.first, <{lanes} x {kind}> poison, \
<{lanes} x i32> zeroinitializer"""

    text = f"""{loops["add_squares"].call(shape, "%rounds")}
  br i1 %left, label %last, label %chunk.end
last:{all_lanes("i64", "count")}
  %inside = icmp ult <{lanes} x i64> <{indices}>, %count.all"""
    for c in scheme.center:
        text += f"""{all_lanes("double", c)}
  %{c}.inside = select <{lanes} x i1> %inside, <{lanes} x double> %{c}.all, \
<{lanes} x double> zeroinitializer
  store <{lanes} x double> %{c}.inside, ptr %{c}.lanes, align 64"""
    places = {"z": "z.last"} | {c: f"{c}.lanes" for c in scheme.center}
    return text + loops["add_last_squares"].call(shape, "1", **places), allocated


def _pass_over_results(scheme: Scheme, form: Format, shape: Shape) -> str:
    """@results: a chunk of a row, from element `i` on."""
    wide, loop = [_WIDE[name] for name in scheme.operands], _loops(scheme)["normalize"]
    lasts = "".join(f"\n  %{w}.last = getelementptr double, ptr %{w}, i64 %begun" for w in wide)
    of_last = {place: f"{place}.last" for place in ("z", "y", *wide)}
    return f"""
define internal void @results({_ROW}, ptr %to, i64 %to.stride, i64 %i, \
{", ".join(f"ptr %{w}" for w in wide)}) noinline {NO_CALLS} {{
entry:{_read(scheme, [_SCALE, *scheme.center, *_INVERSE])}{_part(shape)}{lasts}
  %offset = mul i64 %i, %to.stride
  %at = getelementptr i8, ptr %to, i64 %offset
  ; Whole rounds of contiguous rows are written in place. Other results are copied from the buffer.
  %unit = icmp eq i64 %to.stride, {form.itemsize}
  %y = select i1 %unit, ptr %at, ptr %x
  %skipped = select i1 %unit, i64 %begun, i64 0
  %buffered = sub i64 %m, %skipped
  %place = sub i64 %begun, %skipped
  %y.last = getelementptr {shape.storage}, ptr %x, i64 %place\
{loop.call(shape, "%rounds")}{loop.call(shape, "%more", **of_last)}
  %some = icmp ne i64 %buffered, 0
  br i1 %some, label %copy, label %done
copy:
  %skip = mul i64 %skipped, %to.stride
  %there = getelementptr i8, ptr %at, i64 %skip
  call void @scatter(ptr %x, ptr %there, i64 %to.stride, i64 %buffered)
  br label %done
done:
  ret void
}}"""


def _operands(scheme: Scheme) -> list[str]:
    """All operands, in the order in which NumPy passes them."""
    return ["from", *scheme.operands, "epsilon", "to"]


def _words(scheme: Scheme) -> list[tuple[str, str]]:
    """The types and names of what a call is told of its operands."""
    words = []
    for name in _operands(scheme):
        words += [("ptr", name), ("i64", f"{name}.row")]
        if name != "epsilon":
            words.append(("i64", f"{name}.stride"))
    return [*words, ("i64", "rows"), ("i64", "n")]


def _rows_from(scheme: Scheme, first: str, rows: str) -> str:
    """Call @run for so many `rows`, from row `first` on."""
    text, places = "", {"rows": rows}
    for name in _operands(scheme):
        text += f"""
  %{name}.offset = mul i64 {first}, %{name}.row
  %{name}.this = getelementptr i8, ptr %{name}, i64 %{name}.offset"""
        places[name] = f"%{name}.this"
    arguments = ", ".join(f"{kind} {places.get(w, f'%{w}')}" for kind, w in _words(scheme))
    return f"{text}\n  call void @run({arguments})"


def _run(scheme: Scheme, shape: Shape) -> str:
    """@run: compute rows, none of them empty."""
    storage, columns = shape.storage, scheme.operands
    size = len(_values(scheme))

    def rows(label: str, before: str, body: str) -> str:
        """A pass over the rows of a group, after block `before`; then %LABEL.done."""
        places = "".join(
            f"""
  %{label}.{name}.skip = mul i64 %{label}.row, %{name}.row
  %{label}.{name} = getelementptr i8, ptr %{name}, i64 %{label}.{name}.skip"""
            for name in ("from", "epsilon", "to")
        )
        return f"""
  br label %{label}
{label}:
  %{label}.k = phi i64 [ 0, %{before} ], [ %{label}.next, %{label}.end ]
  %{label}.row = add i64 %first, %{label}.k
  %{label}.value = mul i64 %{label}.k, {size}
  %{label}.values = getelementptr double, ptr %values, i64 %{label}.value
  %{label}.cell = mul i64 %{label}.k, %kept
  %{label}.z = getelementptr double, ptr %z, i64 %{label}.cell{places}{body}
  br label %{label}.end
{label}.end:
  %{label}.next = add i64 %{label}.k, 1
  %{label}.more = icmp ult i64 %{label}.next, %group.rows
  br i1 %{label}.more, label %{label}, label %{label}.done
{label}.done:"""

    def of_row(label: str, loads: str) -> str:
        return (
            f"ptr %{label}.from, i64 %from.stride, i64 %n, ptr %x, ptr %{label}.z, i1 {loads}, "
            f"ptr %{label}.values"
        )

    def sums(label: str, loads: str) -> str:
        return f"\n  call void @sum({of_row(label, loads)})" if scheme.centered else ""

    def squares(result: str, loads: str) -> str:
        arguments = f"{of_row('square', loads)}, double %eps"
        return f"\n  %{result} = call double @squares({arguments})"

    begin = "\n  store double 1.0, ptr %{}.values"
    first = rows("sum", "group", begin.format("sum") + sums("sum", "true"))
    second = f"""{"" if scheme.centered else begin.format("square")}
  %eps.stored = load {storage}, ptr %square.epsilon, align 1
  %eps = call double @decode({storage} %eps.stored)\
{squares("wanted", "%long" if scheme.centered else "true")}
  %fine = fcmp oeq double %wanted, 1.0
  br i1 %fine, label %square.end, label %rescaled
rescaled:
  store double %wanted, ptr %square.values{sums("square", "%long")}{squares("again", "%long")}"""
    second = rows("square", "sum.done" if scheme.centered else "group", second)
    third = f"""
  call void @results({of_row("result", "%long")}, ptr %result.to, i64 %to.stride, i64 %i, \
{", ".join(f"ptr %{_WIDE[name]}" for name in columns)})"""
    widened, own = "", "false"
    for name in columns:
        widened += f"""
  %{name}.skip = mul i64 %i, %{name}.stride
  %{name}.first = mul i64 %first, %{name}.row
  %{name}.offset = add i64 %{name}.skip, %{name}.first
  %{name}.at = getelementptr i8, ptr %{name}, i64 %{name}.offset
  call void @load(ptr %{name}.at, i64 %{name}.stride, i64 0, i64 %m, ptr %x, ptr %{_WIDE[name]})"""
    owns = ""
    for name in columns:
        owns += f"""
  %{name}.differs = icmp ne i64 %{name}.row, 0
  %{name}.own = or i1 {own}, %{name}.differs"""
        own = f"%{name}.own"
    buffers = {"x": (CHUNK, storage), "z": (ROOM, "double"), "values": (GROUP * size, "double")}
    buffers |= {_WIDE[name]: (CHUNK, "double") for name in columns}
    allocated = "".join(
        f"\n  %{name} = alloca [{count} x {kind}], align 64"
        for name, (count, kind) in buffers.items()
    )
    parameters = ", ".join(f"{kind} %{name}" for kind, name in _words(scheme))
    return f"""
declare i64 @llvm.umax.i64(i64, i64)
define internal void @run({parameters}) noinline {NO_CALLS} {{
entry:
  %saved = alloca [2 x i64]{allocated}
  call void @enter(ptr %saved){owns}
  %long = icmp ugt i64 %n, {CHUNK}
  %n.up = add i64 %n, {shape.lanes - 1}
  %room = and i64 %n.up, {-shape.lanes}
  %kept = select i1 %long, i64 0, i64 %room
  %enough = select i1 %long, i64 {LONG_ROOM}, i64 {ROOM}
  %fitting = udiv i64 %enough, %room
  %fits = call i64 @llvm.umin.i64(i64 %fitting, i64 {GROUP})
  %some = call i64 @llvm.umax.i64(i64 %fits, i64 1)
  %most = select i1 {own}, i64 1, i64 %some
  ; Whether the other operands have to be widened for each group.
  %anew = or i1 {own}, %long
  br label %group
group:
  %first = phi i64 [ 0, %entry ], [ %first.next, %group.end ]
  %remain = sub i64 %rows, %first
  %group.rows = call i64 @llvm.umin.i64(i64 %remain, i64 %most)\
{first if scheme.centered else ""}{second}
  %begins = icmp eq i64 %first, 0
  %unknown = or i1 %anew, %begins
  br label %chunk
chunk:
  %i = phi i64 [ 0, %square.done ], [ %i.next, %result.done ]
  %m = call i64 @length(i64 %n, i64 %i)
  br i1 %unknown, label %wide, label %known
wide:{widened}
  br label %known
known:{rows("result", "known", third)}
  %i.next = add i64 %i, {CHUNK}
  %i.more = icmp ult i64 %i.next, %n
  br i1 %i.more, label %chunk, label %group.end
group.end:
  %first.next = add i64 %first, %group.rows
  %first.more = icmp ult i64 %first.next, %rows
  br i1 %first.more, label %group, label %finish
finish:
  call void @leave(ptr %saved)
  ret void
}}"""


def _entry(name: str, scheme: Scheme, form: Format) -> str:
    """@NAME: int (context, char **data, npy_intp *dimensions, npy_intp *strides, auxdata).

    The dimensions are the number of rows and their length. The strides are those of all operands
    from row to row, then those from element to element of all but epsilon.
    """
    operands = _operands(scheme)
    rows = [name for name in operands if name != "epsilon"]
    text = ""
    for k, operand in enumerate(operands):
        text += f"""
  %{operand}.slot = getelementptr ptr, ptr %data, i64 {k}
  %{operand} = load ptr, ptr %{operand}.slot"""
    strides = [*(f"{operand}.row" for operand in operands), *(f"{row}.stride" for row in rows)]
    for k, stride in enumerate(strides):
        text += f"""
  %{stride}.slot = getelementptr i64, ptr %strides, i64 {k}
  %{stride} = load i64, ptr %{stride}.slot"""
    words = _words(scheme)
    place = ", ".join(
        f"ptr %{name}, i64 %{name}.row, i64 %{name}.stride" for name in ("from", "to")
    )
    shared = f"""
  %work = mul i64 %rows, %n
  %in.groups = icmp ult i64 %n, {ROOM // GROUP}
  %granule = select i1 %in.groups, i64 {GROUP}, i64 1"""
    shared += sharing_ir(words, "rows", "%work", "%granule")
    return f"""
define i32 @{name}(ptr %context, ptr %data, ptr %dimensions, ptr %strides, ptr %auxdata) \
{NO_CALLS} {{
entry:
  %rows = load i64, ptr %dimensions
  %n.slot = getelementptr i64, ptr %dimensions, i64 1
  %n = load i64, ptr %n.slot{text}
  %some.rows = icmp sgt i64 %rows, 0
  %some.elements = icmp sgt i64 %n, 0
  %some = and i1 %some.rows, %some.elements
  br i1 %some, label %start, label %end
start:
  %relation = call i32 @relation({place}, i64 %rows, i64 %n, i64 {form.itemsize})
  %apart = icmp eq i32 %relation, {ANY}
  br i1 %apart, label %parallel, label %singly
singly:
  ; Rows of the output may share memory.
  %k = phi i64 [ 0, %start ], [ %k.next, %singly ]{_rows_from(scheme, "%k", "1")}
  %k.next = add i64 %k, 1
  %k.more = icmp ult i64 %k.next, %rows
  br i1 %k.more, label %singly, label %end
parallel:{shared if name == ENTRY else chr(10) + "  br label %single"}
single:
  call void @run({", ".join(f"{kind} %{word}" for kind, word in words)})
  br label %end
end:
  ret i32 0
}}"""
