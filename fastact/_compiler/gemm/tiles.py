"""LLVM IR of register tiles: a few rows of x times a few vectors of columns of W.

A tile keeps ``rows * vectors`` accumulators in registers and adds the products in the order
of k, one fma each, so that the value of an element does not depend on its tile. It knows
neither packing nor activations: every operand comes with its strides, in bytes.
"""

from collections.abc import Iterable

from fastact._compiler.loops.loop_metadata import wide_vectors
from fastact._machine.formats import Format
from fastact._machine.targets import Target

PARAMETERS = (
    "ptr %x, i64 %x.row, i64 %x.k, "
    "ptr %w, i64 %w.vector, i64 %w.last, i64 %w.k, i64 %depth, "
    "ptr %bias, ptr %c, i64 %c.row, i64 %c.last, i64 %first, i64 %final"
)
"""The parameters of every tile.

x
    First element; strides between rows and along k.
w
    First element; stride between vectors, offset of the last one, stride along k. If the number
    of columns is ragged, the last vector overlaps the one before it, and their common columns
    are computed twice, to the same bits.
depth
    The number of k.
bias, c
    Vectors of the bias and of the output lie next to each other, except the last one, at `c.last`.
first, final
    Whether to start from 0 instead of what is in `c`; whether to add the bias at the end.
"""

_SCALARS = {"float32": ("float", "f32"), "float64": ("double", "f64")}


def tile_name(rows: int, vectors: int) -> str:
    return f"tile.{rows}.{vectors}"


def tile_ir(form: Format, rows: int, vectors: int, lanes: int, target: Target) -> str:
    """The function `tile_name(rows, vectors)`, in a form that needs no further optimisation."""
    scalar, suffix = _SCALARS[form.name]
    vector = f"<{lanes} x {scalar}>"
    size, width = form.itemsize, lanes * form.itemsize
    attributes = f'{wide_vectors(target)} "min-legal-vector-width"="{target.vector_bits}"'
    heads, columns = range(rows), range(vectors)
    grid = [(i, j) for i in heads for j in columns]

    def each(text: str, over: Iterable[tuple[int, int]]) -> str:
        return "".join(text.format(i=i, j=j, vector=vector, size=size) for i, j in over)

    def load(value: str, kind: str, base: str, offset: str) -> str:
        return f"""
  {value}.p = getelementptr i8, ptr {base}, i64 {offset}
  {value} = load {kind}, ptr {value}.p, align {size}"""

    row_starts = "".join(
        f"""
  %x.offset.{i} = mul i64 %x.row, {i}
  %x.{i} = getelementptr i8, ptr %x, i64 %x.offset.{i}
  %c.offset.{i} = mul i64 %c.row, {i}
  %c.{i} = getelementptr i8, ptr %c, i64 %c.offset.{i}"""
        for i in heads
    )
    # Offsets in bytes: from the first column, and from the first vector of W.
    column = [*(str(j * width) for j in columns[:-1]), "%c.last"]
    vector_starts = "".join(
        f"""
  %w.step.{j} = mul i64 %w.vector, {j}
  %w.{j} = getelementptr i8, ptr %w, i64 {"%w.last" if j == columns[-1] else f"%w.step.{j}"}"""
        for j in columns
    )
    places = "".join(
        f"\n  %c.{i}.{j} = getelementptr i8, ptr %c.{i}, i64 {column[j]}" for i, j in grid
    )
    products = "".join(load(f"%wv.{j}", vector, f"%w.{j}", "%w.at") for j in columns)
    for i in heads:
        products += load(f"%xs.{i}", scalar, f"%x.{i}", "%x.at")
        products += f"""
  %xi.{i} = insertelement {vector} poison, {scalar} %xs.{i}, i64 0
  %xv.{i} = shufflevector {vector} %xi.{i}, {vector} poison, <{lanes} x i32> zeroinitializer"""
        for j in columns:
            products += _multiply_add(f"{i}.{j}", vector, f"v{lanes}{suffix}", target)
    # Adding -0 changes nothing; adding 0 would turn a partial sum of -0 into 0.
    nothing = f"<{', '.join([f'{scalar} -0.0'] * lanes)}>"
    ends = "".join(
        load(f"%bias.{j}", vector, "%bias", column[j])
        + f"\n  %b.{j} = select i1 %adds, {vector} %bias.{j}, {vector} {nothing}"
        for j in columns
    )
    return f"""
define void @{tile_name(rows, vectors)}({PARAMETERS}) {attributes} {{
entry:{row_starts}{vector_starts}{places}
  %starts = icmp ne i64 %first, 0
  %adds = icmp ne i64 %final, 0
  br i1 %starts, label %start, label %resume
resume:{
        each(
            '''
  %old.{i}.{j} = load {vector}, ptr %c.{i}.{j}, align {size}''',
            grid,
        )
    }
  br label %start
start:{
        each(
            '''
  %zero.{i}.{j} = phi {vector} [ zeroinitializer, %entry ], [ %old.{i}.{j}, %resume ]''',
            grid,
        )
    }
  %some = icmp ne i64 %depth, 0
  br i1 %some, label %body, label %finish
body:
  %left = phi i64 [ %depth, %start ], [ %less, %body ]
  %x.at = phi i64 [ 0, %start ], [ %x.next, %body ]
  %w.at = phi i64 [ 0, %start ], [ %w.next, %body ]{
        each(
            '''
  %acc.{i}.{j} = phi {vector} [ %zero.{i}.{j}, %start ], [ %sum.{i}.{j}, %body ]''',
            grid,
        )
    }
{products}
  %x.next = add i64 %x.at, %x.k
  %w.next = add i64 %w.at, %w.k
  %less = sub nuw i64 %left, 1
  %more = icmp ne i64 %less, 0
  br i1 %more, label %body, label %finish
finish:{
        each(
            '''
  %dot.{i}.{j} = phi {vector} [ %zero.{i}.{j}, %start ], [ %sum.{i}.{j}, %body ]''',
            grid,
        )
    }
{ends}{
        each(
            '''
  %y.{i}.{j} = fadd {vector} %dot.{i}.{j}, %b.{j}
  store {vector} %y.{i}.{j}, ptr %c.{i}.{j}, align {size}''',
            grid,
        )
    }
  ret void
}}"""


def fma_declaration(form: Format, lanes: int) -> str:
    scalar, suffix = _SCALARS[form.name]
    vector = f"<{lanes} x {scalar}>"
    return f"declare {vector} @llvm.fma.v{lanes}{suffix}({vector}, {vector}, {vector})"


def _multiply_add(place: str, vector: str, suffix: str, target: Target) -> str:
    i, j = place.split(".")
    if target.has_fma:
        factors = f"{vector} %xv.{i}, {vector} %wv.{j}, {vector} %acc.{place}"
        return f"\n  %sum.{place} = call {vector} @llvm.fma.{suffix}({factors})"
    # Emulating the fma would take 15 operations. With product and sum rounded separately, results
    # are as good as those of any BLAS on such a target, and the same for every tile.
    return f"""
  %product.{place} = fmul {vector} %xv.{i}, %wv.{j}
  %sum.{place} = fadd {vector} %acc.{place}, %product.{place}"""
