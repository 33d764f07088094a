"""LLVM IR of register tiles: a few rows of x times a few vectors of columns of W.

A tile keeps ``rows * vectors`` accumulators in registers and adds the products in the order
of k, one fma each, so that the value of an element does not depend on its tile. It does not know
packing: every operand comes with its strides, in bytes. Of activations it knows a lower limit of
the results, since that of relu would otherwise take another pass over them.
"""

import itertools
from collections.abc import Iterable

from fastact._compiler.gemm import widening
from fastact._compiler.gemm.interface import LINE, Storage
from fastact._compiler.loops.loop_metadata import wide_vectors
from fastact._machine.formats import Format
from fastact._machine.targets import Target

PARAMETERS = (
    "ptr %x, i64 %x.row, i64 %x.k, "
    "ptr %w, i64 %w.vector, i64 %w.last, i64 %w.k, i64 %depth, "
    "ptr %bias, ptr %c, i64 %c.row, i64 %c.last, i64 %first, i64 %final, i64 %floor, "
    "ptr %ahead, i64 %ahead.k"
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
    If columns have factors, each of these follows the bias of its column.
first, final
    Whether to start from 0 instead of what is in `c`; whether to add the bias at the end.
floor
    The bits of a number that replaces smaller results, -inf for none. NaN and zeros stay.
ahead
    Where to prefetch as many bytes as the vectors have, for each k, or where to keep the vectors;
    stride along k. Tiles that are made for neither ignore it.
"""

TILE = "tile"
"""The name of the functions in this module, and the beginning of the names of single tiles."""

SCALARS = {"float32": ("float", "f32"), "float64": ("double", "f64")}


def tile_name(rows: int, vectors: int, prefix: str = TILE) -> str:
    return f"{prefix}.{rows}.{vectors}"


def tile_ir(
    form: Format,
    rows: int,
    vectors: int,
    lanes: int,
    target: Target,
    prefix: str = TILE,
    prefetches: bool = False,
    stored: Storage | None = None,
    keeps: bool = False,
) -> str:
    """The function `tile_name(rows, vectors, prefix)`, which needs no further optimisation.

    Weights are plain ones of `form`, unless `stored` says otherwise. If it `keeps` them, it writes
    their vectors to ``ahead``, as they are used.
    """
    stored = stored or Storage(form)
    widens_early = stored.form != form and not keeps
    early = _steps_early(stored.form, rows, vectors, target) if widens_early else 0
    start = "lead" if early else "start"
    scalar, suffix = SCALARS[form.name]
    vector = f"<{lanes} x {scalar}>"
    size, width = form.itemsize, lanes * form.itemsize
    attributes = f'{wide_vectors(target)} "min-legal-vector-width"="{target.vector_bits}"'
    heads, columns = range(rows), range(vectors)
    grid = [(i, j) for i in heads for j in columns]

    def each(text: str, over: Iterable[tuple[int, int]]) -> str:
        return "".join(
            text.format(i=i, j=j, vector=vector, size=size, lanes=lanes, start=start)
            for i, j in over
        )

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

    def weights(name: int | str, offset: str) -> str:
        """The vectors ``%wv.NAME.J`` of the k at `offset`."""
        return "".join(
            f"\n  %wv.{name}.{j}.p = getelementptr i8, ptr %w.{j}, i64 {offset}"
            + _weights_ir(f"%wv.{name}.{j}", stored.form, form, lanes, target)
            for j in columns
        )

    # Vectors ``%wv.STEP.J`` are those of the k that is STEP iterations ahead. At the end, the last
    # k is widened again, so that no memory beyond it is read.
    lead, passed_on, w_step = "", "", "%w.k"
    offsets = ["0", *(f"%w.offset.{step}" for step in range(1, early + 1))]
    if early:
        lead = "\nlead:"
        for step, (offset, following) in enumerate(itertools.pairwise(offsets)):
            lead += weights(f"first.{step}", offset)
            lead += f"""
  %w.more.{step} = icmp ugt i64 %depth, {step + 1}
  %w.further.{step} = select i1 %w.more.{step}, i64 %w.k, i64 0
  {following} = add i64 {offset}, %w.further.{step}"""
            passed_on += "".join(
                f"""
  %wv.{step}.{j} = phi {vector} [ %wv.first.{step}.{j}, %lead ], [ %wv.{step + 1}.{j}, %body ]"""
                for j in columns
            )
        lead += "\n  br label %body"
        w_step = "%w.further"
        passed_on += f"""
  %w.more = icmp ugt i64 %left, {early + 1}
  %w.further = select i1 %w.more, i64 %w.k, i64 0"""
    products = weights(early, "%w.at")
    for i in heads:
        products += load(f"%xs.{i}", scalar, f"%x.{i}", "%x.at")
        products += f"""
  %xi.{i} = insertelement {vector} poison, {scalar} %xs.{i}, i64 0
  %xv.{i} = shufflevector {vector} %xi.{i}, {vector} poison, <{lanes} x i32> zeroinitializer"""
        for j in columns:
            products += multiply_add(
                f"%sum.{i}.{j}", f"%acc.{i}.{j}", f"%xv.{i}", f"%wv.0.{j}", f"{i}.{j}", vector,
                suffix, lanes, target,
            )  # fmt: skip
    for j in columns if keeps else ():
        products += f"""
  %kept.{j} = getelementptr i8, ptr %ahead.now, i64 {j * width}
  store {vector} %wv.0.{j}, ptr %kept.{j}, align {size}"""
    if prefetches:
        for at in range(0, vectors * width, LINE):
            products += f"""
  %ahead.{at} = getelementptr i8, ptr %ahead.now, i64 {at}
  call void @llvm.prefetch.p0(ptr %ahead.{at}, i32 0, i32 3, i32 1)"""
    # Adding -0 changes nothing; adding 0 would turn a partial sum of -0 into 0.
    ends = "".join(
        terms_ir(str(j), "%bias", column[j], form, lanes, stored)
        + "".join(
            f"\n  %{b}.{j} = select i1 %adds, {vector} %{name}.{j}, "
            f"{vector} <{', '.join([f'{scalar} {nothing}'] * lanes)}>"
            for b, name, nothing in (("b", "bias", "-0.0"), ("f", "factor", "1.0"))[: stored.terms]
        )
        for j in columns
    )
    finished = "".join(
        finished_ir(f"{i}.{j}", f"%dot.{i}.{j}", f"%b.{j}", f"%f.{j}", form, lanes, target, stored)
        + f"\n  store {vector} %y.{i}.{j}, ptr %c.{i}.{j}, align {size}"
        for i, j in grid
    )
    return f"""
define void @{tile_name(rows, vectors, prefix)}({PARAMETERS}) {attributes} {{
entry:{row_starts}{vector_starts}{places}{floor_ir(form, lanes)}
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
  br i1 %some, label %{"lead" if early else "body"}, label %finish{lead}
body:
  %left = phi i64 [ %depth, %{start} ], [ %less, %body ]
  %x.at = phi i64 [ 0, %{start} ], [ %x.next, %body ]
  %w.at = phi i64 [ {offsets[-1]}, %{start} ], [ %w.next, %body ]
  %ahead.now = phi ptr [ %ahead, %{start} ], [ %ahead.next, %body ]{
        each(
            '''
  %acc.{i}.{j} = phi {vector} [ %zero.{i}.{j}, %{start} ], [ %sum.{i}.{j}, %body ]''',
            grid,
        )
    }{passed_on}
{products}
  %x.next = add i64 %x.at, %x.k
  %w.next = add i64 %w.at, {w_step}
  %ahead.next = getelementptr i8, ptr %ahead.now, i64 %ahead.k
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
{ends}{finished}
  ret void
}}"""


def _steps_early(stored: Format, rows: int, vectors: int, target: Target) -> int:
    """How many iterations before their products vectors of a narrow W are widened.

    If products wait for what is widened in the same iteration, the two ports for vectors of 512
    bits are not always used: one row of float16 takes 1.6 instead of 1.5 cycles per vector. For
    bfloat16, which takes one instruction, one iteration is enough. With few sums, products wait for
    each other, and with vectors of 256 bits this gains nothing (bench/NOTES.md).
    """
    if target.vector_bits < 512 or rows > 1 or vectors < 5:
        return 0
    return 1 if stored.kind == "bfloat" else 2


def _weights_ir(value: str, stored: Format, form: Format, lanes: int, target: Target) -> str:
    """IR that loads `lanes` elements of format `stored` at ``VALUE.p`` as a vector of `form`."""
    if stored != form:
        return widening.load_ir(value, stored, lanes, target)
    kind = f"<{lanes} x {SCALARS[form.name][0]}>"
    return f"\n  {value} = load {kind}, ptr {value}.p, align {form.itemsize}"


def terms_ir(place: str, base: str, offset: str, form: Format, lanes: int, stored: Storage) -> str:
    """IR that loads the vector ``%bias.PLACE`` and, if there are factors, ``%factor.PLACE``.

    Without factors, the bias is `offset` bytes from `base`.
    """
    scalar, _ = SCALARS[form.name]
    vector = f"<{lanes} x {scalar}>"
    if not stored.scaled:
        return f"""
  %bias.{place}.p = getelementptr i8, ptr {base}, i64 {offset}
  %bias.{place} = load {vector}, ptr %bias.{place}.p, align {form.itemsize}"""
    pairs = f"<{2 * lanes} x {scalar}>"
    text = f"""
  %terms.{place}.offset = mul i64 {offset}, {stored.terms}
  %terms.{place}.p = getelementptr i8, ptr {base}, i64 %terms.{place}.offset
  %terms.{place} = load {pairs}, ptr %terms.{place}.p, align {form.itemsize}"""
    for first, name in enumerate(("bias", "factor")):
        of_all = ", ".join(f"i32 {k}" for k in range(first, 2 * lanes, 2))
        operands = f"{pairs} %terms.{place}, {pairs} poison, <{lanes} x i32> <{of_all}>"
        text += f"\n  %{name}.{place} = shufflevector {operands}"
    return text


def finished_ir(
    place: str, dot: str, bias: str, factor: str, form: Format, lanes: int, target: Target,
    stored: Storage,
) -> str:  # fmt: skip
    """IR that makes the vector of results ``%y.PLACE`` from that of the sums, `dot`.

    ``%floors`` is the lower limit. Without factors, `factor` is ignored.
    """
    scalar, suffix = SCALARS[form.name]
    vector = f"<{lanes} x {scalar}>"
    if stored.scaled:
        added = multiply_add(
            f"%s.{place}", bias, dot, factor, f"{place}.scaled", vector, suffix, lanes, target
        )
    else:
        added = f"\n  %s.{place} = fadd {vector} {dot}, {bias}"
    return f"""{added}
  %below.{place} = fcmp ogt {vector} %floors, %s.{place}
  %y.{place} = select <{lanes} x i1> %below.{place}, {vector} %floors, {vector} %s.{place}"""


def floor_ir(form: Format, lanes: int) -> str:
    """IR that makes the vector ``%floors`` of the number whose bits are in ``%floor``."""
    scalar, _ = SCALARS[form.name]
    vector = f"<{lanes} x {scalar}>"
    whole = "trunc i64 %floor to i32" if form.bits == 32 else "add i64 %floor, 0"
    return f"""
  %floor.bits = {whole}
  %floor.number = bitcast i{form.bits} %floor.bits to {scalar}
  %floor.first = insertelement {vector} poison, {scalar} %floor.number, i64 0
  %floors = shufflevector {vector} %floor.first, {vector} poison, <{lanes} x i32> zeroinitializer"""


def declarations_ir(form: Format, lanes: int, target: Target) -> str:
    """The declarations that tiles need."""
    scalar, suffix = SCALARS[form.name]
    vector = f"<{lanes} x {scalar}>"
    return f"""
declare void @llvm.prefetch.p0(ptr, i32, i32, i32)
declare {vector} @llvm.fma.v{lanes}{suffix}({vector}, {vector}, {vector})\
{widening.declarations_ir(target)}"""


def multiply_add(
    result: str, before: str, a: str, b: str, place: str, vector: str, suffix: str, lanes: int,
    target: Target,
) -> str:  # fmt: skip
    """IR that adds the product of the vectors `a` and `b` to `before`."""
    if target.has_fma:
        factors = f"{vector} {a}, {vector} {b}, {vector} {before}"
        return f"\n  {result} = call {vector} @llvm.fma.v{lanes}{suffix}({factors})"
    # Emulating the fma would take 15 operations. With product and sum rounded separately, results
    # are as good as those of any BLAS on such a target, and the same for every tile.
    return f"""
  %product.{place} = fmul {vector} {a}, {b}
  {result} = fadd {vector} {before}, %product.{place}"""
