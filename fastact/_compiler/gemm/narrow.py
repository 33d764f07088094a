"""Layers with fewer columns than a vector has lanes: vectors of rows of x instead of columns.

A tile of one narrow vector loads each element of x for one multiply-add with a part of the lanes.
Here, tiles compute the transposed product instead: their vectors are rows of x, transposed into a
panel that stays in the first-level cache, and the elements of W take the place of those of x. The
sums are transposed back when they are finished. Every element is computed by the same operations
in the same order as in the other tiles, so that its bits do not depend on the way.
"""

from math import inf

from llvmlite import ir

from fastact._compiler.builder import Function, Integer
from fastact._compiler.gemm import several_rows
from fastact._compiler.gemm.interface import LINE, Storage, bits_of
from fastact._compiler.gemm.tiles import finished_ir, floor_ir, terms_ir
from fastact._compiler.transpose import interleaved, square
from fastact._machine.formats import Format
from fastact._machine.targets import Target

TILE = "narrow.tile"
"""The name of the function that calls a tile, and the beginning of the names of tiles."""

VECTORS = 2  # of rows at a time
PANEL_DEPTH = 64  # k at a time: two vectors of 64 bytes are 8 KB, with as much again of x


def widest(form: Format, target: Target) -> int:
    """The lanes of a vector of the target."""
    return target.vector_bits // form.bits


def applies(form: Format, lanes: int, target: Target) -> bool:
    """Whether columns fill no vector of the target, and several_rows.py is not for them."""
    return lanes < widest(form, target) and not several_rows.applies(form, lanes, target)


def rows_at_once(
    f: Function, tall: Integer, columns: Integer, form: Format, lanes: int, target: Target
) -> Integer:
    """The rows that are computed together, in whatever way; `tall` if by tiles of W."""
    if several_rows.applies(form, lanes, target):
        return several_rows.rows_at_once(f, columns, form, lanes, target)
    return f.constant(VECTORS * widest(form, target)) if applies(form, lanes, target) else tall


def sizes(form: Format, lanes: int) -> list[tuple[int, int]]:
    """Rows and vectors of the tiles; their rows are the columns of a layer."""
    tallest = lanes if lanes > 1 else 128 // form.bits - 1
    return [(h, VECTORS) for h in range(1, tallest + 1)]


