"""LLVM IR of a function of rows for a group of rows, each in all lanes of a vector.

Merging the lanes of one row is a chain of steps, each with half as many lanes. Instead, the values
of as many rows as there are lanes are transposed, so that every step is taken for all rows.
"""

import dataclasses
from collections.abc import Sequence

from fastact._compiler.loops.lane_loops import DIVISOR, SUM, TERM, TOTAL, Shape, across, along
from fastact._compiler.loops.loop_metadata import NO_CALLS, wide_vectors
from fastact._compiler.loops.row_along_lanes import fetch_ir, fold_ir
from fastact._compiler.transpose import square
from fastact._kernels.row_steps import Source
from fastact._machine.formats import FORMATS, Format

ROWS = ".rows"
"""Follows the names of the functions that are for such groups."""


def _turn_ir(bits: int, shape: Shape) -> str:
    """@turn: transpose the values of every row and lane."""
    kind, lanes = f"i{bits}", shape.lanes
    places = "".join(
        f"""
  %row.at.{k} = getelementptr {kind}, ptr %rows, i64 {k * lanes}
  %cell.at.{k} = getelementptr {kind}, ptr %cells, i64 {k * lanes}"""
        for k in range(lanes)
    )
    return f"""
define internal void @turn(ptr noalias %rows, ptr noalias %cells) noinline \
{wide_vectors(shape.target)} {{{places}{square(bits, lanes)}
  ret void
}}"""


