"""Machine code that converts arrays from one format to another, rounded to nearest even.

An object holds one pair of formats. Its `ENTRY` takes two ndarray objects of one shape and of any
strides, which may not overlap. It returns `DONE` or, where the axes of an array but the last
cannot be taken as one, `REFUSED`. `RUN` is ``void run(source, stride, sink, stride, n)``, for `n`
elements so many bytes apart, and in whatever floating-point environment it is called.
"""

from llvmlite import ir

from fastact._compiler import conversions, pipeline
from fastact._compiler.builder import Function
from fastact._compiler.environment import environment_ir
from fastact._compiler.gemm.interface import DONE, REFUSED
from fastact._compiler.loops.loop_metadata import LoopMetadata, wide_vectors
from fastact._compiler.ndarray_fields import NDArray
from fastact._compiler.symbols import ENTRY, RUN
from fastact._machine.formats import BOOL, Format
from fastact._machine.targets import Target

_FEW = 8  # columns that are not worth a loop of their own for each row

# From double to 16 bits by way of float with one rounding nevertheless: what is not exact is cut
# off with its last bit set ("rounding to odd"), as float has more than two bits to spare.
_TO_ODD = """
define internal float @to_odd(double %v) alwaysinline {
  %near = fptrunc double %v to float
  %back = fpext float %near to double
  %inexact = fcmp one double %back, %v
  %v.bits = bitcast double %v to i64
  %back.bits = bitcast double %back to i64
  %v.size = and i64 %v.bits, 9223372036854775807
  %back.size = and i64 %back.bits, 9223372036854775807
  %beyond = icmp ugt i64 %back.size, %v.size
  %one = zext i1 %beyond to i32
  %near.bits = bitcast float %near to i32
  %cut = sub i32 %near.bits, %one
  %odd = or i32 %cut, 1
  %bits = select i1 %inexact, i32 %odd, i32 %near.bits
  %r = bitcast i32 %bits to float
  ret float %r
}"""


def _storage_type(form: Format, target: Target) -> str:
    """The LLVM type of an element in memory."""
    return "i8" if form == BOOL else conversions.storage_type(form, target)


def _element(source: Format, sink: Format, target: Target) -> str:
    """@element: from `source` to `sink`, a pair of the `CONVERSIONS`."""
    kinds = _storage_type(source, target), _storage_type(sink, target)
    helpers, operations = [], []
    if source != sink:
        double = sink.bits == 64 or (sink.bits == 16 and source.bits > 16)
        wide = "double" if double else "float"
        if source == BOOL:
            operations += ["icmp ne i8 {}, 0", f"uitofp i1 {{}} to {wide}"]
        elif source.is_integer:
            convert = "uitofp" if source.kind == "unsigned" else "sitofp"
            operations.append(f"{convert} {kinds[0]} {{}} to {wide}")
        elif source.bits == 16:
            helpers.append(_renamed(source, "source", target))
            operations.append(f"call float @source.decode({kinds[0]} {{}})")
            wide = "float"
        else:
            wide = kinds[0]
        if sink.bits < 64 and wide == "double":
            if sink.bits == 16:
                helpers.append(_TO_ODD)
                operations.append("call float @to_odd(double {})")
            else:
                operations.append("fptrunc double {} to float")
        if sink.bits == 64 and wide == "float":
            operations.append("fpext float {} to double")
        if sink.bits == 16:
            helpers.append(_renamed(sink, "sink", target))
            operations.append(f"call {kinds[1]} @sink.encode(float {{}})")
    values = ["%s", *(f"%v{k}" for k in range(len(operations)))]
    body = "".join(
        f"\n  {values[k + 1]} = {operation.format(values[k])}"
        for k, operation in enumerate(operations)
    )
    return f"""{"".join(helpers)}
define internal {kinds[1]} @element({kinds[0]} %s) alwaysinline {{{body}
  ret {kinds[1]} {values[-1]}
}}"""


def _renamed(form: Format, prefix: str, target: Target) -> str:
    """The pair of conversions between `form` and float as ``@PREFIX.decode`` and ``.encode``."""
    text = conversions.conversions_ir(form, target)
    return text.replace("@decode", f"@{prefix}.decode").replace("@encode", f"@{prefix}.encode")


