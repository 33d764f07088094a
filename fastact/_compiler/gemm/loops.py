"""The loops around the register tiles.

``act(x @ W + b)`` is computed in blocks of rows of x. The products of a block are finished, over
all k, before the activation is applied to it while it is in cache. Operands are addresses and
strides in bytes. Every element is ``fma(x[k], W[k], ...)`` from 0 in the order of k, plus its bias,
whatever block and tile it is in. So the bits of a row do not depend on the batch, on the number of
threads, or on whether W was packed.
"""

from llvmlite import ir

from fastact._compiler.builder import Function, Integer
from fastact._compiler.gemm.interface import DONE, REFUSED, Plan
from fastact._compiler.ndarray_fields import NDArray
from fastact._compiler.threads.fan_out import JOB
from fastact._machine.formats import Format
from fastact._machine.targets import Target

# If W stays in the second-level cache, blocks of rows are small enough for the first level. A
# larger W is read from farther away once per block, so that blocks have to be large.
W_CACHED = 1 << 19  # bytes
SMALL_BLOCK = 1 << 16  # bytes of output
LARGE_BLOCK = 1 << 21
K_BLOCK = 1024  # k at a time of a large W: three vectors of it are 192 KB
ROWS_AT_ONCE = 16  # the least that a thread takes: two of the tallest tiles
CHUNKS = 4  # per thread; each chunk reads all of the operand that is not divided
STRIP = 16  # rows at a time of a W that is not packed: as many streams from memory


def loops_ir(form: Format, lanes: int, target: Target) -> str:
    """LLVM IR of the entries as ``inner.*``, which call ``tile``, ``apply``, ``transpose``,
    ``parts`` and ``fan_out``."""
    module = ir.Module()
    forward = _forward(module, form, lanes, target)
    _run_chunk(module, forward, form, lanes)
    layer = _layer(module, _shared(module, forward, lanes), form)
    _packed(module, layer)
    _direct(module, layer, form, lanes)
    _pack(module, form, lanes)
    return str(module)