def groups_ir(form: Format, shape: Shape, chunk: int, narrow: str) -> str:
    """@groups: rows of any stride, in groups that fit into the buffers of `chunk` elements.

    `narrow` follows the names of the loops for one row in each lane of `shape`.
    """
    bits = FORMATS[form.compute].bits
    lanes, size, source = shape.lanes, form.itemsize, shape.scheme.results
    compute, storage = shape.compute, shape.storage
    all_lanes = dataclasses.replace(shape, vectors=shape.vectors * lanes)
    loops, in_lanes = along(shape), across(shape)
    add = "add_and_keep_terms" if source is Source.TERMS else "add_terms"
    # The next group arrives in the first level of the cache while terms are computed.
    loops[add] = dataclasses.replace(loops[add], ahead=True)
    last = {Source.TERMS: "divide_terms", Source.ELEMENTS: "subtract"}.get(source)
    names = ["find", "start_sums", add, "collect_sums", *([last] if last else [])]
    of_lanes = [*shape.largest, *SUM, *TOTAL]
    merged = [*shape.largest, *TOTAL]

    # `fold_ir` leaves the values of all rows at the end of twice as much room as there are values.
    count = lanes * lanes
    room, end = 2 * count, 2 * (count - lanes)

    def state() -> str:
        # Transposed values overwrite sums and totals that are not needed any more. So do the
        # largest elements, unless the last value of a row is computed from them too.
        lines = [f"%sums = alloca [{4 * count} x {compute}], align 64"]
        lines += [
            f"%{a} = getelementptr {compute}, ptr %sums, i64 {k * count}"
            for k, a in enumerate([*SUM, *TOTAL])
        ]
        lines += [
            f"%{a} = getelementptr i8, ptr %{there}, i64 0"
            for a, there in zip(
                [*shape.largest, "total.cells", "rest.cells"],
                [*SUM[: len(shape.largest)], "high", "total"],
                strict=True,
            )
        ]
        if shape.finished:
            lines += [f"%{a}.cells = alloca [{room} x {compute}], align 64" for a in shape.largest]
        else:
            lines += [f"%{a}.cells = getelementptr i8, ptr %total, i64 0" for a in shape.largest]
        lines += [f"%{a}.all = getelementptr {compute}, ptr %{a}.cells, i64 {end}" for a in merged]
        lines += [
            f"%{a} = alloca [{lanes} x {compute}], align 64" for a in (*shape.parameters, *DIVISOR)
        ]
        kept = TERM if source is Source.TERMS else []
        lines += [f"%{t} = alloca [{chunk} x {compute}], align 64" for t in kept]
        if shape.together and kept:
            lines.append("%x = getelementptr i8, ptr %t0, i64 0")
        else:
            lines.append(f"%x = alloca [{chunk} x {storage}], align 64")
        return "".join(f"\n  {line}" for line in lines)

    def begin(places: Sequence[str], value: str) -> str:
        values = ", ".join([f"{compute} {value}"] * lanes)
        text = ""
        for place in places:
            for k in range(lanes):
                text += f"""
  %{place}.begin.{k} = getelementptr {compute}, ptr %{place}, i64 {k * lanes}
  store <{lanes} x {compute}> <{values}>, ptr %{place}.begin.{k}, align 64"""
        return text

    def run(name: str) -> str:
        """A loop for the whole rounds of all rows, and for the rests."""
        pitches = dict.fromkeys(of_lanes, str(lanes * bits // 8))
        pitches |= dict.fromkeys(TERM, "%terms.pitch")
        whole = {"x": "%source.pitch", "y": "%sink.pitch"}
        rest = dict.fromkeys(("x", "y"), "%cells.pitch")
        call = loops[name].call_for_rows
        if name in ("start_sums", "collect_sums"):
            return call(shape, ROWS, "%m", "1", pitches, largest="total")
        at = {"x": "source", "y": "sink"}
        after = {t: f"{t}.rest" for t in TERM} | {"x": "x.rest", "y": "x.rest"}
        return call(shape, ROWS, "%m", "%rounds", pitches | whole, "%ahead", **at) + call(
            shape, ROWS, "%m", "%more", pitches | rest, **after
        )

    def merge(name: str, places: Sequence[str]) -> str:
        text = "".join(f"\n  call void @turn(ptr %{a}, ptr %{a}.cells)" for a in places)
        pointers = ", ".join(f"ptr %{a}.cells" for a in places)
        return f"{text}\n  call void @{name}{ROWS}({pointers})"

    def in_each_lane(name: str, **at: str) -> str:
        return in_lanes[name].call(shape, "1", narrow, **{a: f"{a}.all" for a in merged}, **at)

    def copies(name: str, memory: str, after: str) -> str:
        return f"""
  br i1 %{name}.some, label %{name}.rows, label %{after}
{name}.rows:
  br label %{name}
{name}:
  %{name}.k = phi i64 [ 0, %{name}.rows ], [ %{name}.next, %{name} ]
  %{name}.skip = mul i64 %{name}.k, %{memory}.row
  %{name}.at = getelementptr i8, ptr %{memory}.group, i64 %{name}.skip
  %{name}.cell = mul i64 %{name}.k, %room
  %{name}.x = getelementptr {storage}, ptr %x, i64 %{name}.cell
  call void @{name}{ROWS}(ptr %{name}.at, i64 %{memory}.stride, i64 0, i64 %n, ptr %{name}.x)
  %{name}.next = add i64 %{name}.k, 1
  %{name}.again = icmp ult i64 %{name}.next, %m
  br i1 %{name}.again, label %{name}, label %{after}"""

    def side(memory: str, name: str, copy: str) -> str:
        """Where whole rounds are, for either the input or the output."""
        return f"""
  %{memory}.unit = icmp eq i64 %{memory}.stride, {size}
  %{memory}.apart = xor i1 %{memory}.unit, true
  %{copy}.some = or i1 %{memory}.apart, %left
  %{name}.pitch = select i1 %{memory}.unit, i64 %{memory}.row, i64 %cells.pitch"""

    def group(memory: str, name: str) -> str:
        return f"""
  %{memory}.offset = mul i64 %first, %{memory}.row
  %{memory}.group = getelementptr i8, ptr %{memory}, i64 %{memory}.offset
  %{name} = select i1 %{memory}.unit, ptr %{memory}.group, ptr %x"""

    rests = "".join(
        f"\n  %{t}.rest = getelementptr {kind}, ptr %{t}, i64 %whole"
        for t, kind in (("x", storage), *((t, compute) for t in TERM if source is Source.TERMS))
    )
    text = begin(shape.largest, shape.least) + run("find")
    text += merge("merge_largest", shape.largest) + in_each_lane("prepare_all")
    text += run("start_sums") + run(add) + begin(TOTAL, "0.0") + run("collect_sums")
    text += merge("merge_totals", TOTAL) + in_each_lane("finish_all")
    if last:
        text += run(last) + copies("put", "to", "next")
    else:
        text += in_each_lane("give", y="x")
        text += """
  call void @scatter(ptr %x, ptr %to.group, i64 %to.row, i64 %m)
  br label %next"""
    return f"""{"".join(loops[name].define(shape, ROWS, rows=True) for name in names)}\
{fetch_ir(form, shape, chunk, ROWS)}{_turn_ir(bits, shape)}\
{fold_ir(f"merge_largest{ROWS}", "larger", shape.largest, all_lanes, lanes)}\
{fold_ir(f"merge_totals{ROWS}", "merge", TOTAL, all_lanes, lanes)}
define internal void @groups(ptr %from, i64 %from.row, i64 %from.stride, \
ptr %to, i64 %to.row, i64 %to.stride, i64 %rows, i64 %n) noinline {NO_CALLS} {{
entry:{state()}
  %n.up = add i64 %n, {lanes - 1}
  %room = and i64 %n.up, {-lanes}
  %whole = and i64 %n, {-lanes}
  %rounds = udiv i64 %whole, {lanes}
  %left = icmp ne i64 %whole, %n
  %more = zext i1 %left to i64
  %cells.pitch = mul i64 %room, {size}
  %terms.pitch = mul i64 %room, {bits // 8}
  %fit = udiv i64 {chunk}, %room
  %fits = icmp ult i64 %fit, {lanes}
  %most = select i1 %fits, i64 %fit, i64 {lanes}{rests}\
{side("from", "source", "fetch")}{side("to", "sink", "put")}
  br label %group
group:
  %first = phi i64 [ 0, %entry ], [ %first.next, %next ]
  %remain = sub i64 %rows, %first
  %final = icmp ult i64 %remain, %most
  %not.final = icmp ugt i64 %remain, %most
  %m = select i1 %final, i64 %remain, i64 %most{group("from", "source")}{group("to", "sink")}\
{copies("fetch", "from", "compute")}
compute:
  %ahead.some = and i1 %from.unit, %not.final
  %ahead.bytes = mul i64 %m, %from.row
  %ahead = select i1 %ahead.some, i64 %ahead.bytes, i64 0{text}
next:
  %first.next = add i64 %first, %m
  %first.more = icmp ult i64 %first.next, %rows
  br i1 %first.more, label %group, label %done
done:
  ret void
}}"""
