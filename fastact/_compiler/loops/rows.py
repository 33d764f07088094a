"""LLVM IR of NumPy inner loops "(n)->(n)" around the steps of a function of whole rows.

A row is read for its largest element, again for the sum of terms of its elements, and a third
time for the results. All that is computed element by element, in lanes that LLVM makes vectors
of, each with a largest element, a sum and so on of its own. There are two ways to fill the
lanes, and the length of the row alone decides between them, so that a row's result depends on
nothing but the row:

``across``
    Short rows, one per lane: nothing is ever exchanged between lanes.
``along``
    Longer rows, one at a time, with the element i in lane i mod the number of lanes. What the
    lanes have found is merged by halves, always in the same order. Rows that are longer than
    the buffers are read chunk by chunk, and their terms are computed twice.

Short rows are transposed into a buffer. Of longer rows the whole vectors are read and written
where they are; what is left over, and rows of any other stride, is padded in a buffer. So there
is one copy of the computation for every stride, and the input may be the output.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fastact._compiler.conversions import compute_type, conversions_ir, storage_type
from fastact._compiler.environment import environment_ir
from fastact._compiler.frontend import scalar_ir
from fastact._compiler.loops.elementwise import copies_ir, metadata_ir
from fastact._compiler.overlap import ANY, rows_relation_ir
from fastact._compiler.pipeline import ScalarIR
from fastact._compiler.symbols import ALONE, ENTRY
from fastact._compiler.threads.fan_out import FAN_OUT_IR, body_ir, sharing_ir
from fastact._compiler.transpose import cells_to_rows, rows_to_cells
from fastact._kernels.row_steps import STEPS
from fastact._machine.formats import FORMATS, Format
from fastact._machine.targets import Target

BUFFER = 8192  # bytes of each of the buffers, which are to stay in L1 together
# Terms that a lane adds up before its sum is collected: what its low part loses grows with them,
# and with 128 equal terms at a time, softmax of a million was wrong by 2.2 ulp.
ROUNDS = 64
# Elements of the longest row that has one lane only: longer ones pay the merging of lanes back
# (bench/NOTES.md). A row on its own takes as long as a vector full of them.
ONE_LANE = 128

# What the steps work on, by place. Of each there is one value for every lane ...
_LARGEST = ["largest"]
_PARAMETERS = ["p0", "p1", "p2"]
_SUM = ["high", "low"]
_TOTAL = ["total", "rest"]
_DIVISOR = ["q0", "q1"]
_STATE = [*_LARGEST, *_PARAMETERS, *_SUM, *_TOTAL, *_DIVISOR]
# ... or for every element in the buffers.
_TERM = ["t0", "t1"]
_BUFFERED = ["x", "y", *_TERM]


@dataclass(frozen=True)
class _Shape:
    """The types of an element in memory and in computation, and the lanes: several vectors.

    `loop` is the metadata of loops over them.
    """

    storage: str
    compute: str
    vector: int
    vectors: int
    loop: str

    @property
    def lanes(self) -> int:
        return self.vector * self.vectors

    def kind(self, place: str) -> str:
        return self.storage if place in ("x", "y") else self.compute


def steps_ir(steps: type, form: Format, target: Target) -> dict[str, ScalarIR]:
    """The IR of every one of the `steps` of a function of rows, by name."""
    return {
        name: scalar_ir(getattr(steps, name), form, arity, target, results)
        for name, (arity, results) in STEPS.items()
    }


def rows_ir(steps: dict[str, ScalarIR], form: Format, target: Target) -> str:
    """LLVM IR of the module described above, to be linked with `steps`."""
    types = storage_type(form, target), compute_type(form)
    vector = target.vector_bits // FORMATS[form.compute].bits
    # LLVM leaves loops over two elements scalar.
    narrow = _Shape(*types, vector, 1, "!14") if vector > 2 else _Shape(*types, vector, 2, "!16")
    double = _Shape(*types, vector, 2, "!16")
    wide = _Shape(*types, vector, target.interleave, "!12")
    chunk = min(BUFFER // (FORMATS[form.compute].bits // 8), ROUNDS * wide.lanes)
    return "\n".join(
        [
            *(_scalar(name, step, types[1]) for name, step in steps.items()),
            conversions_ir(form, target),
            environment_ir(target),
            copies_ir(types[0], form, target),
            *(kernel.define(wide) for kernel in ALONG.values()),
            _fold("merge_largest", "larger", _LARGEST, wide, vector),
            _fold("merge_totals", "merge", _TOTAL, wide, vector),
            _fetch(form, wide, chunk),
            _along(wide, chunk),
            _tiles(form, vector),
            *(kernel.define(double, ".wide") for kernel in ACROSS.values()),
            _across(double, chunk, ".wide"),
            *(kernel.define(narrow, ".narrow") for kernel in ACROSS.values()),
            _across(narrow, chunk, ".narrow"),
            _run(double, chunk),
            FAN_OUT_IR,
            _body(),
            rows_relation_ir(),
            *(_entry(name, form.itemsize) for name in (ENTRY, ALONE)),
            metadata_ir(target, vector),
            _more_metadata(wide.lanes, vector),
        ]
    )


def _scalar(name: str, step: ScalarIR, compute: str) -> str:
    """@NAME: the scalar function, returning an array of its results."""
    arity, results = STEPS[name]
    kind = f"[{results} x {compute}]"
    values = ", ".join(f"{compute} %v{i}" for i in range(arity))
    return f"""
