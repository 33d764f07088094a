"""LLVM IR of a function of rows for one row in all lanes, chunk by chunk."""

from collections.abc import Sequence

from fastact._compiler.loops.lane_loops import (
    ALONG,
    DIVISOR,
    LARGEST,
    PARAMETERS,
    SUM,
    TERM,
    TOTAL,
    Shape,
    allocate,
    begin,
    call_step,
)
from fastact._compiler.loops.loop_metadata import NO_CALLS, wide_vectors
from fastact._machine.formats import Format


def fold_ir(name: str, step: str, places: Sequence[str], shape: Shape) -> str:
    """@NAME: merge the values of all lanes by halves.

    Results are stored after the lanes: a store to the place that was read would become a masked
    store, which cannot be forwarded to a load.
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
                    f"align 4, {shape.notes.parallel}"
                )
        outputs = [f"%{label}.{place}" for place in places]
        stores = ""
        start += 2 * width
        for place, value in zip(places, outputs, strict=True):
            stores += point("r", start, place) + (
                f"\n  store {kind} {value}, ptr %{label}.r.at.{place}, "
                f"align 4, {shape.notes.parallel}"
            )
        # LLVM does not vectorise loops over two elements.
        metadata = shape.notes.scalar()
        if width > 2:
            lanes = min(width, shape.vector)
            metadata = shape.notes.vectorised(lanes, 1, unrolled=False)
        body += f"""
  br label %{label}
{label}:
  %{label}.i = phi i64 [ 0, %{before} ], [ %{label}.next, %{label} ]{loads}\
{call_step(shape, step, inputs, outputs)}{stores}
  %{label}.next = add nuw nsw i64 %{label}.i, 1
  %{label}.more = icmp ult i64 %{label}.next, {width}
  br i1 %{label}.more, label %{label}, label %{after}, {metadata}
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
define internal {results} @{name}({pointers}) noinline {wide_vectors(shape.target)} {{
entry:{body}
  ret {results} {result}
}}"""


def fetch_ir(form: Format, shape: Shape, chunk: int) -> str:
    """@fetch and @put: read and write a chunk of a row, in whole rounds and a rest.

    Whole rounds of unit stride are not copied. All other elements are copied to their places in
    the buffer, where the rest is padded with an infinity that is larger than no element and has
    terms of 0. Results are copied back in the same way.
    """
    storage, lanes = shape.storage, shape.lanes
    if shape.padding < 0:
        infinity = {"half": "0xHFC00", "i16": -128 if form.kind == "bfloat" else -1024}
    else:
        infinity = {"half": "0xH7C00", "i16": 0x7F80 if form.kind == "bfloat" else 0x7C00}
    padding = ", ".join([f"{storage} {infinity.get(storage, shape.least)}"] * lanes)
    buffered = f"""
  %unit = icmp eq i64 %stride, {form.itemsize}
  %whole = and i64 %m, {-lanes}
  %first = select i1 %unit, i64 %whole, i64 0
  %count = sub i64 %m, %first
  %cells = getelementptr {storage}, ptr %x, i64 %first
  %skip = mul i64 %first, %stride
  %there = getelementptr i8, ptr %at, i64 %skip
  %some = icmp ne i64 %count, 0
  br i1 %some, label %copy, label %done
copy:"""
    place = """
  %offset = mul i64 %i, %stride
  %at = getelementptr i8, ptr %memory, i64 %offset"""
    return f"""
