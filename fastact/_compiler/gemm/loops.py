"""The loops around the register tiles.

``act(x @ W + b)`` is computed in blocks of rows of x. The products of a block are finished, over
all k, before the activation is applied to it while it is in cache. Operands are addresses and
strides in bytes. Every element is ``fma(x[k], W[k], ...)`` from 0 in the order of k, plus its bias,
whatever block and tile it is in. So the bits of a row do not depend on the batch, on the number of
threads, or on whether W was packed.
"""

from math import inf

from llvmlite import ir

from fastact._compiler.builder import Function, Integer
from fastact._compiler.gemm import gated, narrow, several_rows
from fastact._compiler.gemm.interface import (
    DONE,
    LINE,
    REFUSED,
    SHARED_PANEL,
    Plan,
    Storage,
    bits_of,
    memory_order,
)
from fastact._compiler.gemm.tiles import TILE
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
# The most vectors of packed W at a time for few rows (bench/NOTES.md).
STREAMS = 6
WIDENED_STREAMS = 8  # of elements in fewer bits, where more sums hide that widening takes time
W_FAR = 1 << 21  # bytes of W that no second level holds
FAR_BYTES = 192  # of each k at a time of such a W
W_FETCHED = 1 << 24  # bytes of a W that is not packed, from which strips are prefetched
FETCHED_STRIP = 8  # the same if the next strip is prefetched meanwhile
FETCHED_ROWS = 16  # the most rows of x for which that is done
STRIP = 16  # rows at a time of a W that is not packed: as many streams from memory


# Elements of a narrow W are widened by the tiles. If there are several tiles of rows, the first one
# keeps the result for the others in a panel. If it is larger than this, it is in the memory that
# layers of a format share, unless another call uses that. Then k is divided, so that the panel fits
# on the stack, of which threads may have only 64 KB.
PANEL = 1 << 15  # bytes
# Instead of LARGE_BLOCK: k is divided for the panel, so that results are read again more often.
WIDENED_BLOCK = 1 << 20
WIDENED_ROWS = 128  # the least in a smaller block, since each block widens W again

FAR_TILE = "far.tile"
"""The name of the function that calls a tile which prefetches, for W far away."""

WIDENING_TILE = "widening.tile"
"""The name of the function that calls a tile which widens the elements of a narrow W."""

KEEPING_TILE = "keeping.tile"
"""The same for tiles which also write the widened elements to a panel."""


def fetches_strips(form: Format, lanes: int, target: Target, stored: Storage) -> bool:
    """Whether strips of a W that is not packed are prefetched.

    With 512-bit vectors, this gains 1 to 4 % only (bench/NOTES.md). With 32 registers of 128 bits,
    it was not tried.
    """
    few_registers = target.instructions.vectors[target.vector_bits].registers == 16
    plain = stored == Storage(form)
    return few_registers and plain and lanes == narrow.widest(form, target)


