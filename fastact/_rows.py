"""LLVM IR of NumPy inner loops "(n)->(n)" around the steps of a function of whole rows.

A row is read for its largest element, again for the sum of terms of its elements, and a third
time for the results. All that is computed element by element, in ``lanes`` lanes that LLVM
makes vectors of, each with a largest element, a sum and so on of its own. There are two ways to
fill the lanes, and the length of the row alone decides between them, so that a row's result
depends on nothing but the row:

``across``
    Short rows, one per lane: nothing is ever exchanged between lanes.
``along``
    Longer rows, one at a time, with the element i in lane i mod `lanes`. What the lanes have
    found is merged by halves, always in the same order. Rows that are longer than the buffers
    are read chunk by chunk, and their terms are computed twice.

Either way elements pass through buffers, padded to whole vectors, so that there is one copy of
the computation for every stride, and the input may be the output.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ._conversions import compute_type, conversions_ir, storage_type
from ._environment import ENVIRONMENT_IR, UNTOUCHED_IR
from ._formats import FORMATS, Format
from ._frontend import ScalarIR
from ._loops import ENTRY, copies_ir, metadata_ir
from ._steps import STEPS
from ._targets import Target

CHUNK = 1024  # elements buffered at a time: three buffers of 8 bytes are 24 KB, within L1
ACROSS = 64  # the longest row that has one lane only (bench/NOTES.md)

# Arrays with a value for each lane, by what is in them.
_LARGEST = ["largest"]
_PARAMETERS = ["p0", "p1", "p2"]
_SUM = ["high", "low"]
_TOTAL = ["total", "rest"]
_DIVISOR = ["q0", "q1"]
_TERM = ["t0", "t1"]  # for each buffered element
_STATE = [*_LARGEST, *_PARAMETERS, *_SUM, *_TOTAL, *_DIVISOR]

Kinds = tuple[str, str, int]
"""The LLVM types of an element in memory and in computation, and the number of lanes."""


def rows_ir(steps: dict[str, ScalarIR], form: Format, target: Target) -> str:
    """LLVM IR of the module described above, to be linked with `steps`."""
    compute, storage = compute_type(form), storage_type(form, target)
    lanes = target.vector_bits // FORMATS[form.compute].bits
    kinds = storage, compute, lanes
    return "\n".join(
        [
            "declare void @llvm.assume(i1)",
            *(_scalar(name, step, compute) for name, step in steps.items()),
            conversions_ir(form, target),
            ENVIRONMENT_IR.get(target.architecture, UNTOUCHED_IR),
            copies_ir(storage, form, target),
            *(kernel.define(name, kinds) for name, kernel in _KERNELS.items()),
            _fold("fold_largest", "larger", _LARGEST, compute, lanes),
            _fold("fold_totals", "merge", _TOTAL, compute, lanes),
            _fetch(form, kinds),
            _across(kinds),
            _along(kinds),
            _entry(form),
            metadata_ir(target, lanes),
            _more_metadata(lanes),
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


@dataclass(frozen=True)
class _Kernel:
    """Steps to take for every lane in each of a number of rounds.

    `calls` are steps with the arrays that their arguments come from and their results go to.
    Arrays in `kept` are in memory; others pass from one step to the next.
    """

    calls: Sequence[tuple[str, Sequence[str], Sequence[str]]]
    kept: Sequence[str]

    def call(self, name: str, rounds: str, **places: str) -> str:
        """A call, with the arrays by their own names unless `places` says otherwise."""
        pointers = ", ".join(f"ptr %{places.get(a, a)}" for a in self.kept)
        return f"\n  call void @{name}({pointers}, i64 {rounds})"

    def define(self, name: str, kinds: Kinds) -> str:
        storage, compute, lanes = kinds
        body, values = "", {}

        def place(a: str) -> str:
            kind = storage if a in ("x", "y") else compute
            index = "%i" if a in ("x", "y", *_TERM) else "%lane"
            return f"getelementptr inbounds {kind}, ptr %{a}, i64 {index}"

        for step, inputs, outputs in self.calls:
            for a in inputs:
                if a in values:
                    continue
                kind = storage if a == "x" else compute
                body += f"""
  %at.{a} = {place(a)}
  %in.{a} = load {kind}, ptr %at.{a}, align 1, !llvm.access.group !9"""
                values[a] = f"%in.{a}"
                if a == "x":
                    body += f"\n  %decoded = call {compute} @decode({storage} %in.x)"
                    values[a] = "%decoded"
            results = f"[{len(outputs)} x {compute}]"
            arguments = ", ".join(f"{compute} {values[a]}" for a in inputs)
            body += f"\n  %{step} = call {results} @{step}({arguments})"
            for k, a in enumerate(outputs):
                kind, values[a] = compute, f"%{step}.{k}"
                body += f"\n  {values[a]} = extractvalue {results} %{step}, {k}"
                if a == "y":
                    body += f"\n  %encoded = call {storage} @encode({compute} {values[a]})"
                    kind, values[a] = storage, "%encoded"
                if a in self.kept:
                    body += f"""
  %to.{a} = {place(a)}
  store {kind} {values[a]}, ptr %to.{a}, align 1, !llvm.access.group !9"""
        pointers = ", ".join(f"ptr noalias %{a}" for a in self.kept)
        return f"""
