"""LLVM IR that transposes small matrices by shuffles of whole vectors.

Each row is interleaved with the row half of all rows further down, then each result with the one a
quarter of the rows further down, and so on, until the first elements of all rows come first.
"""

from collections.abc import Sequence

_PART = 128  # bits that shuffles move anywhere on every target


def _shuffle(kind: str, size: int, first: str, second: str, order: Sequence[int]) -> str:
    indices = ", ".join(f"i32 {k}" for k in order)
    vector = f"<{size} x {kind}>"
    return f"shufflevector {vector} {first}, {vector} {second}, <{len(order)} x i32> <{indices}>"


def square(bits: int, size: int) -> str:
    """Load `size` rows of as many integers, a power of two of them, and store the columns.

    The places are those of :func:`rows_to_cells`. A vector wider than 128 bits is loaded in parts
    of different rows, since shuffles that move elements from one part to another take longer.
    """
    in_part = _PART // bits
    if size <= in_part:
        return rows_to_cells(f"i{bits}", size, size)
    kind, text = f"i{bits}", ""
    starts = range(0, size, in_part)
    halves = range(0, in_part, in_part // 2)
    for at in starts:
        vectors = []
        for j in range(in_part):
            parts = []
            for start in starts:
                row, name = f"%row.at.{start + j}", f"%part.{at}.{start + j}"
                text += f"""
  {name}.at = getelementptr {kind}, ptr {row}, i64 {at}
  {name} = load <{in_part} x {kind}>, ptr {name}.at, align 1"""
                parts.append(name)
            length = in_part
            while len(parts) > 1:
                joined = []
                for a, b in zip(parts[::2], parts[1::2], strict=True):
                    joined.append(f"{a}.{2 * length}")
                    text += f"\n  {joined[-1]} = {_shuffle(kind, length, a, b, range(2 * length))}"
                parts, length = joined, 2 * length
            vectors += parts
        groups = [[vector] for vector in vectors]
        while len(groups) > 1:
            half = len(groups) // 2
            merged: list[list[str]] = [[] for _ in range(half)]
            for g in range(half):
                for v, (a, b) in enumerate(zip(groups[g], groups[g + half], strict=True)):
                    for first in halves:
                        name = f"%zip.{at}.{half}.{g}.{v}.{first}"
                        order = [
                            k
                            for start in starts
                            for i in range(start + first, start + first + in_part // 2)
                            for k in (i, size + i)
                        ]
                        merged[g].append(name)
                        text += f"\n  {name} = {_shuffle(kind, size, a, b, order)}"
            groups = merged
        for k, column in enumerate(groups[0]):
            text += f"\n  store <{size} x {kind}> {column}, ptr %cell.at.{at + k}, align 1"
    return text


def rows_to_cells(kind: str, rows: int, width: int) -> str:
    """Load rows, and store each of their elements next to those of the other rows.

    There are `rows` rows of `width` elements, both powers of two, at ``%row.at.0``, ... and
    `width` cells of `rows` elements at ``%cell.at.0``, ...
    """
    text = "".join(
        f"\n  %row.{k} = load <{width} x {kind}>, ptr %row.at.{k}, align 1" for k in range(rows)
    )
    shuffles, cells = interleaved(kind, [f"%row.{k}" for k in range(rows)], width)
    return (
        text
        + shuffles
        + "".join(
            f"\n  store <{rows} x {kind}> {cell}, ptr %cell.at.{k}, align 1"
            for k, cell in enumerate(cells)
        )
    )


def interleaved(kind: str, rows: Sequence[str], width: int) -> tuple[str, list[str]]:
    """IR that makes cells of the vectors `rows` of `width` elements, and the names of the cells."""
    text = ""
    # Each group is one sequence of elements.
    size, groups = width, [[row] for row in rows]
    while len(groups) > 1:
        half = len(groups) // 2
        zipped = [k for i in range(size) for k in (i, size + i)]
        orders = [zipped] if size < len(rows) else [zipped[:size], zipped[size:]]
        merged: list[list[str]] = []
        for g in range(half):
            merged.append([])
            for v, (a, b) in enumerate(zip(groups[g], groups[g + half], strict=True)):
                for o, order in enumerate(orders):
                    name = f"%zip.{half}.{g}.{v}.{o}"
                    merged[-1].append(name)
                    text += f"\n  {name} = {_shuffle(kind, size, a, b, order)}"
        size, groups = len(orders[0]), merged
    if size == len(rows):
        return text, groups[0]
    cells = []
    for v, vector in enumerate(groups[0]):  # of several cells each
        for at in range(0, size, len(rows)):
            cells.append(f"%cell.{v}.{at}")
            part = range(at, at + len(rows))
            text += f"\n  {cells[-1]} = {_shuffle(kind, size, vector, 'poison', part)}"
    return text, cells


def cells_to_rows(kind: str, rows: int, width: int) -> str:
    """Load cells, and store rows: the inverse of :func:`rows_to_cells`."""
    text = "".join(
        f"\n  %cell.{k} = load <{rows} x {kind}>, ptr %cell.at.{k}, align 1" for k in range(width)
    )
    size, groups = rows, [[f"%cell.{k}" for k in range(width)]]
    while len(groups) < rows:
        parts: list[list[list[str]]] = [[], []]
        for half in (0, 1):
            for g, group in enumerate(groups):
                single = len(group) == 1
                pairs = (
                    [(group[0], "poison")] if single else zip(group[::2], group[1::2], strict=True)
                )
                order = range(half, size if single else 2 * size, 2)
                parts[half].append([])
                for v, (a, b) in enumerate(pairs):
                    name = f"%part.{len(groups)}.{half}.{g}.{v}"
                    parts[half][-1].append(name)
                    text += f"\n  {name} = {_shuffle(kind, size, a, b, order)}"
        size, groups = len(order), [*parts[0], *parts[1]]
    return text + "".join(
        f"\n  store <{width} x {kind}> {row}, ptr %row.at.{k}, align 1"
        for k, (row,) in enumerate(groups)
    )