declare i32 @{step.symbol}(ptr, ptr, {", ".join([compute] * arity)})
define internal {kind} @{name}({values}) alwaysinline {{
  %r = alloca {kind}
  %status = call i32 @{step.symbol}(ptr %r, ptr null, {values})
  %v = load {kind}, ptr %r
  ret {kind} %v
}}"""


def _call(shape: _Shape, step: str, inputs: Sequence[str], outputs: Sequence[str]) -> str:
    """Call a step with the values `inputs`, and name its results `outputs`."""
    results = f"[{len(outputs)} x {shape.compute}]"
    arguments = ", ".join(f"{shape.compute} {value}" for value in inputs)
    text = f"\n  {outputs[0]}.all = call {results} @{step}({arguments})"
    for k, value in enumerate(outputs):
        text += f"\n  {value} = extractvalue {results} {outputs[0]}.all, {k}"
    return text


@dataclass(frozen=True)
class _Kernel:
    """Steps to take for every lane in each of a number of rounds.

    `calls` are steps with the places that their arguments come from and their results go to.
    Places in `kept` are in memory, and values in `given` the same for all lanes; others pass
    from one step to the next.
    """

    name: str
    calls: Sequence[tuple[str, Sequence[str], Sequence[str]]]
    kept: Sequence[str]
    given: Sequence[str] = ()

    def call(self, shape: _Shape, rounds: str = "1", suffix: str = "", **at: str) -> str:
        """A call, with everything by its own name unless `at` says otherwise."""
        arguments = [f"ptr %{at.get(place, place)}" for place in self.kept]
        arguments += [f"{shape.compute} %{value}" for value in self.given]
        return f"\n  call void @{self.name}{suffix}({', '.join(arguments)}, i64 {rounds})"

    def define(self, shape: _Shape, suffix: str = "") -> str:
        body = ""
        values = {value: f"%{value}" for value in self.given}

        def point(name: str, place: str) -> str:
            index = "%i" if place in _BUFFERED else "%lane"
            kind = shape.kind(place)
            return f"\n  {name} = getelementptr inbounds {kind}, ptr %{place}, i64 {index}"

        for step, inputs, outputs in self.calls:
            for place in inputs:
                if place not in values:
                    values[place] = f"%in.{place}"
                    body += point(f"%from.{place}", place) + (
                        f"\n  %in.{place} = load {shape.kind(place)}, ptr %from.{place}, "
                        "align 1, !llvm.access.group !9"
                    )
                    if place == "x":
                        values[place] = "%decoded"
                        body += (
                            f"\n  %decoded = call {shape.compute} @decode({shape.storage} %in.x)"
                        )
            results = [f"%{step}.{place}" for place in outputs]
            body += _call(shape, step, [values[place] for place in inputs], results)
            for place, value in zip(outputs, results, strict=True):
                values[place] = value
                if place == "y":
                    values[place] = "%encoded"
                    body += f"\n  %encoded = call {shape.storage} @encode({shape.compute} {value})"
                if place in self.kept:
                    body += point(f"%to.{place}", place) + (
                        f"\n  store {shape.kind(place)} {values[place]}, ptr %to.{place}, "
                        "align 1, !llvm.access.group !9"
                    )
        # The input may be the output, and terms in place of either.
        parameters = [
            f"ptr {'' if place in ('x', 'y', _TERM[0]) else 'noalias '}%{place}"
            for place in self.kept
        ]
        parameters += [f"{shape.compute} %{value}" for value in self.given]
        return f"""