define internal i64 @length(i64 %n, i64 %i) alwaysinline {{
  %left = sub i64 %n, %i
  %final = icmp ult i64 %left, {chunk}
  %m = select i1 %final, i64 %left, i64 {chunk}
  ret i64 %m
}}
define internal ptr @whole(ptr %memory, i64 %stride, i64 %i, ptr %x) alwaysinline {{{place}
  %unit = icmp eq i64 %stride, {form.itemsize}
  %where = select i1 %unit, ptr %at, ptr %x
  ret ptr %where
}}
define internal void @fetch(ptr %memory, i64 %stride, i64 %i, i64 %m, ptr %x) {NO_CALLS} {{{place}\
{buffered}
  %last.up = sub i64 %m, 1
  %last = and i64 %last.up, {-lanes}
  %end = getelementptr {storage}, ptr %x, i64 %last
  store <{lanes} x {storage}> <{padding}>, ptr %end, align 1
  call void @gather(ptr %there, ptr %cells, i64 %stride, i64 %count)
  br label %done
done:
  ret void
}}
define internal void @put(ptr %memory, i64 %stride, i64 %i, i64 %m, ptr %x) {NO_CALLS} {{{place}\
{buffered}
  call void @scatter(ptr %cells, ptr %there, i64 %stride, i64 %count)
  br label %done
done:
  ret void
}}"""


def along_ir(shape: Shape, chunk: int) -> str:
    """@along: one row of `%n` elements."""

    def fetch(c: str, i: str) -> str:
        """Fetch chunk `c`, from element `i` on, and define its values."""
        rest = "".join(
            f"""
  %{c}.{place} = getelementptr {shape.kind(place)}, ptr %{place}, i64 %{c}.begun"""
            for place in ("x", *TERM)
        )
        return f"""
  %{c}.m = call i64 @length(i64 %n, i64 {i})
  call void @fetch(ptr %from, i64 %from.stride, i64 {i}, i64 %{c}.m, ptr %x)
  %{c}.source = call ptr @whole(ptr %from, i64 %from.stride, i64 {i}, ptr %x)
  %{c}.sink = call ptr @whole(ptr %to, i64 %to.stride, i64 {i}, ptr %x)
  %{c}.rounds = udiv i64 %{c}.m, {shape.lanes}
  %{c}.begun = mul i64 %{c}.rounds, {shape.lanes}
  %{c}.left = icmp ne i64 %{c}.begun, %{c}.m
  %{c}.more = zext i1 %{c}.left to i64{rest}"""

    def run(name: str, c: str) -> str:
        """Run a loop on chunk `c`: whole rounds, then the rest."""
        rest = {"x": f"{c}.x", "y": f"{c}.x", "t0": f"{c}.t0", "t1": f"{c}.t1"}
        loop = ALONG[name]
        return loop.call(shape, f"%{c}.rounds", x=f"{c}.source", y=f"{c}.sink") + loop.call(
            shape, f"%{c}.more", **rest
        )

    def put(c: str, i: str) -> str:
        return f"\n  call void @put(ptr %to, i64 %to.stride, i64 {i}, i64 %{c}.m, ptr %x)"

    def chunks(label: str, before: str, actions: str) -> str:
        """A pass over the chunks of the row."""
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
        return text + call_step(shape, step, inputs, [f"%{value}" for value in outputs])

    def in_passes(read: str, add: str, write: str) -> str:
        prepare = merged("merge_largest", "prepare", LARGEST, PARAMETERS)
        finish = merged("merge_totals", "finish", TOTAL, DIVISOR)
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
    parameters = "ptr %from, i64 %from.stride, ptr %to, i64 %to.stride, i64 %n"
    return (
        "".join(
            f"""
define internal void @{name}({parameters}) noinline {NO_CALLS} {{
entry:{allocate(shape, chunk, [*LARGEST, *SUM, *TOTAL])}{begin(shape)}{body}
  ret void
}}"""
            for name, body in (("along_once", once), ("along_chunks", by_chunks))
        )
        + f"""
define internal void @along({parameters}) alwaysinline {NO_CALLS} {{
  %once = icmp ule i64 %n, {chunk}
  br i1 %once, label %short, label %long
short:
  call void @along_once(ptr %from, i64 %from.stride, ptr %to, i64 %to.stride, i64 %n)
  ret void
long:
  call void @along_chunks(ptr %from, i64 %from.stride, ptr %to, i64 %to.stride, i64 %n)
  ret void
}}"""
    )