def _forward(module: ir.Module, form: Format, lanes: int, target: Target) -> Function:
    width = lanes * form.itemsize
    breadth, height = _breadth(module, target), _height(module, target)
    activate = _activate(module, form)
    f = Function(
        module, "forward", "plan", "x", "x.row", "x.k", "rows", "w", "w.vector", "w.final", "w.k",
        "depth", "columns", "bias", "out", "out.row",
    )  # fmt: skip
    (plan, x, x_row, x_k, rows, w, w_vector, w_final, w_k, depth, columns, bias, out, out_row) = (
        f.arguments
    )
    vectors = (columns + (lanes - 1)) // lanes
    most = f.call(breadth, rows, vectors)
    tall = f.call(height, most)
    groups = (vectors + most - 1) // most
    small, large = vectors // groups, groups - vectors % groups
    out_final = (columns - lanes) * form.itemsize
    beyond = depth * columns * form.itemsize > W_CACHED
    # For few rows, packed W is read as one stream, and W that is not packed along its rows.
    whole = f.select(w_k.equals(width), depth, STRIP)
    longest = f.select(rows > tall * 2, K_BLOCK, whole)
    depth_block = f.minimum(depth, f.select(beyond, longest, depth))
    fitting = f.select(beyond, LARGE_BLOCK, SMALL_BLOCK) // (columns * form.itemsize)
    block = f.maximum(fitting // tall, 1) * tall
    with f.loop(rows, block) as i:
        block_rows = f.minimum(rows - i, block)
        tiles = (block_rows + tall - 1) // tall
        x_block, out_block = x + i * x_row, out + i * out_row
        with f.loop(depth, f.maximum(depth_block, 1), at_least_once=True) as k:
            k_rows = f.minimum(depth - k, depth_block)
            first = f.select(k.equals(0), 1, 0)
            final = f.select((k + k_rows).equals(depth), 1, 0)
            p = f.variable(0)
            with f.loop(groups) as g:
                # The larger groups come last, so that a ragged last vector lies in the same tile
                # as the vector it overlaps: both are read before either is written.
                v = f.select(g >= large, small + 1, small)
                at = p.get()
                ends = (at + v).equals(vectors)
                w_last = f.select(ends, w_final - at * w_vector, (v - 1) * w_vector)
                out_last = f.select(ends, out_final - at * width, (v - 1) * width)
                w_group = w + at * w_vector + k * w_k
                r = f.variable(0)
                with f.loop(tiles) as t:
                    h = f.select(
                        t < block_rows % tiles, block_rows // tiles + 1, block_rows // tiles
                    )
                    row = r.get()
                    f.call(
                        "tile", h, v, x_block + row * x_row + k * x_k, x_row, x_k,
                        w_group, w_vector, w_last, w_k, k_rows,
                        bias + at * width, out_block + row * out_row + at * width, out_row,
                        out_last, first, final,
                    )  # fmt: skip
                    r.set(row + h)
                p.set(at + v)
        f.call(activate, plan, out_block, block_rows, columns, out_row)
    f.return_(DONE)
    return f


_WORDS = (
    *("plan", "x", "x_row", "x_k", "rows", "w", "w_vector", "w_final", "w_k", "depth", "columns"),
    *("bias", "out", "out_row", "by_columns", "units", "chunk"),
)
"""The words of a job after its head: the data that the threads of a call share."""


def _shared(module: ir.Module, forward: Function, lanes: int) -> Function:
    """``forward`` in several threads if that is worth it."""
    f = Function(module, "shared", *_WORDS[:-3])
    plan, _, _, _, rows, *_, depth, columns, _, _, _ = f.arguments
    work = rows * columns * depth
    parts = f.call("parts", work)
    with f.when(parts < 2):
        f.return_(f.call(forward, *f.arguments))
    # Every thread reads all of x or all of W, whichever is smaller.
    vectors = columns // lanes
    whole_rows = Plan(f, plan).get("row_wise").differs(0)
    by_columns = (columns > rows) & (vectors >= parts) & whole_rows.equals(0)
    units = f.select(by_columns, vectors, rows)
    # As broad as a tile, if there are enough vectors.
    broad = f.maximum(f.minimum(f.call("breadth", rows, vectors), vectors // parts), 1)
    granule = f.select(by_columns, broad, ROWS_AT_ONCE)
    chunk = (units + parts * CHUNKS * granule - 1) // (parts * CHUNKS * granule) * granule
    job = f.array(JOB + len(_WORDS))
    f.store(job + 16, f.address_of("run_chunk", 2))
    for k, word in enumerate((*f.arguments, f.select(by_columns, 1, 0), units, chunk)):
        f.store(job + 8 * (JOB + k), word)
    f.call("fan_out", job, (units + chunk - 1) // chunk, parts, work)
    f.return_(DONE)
    return f


def _run_chunk(module: ir.Module, forward: Function, form: Format, lanes: int) -> None:
    """run_chunk(job, index): compute one of the chunks of rows or of columns."""
    f = Function(module, "inner.run_chunk", "job", "index")
    job, index = f.arguments
    word = {name: f.load(job + 8 * (JOB + k)) for k, name in enumerate(_WORDS)}
    start = index * word["chunk"]
    count = f.minimum(word["units"] - start, word["chunk"])
    names = _WORDS[:-3]

    def part(**changes: Integer) -> Integer:
        return f.call(forward, *(changes.get(name, word[name]) for name in names))

    with f.when(word["by_columns"].differs(0)):
        # The columns beyond the whole vectors belong to the last chunk.
        final = (start + count).equals(word["units"])
        skipped = start * lanes
        skipped_w = start * word["w_vector"]
        f.return_(
            part(
                w=word["w"] + skipped_w,
                w_final=f.select(
                    final, word["w_final"] - skipped_w, (count - 1) * word["w_vector"]
                ),
                columns=f.select(final, word["columns"] - skipped, count * lanes),
                bias=word["bias"] + skipped * form.itemsize,
                out=word["out"] + skipped * form.itemsize,
            )
        )
    f.return_(
        part(
            x=word["x"] + start * word["x_row"],
            rows=count,
            out=word["out"] + start * word["out_row"],
        )
    )


def _breadth(module: ir.Module, target: Target) -> Function:
    """breadth(rows, vectors): vectors of a tile for which one k takes the fewest half cycles."""
    f = Function(module, "breadth", "rows", "vectors")
    rows, vectors = f.arguments

    costs = target.instructions.costs

    def half_cycles(h: Integer, v: Integer) -> Integer:
        return f.maximum(f.maximum(h * v * costs.fma, (h + v) * costs.load), costs.latency)

    best, least = f.constant(1), f.constant(1 << 62)
    for v, tallest in target.tiles.items():
        tiles = (rows + (tallest - 1)) // tallest
        groups = (vectors + (v - 1)) // v
        h, small, larger = (rows + tiles - 1) // tiles, vectors // groups, vectors % groups
        cost = tiles * (
            (groups - larger) * half_cycles(h, small) + larger * half_cycles(h, small + 1)
        )
        better = cost < least
        best, least = f.select(better, v, best), f.select(better, cost, least)
    f.return_(best)
    return f


def _height(module: ir.Module, target: Target) -> Function:
    """height(vectors): the largest number of rows of a tile of so many vectors."""
    f = Function(module, "height", "vectors")
    (vectors,) = f.arguments
    height = f.constant(1)
    for v, tallest in target.tiles.items():
        height = f.select(vectors.equals(v), tallest, height)
    f.return_(height)
    return f


def _activate(module: ir.Module, form: Format) -> Function:
    """Run the activation's loop over a block of rows, in place."""
    f = Function(module, "activate", "plan", "at", "rows", "columns", "row")
    plan_address, at, rows, columns, row = f.arguments
    plan = Plan(f, plan_address)
    loop = plan.get("loop")
    with f.when(loop.equals(0)):
        f.return_(DONE)
    with f.when(plan.get("row_wise").differs(0)):
        f.return_(f.call("apply", loop, at, rows, columns, row))
    with f.when(row.equals(columns * form.itemsize)):
        f.return_(f.call("apply", loop, at, rows * columns, 0, form.itemsize))
    with f.loop(rows) as i:
        f.call("apply", loop, at + i * row, columns, 0, form.itemsize)
    f.return_(DONE)
    return f


def _layer(module: ir.Module, shared: Function, form: Format) -> Function:
    """Check x and out, and compute the layer."""
    f = Function(
        module, "layer", "plan", "x", "out", "w", "w.vector", "w.final", "w.k", "depth", "columns",
        "bias",
    )  # fmt: skip
    plan_address, x_address, out_address, *weights = f.arguments
    *_, depth, columns, _ = weights
    plan, x, out = Plan(f, plan_address), NDArray(f, x_address), NDArray(f, out_address)
    dtype = plan.get("dtype")
    with f.when(x.unusable(dtype) | out.unusable(dtype, writeable=True)):
        f.return_(REFUSED)
    last = x.dimensions - 1
    with f.when(out.dimensions.differs(last + 1)):
        f.return_(REFUSED)
    with f.when(x.length(last).differs(depth) | out.length(last).differs(columns)):
        f.return_(REFUSED)
    with f.loop(last) as axis, f.when(x.length(axis).differs(out.length(axis))):
        f.return_(REFUSED)
    rows, x_row = x.rows()
    out_rows, out_row = out.rows()
    with f.when(rows.equals(0) | columns.equals(0)):
        f.return_(DONE)
    scattered = (columns > 1) & out.stride(last).differs(form.itemsize)
    # Rows of `out` must not overlap; their stride may have either sign.
    width = columns * form.itemsize
    mingled = (rows > 1) & (out_row < width) & (f.constant(0) - out_row < width)
    with f.when((rows < 0) | (out_rows < 0) | scattered | mingled):
        f.return_(REFUSED)
    with f.when(x.overlaps(out, form.itemsize)):
        f.return_(REFUSED)
    place = (x.data, x_row, x.stride(last), rows)
    f.return_(f.call(shared, plan_address, *place, *weights, out.data, out_row))
    return f


def _packed(module: ir.Module, layer: Function) -> None:
    """packed(plan, x, out): x and out are ndarray objects; the weights are in the plan."""
    f = Function(module, "inner.packed", "plan", "x", "out")
    address, x, out = f.arguments
    plan = Plan(f, address)
    names = ("w", "w_vector", "w_final", "w_k", "depth", "columns", "bias")
    f.return_(f.call(layer, address, x, out, *map(plan.get, names)))


def _direct(module: ir.Module, layer: Function, form: Format, lanes: int) -> None:
    """direct(plan, x, w, b, out): all but the plan are ndarray objects; rows of w contiguous."""
    f = Function(module, "inner.direct", "plan", "x", "w", "b", "out")
    plan, x, w_address, b_address, out_address = f.arguments
    w, b, out = NDArray(f, w_address), NDArray(f, b_address), NDArray(f, out_address)
    dtype = Plan(f, plan).get("dtype")
    with f.when(w.unusable(dtype) | b.unusable(dtype) | out.unusable(dtype)):
        f.return_(REFUSED)
    with f.when(w.dimensions.differs(2) | b.dimensions.differs(1)):
        f.return_(REFUSED)
    depth, columns = w.length(0), w.length(1)
    with f.when(b.length(0).differs(columns)):
        f.return_(REFUSED)
    size = form.itemsize
    # Empty arrays may have any strides.
    scattered = (depth > 0) & w.stride(1).differs(size) | b.stride(0).differs(size)
    with f.when((columns > 1) & scattered):
        f.return_(REFUSED)
    with f.when(w.overlaps(out, size) | b.overlaps(out, size)):
        f.return_(REFUSED)
    weights = (w.data, lanes * size, (columns - lanes) * size, w.stride(0), depth, columns, b.data)
    f.return_(f.call(layer, plan, x, out_address, *weights))


def _pack(module: ir.Module, form: Format, lanes: int) -> None:
    """pack(w, w_k, w_column, depth, columns, to, to_vector): copy to vectors of columns, by k."""
    item = {"float32": ir.FloatType(), "float64": ir.DoubleType()}[form.name]
    size = form.itemsize
    f = Function(
        module, "inner.pack", "w", "w.k", "w.column", "depth", "columns", "to", "to.vector"
    )
    w, w_k, w_column, depth, columns, to, to_vector = f.arguments
    vectors = (columns + (lanes - 1)) // lanes
    with f.loop(depth, STRIP) as start, f.loop(vectors) as p:
        source = w + f.minimum(p * lanes, columns - lanes) * w_column + start * w_k
        sink = to + p * to_vector + start * (lanes * size)
        strip = f.minimum(depth - start, STRIP)
        with f.when(w_column.equals(size)), f.loop(strip) as k:
            f.copy(source + k * w_k, sink + k * (lanes * size), ir.VectorType(item, lanes), size)
        with f.when(w_column.differs(size)):
            # Columns with contiguous k, as in transposed weights, are copied by square blocks.
            squares = f.select(w_k.equals(size), strip // lanes, 0)
            with f.loop(squares) as q:
                at = q * lanes
                f.call("transpose", source + at * size, w_column, sink + at * (lanes * size))
            rest = squares * lanes
            with f.loop(f.constant(lanes)) as lane, f.loop(strip, start=rest) as k:
                f.copy(
                    source + lane * w_column + k * w_k,
                    sink + lane * size + k * (lanes * size),
                    item,
                    size,
                )
    f.return_(DONE)
