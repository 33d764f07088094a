"""LLVM IR of NumPy inner loops around a scalar function.

A loop is load, decode, compute, encode, store; it knows no activation. The module built
here holds

``loop``
    the entry, with the signature of an ArrayMethod's strided loop. It puts the
    floating-point environment into its default state, walks the operands and puts the
    caller's state back.
``kernel``
    the hot loop: contiguous operands, a multiple of the block length, vectorised by LLVM.
    There is no other copy of the computation: what is strided, or is left over, goes through
    buffers that are padded to whole blocks, so that every element takes the same path and no
    result depends on its place.
"""

from ._conversions import compute_type, conversions_ir, storage_type
from ._environment import ENVIRONMENT_IR
from ._formats import FORMATS, Format
from ._frontend import ScalarIR
from ._targets import Target

ENTRY = "loop"
CHUNK = 512  # elements buffered at a time: three operands of 8 bytes are 12 KB, within L1

def loop_ir(scalar: ScalarIR, form: Format, arity: int, target: Target) -> str:
    """LLVM IR of the module described above, to be linked with `scalar`."""
    storage, compute = storage_type(form, target), compute_type(form)
    compute_bits = FORMATS[form.compute].bits
    block = target.vector_bits // compute_bits * target.interleave
    inputs = range(arity)
    operands = [*(f"x{i}" for i in inputs), "y"]
    pointers = ", ".join(f"ptr %{p}" for p in operands)

    loads = "\n".join(
        f"""
  %p{i} = getelementptr inbounds {storage}, ptr %x{i}, i64 %i
  %s{i} = load {storage}, ptr %p{i}, align 1, !llvm.access.group !9
  %v{i} = call {compute} @decode({storage} %s{i})"""
        for i in inputs
    )
    values = ", ".join(f"{compute} %v{i}" for i in inputs)
    signature = ", ".join(f"{compute}" for i in inputs)
    kernel = f"""
declare void @llvm.assume(i1)
declare i32 @{scalar.symbol}(ptr, ptr, {signature})

define internal {compute} @scalar({values}) alwaysinline {{
  %r = alloca {compute}
  %status = call i32 @{scalar.symbol}(ptr %r, ptr null, {values})
  %v = load {compute}, ptr %r
  ret {compute} %v
}}

define internal void @kernel({pointers}, i64 %blocks) noinline #0 {{
entry:
  %some = icmp ne i64 %blocks, 0
  call void @llvm.assume(i1 %some)
  %n = mul nuw nsw i64 %blocks, {block}
  br label %body
body:
  %i = phi i64 [ 0, %entry ], [ %next, %body ]
  {loads}
  %v = call {compute} @scalar({values})
  %s = call {storage} @encode({compute} %v)
  %p = getelementptr inbounds {storage}, ptr %y, i64 %i
  store {storage} %s, ptr %p, align 1, !llvm.access.group !9
  %next = add nuw nsw i64 %i, 1
  %more = icmp ult i64 %next, %n
  br i1 %more, label %body, label %done, !llvm.loop !0
done:
  ret void
}}
"""
    return "\n".join(
        [
            kernel,
            conversions_ir(form, target),
            ENVIRONMENT_IR[target.architecture],
            _copies(storage, form, target),
            _entry(operands, form.itemsize, block),
            _metadata(target, compute_bits),
        ]
    )


def _copies(storage: str, form: Format, target: Target) -> str:
    """@gather and @scatter: any stride to unit stride, and back.

    A stride of two elements is gathered by whole vectors, keeping every other lane (x[::2],
    real parts: 5 times the speed of one element at a time); all others one element at a time,
    since gather instructions are no faster.
    """
    size, lanes = form.itemsize, target.vector_bits // form.bits

    def loop(label: str, start: str, source: str, sink: str) -> str:
        return f"""
{label}:
  %i.{label} = phi i64 [ {start}, %{label}.before ], [ %next.{label}, %{label} ]
  %from.step.{label} = mul i64 %i.{label}, {source}
  %to.step.{label} = mul i64 %i.{label}, {sink}
  %from.{label} = getelementptr i8, ptr %source, i64 %from.step.{label}
  %to.{label} = getelementptr i8, ptr %sink, i64 %to.step.{label}
  %item.{label} = load {storage}, ptr %from.{label}, align 1
  store {storage} %item.{label}, ptr %to.{label}, align 1
  %next.{label} = add i64 %i.{label}, 1
  %more.{label} = icmp ult i64 %next.{label}, %n
  br i1 %more.{label}, label %{label}, label %done, !llvm.loop !{20 if label == "any" else 21}"""

    even = ", ".join(f"i32 {2 * lane}" for lane in range(lanes))
    wide, narrow = f"<{2 * lanes} x {storage}>", f"<{lanes} x {storage}>"
    parameters = "ptr noalias %source, ptr noalias %sink, i64 %stride, i64 %n"
    return f"""
define internal void @gather({parameters}) noinline #1 {{
entry:
  ; A wide load at the last element would reach one element too far.
  %vectors = udiv i64 %n, {lanes}
  %spare = mul i64 %vectors, {lanes}
  %full = icmp eq i64 %spare, %n
  %less = sub i64 %spare, {lanes}
  %safe = select i1 %full, i64 %less, i64 %spare
  switch i64 %stride, label %any.before [ i64 {size}, label %unit.before
                                          i64 {2 * size}, label %two.before ]
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

define internal void @scatter({parameters}) noinline #1 {{
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


def _entry(operands: list[str], itemsize: int, block: int) -> str:
    buffer = f"[{CHUNK * itemsize} x i8]"
    inputs = [op for op in operands if op != "y"]
    pointers = ", ".join(f"ptr %{p}" for p in operands)
    buffers = ", ".join(f"ptr %{p}.buffer" for p in operands)
    arguments = ", ".join(f"ptr %{p}, i64 %{p}.stride" for p in operands)

    allocate = "\n".join(f"  %{p}.buffer = alloca {buffer}, align 64" for p in operands)
    gather = "\n".join(
        f"""
  %{p}.offset = mul i64 %i, %{p}.stride
  %{p}.at = getelementptr i8, ptr %{p}, i64 %{p}.offset
  %{p}.end = getelementptr i8, ptr %{p}.buffer, i64 %bytes
  call void @pad(ptr %{p}.end, i64 %padding)
  call void @gather(ptr %{p}.at, ptr %{p}.buffer, i64 %{p}.stride, i64 %m)"""
        for p in inputs
    )
    buffered = f"""