define internal void @{self.name}{suffix}({", ".join(parameters)}, i64 %rounds) noinline #0 {{
entry:
  %some = icmp ne i64 %rounds, 0
  br i1 %some, label %round, label %done
round:
  %k = phi i64 [ 0, %entry ], [ %k.next, %last ]
  %first = mul nuw nsw i64 %k, {shape.lanes}
  br label %body
body:
  %lane = phi i64 [ 0, %round ], [ %lane.next, %body ]
  %i = add nuw nsw i64 %first, %lane{body}
  %lane.next = add nuw nsw i64 %lane, 1
  %more = icmp ult i64 %lane.next, {shape.lanes}
  br i1 %more, label %body, label %last, !llvm.loop {shape.loop}
last:
  %k.next = add nuw nsw i64 %k, 1
  %again = icmp ult i64 %k.next, %rounds
  br i1 %again, label %round, label %done
done:
  ret void
}}"""


def _named(*kernels: _Kernel) -> dict[str, _Kernel]:
    return {kernel.name: kernel for kernel in kernels}


_FIND = _Kernel("find", [("larger", [*_LARGEST, "x"], _LARGEST)], [*_LARGEST, "x"])
_START = _Kernel("start_sums", [("start", _LARGEST, _SUM)], [*_LARGEST, *_SUM])
_COLLECT = _Kernel("collect_sums", [("collect", [*_TOTAL, *_SUM], _TOTAL)], [*_TOTAL, *_SUM])
_TERM_OF_X = ("term", ["x", *_PARAMETERS], _TERM)
_ADD_TERM = ("add", [*_TERM, *_SUM], _SUM)
_RESULT = ("result", [*_TERM, *_DIVISOR], ["y"])

ALONG = _named(
    _FIND,
    _START,
    _Kernel("add_terms", [_TERM_OF_X, _ADD_TERM], ["x", *_SUM], _PARAMETERS),
    _Kernel("add_and_keep_terms", [_TERM_OF_X, _ADD_TERM], ["x", *_SUM, *_TERM], _PARAMETERS),
    _COLLECT,
    _Kernel("divide_terms", [_RESULT], [*_TERM, "y"], _DIVISOR),
    _Kernel("divide", [_TERM_OF_X, _RESULT], ["x", "y"], [*_PARAMETERS, *_DIVISOR]),
)
"""The kernels for one row in all lanes."""

ACROSS = _named(
    _FIND,
    _Kernel("prepare_all", [("prepare", _LARGEST, _PARAMETERS)], [*_LARGEST, *_PARAMETERS]),
    _START,
    _Kernel("add_and_keep_terms", [_TERM_OF_X, _ADD_TERM], ["x", *_PARAMETERS, *_SUM, *_TERM]),
    _COLLECT,
    _Kernel("finish_all", [("finish", _TOTAL, _DIVISOR)], [*_TOTAL, *_DIVISOR]),
    _Kernel("divide_terms", [_RESULT], [*_TERM, *_DIVISOR, "y"]),
)
"""The kernels for one row in each lane."""


def _fold(name: str, step: str, places: Sequence[str], shape: _Shape, vector: int) -> str:
    """@NAME: the value that all lanes make together, merged by halves.

    Results go behind the lanes, as a store to where the value is from becomes a masked one,
    which no load can be forwarded from.
    """
    kind, results = shape.compute, f"[{len(places)} x {shape.compute}]"
    body, before, start, width = "", "entry", 0, shape.lanes
    while width > 1:
        width //= 2
        label, after = f"half.{width}", f"after.{width}"

        def point(half: str, offset: int, place: str, label: str = label) -> str:
            return f"""
  %{label}.{half}.i.{place} = add nuw nsw i64 %{label}.i, {offset}
  %{label}.{half}.at.{place} = getelementptr inbounds {kind}, ptr %{place}, \