def narrow(
    module: ir.Module, form: Format, lanes: int, target: Target, stored: Storage
) -> Function:
    """narrow(...): compute whole groups of `rows_at_once` rows, without the activation.

    x is contiguous along k and at least as deep as a vector has lanes.
    """
    f = Function(
        module, "narrow", "x", "x.row", "rows", "w", "w.vector", "w.final", "w.k", "depth",
        "columns", "bias", "out", "out.row", "floor",
    )  # fmt: skip
    x, x_row, rows, w, w_vector, w_final, w_k, depth, columns, bias, out, out_row, floor = (
        f.arguments
    )
    size, wide = form.itemsize, widest(form, target)
    width = wide * size
    # A last, overlapping square begins up to a vector before the panel.
    vector_bytes = (PANEL_DEPTH + wide) * width
    room = f.array((VECTORS * vector_bytes + VECTORS * width * wide + LINE) // 8)
    start = (room + (LINE - 1)) // LINE * LINE
    panel, sums = start + wide * width, start + VECTORS * vector_bytes
    sums_row = VECTORS * width
    vectors = (columns + (lanes - 1)) // lanes
    with f.loop(rows, VECTORS * wide) as i:
        with f.loop(depth, PANEL_DEPTH, at_least_once=True) as k:
            deep = f.minimum(depth - k, PANEL_DEPTH)
            for v in range(VECTORS):
                source, sink = x + (i + v * wide) * x_row + k * size, panel + v * vector_bytes

                with f.loop(deep // wide) as q:
                    at = q * wide
                    f.call("narrow.gather", source + at * size, x_row, sink + at * width)
                with f.when((deep % wide).differs(0)):
                    at = deep - wide
                    f.call("narrow.gather", source + at * size, x_row, sink + at * width)
            first = f.select(k.equals(0), 1, 0)
            # The rows of x that come next are fetched while products are computed.
            ahead = x + (i + VECTORS * wide) * x_row + k * (VECTORS * width)
            common = (
                w_k, panel, vector_bytes, (VECTORS - 1) * vector_bytes, width, deep,
            )  # fmt: skip
            final = (first, 0, bits_of(-inf, form), ahead, VECTORS * width)
            # The sums stand in for the bias, which is not added yet.
            last = (VECTORS - 1) * width
            if lanes == 1:
                column = w + k * w_k
                f.call(
                    TILE, columns, VECTORS, column, w_vector, *common,
                    sums, sums, sums_row, last, *final,
                )  # fmt: skip
            else:
                with f.loop(vectors) as p:
                    begin = p * lanes
                    new = f.minimum(columns - begin, lanes)
                    vector = f.select((p + 1).equals(vectors), w_final, p * w_vector)
                    # The last vector begins with columns of the one before it.
                    column = w + vector + (f.constant(lanes) - new) * size + k * w_k
                    into = sums + begin * sums_row
                    f.call(
                        TILE, new, VECTORS, column, size, *common,
                        into, into, sums_row, last, *final,
                    )  # fmt: skip
        with f.loop(vectors) as p:
            begin = f.minimum(p * lanes, columns - lanes)
            for v in range(VECTORS):
                f.call(
                    "narrow.scatter", sums + begin * sums_row + v * width,
                    bias + begin * (size * stored.terms),
                    out + (i + v * wide) * out_row + begin * size, out_row, floor,
                )  # fmt: skip
    f.return_(0)
    return f


def transpositions_ir(form: Format, lanes: int, target: Target, stored: Storage) -> str:
    """The functions that transpose a square of x, and the finished sums of a vector of rows."""
    size, wide = form.itemsize, widest(form, target)
    scalar = "float" if form.bits == 32 else "double"
    vector = f"<{lanes} x {scalar}>"
    gathered = "".join(
        f"""
  %skip.{i} = mul i64 %stride, {i}
  %row.at.{i} = getelementptr i8, ptr %source, i64 %skip.{i}
  %cell.at.{i} = getelementptr i8, ptr %sink, i64 {i * wide * size}"""
        for i in range(wide)
    )
    summed = "".join(
        f"""
  %row.at.{i} = getelementptr i8, ptr %sums, i64 {i * VECTORS * wide * size}
  %row.{i} = load <{wide} x {scalar}>, ptr %row.at.{i}, align {size}"""
        for i in range(lanes)
    )
    shuffles, cells = interleaved(scalar, [f"%row.{i}" for i in range(lanes)], wide)
    finished = "".join(
        f"""
  %skip.{i} = mul i64 %stride, {i}
  %out.{i} = getelementptr i8, ptr %out, i64 %skip.{i}"""
        + finished_ir(str(i), cell, "%bias.0", "%factor.0", form, lanes, target, stored)
        + f"\n  store {vector} %y.{i}, ptr %out.{i}, align {size}"
        for i, cell in enumerate(cells)
    )
    terms = terms_ir("0", "%bias.at", "0", form, lanes, stored)
    return f"""
define i64 @narrow.gather(i64 %from, i64 %stride, i64 %to) noinline {{
  %source = inttoptr i64 %from to ptr
  %sink = inttoptr i64 %to to ptr{gathered}{square(form.bits, wide)}
  ret i64 0
}}
define i64 @narrow.scatter(i64 %from, i64 %bias, i64 %to, i64 %stride, i64 %floor) noinline {{
  %sums = inttoptr i64 %from to ptr
  %out = inttoptr i64 %to to ptr
  %bias.at = inttoptr i64 %bias to ptr{floor_ir(form, lanes)}{summed}{shuffles}
{terms}{finished}
  ret i64 0
}}"""
