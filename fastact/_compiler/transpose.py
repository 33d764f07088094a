"""LLVM IR that transposes small matrices by shuffles of whole vectors.

Each row is interleaved with the row half of all rows further down, then each result with the one a
quarter of the rows further down, and so on, until the first elements of all rows come first.
"""

from collections.abc import Sequence


def _shuffle(kind: str, size: int, first: str, second: str, order: Sequence[int]) -> str:
    indices = ", ".join(f"i32 {k}" for k in order)
    vector = f"<{size} x {kind}>"
    return f"shufflevector {vector} {first}, {vector} {second}, <{len(order)} x i32> <{indices}>"


def rows_to_cells(kind: str, rows: int, width: int) -> str:
    """Load rows, and store each of their elements next to those of the other rows.

    There are `rows` rows of `width` elements, both powers of two, at ``%row.at.0``, ... and
    `width` cells of `rows` elements at ``%cell.at.0``, ...
    """
    text = "".join(
        f"\n  %row.{k} = load <{width} x {kind}>, ptr %row.at.{k}, align 1" for k in range(rows)
    )
    # Each group is one sequence of elements.
    size, groups = width, [[f"%row.{k}"] for k in range(rows)]
    while len(groups) > 1:
        half = len(groups) // 2
        zipped = [k for i in range(size) for k in (i, size + i)]
        orders = [zipped] if size < rows else [zipped[:size], zipped[size:]]
        merged: list[list[str]] = []
        for g in range(half):
            merged.append([])
            for v, (a, b) in enumerate(zip(groups[g], groups[g + half], strict=True)):
                for o, order in enumerate(orders):
                    name = f"%zip.{half}.{g}.{v}.{o}"
                    merged[-1].append(name)
                    text += f"\n  {name} = {_shuffle(kind, size, a, b, order)}"
        size, groups = len(orders[0]), merged
    return text + "".join(
        f"\n  store <{rows} x {kind}> {cell}, ptr %cell.at.{k}, align 1"
        for k, cell in enumerate(groups[0])
    )


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
