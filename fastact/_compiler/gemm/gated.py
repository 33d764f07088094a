"""The loop around the dense loops for gated layers, which multiply two layers of the same input.

The weights of the gate lie before those of the other layer, packed likewise, and so do their
biases. Both layers are computed for a few rows and a strip of columns at a time, into buffers on
the stack. There, the activation and the gated product are applied, while all is in the first-level
cache. Then the results are copied to their place. So the products are never in memory as a whole.
"""

from llvmlite import ir

from fastact._compiler.builder import Function, Integer
from fastact._compiler.gemm import narrow
from fastact._compiler.gemm.interface import DONE, LINE, Plan, Storage
from fastact._compiler.gemm.tiles import SCALARS
from fastact._machine.formats import Format
from fastact._machine.targets import Target

# Bytes of each of the two buffers. Threads may have a stack of only 64 KB, of which the panel of
# weights that are widened takes a half.
BUFFER = 1 << 13
# Rows that share what is read of W, from wherever it is. Their x should be in a cache meanwhile.
ROWS = 256
FEW_ROWS = 16  # rows that a buffer should hold, before it holds more columns


def gated(
    module: ir.Module,
    forward: Function,
    activate: Function,
    form: Format,
    lanes: int,
    target: Target,
    stored: Storage,
    widest: int,
) -> Function:
    """gated(...): like `forward`, for a plan with a product.

    Addresses of weights and biases are those of the gate. `widest` is the most vectors of a W far
    away that `forward` reads at a time.
    """
    size, width = form.itemsize, lanes * form.itemsize
    f = Function(module, "gated", *(argument.name for argument in forward.function.args))
    (
        plan_address, x, x_row, x_k, rows, w, w_vector, w_final, w_k, depth, columns, bias,
        parameter, out, out_row,
    ) = f.arguments  # fmt: skip
    f.function.attributes.add("noinline")  # other layers do not need its stack
    plan = Plan(f, plan_address)
    product, of_column = plan.get("product"), plan.get("parameter_column")
    # From the gate to the other layer, also where `columns` are only some of those of the plan.
    of_each = plan.get("columns")
    to_w = (of_each + (lanes - 1)) // lanes * w_vector
    to_bias = of_each * (size * stored.terms)
    room = f.array((2 * BUFFER + LINE) // 8)
    gate = (room + (LINE - 1)) // LINE * LINE
    other = gate + BUFFER
    # A strip of whole vectors. The last one also has the columns that fill no vector.
    whole = columns // lanes
    most = f.constant(BUFFER // width)  # vectors in a buffer
    fitting = most // f.minimum(rows, FEW_ROWS) - 1
    broad = f.call("breadth", rows, whole, widest)
    longest = _multiple(f, fitting, broad)
    strips = (whole + longest - 1) // longest
    strip = (whole + strips - 1) // strips
    tall = f.call("height", f.minimum(broad, strip))
    many = narrow.rows_at_once(f, tall, columns, form, lanes, target)
    part = f.select(rows > FEW_ROWS, _multiple(f, most // (strip + 1), many), rows)
    with f.loop(rows, ROWS) as block, f.loop(whole, strip) as at:
        ends = (at + strip) >= whole
        of_strip = f.select(ends, columns - at * lanes, strip * lanes)
        skipped_w = at * w_vector
        final = f.select(ends, w_final - skipped_w, (strip - 1) * w_vector)
        row = of_strip * size
        stop = f.minimum(block + ROWS, rows)
        with f.loop(stop, part, start=block) as i:
            count = f.minimum(stop - i, part)
            for sink, w_skip, bias_skip in ((gate, 0, 0), (other, to_w, to_bias)):
                place = w + skipped_w + w_skip, w_vector, final, w_k, depth, of_strip
                terms = bias + at * (width * stored.terms) + bias_skip
                f.call(
                    forward, plan_address, x + i * x_row, x_row, x_k, count, *place, terms, 0, sink,
                    row,
                )  # fmt: skip
            f.call(
                activate, plan.get("gate"), plan_address, parameter + at * lanes * of_column, gate,
                count, of_strip, row,
            )  # fmt: skip
            f.call("apply", product, gate, count * of_strip, 0, size, other, size)
            with f.loop(count) as k:
                source = gate + k * row
                sink = out + (i + k) * out_row + at * width
                with f.loop(of_strip - (lanes - 1), lanes) as column:
                    f.copy(source + column * size, sink + column * size, _vector(form, lanes), size)
                last = (of_strip - lanes) * size
                f.copy(source + last, sink + last, _vector(form, lanes), size)
    f.return_(DONE)
    return f


def _multiple(f: Function, limit: Integer, step: Integer) -> Integer:
    """The largest multiple of `step` up to `limit`; `limit` if there is none."""
    return f.select(limit < step, limit, limit // step * step)


def _vector(form: Format, lanes: int) -> ir.Type:
    kinds = {"float": ir.FloatType(), "double": ir.DoubleType()}
    return ir.VectorType(kinds[SCALARS[form.name][0]], lanes)