i64 %{label}.{half}.i.{place}"""

        loads, inputs = "", []
        for half, offset in (("a", start), ("b", start + width)):
            for place in places:
                value = f"%{label}.{half}.{place}"
                inputs.append(value)
                loads += point(half, offset, place) + (
                    f"\n  {value} = load {kind}, ptr %{label}.{half}.at.{place}, "
                    "align 4, !llvm.access.group !9"
                )
        outputs = [f"%{label}.{place}" for place in places]
        stores = ""
        start += 2 * width
        for place, value in zip(places, outputs, strict=True):
            stores += point("r", start, place) + (
                f"\n  store {kind} {value}, ptr %{label}.r.at.{place}, "
                "align 4, !llvm.access.group !9"
            )
        body += f"""
  br label %{label}
{label}:
  %{label}.i = phi i64 [ 0, %{before} ], [ %{label}.next, %{label} ]{loads}\
{_call(shape, step, inputs, outputs)}{stores}
  %{label}.next = add nuw nsw i64 %{label}.i, 1
  %{label}.more = icmp ult i64 %{label}.next, {width}
  br i1 %{label}.more, label %{label}, label %{after}, !llvm.loop !{100 + width}
{after}:"""
        before = after
    result = "poison"
    for k, place in enumerate(places):
        body += f"""
  %end.{place} = getelementptr inbounds {kind}, ptr %{place}, i64 {start}
  %value.{place} = load {kind}, ptr %end.{place}, align 4
  %result.{k} = insertvalue {results} {result}, {kind} %value.{place}, {k}"""
        result = f"%result.{k}"
    pointers = ", ".join(f"ptr noalias %{place}" for place in places)
    return f"""
