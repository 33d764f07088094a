"""Layers with fewer columns than a vector has lanes: tiles whose vectors hold several rows.

A tile of one narrow vector loads each element of x for one multiply-add with a part of the lanes.
Here, each 128-bit part of a vector belongs to a row of its own. One shuffle within the parts
repeats an element of each row, for the multiply-adds with all columns. Elements are computed by the
same operations in the same order as in the other tiles, so that their bits do not depend on the
way.
"""

from llvmlite import ir

from fastact._compiler.builder import Function, Integer
from fastact._compiler.gemm.interface import LINE, Storage
from fastact._compiler.gemm.tiles import (
    SCALARS,
    finished_ir,
    floor_ir,
    multiply_add,
    terms_ir,
)
from fastact._compiler.loops.loop_metadata import wide_vectors
from fastact._machine.formats import Format
from fastact._machine.targets import Target

TILE = "rows.tile"
"""The beginning of the names of tiles."""

_PART = 128  # bits, within which every shuffle is fast

# The most accumulators, by the width of vectors: elements of x and parts of W also need registers.
_ACCUMULATORS = {512: 18, 256: 9}
_MOST = 6  # vectors of rows; 8 are no faster (bench/NOTES.md)


def applies(form: Format, lanes: int, target: Target) -> bool:
    """Whether `lanes` columns are one part of a vector or several, and this way is fastest.

    In float64, a shuffle serves too few multiply-adds; transposing x is faster (bench/NOTES.md).
    """
    return form.bits == 32 and part_of(form) <= lanes < target.vector_bits // form.bits


def tile_names(form: Format, lanes: int) -> list[str]:
    return [f"{TILE}.{parts}" for parts in possible_parts(form, lanes)]


def part_of(form: Format) -> int:
    """The lanes of a part."""
    return _PART // form.bits