def loops_ir(form: Format, lanes: int, target: Target, stored: Storage) -> str:
    """LLVM IR of the entries as ``inner.*``, which call ``tile``, ``apply``, ``transpose``,
    ``parts`` and ``fan_out``."""
    module = ir.Module()
    activate = _activate(module, form)
    forward = _forward(module, activate, form, lanes, target, stored)
    widest = max(FAR_BYTES // (lanes * stored.form.itemsize), 1)
    both = gated.gated(module, forward, activate, form, lanes, target, stored, widest)
    computed = _computed(module, forward, both)
    _run_chunk(module, computed, form, lanes, stored)
    layer = _layer(module, _shared(module, computed, lanes), form)
    _packed(module, layer)
    if "direct" in stored.entries(form):
        _direct(module, layer, form, lanes)
    _pack(module, form, lanes, target, stored)
    return str(module)


def _forward(
    module: ir.Module, activate: Function, form: Format, lanes: int, target: Target, stored: Storage
) -> Function:
    width, w_width = lanes * form.itemsize, lanes * stored.form.itemsize
    terms_width = width * stored.terms
    widens = stored.form != form
    breadth, height = _breadth(module, target), _height(module, target)
    has_narrow = narrow.applies(form, lanes, target)
    if has_narrow:
        transposed = narrow.narrow(module, form, lanes, target, stored)
    has_parts = several_rows.applies(form, lanes, target)
    if has_parts:
        several = several_rows.several_rows(module, form, lanes, target)
    f = Function(
        module, "forward", "plan", "x", "x.row", "x.k", "rows", "w", "w.vector", "w.final", "w.k",
        "depth", "columns", "bias", "parameter", "out", "out.row",
    )  # fmt: skip
    plan, x, x_row, x_k, rows, *of_layer, out, out_row = f.arguments
    w, w_vector, w_final, w_k, depth, columns, bias, parameter = of_layer
    vectors = (columns + (lanes - 1)) // lanes
    packed = w_k.equals(w_width)
    # The strips of a gated layer are read in turns, and are as far away as all of W.
    strip = Plan(f, plan).get("product").differs(0)
    of_all = f.select(strip, Plan(f, plan).get("columns"), columns)
    w_bytes = depth * of_all * stored.form.itemsize
    beyond, far = w_bytes > W_CACHED, w_bytes > W_FAR
    most_streams = WIDENED_STREAMS if widens else STREAMS
    # Each vector of packed W is a stream of its own; those of a row that is not packed are one.
    streams = f.select(far & (rows < ROWS_AT_ONCE + 1), max(FAR_BYTES // w_width, 1), most_streams)
    if widens:
        streams = f.minimum(streams, _one_tile(f, rows, target))
    most = f.call(breadth, rows, vectors, f.select(packed, streams, vectors))
    tall = f.call(height, most)
    groups = (vectors + most - 1) // most
    small, large = vectors // groups, groups - vectors % groups
    out_final = (columns - lanes) * form.itemsize
    floor = Plan(f, plan).get("floor")
    # For few rows, packed W is read as one stream, and W that is not packed along its rows.
    few = rows < tall * 2 + 1
    has_far = fetches_strips(form, lanes, target, stored)
    contiguous = w_k.equals(columns * form.itemsize) & packed.equals(0)
    fetched = (rows < FETCHED_ROWS + 1) & (w_bytes > W_FETCHED) & contiguous
    fetched = fetched if has_far else f.constant(1).equals(0)
    whole = f.select(packed, depth, f.select(fetched, FETCHED_STRIP, STRIP))
    longest = f.select(few | fetched, whole, K_BLOCK)
    depth_block = f.minimum(depth, f.select(beyond, longest, depth))
    if widens:
        room = f.array((PANEL + max(target.tiles) * width + LINE) // 8)
        on_stack = (room + (LINE - 1)) // LINE * LINE
        shared, taken = Plan(f, plan).get("panel"), f.variable(0)
        panel_bytes = depth * most * width
        with f.when((rows > tall) & (panel_bytes > PANEL)):
            taken.set(f.exchange(shared, 0, 1))
        shares = taken.get().differs(0)
        panel = f.select(shares, shared + LINE, on_stack)
        space = f.select(shares, SHARED_PANEL, PANEL)
        # Parts of k for a panel are of about the same length.
        parts = f.maximum((panel_bytes + space - 1) // space, 1)
        depth_block = f.select(rows > tall, (depth + parts - 1) // parts, depth_block)
    out_width = columns * form.itemsize
    if widens:
        least = f.minimum(out_width * WIDENED_ROWS, WIDENED_BLOCK)
        block_bytes = f.select(beyond, WIDENED_BLOCK, f.maximum(least, SMALL_BLOCK))
    else:
        block_bytes = f.select(beyond, LARGE_BLOCK, SMALL_BLOCK)
    fitting = block_bytes // out_width
    many = narrow.rows_at_once(f, tall, columns, form, lanes, target)
    block = f.maximum(fitting // many, 1) * many
    wide = narrow.widest(form, target)
    transposable = x_k.equals(form.itemsize) & (depth >= wide) & (columns < wide)
    with f.loop(rows, block) as i:
        block_rows = f.minimum(rows - i, block)
        x_block, out_block = x + i * x_row, out + i * out_row
        rest, x_rest, out_rest = block_rows, x_block, out_block
        if has_parts:
            usable = f.select(x_k.equals(form.itemsize), block_rows, 0)
            computed = f.call(
                several, x_block, x_row, usable, w, w_final, w_k, depth, columns, bias, out_block,
                out_row, floor,
            )  # fmt: skip
            rest = block_rows - computed
            x_rest, out_rest = x_block + computed * x_row, out_block + computed * out_row
        elif has_narrow:
            whole_groups = f.select(transposable, block_rows // many * many, 0)
            with f.when(whole_groups > 0):
                f.call(
                    transposed, x_block, x_row, whole_groups, w, w_vector, w_final, w_k, depth,
                    columns, bias, out_block, out_row, floor,
                )  # fmt: skip
            rest = block_rows - whole_groups
            x_rest, out_rest = x_block + whole_groups * x_row, out_block + whole_groups * out_row
        tiles = (rest + tall - 1) // tall
        with f.loop(depth, f.maximum(depth_block, 1), at_least_once=True) as k:
            k_rows = f.minimum(depth - k, depth_block)
            first = f.select(k.equals(0), 1, 0)
            ends_k = (k + k_rows).equals(depth)
            final = f.select(ends_k, 1, 0)
            limit = f.select(ends_k, floor, bits_of(-inf, form))
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
                of_w = (w_group, w_vector, w_last, w_k)
                # A panel has the vectors of each k next to each other.
                of_panel = (panel, width, (v - 1) * width, v * width) if widens else ()
                r = f.variable(0)
                with f.loop(tiles) as t:
                    h = f.select(t < rest % tiles, rest // tiles + 1, rest // tiles)
                    row = r.get()
                    of_x = (h, v, x_rest + row * x_row + k * x_k, x_row, x_k)
                    others = (
                        k_rows, bias + at * terms_width, out_rest + row * out_row + at * width,
                        out_row, out_last, first, final, limit,
                    )  # fmt: skip
                    if widens:
                        with f.when(tiles.equals(1)):
                            f.call(WIDENING_TILE, *of_x, *of_w, *others, 0, 0)
                        with f.when((tiles > 1) & t.equals(0)):
                            f.call(KEEPING_TILE, *of_x, *of_w, *others, panel, v * width)
                        with f.when(t > 0):
                            f.call(TILE, *of_x, *of_panel, *others, 0, 0)
                    else:
                        fetches = fetched & row.equals(0)
                        if has_far:
                            # All tiles of a strip together fetch the next one, from its beginning
                            # on.
                            next_strip = w + (k + FETCHED_STRIP) * w_k
                            next_strip += at * (FETCHED_STRIP * width)
                            with f.when(fetches):
                                f.call(FAR_TILE, *of_x, *of_w, *others, next_strip, v * width)
                        with f.when(fetches.equals(0)):
                            f.call(TILE, *of_x, *of_w, *others, 0, 0)
                    r.set(row + h)
                p.set(at + v)
        loop = Plan(f, plan).get("loop")
        f.call(activate, loop, plan, parameter, out_block, block_rows, columns, out_row)
    if widens:
        with f.when(shares):
            f.exchange(shared, 1, 0)
    f.return_(DONE)
    return f


def _computed(module: ir.Module, forward: Function, both: Function) -> Function:
    """``forward``, or `both` for a plan with a product."""
    f = Function(module, "computed", *(argument.name for argument in forward.function.args))
    with f.when(Plan(f, f.arguments[0]).get("product").differs(0)):
        f.return_(f.call(both, *f.arguments))
    f.return_(f.call(forward, *f.arguments))
    return f


_WORDS = (
    *("plan", "x", "x_row", "x_k", "rows", "w", "w_vector", "w_final", "w_k", "depth", "columns"),
    *("bias", "parameter", "out", "out_row", "by_columns", "units", "chunk"),
)
"""The words of a job after its head: the data that the threads of a call share."""


def _shared(module: ir.Module, computed: Function, lanes: int) -> Function:
    """``computed`` in several threads if that is worth it."""
    f = Function(module, "shared", *_WORDS[:-3])
    plan, _, _, _, rows, *_, depth, columns, _, _, _, _ = f.arguments
    layers = f.select(Plan(f, plan).get("product").equals(0), 1, 2)
    work = rows * columns * depth * layers
    parts = f.call("parts", work)
    with f.when(parts < 2):
        f.return_(f.call(computed, *f.arguments))
    # Every thread reads all of x or all of W, whichever is smaller.
    vectors = columns // lanes
    whole_rows = Plan(f, plan).get("row_wise").differs(0)
    by_columns = (columns > rows) & (vectors >= parts) & whole_rows.equals(0)
    units = f.select(by_columns, vectors, rows)
    # As broad as a tile, if there are enough vectors.
    broad = f.maximum(f.minimum(f.call("breadth", rows, vectors, STREAMS), vectors // parts), 1)
    granule = f.select(by_columns, broad, ROWS_AT_ONCE)
    chunk = (units + parts * CHUNKS * granule - 1) // (parts * CHUNKS * granule) * granule
    job = f.array(JOB + len(_WORDS))
    f.store(job + 16, f.address_of("run_chunk", 2))
    for k, word in enumerate((*f.arguments, f.select(by_columns, 1, 0), units, chunk)):
        f.store(job + 8 * (JOB + k), word)
    f.call("fan_out", job, (units + chunk - 1) // chunk, parts, work)
    f.return_(DONE)
    return f


def _run_chunk(
    module: ir.Module, computed: Function, form: Format, lanes: int, stored: Storage
) -> None:
    """run_chunk(job, index): compute one of the chunks of rows or of columns."""
    f = Function(module, "inner.run_chunk", "job", "index")
    job, index = f.arguments
    word = {name: f.load(job + 8 * (JOB + k)) for k, name in enumerate(_WORDS)}
    start = index * word["chunk"]
    count = f.minimum(word["units"] - start, word["chunk"])
    names = _WORDS[:-3]

    def part(**changes: Integer) -> Integer:
        return f.call(computed, *(changes.get(name, word[name]) for name in names))

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
                bias=word["bias"] + skipped * (form.itemsize * stored.terms),
                parameter=word["parameter"]
                + skipped * Plan(f, word["plan"]).get("parameter_column"),
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
    """breadth(rows, vectors, widest): vectors of a tile for which a k takes fewest half cycles."""
    f = Function(module, "breadth", "rows", "vectors", "widest")
    rows, vectors, widest = f.arguments

    costs = target.instructions.costs

    def half_cycles(h: Integer, v: Integer) -> Integer:
        return f.maximum(f.maximum(h * v * costs.fma, (h + v) * costs.load), costs.latency)

    best, least = f.constant(1), f.constant(1 << 62)
    for v, tallest in target.tiles.items():
        tiles = (rows + (tallest - 1)) // tallest
        groups = (vectors + (v - 1)) // v
        small, larger = vectors // groups, vectors % groups
        h = (rows + tiles - 1) // tiles if tallest > 1 else f.constant(1)  # divisions take time
        cost = tiles * (
            (groups - larger) * half_cycles(h, small) + larger * half_cycles(h, small + 1)
        )
        better = (cost < least) & (widest >= v)
        best, least = f.select(better, v, best), f.select(better, cost, least)
    f.return_(best)
    return f


def _one_tile(f: Function, rows: Integer, target: Target) -> Integer:
    """The most vectors of a tile that has all `rows`; no limit if it would have fewer than three.

    One tile widens W once, and needs no panel.
    """
    most, none = f.constant(0), max(target.tiles)
    for v, tallest in target.tiles.items():
        most = f.select(rows < tallest + 1, v, most)
    return f.select(most < 3, none, most)


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
    f = Function(module, "activate", "loop", "plan", "parameter", "at", "rows", "columns", "row")
    loop, plan_address, parameter, at, rows, columns, row = f.arguments
    plan = Plan(f, plan_address)
    column = plan.get("parameter_column")
    with f.when(loop.equals(0)):
        f.return_(DONE)
    with f.when(plan.get("row_parameters").differs(0)):
        count, width = plan.get("row_parameters"), columns * form.itemsize
        f.return_(f.call("normalize", loop, at, rows, columns, row, parameter, width, count))
    with f.when(plan.get("row_wise").differs(0)):
        f.return_(f.call("apply", loop, at, rows, columns, row, 0, 0))
    with f.when(row.equals(columns * form.itemsize) & column.equals(0)):
        f.return_(f.call("apply", loop, at, rows * columns, 0, form.itemsize, parameter, 0))
    with f.loop(rows) as i:
        f.call("apply", loop, at + i * row, columns, 0, form.itemsize, parameter, column)
    f.return_(DONE)
    return f


def _layer(module: ir.Module, shared: Function, form: Format) -> Function:
    """Check x and out, and compute the layer."""
    f = Function(
        module, "layer", "plan", "x", "out", "w", "w.vector", "w.final", "w.k", "depth", "columns",
        "bias", "parameter",
    )  # fmt: skip
    plan_address, x_address, out_address, *weights = f.arguments
    *_, depth, columns, _, _ = weights
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
    names = ("w", "w_vector", "w_final", "w_k", "depth", "columns", "bias", "parameter")
    f.return_(f.call(layer, address, x, out, *map(plan.get, names)))


def _direct(module: ir.Module, layer: Function, form: Format, lanes: int) -> None:
    """direct(plan, x, w, b, out): all but the plan are ndarray objects; rows of w contiguous."""
    f = Function(module, "inner.direct", "plan", "x", "w", "b", "out")
    plan, x, w_address, b_address, out_address = f.arguments
    w, b, out = NDArray(f, w_address), NDArray(f, b_address), NDArray(f, out_address)
    dtype, parameter = Plan(f, plan).get("dtype"), Plan(f, plan).get("parameter")
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
    f.return_(f.call(layer, plan, x, out_address, *weights, parameter))


def _pack(module: ir.Module, form: Format, lanes: int, target: Target, stored: Storage) -> None:
    """pack(w, w_k, w_column, depth, columns, to, to_vector): copy to vectors of columns, by k."""
    kinds = {"float32": ir.FloatType(), "float64": ir.DoubleType()}
    item = kinds.get(stored.form.name, ir.IntType(stored.form.bits))
    size = stored.form.itemsize
    order = memory_order(stored.form, lanes, target)
    in_order = order == sorted(order)
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
            f.copy(
                source + k * w_k, sink + k * (lanes * size), ir.VectorType(item, lanes), size,
                None if in_order else order,
            )  # fmt: skip
        with f.when(w_column.differs(size)):
            # Columns with contiguous k, as in transposed weights, are copied by square blocks.
            rest = f.constant(0)
            if stored.form == form:
                squares = f.select(w_k.equals(size), strip // lanes, 0)
                with f.loop(squares) as q:
                    at = q * lanes
                    f.call("transpose", source + at * size, w_column, sink + at * (lanes * size))
                rest = squares * lanes
            with f.loop(f.constant(lanes)) as place, f.loop(strip, start=rest) as k:
                lane = place if in_order else _ordered(f, place, order)
                f.copy(
                    source + lane * w_column + k * w_k,
                    sink + place * size + k * (lanes * size),
                    item,
                    size,
                )
    f.return_(DONE)


def _ordered(f: Function, place: Integer, order: list[int]) -> Integer:
    """``order[place]``."""
    lane = f.constant(order[0])
    for k, value in enumerate(order):
        lane = f.select(place.equals(k), value, lane)
    return lane