define internal {results} @{name}({pointers}) noinline #0 {{
entry:{body}
  ret {results} {result}
}}"""


def _allocate(shape: _Shape, chunk: int, state: Sequence[str]) -> str:
    """The buffers, and `state` for every lane with room for what :func:`_fold` makes of it."""
    buffers = dict.fromkeys(_TERM, shape.compute)
    # Each element gives way to its term, and that to its result: one buffer less on the stack,
    # where they are of one size.
    together = shape.storage == shape.compute
    if not together:
        buffers["x"] = shape.storage
    lines = [f"%{name} = alloca [{chunk} x {kind}], align 64" for name, kind in buffers.items()]
    lines += [f"%{a} = alloca [{2 * shape.lanes} x {shape.compute}], align 64" for a in state]
    if together:
        lines.append(f"%x = getelementptr i8, ptr %{_TERM[0]}, i64 0")
    return "".join(f"\n  {line}" for line in lines)


def _begin(shape: _Shape) -> str:
    """Set what grows with the elements to where it starts."""
    kind = f"<{shape.lanes} x {shape.compute}>"
    lowest = ", ".join([f"{shape.compute} 0xFFF0000000000000"] * shape.lanes)
    stores = [f"<{lowest}>, ptr %{place}" for place in _LARGEST]
    stores += [f"zeroinitializer, ptr %{place}" for place in _TOTAL]
    return "".join(f"\n  store {kind} {store}, align 64" for store in stores)


def _fetch(form: Format, shape: _Shape, chunk: int) -> str:
    """@fetch and @put: a chunk of a row, in whole rounds and what is left of another.

    Whole rounds of unit stride stay where they are. All else is copied to its place in the
    buffer, and what is left padded with -inf, which is larger than no element and has terms of
    0. Results take the same ways back.
    """
    storage, lanes = shape.storage, shape.lanes
    infinity = {"half": "0xHFC00", "i16": -128 if form.kind == "bfloat" else -1024}
    padding = ", ".join([f"{storage} {infinity.get(storage, '0xFFF0000000000000')}"] * lanes)
    buffered = f"""
  %unit = icmp eq i64 %step, {form.itemsize}
  %whole = and i64 %m, {-lanes}
  %first = select i1 %unit, i64 %whole, i64 0
  %count = sub i64 %m, %first
  %cells = getelementptr {storage}, ptr %x, i64 %first
  %skip = mul i64 %first, %step
  %there = getelementptr i8, ptr %at, i64 %skip
  %some = icmp ne i64 %count, 0
  br i1 %some, label %copy, label %done
copy:"""
    place = """
  %offset = mul i64 %i, %step
  %at = getelementptr i8, ptr %memory, i64 %offset"""
    return f"""
define internal i64 @length(i64 %n, i64 %i) alwaysinline {{
  %left = sub i64 %n, %i
  %final = icmp ult i64 %left, {chunk}
  %m = select i1 %final, i64 %left, i64 {chunk}
  ret i64 %m
}}
define internal ptr @whole(ptr %memory, i64 %step, i64 %i, ptr %x) alwaysinline {{{place}
  %unit = icmp eq i64 %step, {form.itemsize}
  %where = select i1 %unit, ptr %at, ptr %x
  ret ptr %where
}}
define internal void @fetch(ptr %memory, i64 %step, i64 %i, i64 %m, ptr %x) #1 {{{place}\
{buffered}
  %last.up = sub i64 %m, 1
  %last = and i64 %last.up, {-lanes}
  %end = getelementptr {storage}, ptr %x, i64 %last
  store <{lanes} x {storage}> <{padding}>, ptr %end, align 1
  call void @gather(ptr %there, ptr %cells, i64 %step, i64 %count)
  br label %done
done:
  ret void
}}
define internal void @put(ptr %memory, i64 %step, i64 %i, i64 %m, ptr %x) #1 {{{place}\
{buffered}
  call void @scatter(ptr %cells, ptr %there, i64 %step, i64 %count)
  br label %done