define internal void @pad(ptr %sink, i64 %n) noinline #1 {{
entry:
  %any = icmp ne i64 %n, 0
  br i1 %any, label %body, label %done
body:
  %i = phi i64 [ 0, %entry ], [ %next, %body ]
  %to = getelementptr i8, ptr %sink, i64 %i
  store i8 0, ptr %to
  %next = add i64 %i, 1
  %more = icmp ult i64 %next, %n
  br i1 %more, label %body, label %done
done:
  ret void
}}

define internal void @buffered({arguments}, i64 %n) noinline #1 {{
entry:
{allocate}
  br label %chunk
chunk:
  %i = phi i64 [ 0, %entry ], [ %next, %chunk ]
  %left = sub i64 %n, %i
  %whole = icmp ult i64 %left, {CHUNK}
  %m = select i1 %whole, i64 %left, i64 {CHUNK}
  %up = add i64 %m, {block - 1}
  %blocks = udiv i64 %up, {block}
  %padded = mul i64 %blocks, {block}
  %missing = sub i64 %padded, %m
  %bytes = mul i64 %m, {itemsize}
  %padding = mul i64 %missing, {itemsize}
  {gather}
  call void @kernel({buffers}, i64 %blocks)
  %y.offset = mul i64 %i, %y.stride
  %y.at = getelementptr i8, ptr %y, i64 %y.offset
  call void @scatter(ptr %y.buffer, ptr %y.at, i64 %y.stride, i64 %m)
  %next = add i64 %i, {CHUNK}
  %more = icmp ult i64 %next, %n
  br i1 %more, label %chunk, label %done
done:
  ret void
}}
"""
    unpack = "\n".join(
        f"""
  %{p}.slot = getelementptr ptr, ptr %data, i64 {k}
  %{p} = load ptr, ptr %{p}.slot
  %{p}.step = getelementptr i64, ptr %strides, i64 {k}
  %{p}.stride = load i64, ptr %{p}.step
  %{p}.dense = icmp eq i64 %{p}.stride, {itemsize}"""
        for k, p in enumerate(operands)
    )
    dense, chain = "true", []
    for p in operands:
        chain.append(f"  %dense.{p} = and i1 {dense}, %{p}.dense")
        dense = f"%dense.{p}"
    advance = "\n".join(
        f"  %{p}.rest = getelementptr i8, ptr %{p}, i64 %offset" for p in operands
    )
    rest = ", ".join(f"ptr %{p}.rest, i64 {itemsize}" for p in operands)
    return (
        buffered
        + f"""
define i32 @{ENTRY}(ptr %context, ptr %data, ptr %dimensions, ptr %strides, ptr %auxdata) #1 {{
entry:
  %saved = alloca [2 x i64]
  %n = load i64, ptr %dimensions
  {unpack}
{chr(10).join(chain)}
  %empty = icmp sle i64 %n, 0
  br i1 %empty, label %end, label %start
start:
  call void @enter(ptr %saved)
  br i1 {dense}, label %direct, label %strided
direct:
  %blocks = udiv i64 %n, {block}
  %some = icmp ne i64 %blocks, 0
  br i1 %some, label %body, label %remainder
body:
  call void @kernel({pointers}, i64 %blocks)
  br label %remainder
remainder:
  %done = mul i64 %blocks, {block}
  %left = sub i64 %n, %done
  %offset = mul i64 %done, {itemsize}
{advance}
  %tail = icmp ne i64 %left, 0
  br i1 %tail, label %last, label %finish
last:
  call void @buffered({rest}, i64 %left)
  br label %finish
strided:
  call void @buffered({arguments}, i64 %n)
  br label %finish
finish:
  call void @leave(ptr %saved)
  br label %end
end:
  ret i32 0
}}
"""
    )


def _metadata(target: Target, compute_bits: int) -> str:
    # Each iteration touches its own element only, so that the accesses are parallel whether
    # or not the output is the input: no run-time overlap check, no scalar fallback in place.
    # "no-builtins" keeps LLVM from turning copies into calls of memcpy.
    return f"""
attributes #0 = {{ "prefer-vector-width"="{target.vector_bits}" "no-builtins" }}
attributes #1 = {{ "no-builtins" }}
!0 = distinct !{{!0, !1, !2, !3, !4}}
!1 = !{{!"llvm.loop.vectorize.enable", i1 true}}
!2 = !{{!"llvm.loop.vectorize.width", i32 {target.vector_bits // compute_bits}}}
!3 = !{{!"llvm.loop.interleave.count", i32 {target.interleave}}}
!4 = !{{!"llvm.loop.parallel_accesses", !9}}
!9 = distinct !{{}}
!20 = distinct !{{!20, !22, !23}}
!21 = distinct !{{!21, !1}}
!22 = !{{!"llvm.loop.vectorize.enable", i1 false}}
!23 = !{{!"llvm.loop.unroll.count", i32 4}}
"""