define internal void @{name}({pointers}, i64 %rounds) noinline #0 {{
entry:
  %some = icmp ne i64 %rounds, 0
  call void @llvm.assume(i1 %some)
  br label %round
round:
  %k = phi i64 [ 0, %entry ], [ %k.next, %last ]
  %first = mul nuw nsw i64 %k, {lanes}
  br label %body
body:
  %lane = phi i64 [ 0, %round ], [ %lane.next, %body ]
  %i = add nuw nsw i64 %first, %lane{body}
  %lane.next = add nuw nsw i64 %lane, 1
  %more = icmp ult i64 %lane.next, {lanes}
  br i1 %more, label %body, label %last, !llvm.loop !12
last:
  %k.next = add nuw nsw i64 %k, 1
  %again = icmp ult i64 %k.next, %rounds
  br i1 %again, label %round, label %done
done:
  ret void
}}"""


_TERM_OF_X = ("term", ["x", *_PARAMETERS], _TERM)
_ADD_TERM = ("add", [*_TERM, *_SUM], _SUM)
_RESULT = ("result", [*_TERM, *_DIVISOR], ["y"])
_KERNELS = {
    "find_largest": _Kernel([("larger", [*_LARGEST, "x"], _LARGEST)], [*_LARGEST, "x"]),
    "prepare_all": _Kernel([("prepare", _LARGEST, _PARAMETERS)], [*_LARGEST, *_PARAMETERS]),
    "start_all": _Kernel([("start", _LARGEST, _SUM)], [*_LARGEST, *_SUM]),
    "sum_terms": _Kernel([_TERM_OF_X, _ADD_TERM], ["x", *_PARAMETERS, *_SUM]),
    "sum_and_keep_terms": _Kernel([_TERM_OF_X, _ADD_TERM], ["x", *_PARAMETERS, *_SUM, *_TERM]),
    "collect_all": _Kernel([("collect", [*_TOTAL, *_SUM], _TOTAL)], [*_TOTAL, *_SUM]),
    "finish_all": _Kernel([("finish", _TOTAL, _DIVISOR)], [*_TOTAL, *_DIVISOR]),
    "results_of_terms": _Kernel([_RESULT], [*_TERM, *_DIVISOR, "y"]),
    "results": _Kernel([_TERM_OF_X, _RESULT], ["x", *_PARAMETERS, *_DIVISOR, "y"]),
}


def _call(name: str, rounds: str = "1", **places: str) -> str:
    return _KERNELS[name].call(name, rounds, **places)


def _fold(name: str, step: str, arrays: Sequence[str], compute: str, lanes: int) -> str:
    """@NAME(arrays...): merge the upper half of the lanes into the lower until one is left.

    Its value then is that of every lane.
    """
    results = f"[{len(arrays)} x {compute}]"
    body, width, before = "", lanes, "entry"
    while width > 1:
        width //= 2
        loads = values = ""
        for half, start in (("a", 0), ("b", width)):
            for a in arrays:
                loads += f"""
  %{half}.at.{a}.{width} = add nuw nsw i64 %j.{width}, {start}
  %{half}.p.{a}.{width} = getelementptr inbounds {compute}, ptr %{a}, i64 %{half}.at.{a}.{width}
  %{half}.{a}.{width} = load {compute}, ptr %{half}.p.{a}.{width}, align 4, !llvm.access.group !9"""
                values += f", {compute} %{half}.{a}.{width}"
        stores = "".join(
            f"""
  %r.{a}.{width} = extractvalue {results} %r.{width}, {k}
  store {compute} %r.{a}.{width}, ptr %a.p.{a}.{width}, align 4, !llvm.access.group !9"""
            for k, a in enumerate(arrays)
        )
        body += f"""
  br label %half.{width}