done:
  ret void
}}"""


def _along(shape: _Shape, chunk: int) -> str:
    """@along: one row of `%n` elements."""

    def fetch(c: str, i: str) -> str:
        """Chunk `c`, from element `i` on, and what there is to say of it."""
        rest = "".join(
            f"""
  %{c}.{place} = getelementptr {shape.kind(place)}, ptr %{place}, i64 %{c}.begun"""
            for place in ("x", *_TERM)
        )
        return f"""
  %{c}.m = call i64 @length(i64 %n, i64 {i})
  call void @fetch(ptr %from, i64 %from.step, i64 {i}, i64 %{c}.m, ptr %x)
  %{c}.source = call ptr @whole(ptr %from, i64 %from.step, i64 {i}, ptr %x)
  %{c}.sink = call ptr @whole(ptr %to, i64 %to.step, i64 {i}, ptr %x)
  %{c}.rounds = udiv i64 %{c}.m, {shape.lanes}
  %{c}.begun = mul i64 %{c}.rounds, {shape.lanes}
  %{c}.left = icmp ne i64 %{c}.begun, %{c}.m
  %{c}.more = zext i1 %{c}.left to i64{rest}"""

    def run(kernel: str, c: str) -> str:
        """Run a kernel on chunk `c`: whole rounds, then what is left."""
        rest = {"x": f"{c}.x", "y": f"{c}.x", "t0": f"{c}.t0", "t1": f"{c}.t1"}
        kernel = ALONG[kernel]
        return kernel.call(shape, f"%{c}.rounds", x=f"{c}.source", y=f"{c}.sink") + kernel.call(
            shape, f"%{c}.more", **rest
        )

    def put(c: str, i: str) -> str:
        return f"\n  call void @put(ptr %to, i64 %to.step, i64 {i}, i64 %{c}.m, ptr %x)"

    def chunks(label: str, before: str, actions: str) -> str:
        """A pass over the row."""
        return f"""
  br label %{label}
{label}:
  %{label}.i = phi i64 [ 0, %{before} ], [ %{label}.next, %{label} ]{fetch(label, f"%{label}.i")}\
{actions}
  %{label}.next = add i64 %{label}.i, {chunk}
  %{label}.again = icmp ult i64 %{label}.next, %n
  br i1 %{label}.again, label %{label}, label %{label}.done
{label}.done:"""

    def merged(name: str, step: str, places: Sequence[str], outputs: Sequence[str]) -> str:
        """Merge the lanes, and take a step with the result."""
        results = f"[{len(places)} x {shape.compute}]"
        pointers = ", ".join(f"ptr %{place}" for place in places)
        text = f"\n  %all.{name} = call {results} @{name}({pointers})"
        for k, place in enumerate(places):
            text += f"\n  %one.{place} = extractvalue {results} %all.{name}, {k}"
        inputs = [f"%one.{place}" for place in places]
        return text + _call(shape, step, inputs, [f"%{value}" for value in outputs])

    def in_passes(read: str, add: str, write: str) -> str:
        prepare = merged("merge_largest", "prepare", _LARGEST, _PARAMETERS)
        finish = merged("merge_totals", "finish", _TOTAL, _DIVISOR)
        return f"{read}{prepare}{add}{finish}{write}"

    start, collect = ALONG["start_sums"].call(shape), ALONG["collect_sums"].call(shape)
    once = in_passes(
        fetch("all", "0") + run("find", "all"),
        start + run("add_and_keep_terms", "all") + collect,
        run("divide_terms", "all") + put("all", "0"),
    )
    by_chunks = in_passes(
        chunks("find", "entry", run("find", "find")),
        chunks("add", "find.done", start + run("add_terms", "add") + collect),
        chunks("put", "add.done", run("divide", "put") + put("put", "%put.i")),
    )
    parameters = "ptr %from, i64 %from.step, ptr %to, i64 %to.step, i64 %n"
    return (
        "".join(
            f"""
define internal void @{name}({parameters}) noinline #1 {{
entry:{_allocate(shape, chunk, [*_LARGEST, *_SUM, *_TOTAL])}{_begin(shape)}{body}
  ret void
}}"""
            for name, body in (("along_once", once), ("along_chunks", by_chunks))
        )
        + f"""
define internal void @along({parameters}) alwaysinline #1 {{
  %once = icmp ule i64 %n, {chunk}
  br i1 %once, label %short, label %long
short:
  call void @along_once(ptr %from, i64 %from.step, ptr %to, i64 %to.step, i64 %n)
  ret void
