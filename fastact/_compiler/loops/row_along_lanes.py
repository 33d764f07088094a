"""LLVM IR of a function of rows for one row in all lanes, chunk by chunk."""

from collections.abc import Sequence

from fastact._compiler.loops.lane_loops import (
    DIVISOR,
    KEPT_TERM,
    SUM,
    TERM,
    TOTAL,
    Shape,
    allocate,
    along,
    begin,
    call_step,
)
from fastact._compiler.loops.loop_metadata import NO_CALLS, wide_vectors
from fastact._kernels.row_steps import Source
from fastact._machine.formats import Format

# The chunks of a row whose terms are kept: the first factors here, of 8 or 16 bits each, and the
# others in the output.
KEPT = 4

# The rows whose passes take turns, as far as they fit into the buffers, so that merging the lanes
# of a row does not wait for the row before.
GROUP = 16


def fold_ir(name: str, step: str, places: Sequence[str], shape: Shape, remain: int = 1) -> str:
    """@NAME: merge the values of all lanes by halves, until as many as `remain` are left.

    One is returned, and computed in copies of the places, which LLVM keeps in registers: a row of
    512 elements took 20 ns more when every half was stored and loaded. Several begin in each place
    at element 2 (lanes - `remain`).

    Results are stored after the lanes: a store to the place that was read would become a masked
    store, which cannot be forwarded to a load.
    """
    kind, results = shape.compute, f"[{len(places)} x {shape.compute}]"
    body, before, start, width = "", "entry", 0, shape.lanes
    while width > remain:
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
            vector = min(width, shape.vector)
            metadata = shape.notes.vectorised(vector, width // vector, unrolled=False)
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
    for k, place in enumerate(places if remain == 1 else ()):
        body += f"""
  %end.{place} = getelementptr inbounds {kind}, ptr %{place}, i64 {start}
  %value.{place} = load {kind}, ptr %end.{place}, align 4
  %result.{k} = insertvalue {results} {result}, {kind} %value.{place}, {k}"""
        result = f"%result.{k}"
    copies, lanes = "", f"<{shape.vector} x {kind}>"
    for place in places if remain == 1 else ():
        copies += f"\n  %{place} = alloca [{2 * shape.lanes} x {kind}], align 64"
        for k in range(0, shape.lanes, shape.vector):
            copies += f"""
  %{place}.from.{k} = getelementptr inbounds {kind}, ptr %{place}.lanes, i64 {k}
  %{place}.to.{k} = getelementptr inbounds {kind}, ptr %{place}, i64 {k}
  %{place}.vector.{k} = load {lanes}, ptr %{place}.from.{k}, align 4
  store {lanes} %{place}.vector.{k}, ptr %{place}.to.{k}, align 4"""
    suffix = ".lanes" if remain == 1 else ""
    pointers = ", ".join(f"ptr noalias %{place}{suffix}" for place in places)
    return f"""
define internal {results} @{name}({pointers}) noinline {wide_vectors(shape.target)} {{
entry:{copies}{body}
  ret {results} {result}
}}"""


def padding_ir(form: Format, shape: Shape, count: int) -> str:
    """The infinity that is larger than no element, `count` times, as in memory."""
    if shape.padding < 0:
        infinity = {"half": "0xHFC00", "i16": -128 if form.kind == "bfloat" else -1024}
    else:
        infinity = {"half": "0xH7C00", "i16": 0x7F80 if form.kind == "bfloat" else 0x7C00}
    return ", ".join([f"{shape.storage} {infinity.get(shape.storage, shape.least)}"] * count)


def fetch_ir(form: Format, shape: Shape, chunk: int, suffix: str = "") -> str:
    """@fetch and @put: read and write a chunk of a row, in whole rounds and a rest.

    A `suffix` follows the names of these functions and of their helpers.
    Whole rounds of unit stride are not copied. All other elements are copied to their places in
    the buffer, where the rest is padded with an infinity that is larger than no element and has
    terms of 0. Results are copied back in the same way.
    """
    storage, lanes = shape.storage, shape.lanes
    padding = padding_ir(form, shape, lanes)
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
define internal i64 @length{suffix}(i64 %n, i64 %i) alwaysinline {{
  %left = sub i64 %n, %i
  %final = icmp ult i64 %left, {chunk}
  %m = select i1 %final, i64 %left, i64 {chunk}
  ret i64 %m
}}
define internal ptr @whole{suffix}(ptr %memory, i64 %stride, i64 %i, ptr %x) alwaysinline {{{place}
  %unit = icmp eq i64 %stride, {form.itemsize}
  %where = select i1 %unit, ptr %at, ptr %x
  ret ptr %where
}}
define internal void @fetch{suffix}(ptr %memory, i64 %stride, i64 %i, i64 %m, ptr %x) \
{NO_CALLS} {{{place}{buffered}
  %last.up = sub i64 %m, 1
  %last = and i64 %last.up, {-lanes}
  %end = getelementptr {storage}, ptr %x, i64 %last
  store <{lanes} x {storage}> <{padding}>, ptr %end, align 1
  call void @gather(ptr %there, ptr %cells, i64 %stride, i64 %count)
  br label %done
done:
  ret void
}}
define internal void @put{suffix}(ptr %memory, i64 %stride, i64 %i, i64 %m, ptr %x) \
{NO_CALLS} {{{place}{buffered}
  call void @scatter(ptr %cells, ptr %there, i64 %stride, i64 %count)
  br label %done
done:
  ret void
}}"""


def along_ir(shape: Shape, chunk: int) -> str:
    """@along_short: a few rows that fit into the buffers together. @along: one longer row.

    @together is the number of rows of `%n` elements for @along_short.
    """
    loops, source = along(shape), shape.scheme.results
    largest, parameters, finished = shape.largest, shape.parameters, shape.finished

    def part(c: str, i: str, kept: bool = False) -> str:
        """Define the values of chunk `c`, which begins at element `i`.

        If the terms of all chunks are `kept`, the chunk has its own part of the buffer of
        exponents. The other factors are in the output, except those of a last round for which it
        has no room. Input and output are contiguous then, and only the last round is in the buffer.
        """
        rest = "".join(
            f"""
  %{c}.{name}.rest = getelementptr {shape.kind(name)}, ptr %{at}, i64 \
{0 if kept and name != "s0" else f"%{c}.begun"}"""
            for name, at in (("x", "x"), ("t0", "t0"), ("s0", f"{c}.s0"))
            if kept or name != "s0"
        )
        exponents = f"""
  %{c}.s0 = getelementptr {shape.exponent}, ptr %s0, i64 {i}"""
        # Only the rest is in the buffer.
        before = f"""
  %{c}.back = sub i64 0, %{c}.begun
  %{c}.x = getelementptr {shape.storage}, ptr %x, i64 %{c}.back"""
        return f"""{exponents if kept else ""}
  %{c}.m = call i64 @length(i64 %n, i64 {i})
  %{c}.source = call ptr @whole(ptr %from, i64 %from.stride, i64 {i}, ptr %x)
  %{c}.sink = call ptr @whole(ptr %to, i64 %to.stride, i64 {i}, ptr %x)
  %{c}.rounds = udiv i64 %{c}.m, {shape.lanes}
  %{c}.begun = mul i64 %{c}.rounds, {shape.lanes}
  %{c}.left = icmp ne i64 %{c}.begun, %{c}.m
  %{c}.more = zext i1 %{c}.left to i64{before if kept else ""}{rest}
  %{c}.t1.rest = getelementptr {shape.compute}, ptr %t1, i64 {0 if kept else f"%{c}.begun"}"""

    def fetch(c: str, i: str, kept: bool = False) -> str:
        return f"""
  call void @fetch(ptr %from, i64 %from.stride, i64 {i}, i64 %{c}.m, \
ptr %{f"{c}.x" if kept else "x"})"""

    def run(name: str, c: str, kept: bool = False) -> str:
        """Run a loop on chunk `c`: whole rounds, then the rest."""
        loop = loops[name]
        places = KEPT_TERM if kept else TERM
        rest = {"x": f"{c}.x.rest", "y": f"{c}.x.rest"} | {t: f"{c}.{t}.rest" for t in places}
        whole = {"x": f"{c}.source", "y": f"{c}.sink"}
        if kept:
            whole |= {"s0": f"{c}.s0", "t1": f"{c}.sink"}
        if loop.ahead:
            whole |= {"ahead": "%ahead"}
        return loop.call(shape, f"%{c}.rounds", **whole) + loop.call(shape, f"%{c}.more", **rest)

    def put(c: str, i: str, kept: bool = False) -> str:
        return f"""
  call void @put(ptr %to, i64 %to.stride, i64 {i}, i64 %{c}.m, \
ptr %{f"{c}.x" if kept else "x"})"""

    def chunks(label: str, before: str, actions: str, kept: bool = False) -> str:
        """A pass over the chunks of the row."""
        return f"""
  br label %{label}
{label}:
  %{label}.i = phi i64 [ 0, %{before} ], [ %{label}.next, %{label} ]\
{part(label, f"%{label}.i", kept)}{actions}
  %{label}.next = add i64 %{label}.i, {chunk}
  %{label}.again = icmp ult i64 %{label}.next, %n
  br i1 %{label}.again, label %{label}, label %{label}.done
{label}.done:"""

    def merged(
        name: str,
        step: str,
        places: Sequence[str],
        outputs: Sequence[str],
        known: Sequence[str] = (),
    ) -> str:
        """Merge the lanes, and take a step with the result, and with values merged before."""
        results = f"[{len(places)} x {shape.compute}]"
        pointers = ", ".join(f"ptr %{place}" for place in places)
        text = f"\n  %all.{name} = call {results} @{name}({pointers})"
        for k, place in enumerate(places):
            text += f"\n  %one.{place} = extractvalue {results} %all.{name}, {k}"
        inputs = [f"%one.{place}" for place in (*places, *known)]
        return text + call_step(shape, step, inputs, [f"%{value}" for value in outputs])

    def finish(values: Sequence[str]) -> str:
        """The last value of a row; its only result, if it has one."""
        text = merged("merge_totals", "finish", TOTAL, DIVISOR, values)
        if source is not Source.NOTHING:
            return text
        return f"""{text}{call_step(shape, "result", [f"%{q}" for q in DIVISOR], ["%y"])}
  %encoded = call {shape.storage} @encode({shape.compute} %y)
  store {shape.storage} %encoded, ptr %to, align 1"""

    def in_passes(read: str, add: str, write: str) -> str:
        prepare = merged("merge_largest", "prepare", largest, parameters)
        return f"{read}{prepare}{add}{finish(finished)}{write}"

    start, collect = loops["start_sums"].call(shape), loops["collect_sums"].call(shape)
    find = chunks("find", "entry", fetch("find", "%find.i") + run("find", "find"))
    add = chunks(
        "add", "find.done", fetch("add", "%add.i") + start + run("add_terms", "add") + collect
    )
    give = ""
    if source is not Source.NOTHING:
        again = "divide" if source is Source.TERMS else "subtract"
        give = chunks(
            "put", "add.done", fetch("put", "%put.i") + run(again, "put") + put("put", "%put.i")
        )
    by_chunks = in_passes(find, add, give)
    most = KEPT * chunk
    bodies = {"along_chunks": (by_chunks, {"t0": chunk, "t1": chunk})}
    keeps = shape.together and source is Source.TERMS
    if keeps:
        keep = fetch("add", "%add.i", True) + start
        keep += run("add_and_keep_exponents", "add", True) + collect
        divide = run("divide_exponents", "put", True) + put("put", "%put.i", True)
        kept = in_passes(
            chunks(
                "find", "entry", fetch("find", "%find.i", True) + run("find", "find", True), True
            ),
            chunks("add", "find.done", keep, True),
            chunks("put", "add.done", divide, True),
        )
        rooms = {"t0": shape.lanes, "t1": shape.lanes, "s0": most}
        bodies = {"along_kept": (kept, rooms)} | bodies
    state = [*largest, *SUM, *TOTAL]
    size = {"float": 4, "double": 8}[shape.compute]
    row = "ptr %from, i64 %from.stride, ptr %to, i64 %to.stride, i64 %n"
    longer = f"{row}, i64 %ahead"
    functions = "".join(
        f"""
define internal void @{name}({longer}) noinline {NO_CALLS} {{
entry:{allocate(shape, rooms, state)}{begin(shape, state)}{body}
  ret void
}}"""
        for name, (body, rooms) in bodies.items()
    )

    def step(name: str, places: Sequence[str], body: str) -> str:
        """@short.NAME: a pass over one row of a group, whose values are at %kept."""
        lanes = "".join(
            f"\n  %{a} = alloca [{2 * shape.lanes} x {shape.compute}], align 64" for a in places
        )
        return f"""
define internal void @short.{name}({row}, ptr %x, ptr %t0, ptr %t1, ptr %kept) \
alwaysinline {{
entry:{lanes}{begin(shape, places)}{part("all", "0")}{body}
  ret void
}}"""

    value_of = {place: f"one.{place}" for place in largest}

    def keep_values(places: Sequence[str]) -> str:
        return "".join(
            f"""
  %{place}.kept = getelementptr {shape.compute}, ptr %kept, i64 {k}
  store {shape.compute} %{value_of.get(place, place)}, ptr %{place}.kept"""
            for k, place in enumerate(places)
        )

    def kept_values(places: Sequence[str]) -> str:
        return "".join(
            f"""
  %{place}.kept = getelementptr {shape.compute}, ptr %kept, i64 {k}
  %{value_of.get(place, place)} = load {shape.compute}, ptr %{place}.kept"""
            for k, place in enumerate(places)
        )

    of_row = [*parameters, *finished]
    add_all = "add_and_keep_terms" if source is Source.TERMS else "add_terms"
    find = fetch("all", "0") + run("find", "all")
    find += merged("merge_largest", "prepare", largest, parameters) + keep_values(of_row)
    add = kept_values(of_row) + start + run(add_all, "all") + collect + finish(finished)
    steps = {"find": (largest, find), "add": ([*largest, *SUM, *TOTAL], add)}
    if source is not Source.NOTHING:
        steps["add"] = (steps["add"][0], add + keep_values(DIVISOR))
        last = "divide_terms" if source is Source.TERMS else "subtract"
        steps["divide"] = ([], kept_values(DIVISOR) + run(last, "all") + put("all", "0"))

    def rows(name: str, before: str) -> str:
        """A pass over the rows of a group."""
        at = "".join(
            f"""
  %{name}.{memory}.skip = mul i64 %{name}.k, %{memory}.row
  %{name}.{memory} = getelementptr i8, ptr %{memory}, i64 %{name}.{memory}.skip"""
            for memory in ("from", "to")
        )
        at += "".join(
            f"""
  %{name}.{place} = getelementptr {kind}, ptr %{place}, i64 %{name}.{index}"""
            for place, kind, index in (
                ("x", shape.storage, "cells"),
                ("t0", shape.compute, "cells"),
                ("t1", shape.compute, "cells"),
                ("kept", shape.compute, "values"),
            )
        )
        return f"""
  br label %{name}
{name}:
  %{name}.k = phi i64 [ 0, %{before} ], [ %{name}.next, %{name} ]
  %{name}.cells = mul i64 %{name}.k, %room
  %{name}.values = mul i64 %{name}.k, {len(of_row)}{at}
  call void @short.{name}(ptr %{name}.from, i64 %from.stride, ptr %{name}.to, i64 %to.stride, \
i64 %n, ptr %{name}.x, ptr %{name}.t0, ptr %{name}.t1, ptr %{name}.kept)
  %{name}.next = add i64 %{name}.k, 1
  %{name}.more = icmp ult i64 %{name}.next, %rows
  br i1 %{name}.more, label %{name}, label %{name}.done
{name}.done:"""

    before = ["entry", *(f"{name}.done" for name in steps)]
    once = "".join(rows(name, label) for name, label in zip(steps, before, strict=False))
    passes = "".join(step(name, *of_step) for name, of_step in steps.items())
    group = "ptr %from, i64 %from.row, i64 %from.stride, ptr %to, i64 %to.row, i64 %to.stride"
    return f"""declare void @llvm.prefetch.p0(ptr, i32, i32, i32)
{functions}{passes}
define internal i64 @room(i64 %n) alwaysinline {{
  %n.up = add i64 %n, {shape.lanes - 1}
  %room = and i64 %n.up, {-shape.lanes}
  ret i64 %room
}}
define internal i64 @together(i64 %n) alwaysinline {{
  %room = call i64 @room(i64 %n)
  %fit = udiv i64 {chunk}, %room
  %fits = icmp ult i64 %fit, {GROUP}
  %count = select i1 %fits, i64 %fit, i64 {GROUP}
  ret i64 %count
}}
define internal void @along_short({group}, i64 %rows, i64 %n) noinline {NO_CALLS} {{
entry:{allocate(shape, {"t0": chunk, "t1": chunk}, [])}
  %kept = alloca [{len(of_row) * GROUP} x {shape.compute}]
  %room = call i64 @room(i64 %n){once}
  ret void
}}
define internal void @along({longer}) alwaysinline {NO_CALLS} {{
  %fits = icmp ule i64 %n, {most if keeps else 0}
  %from.unit = icmp eq i64 %from.stride, {size}
  %to.unit = icmp eq i64 %to.stride, {size}
  %unit = and i1 %from.unit, %to.unit
  %keep = and i1 %fits, %unit
  br i1 %keep, label %middle, label %longest
middle:
  call void @{"along_kept" if keeps else "along_chunks"}({longer})
  ret void
longest:
  call void @along_chunks({longer})
  ret void
}}"""