half.{width}:
  %j.{width} = phi i64 [ 0, %{before} ], [ %next.{width}, %half.{width} ]{loads}
  %r.{width} = call {results} @{step}({values[2:]}){stores}
  %next.{width} = add nuw nsw i64 %j.{width}, 1
  %more.{width} = icmp ult i64 %next.{width}, {width}
  br i1 %more.{width}, label %half.{width}, label %after.{width}, !llvm.loop !{100 + width}
after.{width}:"""
        before = f"after.{width}"
    spread = "".join(
        f"""
  %one.{a} = load {compute}, ptr %{a}, align 4
  %head.{a} = insertelement <{lanes} x {compute}> poison, {compute} %one.{a}, i64 0
  %all.{a} = shufflevector <{lanes} x {compute}> %head.{a}, <{lanes} x {compute}> poison, \
<{lanes} x i32> zeroinitializer
  store <{lanes} x {compute}> %all.{a}, ptr %{a}, align 4"""
        for a in arrays
    )
    pointers = ", ".join(f"ptr noalias %{a}" for a in arrays)
    return f"""
define internal void @{name}({pointers}) noinline #0 {{
entry:{body}{spread}
  ret void
}}"""


def _allocate(kinds: Kinds) -> str:
    storage, compute, lanes = kinds
    buffers = {"x": storage, **dict.fromkeys(_TERM, compute)}
    lines = [f"%{name} = alloca [{CHUNK} x {kind}], align 64" for name, kind in buffers.items()]
    lines += [f"%{name} = alloca [{lanes} x {compute}], align 64" for name in _STATE]
    return "".join(f"\n  {line}" for line in lines)


def _begin(kinds: Kinds) -> str:
    """Set what grows with the elements to where it starts."""
    _, compute, lanes = kinds
    lowest = ", ".join([f"{compute} 0xFFF0000000000000"] * lanes)
    stores = [f"<{lowest}>, ptr %{a}" for a in _LARGEST]
    stores += [f"zeroinitializer, ptr %{a}" for a in _TOTAL]
    return "".join(f"\n  store <{lanes} x {compute}> {store}, align 64" for store in stores)


def _fetch(form: Format, kinds: Kinds) -> str:
    """@fetch: a chunk of a row into the buffer; the number of rounds that it takes."""
    storage, _, lanes = kinds
    infinity = {"half": "0xHFC00", "i16": -128 if form.kind == "bfloat" else -1024}
    padding = ", ".join([f"{storage} {infinity.get(storage, '0xFFF0000000000000')}"] * lanes)
    return f"""