long:
  call void @along_chunks(ptr %from, i64 %from.step, ptr %to, i64 %to.step, i64 %n)
  ret void
}}"""
    )


def _tiles(form: Format, rows: int) -> str:
    """@read.tiles and @write.tiles: as many rows as a vector has lanes, to lanes and back.

    Tiles of `rows` rows and as many elements are transposed by vectors, then the elements left
    by tiles half as wide, and so on. Rows are interleaved with those half of the rows ahead, the
    results with those a quarter ahead, until the first element of all rows comes first.
    """
    kind = f"i{form.bits}"
    widths = [rows >> k for k in range(rows.bit_length())]

    def walk(name: str) -> str:
        """All tiles of a group of rows."""
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
  call void @{name}.tile.{width}(ptr %here.{width}, i64 %stride, ptr %cells.{width}, i64 %lanes)
  br label %try.{width}"""
            start, before = f"%i.{width}", f"try.{width}"
        return f"""
define internal void @{name}.tiles(ptr %at, i64 %stride, ptr %x, i64 %lanes, i64 %n) noinline #1 {{
entry:
  br label %try.{rows}{text}
done:
  ret void
}}"""

    def tile(name: str, width: int) -> str:
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
define internal void @{name}.tile.{width}(ptr noalias %here, i64 %stride, ptr noalias %cells, \
i64 %lanes) noinline #0 {{{at_rows}{at_cells}{move(kind, rows, width)}
  ret void
}}"""

    return "".join(
        walk(name) + "".join(tile(name, width) for width in widths) for name in ("read", "write")
    )


def _across(shape: _Shape, chunk: int, suffix: str) -> str:
    """@across: `%rows` rows of `%n` elements, as many at a time as there are lanes."""
    storage, lanes = shape.storage, shape.lanes
    size = {"half": 2, "i16": 2, "float": 4, "double": 8}[storage]
    vector = shape.vector

    def elements(label: str, before: str, after: str, action: str, memory: str) -> str:
        """Loops that move elements: by tiles, or `action` for those in one place of all rows."""
        return f"""
  %{label}.apart = icmp ne i64 %{memory}.step, {size}
  %{label}.any = or i1 %{label}.apart, %final
  br i1 %{label}.any, label %{label}.before, label %{label}.tiles
{label}.tiles:
  %{label}.lane = phi i64 [ 0, %{before} ], [ %{label}.lane.next, %{label}.tiles ]
  %{label}.skip = mul i64 %{label}.lane, %{memory}.row
  %{label}.rows = getelementptr i8, ptr %{memory}.group, i64 %{label}.skip
  %{label}.x = getelementptr {storage}, ptr %x, i64 %{label}.lane
  call void @{label}.tiles(ptr %{label}.rows, i64 %{memory}.row, ptr %{label}.x, i64 {lanes}, \
i64 %n)
  %{label}.lane.next = add i64 %{label}.lane, {vector}
  %{label}.lanes.more = icmp ult i64 %{label}.lane.next, {lanes}
  br i1 %{label}.lanes.more, label %{label}.tiles, label %{after}
{label}.before:
  br label %{label}
{label}:
  %{label}.i = phi i64 [ 0, %{label}.before ], [ %{label}.next, %{label} ]
  %{label}.at = mul i64 %{label}.i, {lanes}
  %{label}.cells = getelementptr {storage}, ptr %x, i64 %{label}.at{action}
  %{label}.next = add i64 %{label}.i, 1
  %{label}.more = icmp ult i64 %{label}.next, %n
  br i1 %{label}.more, label %{label}, label %{after}"""

    # Lanes without a row compute as well, and must not be slow (subnormal) by chance.
    read = f"""
  store <{lanes} x {storage}> zeroinitializer, ptr %read.cells, align 1
  %read.offset = mul i64 %read.i, %from.step
  %source = getelementptr i8, ptr %from.group, i64 %read.offset
  call void @gather(ptr %source, ptr %read.cells, i64 %from.row, i64 %m)"""
    write = """
  %write.offset = mul i64 %write.i, %to.step
  %sink = getelementptr i8, ptr %to.group, i64 %write.offset
  call void @scatter(ptr %write.cells, ptr %sink, i64 %to.row, i64 %m)"""
    rounds = {"find": "%n", "add_and_keep_terms": "%n", "divide_terms": "%n"}
    compute = "".join(
        kernel.call(shape, rounds.get(name, "1"), suffix, y="x") for name, kernel in ACROSS.items()
    )
    return f"""