def groups_of(parts: int, target: Target) -> int:
    """The vectors of rows of a tile for `parts` parts of columns."""
    return min(_MOST, _ACCUMULATORS[target.vector_bits] // parts)


def rows_of(parts: int, target: Target) -> int:
    """The rows of a tile for `parts` parts of columns."""
    return groups_of(parts, target) * (target.vector_bits // _PART)


def rows_at_once(
    f: Function, columns: Integer, form: Format, lanes: int, target: Target
) -> Integer:
    """The rows of the tile for so many columns."""
    rows = f.constant(1)
    for parts in possible_parts(form, lanes):
        chosen = columns > (parts - 1) * part_of(form)
        rows = f.select(chosen, rows_of(parts, target), rows)
    return rows


def possible_parts(form: Format, lanes: int) -> range:
    """The numbers of parts for columns that fill a vector of `lanes` lanes, but not two."""
    return range(lanes // part_of(form), 2 * lanes // part_of(form) + 1)


def several_rows(module: ir.Module, form: Format, lanes: int, target: Target) -> Function:
    """several_rows(...): compute as many whole tiles as there are, and return their rows.

    x is contiguous along k. The activation is not applied.
    """
    f = Function(
        module, "several.rows", "x", "x.row", "rows", "w", "w.final", "w.k", "depth", "columns",
        "bias", "out", "out.row", "floor",
    )  # fmt: skip
    x, x_row, rows, w, w_final, w_k, depth, columns, bias, out, out_row, floor = f.arguments
    size, part = form.itemsize, part_of(form)
    for parts in possible_parts(form, lanes):
        many = rows_of(parts, target)
        # The last part begins with columns of the one before it, and so does the last vector of W.
        starts = [f.minimum(f.constant(j * part), columns - part) for j in range(parts)]
        places = [
            f.select(
                start < lanes - part + 1, start * size, w_final + (start - columns + lanes) * size
            )
            for start in starts
        ]
        with f.when(((columns + (part - 1)) // part).equals(parts)):
            whole = rows // many * many
            with f.loop(whole, many) as i:
                f.call(
                    f"{TILE}.{parts}", x + i * x_row, x_row, w, *places, w_k, depth,
                    bias, out + i * out_row, out_row, (columns - part) * size, floor,
                )  # fmt: skip
            f.return_(whole)
    f.return_(0)
    return f


def tiles_ir(form: Format, lanes: int, target: Target, stored: Storage) -> str:
    """The tiles for columns that fill a vector of `lanes` lanes, but not two."""
    return "".join(_tile_ir(form, parts, target, stored) for parts in possible_parts(form, lanes))


def _tile_ir(form: Format, parts: int, target: Target, stored: Storage) -> str:
    """A loop over as many k as a part has lanes, and one over each k that remains."""
    scalar, suffix = SCALARS[form.name]
    part, size, lanes = part_of(form), form.itemsize, target.vector_bits // form.bits
    vector, narrow = f"<{lanes} x {scalar}>", f"<{part} x {scalar}>"
    groups, columns, in_vector = groups_of(parts, target), range(parts), lanes // part
    rows = range(groups * in_vector)
    grid = [(i, j) for i in range(groups) for j in columns]

    def shuffle(length: int, a: str, b: str, order: list[int]) -> str:
        kind, indices = f"<{length} x {scalar}>", ", ".join(f"i32 {k}" for k in order)
        return f"shufflevector {kind} {a}, {kind} {b}, <{len(order)} x i32> <{indices}>"

    every_row = [lane % part for lane in range(lanes)]

    def products(before: str, after: str, w_at: str) -> str:
        """Add the products of one k to the sums named `before`."""
        text = ""
        for j in columns:
            name = f"{j}.{after}"
            text += f"""
  %w.at.{name} = getelementptr i8, ptr %w.{j}, i64 {w_at}
  %w.part.{name} = load {narrow}, ptr %w.at.{name}, align {size}
  %wv.{name} = {shuffle(part, f"%w.part.{name}", "poison", every_row)}"""
        for i, j in grid:
            text += multiply_add(
                f"%{after}.{i}.{j}", f"%{before}.{i}.{j}", f"%xv.{i}.{after}", f"%wv.{j}.{after}",
                f"{i}.{j}.{after}", vector, suffix, lanes, target,
            )  # fmt: skip
        return text

    def phis(name: str, *sources: str) -> str:
        return "".join(
            f"\n  %{name}.{i}.{j} = phi {vector} "
            + ", ".join(source.replace("PLACE", f"{i}.{j}") for source in sources)
            for i, j in grid
        )

    starts = "".join(
        f"""
  %x.skip.{r} = mul i64 %x.row, {r}
  %x.start.{r} = add i64 %x, %x.skip.{r}
  %x.{r} = inttoptr i64 %x.start.{r} to ptr"""
        for r in rows
    ) + "".join(
        f"""
  %w.start.{j} = add i64 %w, %w.place.{j}
  %w.{j} = inttoptr i64 %w.start.{j} to ptr"""
        for j in columns
    )
    loaded = "".join(
        f"""
  %x.at.{r} = getelementptr i8, ptr %x.{r}, i64 %at
  %x.part.{r} = load {narrow}, ptr %x.at.{r}, align {size}"""
        for r in rows
    )
    for i in range(groups):
        joined = [f"%x.part.{i * in_vector + r}" for r in range(in_vector)]
        length = part
        while len(joined) > 1:
            pairs, joined = list(zip(joined[::2], joined[1::2], strict=True)), []
            for a, b in pairs:
                joined.append(f"{a}.{2 * length}")
                loaded += f"\n  {joined[-1]} = {shuffle(length, a, b, list(range(2 * length)))}"
            length *= 2
        for k in range(part):
            repeated = [lane // part * part + k for lane in range(lanes)]
            loaded += f"\n  %xv.{i}.s{k} = {shuffle(lanes, joined[0], 'poison', repeated)}"
    # The rows that come next are fetched meanwhile. They follow, unless rows are far apart.
    step = len(rows) * part * size
    ahead = f"""
  %ahead.skip = mul i64 %at, {len(rows)}
  %ahead.start = add i64 %x.next, %ahead.skip
  %ahead = inttoptr i64 %ahead.start to ptr""" + "".join(
        f"""
  %ahead.{line} = getelementptr i8, ptr %ahead, i64 {line}
  call void @llvm.prefetch.p0(ptr %ahead.{line}, i32 0, i32 3, i32 1)"""
        for line in range(0, step, LINE)
    )
    steps = "".join(
        f"\n  %w.at.{k + 1} = add i64 %w.at.{k}, %w.k"
        + products(f"s{k - 1}" if k else "acc", f"s{k}", f"%w.at.{k}")
        for k in range(part)
    )
    single = ""
    for i in range(groups):
        name = "poison"
        for r in range(in_vector):
            row = i * in_vector + r
            single += f"""
  %x.left.at.{row} = getelementptr i8, ptr %x.{row}, i64 %at.left
  %x.left.{row} = load {scalar}, ptr %x.left.at.{row}, align {size}
  %x.one.{row} = insertelement <{in_vector} x {scalar}> {name}, {scalar} %x.left.{row}, i64 {r}"""
            name = f"%x.one.{row}"
        repeated = [lane // part for lane in range(lanes)]
        single += f"\n  %xv.{i}.more = {shuffle(in_vector, name, 'poison', repeated)}"
    finish = ""
    for j in columns:
        at = "%out.last" if j == parts - 1 else str(j * part * size)
        finish += terms_ir(str(j), "%bias.p", at, form, part, stored) + "".join(
            f"\n  %{b}.{j} = {shuffle(part, f'%{name}.{j}', 'poison', every_row)}"
            for b, name in (("b", "bias"), ("f", "factor"))[: stored.terms]
        )
    for i, j in grid:
        at = "%out.last" if j == parts - 1 else str(j * part * size)
        finish += finished_ir(
            f"{i}.{j}", f"%dot.{i}.{j}", f"%b.{j}", f"%f.{j}", form, lanes, target, stored
        )
        for r in range(in_vector):
            row, name = i * in_vector + r, f"{i * in_vector + r}.{j}"
            own = list(range(r * part, (r + 1) * part))
            finish += f"""
  %out.skip.{name} = mul i64 %out.row, {row}
  %out.start.{name} = add i64 %out, %out.skip.{name}
  %out.row.{name} = inttoptr i64 %out.start.{name} to ptr
  %out.at.{name} = getelementptr i8, ptr %out.row.{name}, i64 {at}
  %y.part.{name} = {shuffle(lanes, f"%y.{i}.{j}", "poison", own)}
  store {narrow} %y.part.{name}, ptr %out.at.{name}, align {size}"""
    places = "".join(f", i64 %w.place.{j}" for j in columns)
    attributes = f'{wide_vectors(target)} "min-legal-vector-width"="{target.vector_bits}"'
    return f"""
define i64 @{TILE}.{parts}(i64 %x, i64 %x.row, i64 %w{places}, i64 %w.k, i64 %depth, i64 %bias,
    i64 %out, i64 %out.row, i64 %out.last, i64 %floor) {attributes} {{
entry:{starts}{floor_ir(form, lanes)}
  %next.skip = mul i64 %x.row, {len(rows)}
  %x.next = add i64 %x, %next.skip
  %bias.p = inttoptr i64 %bias to ptr
  %remaining = and i64 %depth, {part - 1}
  %whole = sub i64 %depth, %remaining
  %end = mul i64 %whole, {size}
  %any = icmp ne i64 %end, 0
  br i1 %any, label %body, label %after
body:
  %at = phi i64 [ 0, %entry ], [ %at.next, %body ]
  %w.at.0 = phi i64 [ 0, %entry ], [ %w.at.{part}, %body ]{
        phis("acc", "[ zeroinitializer, %entry ]", f"[ %s{part - 1}.PLACE, %body ]")
    }{ahead}{loaded}{steps}
  %at.next = add i64 %at, {part * size}
  %more = icmp ne i64 %at.next, %end
  br i1 %more, label %body, label %after
after:
  %w.after = phi i64 [ 0, %entry ], [ %w.at.{part}, %body ]{
        phis("sum", "[ zeroinitializer, %entry ]", f"[ %s{part - 1}.PLACE, %body ]")
    }
  %some = icmp ne i64 %remaining, 0
  br i1 %some, label %rest, label %finish
rest:
  %left = phi i64 [ %remaining, %after ], [ %less, %rest ]
  %at.left = phi i64 [ %end, %after ], [ %at.left.next, %rest ]
  %w.left = phi i64 [ %w.after, %after ], [ %w.left.next, %rest ]{
        phis("old", "[ %sum.PLACE, %after ]", "[ %more.PLACE, %rest ]")
    }{single}{products("old", "more", "%w.left")}
  %w.left.next = add i64 %w.left, %w.k
  %at.left.next = add i64 %at.left, {size}
  %less = sub nuw i64 %left, 1
  %again = icmp ne i64 %less, 0
  br i1 %again, label %rest, label %finish
finish:{phis("dot", "[ %sum.PLACE, %after ]", "[ %more.PLACE, %rest ]")}{finish}
  ret i64 0
}}"""