define internal {{i64, i64}} @fetch(ptr %from, i64 %step, i64 %n, i64 %i, ptr %x) #1 {{
  %left = sub i64 %n, %i
  %final = icmp ult i64 %left, {CHUNK}
  %m = select i1 %final, i64 %left, i64 {CHUNK}
  %m.up = add i64 %m, {lanes - 1}
  %rounds = udiv i64 %m.up, {lanes}
  %padded = mul i64 %rounds, {lanes}
  %last.at = sub i64 %padded, {lanes}
  ; Padding is -inf: larger than no element, and with terms of 0.
  %last = getelementptr {storage}, ptr %x, i64 %last.at
  store <{lanes} x {storage}> <{padding}>, ptr %last, align 1
  %offset = mul i64 %i, %step
  %source = getelementptr i8, ptr %from, i64 %offset
  call void @gather(ptr %source, ptr %x, i64 %step, i64 %m)
  %both.1 = insertvalue {{i64, i64}} poison, i64 %m, 0
  %both.2 = insertvalue {{i64, i64}} %both.1, i64 %rounds, 1
  ret {{i64, i64}} %both.2
}}"""


def _across(kinds: Kinds) -> str:
    """@across: `%rows` rows of `%n` elements, as many at a time as there are lanes."""
    storage, _, lanes = kinds

    def elements(label: str, before: str, after: str, action: str) -> str:
        """A loop over the places in a row, `action` moving the elements in one place."""
        return f"""
  br label %{label}
{label}:
  %{label}.i = phi i64 [ 0, %{before} ], [ %{label}.next, %{label} ]
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
    compute = (
        _begin(kinds)
        + _call("find_largest", "%n")
        + _call("prepare_all")
        + _call("start_all")
        + _call("sum_and_keep_terms", "%n")
        + _call("collect_all")
        + _call("finish_all")
        + _call("results_of_terms", "%n", y="x")
    )
    return f"""
define internal void @across(ptr %from, i64 %from.row, i64 %from.step, \
ptr %to, i64 %to.row, i64 %to.step, i64 %rows, i64 %n) noinline #1 {{
entry:{_allocate(kinds)}
  br label %group
group:
  %row = phi i64 [ 0, %entry ], [ %row.next, %finish ]
  %left = sub i64 %rows, %row
  %final = icmp ult i64 %left, {lanes}
  %m = select i1 %final, i64 %left, i64 {lanes}
  %from.offset = mul i64 %row, %from.row
  %from.group = getelementptr i8, ptr %from, i64 %from.offset
  %to.offset = mul i64 %row, %to.row
  %to.group = getelementptr i8, ptr %to, i64 %to.offset{elements("read", "group", "compute", read)}
compute:{compute}{elements("write", "compute", "finish", write)}
finish:
  %row.next = add i64 %row, {lanes}
  %more = icmp ult i64 %row.next, %rows
  br i1 %more, label %group, label %done
done:
  ret void
}}"""