def _run(source: Format, sink: Format, notes: LoopMetadata, target: Target) -> str:
    """@RUN, in a loop that is vectorised where neither has gaps."""
    kinds = _storage_type(source, target), _storage_type(sink, target)

    def loop(label: str, strides: tuple[str, str], metadata: str) -> str:
        return f"""
{label}.before:
  %some.{label} = icmp sgt i64 %n, 0
  br i1 %some.{label}, label %{label}, label %done
{label}:
  %i.{label} = phi i64 [ 0, %{label}.before ], [ %next.{label}, %{label} ]
  %from.offset.{label} = mul i64 %i.{label}, {strides[0]}
  %to.offset.{label} = mul i64 %i.{label}, {strides[1]}
  %from.{label} = getelementptr i8, ptr %source, i64 %from.offset.{label}
  %to.{label} = getelementptr i8, ptr %sink, i64 %to.offset.{label}
  %s.{label} = load {kinds[0]}, ptr %from.{label}, align 1
  %t.{label} = call {kinds[1]} @element({kinds[0]} %s.{label})
  store {kinds[1]} %t.{label}, ptr %to.{label}, align 1
  %next.{label} = add nuw nsw i64 %i.{label}, 1
  %more.{label} = icmp ult i64 %next.{label}, %n
  br i1 %more.{label}, label %{label}, label %done, {metadata}"""

    return f"""{_element(source, sink, target)}
define void @{RUN}(ptr noalias %source, i64 %stride, ptr noalias %sink, \
i64 %sink.stride, i64 %n) {wide_vectors(target)} {{
entry:
  %from.apart = xor i64 %stride, {source.itemsize}
  %to.apart = xor i64 %sink.stride, {sink.itemsize}
  %apart = or i64 %from.apart, %to.apart
  %close = icmp eq i64 %apart, 0
  br i1 %close, label %unit.before, label %any.before
{loop("unit", (str(source.itemsize), str(sink.itemsize)), notes.vectorised())}
{loop("any", ("%stride", "%sink.stride"), notes.scalar(unroll=4))}
done:
  ret void
}}"""


def object_code(source: Format, sink: Format, target: Target) -> bytes:
    """A relocatable object file with the `ENTRY` for one pair; it needs no other."""
    machine = pipeline.machine_of(target)
    module = pipeline.parse(_walk_ir(), target, machine)
    module.link_in(pipeline.parse(_support_ir(source, sink, target), target, machine))
    pipeline.hide(module, {ENTRY, RUN})
    pipeline.optimise(module, machine)
    return pipeline.emit(module, machine)


def _walk_ir() -> str:
    """``inner.convert(source, sink)``: ndarray objects, row by row through ``row``."""
    module = ir.Module()
    f = Function(module, f"inner.{ENTRY}", "source", "sink")
    source, sink = (NDArray(f, address) for address in f.arguments)
    with f.when((source.dimensions < 1) | source.dimensions.differs(sink.dimensions)):
        f.return_(REFUSED)
    last = source.dimensions - 1
    rows, row = source.rows()
    sink_rows, sink_row = sink.rows()
    columns, stride, sink_stride = source.length(last), source.stride(last), sink.stride(last)
    with f.when((rows < 0) | rows.differs(sink_rows) | columns.differs(sink.length(last))):
        f.return_(REFUSED)
    # What has no gaps is one row, and long and narrow arrays go by columns.
    whole = row.equals(columns * stride) & sink_row.equals(columns * sink_stride)
    narrow = (columns < _FEW) & (columns < rows)
    inner = f.select(whole, rows * columns, f.select(narrow, rows, columns))
    outer = f.select(whole, 1, f.select(narrow, columns, rows))
    by_columns = f.select(whole, 0, f.select(narrow, 1, 0)).differs(0)
    strides = f.select(by_columns, row, stride), f.select(by_columns, sink_row, sink_stride)
    skips = f.select(by_columns, stride, row), f.select(by_columns, sink_stride, sink_row)
    with f.loop(outer) as i:
        starts = source.data + i * skips[0], sink.data + i * skips[1]
        f.call("row", starts[0], strides[0], starts[1], strides[1], inner)
    f.return_(DONE)
    return str(module)


def _support_ir(source: Format, sink: Format, target: Target) -> str:
    """The entry, with the floating-point environment put aside, and a row of the arrays."""
    notes = LoopMetadata()
    return f"""{environment_ir(target)}
{_run(source, sink, notes, target)}
define i64 @row(i64 %source, i64 %stride, i64 %sink, i64 %sink.stride, i64 %n) {{
  %from = inttoptr i64 %source to ptr
  %to = inttoptr i64 %sink to ptr
  call void @{RUN}(ptr %from, i64 %stride, ptr %to, i64 %sink.stride, i64 %n)
  ret i64 0
}}
declare i64 @inner.{ENTRY}(i64, i64)
define i64 @{ENTRY}(i64 %source, i64 %sink) {{
  %saved = alloca [2 x i64]
  call void @enter(ptr %saved)
  %status = call i64 @inner.{ENTRY}(i64 %source, i64 %sink)
  call void @leave(ptr %saved)
  ret i64 %status
}}
{notes.ir()}"""