define internal void @across{suffix}(ptr %from, i64 %from.row, i64 %from.step, \
ptr %to, i64 %to.row, i64 %to.step, i64 %rows, i64 %n) noinline #1 {{
entry:{_allocate(shape, chunk, _STATE)}
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
compute:{_begin(shape)}{compute}{elements("write", "compute", "finish", write, "to")}
finish:
  %row.next = add i64 %row, {lanes}
  %more = icmp ult i64 %row.next, %rows
  br i1 %more, label %group, label %done
done:
  ret void
}}"""


_ROW_WORDS = [
    *(("ptr", "from"), ("i64", "from.row"), ("i64", "from.step")),
    *(("ptr", "to"), ("i64", "to.row"), ("i64", "to.step")),
    *(("i64", "rows"), ("i64", "n")),
]


def _run(shape: _Shape, chunk: int) -> str:
    """@run: some rows, none of them empty."""

    def across(suffix: str, start: str, rows: str) -> str:
        return f"""
  call void @across.{suffix}(ptr {start.format("from")}, i64 %from.row, i64 %from.step, \
ptr {start.format("to")}, i64 %to.row, i64 %to.step, i64 {rows}, i64 %n)"""

    parameters = ", ".join(f"{kind} %{name}" for kind, name in _ROW_WORDS)
    return f"""
define internal void @run({parameters}) noinline #1 {{
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
  call void @along(ptr %from.this, i64 %from.step, ptr %to.this, i64 %to.step, i64 %n)
  %row.next = add i64 %row, 1
  %more = icmp ult i64 %row.next, %rows
  br i1 %more, label %along, label %finish
finish:
  call void @leave(ptr %saved)
  ret void
}}"""


def _body() -> str:
    """@body: some of a job's rows."""
    places = {"from": "%from.start", "to": "%to.start", "rows": "%m"}
    arguments = ", ".join(f"{kind} {places.get(name, '%' + name)}" for kind, name in _ROW_WORDS)
    work = f"""
  %from.offset = mul i64 %start, %from.row
  %from.start = getelementptr i8, ptr %from, i64 %from.offset
  %to.offset = mul i64 %start, %to.row
  %to.start = getelementptr i8, ptr %to, i64 %to.offset
  call void @run({arguments})"""
    return body_ir(_ROW_WORDS, "rows", work)


def _entry(name: str, size: int) -> str:
    """@NAME: int (context, char **data, npy_intp *dimensions, npy_intp *strides, auxdata).

    The dimensions are the number of rows and their length; the strides those from row to row
    of input and output, then those from element to element.
    """
    names = ["from.row", "to.row", "from.step", "to.step"]
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
define i32 @{name}(ptr %context, ptr %data, ptr %dimensions, ptr %strides, ptr %auxdata) #1 {{
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


def _more_metadata(lanes: int, vector: int) -> str:
    """Of loops over the lanes, which are not to be unrolled before they are vectorised."""
    text = """
!12 = distinct !{!12, !2, !3, !4, !5, !13}
!13 = !{!"llvm.loop.unroll.disable"}
!16 = distinct !{!16, !2, !3, !17, !5, !13}
!17 = !{!"llvm.loop.interleave.count", i32 2}
!14 = distinct !{!14, !2, !3, !6, !5, !13}
!15 = !{!"llvm.loop.unroll.full"}"""
    width = lanes // 2
    while width:
        how = f"!2, !{200 + width}, !6, !5, !13" if width > 2 else "!7, !15"
        text += f"""
!{100 + width} = distinct !{{!{100 + width}, {how}}}
!{200 + width} = !{{!"llvm.loop.vectorize.width", i32 {min(width, vector)}}}"""
        width //= 2
    return text