def _along(kinds: Kinds) -> str:
    """@along: one row of `%n` elements."""

    def fetch(label: str, i: str) -> str:
        return f"""
  %{label}.both = call {{i64, i64}} @fetch(ptr %from, i64 %from.step, i64 %n, i64 {i}, ptr %x)
  %{label}.m = extractvalue {{i64, i64}} %{label}.both, 0
  %{label}.rounds = extractvalue {{i64, i64}} %{label}.both, 1"""

    def write(m: str, i: str, source: str) -> str:
        return f"""
  %{source}.offset = mul i64 {i}, %to.step
  %{source}.sink = getelementptr i8, ptr %to, i64 %{source}.offset
  call void @scatter(ptr %{source}, ptr %{source}.sink, i64 %to.step, i64 {m})
"""

    def chunks(label: str, before: str, actions: str) -> str:
        """A pass over the row."""
        return f"""
  br label %{label}
{label}:
  %{label}.i = phi i64 [ 0, %{before} ], [ %{label}.next, %{label} ]{fetch(label, f"%{label}.i")}\
{actions}
  %{label}.next = add i64 %{label}.i, {CHUNK}
  %{label}.more = icmp ult i64 %{label}.next, %n
  br i1 %{label}.more, label %{label}, label %{label}.done
{label}.done:"""

    agree = "\n  call void @fold_largest(ptr %largest)" + _call("prepare_all")
    divide = (
        "\n  call void @fold_totals(ptr %total, ptr %rest)" + _call("finish_all")
    )
    find = _call("find_largest", "%find.rounds")
    add = _call("start_all") + _call("sum_terms", "%add.rounds") + _call("collect_all")
    # The buffers for terms are not needed for them, so that results may go there.
    results = _call("results", "%put.rounds", y="t0") + write("%put.m", "%put.i", "t0")
    return f"""
define internal void @along(ptr %from, i64 %from.step, ptr %to, i64 %to.step, i64 %n) \
noinline #1 {{
entry:{_allocate(kinds)}{_begin(kinds)}
  %short = icmp ule i64 %n, {CHUNK}
  br i1 %short, label %once, label %chunks
once:{fetch("all", "0")}\
{_call("find_largest", "%all.rounds")}{agree}\
{_call("start_all")}{_call("sum_and_keep_terms", "%all.rounds")}{_call("collect_all")}{divide}\
{_call("results_of_terms", "%all.rounds", y="x")}{write("%all.m", "0", "x")}
  ret void
chunks:{chunks("find", "chunks", find)}{agree}\
{chunks("add", "find.done", add)}{divide}\
{chunks("put", "add.done", results)}
  ret void
}}"""


def _entry(form: Format) -> str:
    """@loop: int (context, char **data, npy_intp *dimensions, npy_intp *strides, auxdata).

    The dimensions are the number of rows and their length; the strides those from row to row
    of input and output, then those from element to element.
    """
    names = ["from.row", "to.row", "from.step", "to.step"]
    strides = "".join(
        f"""
  %{name}.at = getelementptr i64, ptr %strides, i64 {k}
  %{name} = load i64, ptr %{name}.at"""
        for k, name in enumerate(names)
    )
    return f"""
define i32 @{ENTRY}(ptr %context, ptr %data, ptr %dimensions, ptr %strides, ptr %auxdata) #1 {{
entry:
  %saved = alloca [2 x i64]
  %rows = load i64, ptr %dimensions
  %n.at = getelementptr i64, ptr %dimensions, i64 1
  %n = load i64, ptr %n.at
  %from = load ptr, ptr %data
  %to.at = getelementptr ptr, ptr %data, i64 1
  %to = load ptr, ptr %to.at{strides}
  %some.rows = icmp sgt i64 %rows, 0
  %some.elements = icmp sgt i64 %n, 0
  %some = and i1 %some.rows, %some.elements
  br i1 %some, label %start, label %end
start:
  call void @enter(ptr %saved)
  %short = icmp ule i64 %n, {ACROSS}
  br i1 %short, label %across, label %along
across:
  call void @across(ptr %from, i64 %from.row, i64 %from.step, ptr %to, i64 %to.row, i64 %to.step, \
i64 %rows, i64 %n)
  br label %finish
along:
  %row = phi i64 [ 0, %start ], [ %row.next, %along ]
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
  br label %end
end:
  ret i32 0
}}"""


def _more_metadata(lanes: int) -> str:
    """Of loops over as many elements as a vector has, which are not to be unrolled before."""
    text = """
!12 = distinct !{!12, !2, !3, !6, !5, !13}
!13 = !{!"llvm.loop.unroll.disable"}"""
    width = lanes // 2
    while width:
        text += f"""
!{100 + width} = distinct !{{!{100 + width}, {"!2" if width > 1 else "!7"}, !{200 + width}, !6, !5, !13}}
!{200 + width} = !{{!"llvm.loop.vectorize.width", i32 {width}}}"""
        width //= 2
    return text
