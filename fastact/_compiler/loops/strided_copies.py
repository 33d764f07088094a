"""LLVM IR that copies elements between operands of any stride and buffers."""

from fastact._compiler.loops.loop_metadata import LoopMetadata, wide_vectors
from fastact._machine.formats import Format
from fastact._machine.targets import Target


def copies_ir(storage: str, form: Format, notes: LoopMetadata, target: Target) -> str:
    """@gather and @scatter: copy from any stride to unit stride, and back.

    A stride of two elements (x[::2], real parts) is gathered by whole vectors, keeping every
    other lane. Stride 0, one number for all elements, is stored as whole vectors. Other strides are
    gathered one element at a time, because gather instructions are no faster (bench/NOTES.md).
    """
    size, lanes = form.itemsize, target.vector_bits // form.bits

    def loop(label: str, start: str, source: str, sink: str) -> str:
        metadata = notes.scalar(unroll=4) if label == "any" else notes.vectorised()
        return f"""
{label}:
  %i.{label} = phi i64 [ {start}, %{label}.before ], [ %next.{label}, %{label} ]
  %from.offset.{label} = mul i64 %i.{label}, {source}
  %to.offset.{label} = mul i64 %i.{label}, {sink}
  %from.{label} = getelementptr i8, ptr %source, i64 %from.offset.{label}
  %to.{label} = getelementptr i8, ptr %sink, i64 %to.offset.{label}
  %item.{label} = load {storage}, ptr %from.{label}, align 1
  store {storage} %item.{label}, ptr %to.{label}, align 1
  %next.{label} = add i64 %i.{label}, 1
  %more.{label} = icmp ult i64 %next.{label}, %n
  br i1 %more.{label}, label %{label}, label %done, {metadata}"""

    even = ", ".join(f"i32 {2 * lane}" for lane in range(lanes))
    wide, narrow = f"<{2 * lanes} x {storage}>", f"<{lanes} x {storage}>"
    parameters = "ptr noalias %source, ptr noalias %sink, i64 %stride, i64 %n"
    return f"""
define internal void @gather({parameters}) {wide_vectors(target)} {{
entry:
  ; A wide load at the last element would reach one element too far.
  %vectors = udiv i64 %n, {lanes}
  %spare = mul i64 %vectors, {lanes}
  %full = icmp eq i64 %spare, %n
  %less = sub i64 %spare, {lanes}
  %safe = select i1 %full, i64 %less, i64 %spare
  switch i64 %stride, label %any.before [ i64 {size}, label %unit.before
                                          i64 0, label %one.before
                                          i64 {2 * size}, label %two.before ]
one.before:
  br label %one
{loop("one", "0", "0", str(size))}
unit.before:
  br label %unit
{loop("unit", "0", str(size), str(size))}
two.before:
  %long = icmp ugt i64 %n, {lanes}
  br i1 %long, label %two, label %any.before
two:
  %j = phi i64 [ 0, %two.before ], [ %j.next, %two ]
  %j.from = mul i64 %j, {2 * size}
  %j.to = mul i64 %j, {size}
  %wide.at = getelementptr i8, ptr %source, i64 %j.from
  %wide = load {wide}, ptr %wide.at, align 1
  %even = shufflevector {wide} %wide, {wide} poison, <{lanes} x i32> <{even}>
  %even.at = getelementptr i8, ptr %sink, i64 %j.to
  store {narrow} %even, ptr %even.at, align 1
  %j.next = add i64 %j, {lanes}
  %j.more = icmp ult i64 %j.next, %safe
  br i1 %j.more, label %two, label %any.before
any.before:
  %start = phi i64 [ 0, %entry ], [ 0, %two.before ], [ %j.next, %two ]
  br label %any
{loop("any", "%start", "%stride", str(size))}
done:
  ret void
}}

define internal void @scatter({parameters}) {wide_vectors(target)} {{
entry:
  %dense = icmp eq i64 %stride, {size}
  br i1 %dense, label %unit.before, label %any.before
unit.before:
  br label %unit
{loop("unit", "0", str(size), str(size))}
any.before:
  br label %any
{loop("any", "0", str(size), "%stride")}
done:
  ret void
}}"""
