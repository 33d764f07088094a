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

from ._formats import Format
from ._frontend import ScalarIR
from ._targets import Target

ENTRY = "loop"
CHUNK = 512  # elements buffered at a time: three operands of 8 bytes are 12 KB, within L1

_INTEGER_TYPES = {8: "i8", 16: "i16", 32: "i32", 64: "i64"}
_FLOAT_TYPES = {16: "half", 32: "float", 64: "double"}


def _storage(form: Format, target: Target) -> str:
    if form.kind == "float" and (form.bits > 16 or target.has_half):
        return _FLOAT_TYPES[form.bits]
    return _INTEGER_TYPES[form.bits]


def _compute(form: Format) -> str:
    return "float" if form.compute == "float32" else _storage_of_compute(form)


def _storage_of_compute(form: Format) -> str:
    return "double" if form.compute == "float64" else _INTEGER_TYPES[form.bits]


# Conversions between storage and compute type, as IR functions @decode and @encode.

_SAME = """
define internal {t} @decode({t} %s) alwaysinline {{ ret {t} %s }}
define internal {t} @encode({t} %s) alwaysinline {{ ret {t} %s }}
"""

_NATIVE_HALF = """
define internal float @decode(half %s) alwaysinline {
  %v = fpext half %s to float
  ret float %v
}
define internal half @encode(float %v) alwaysinline {
  %s = fptrunc float %v to half
  ret half %s
}
"""

# Without instructions for half: a product with 2**112 rebiases the exponent and normalises
# subnormals at once; the way back rounds to nearest even in integers, or, for subnormal
# results, in the float sum with 0.5.
_SOFT_HALF = """
define internal float @decode(i16 %s) alwaysinline {
  %w = zext i16 %s to i32
  %body = and i32 %w, 32767
  %sign = and i32 %w, 32768
  %sign32 = shl i32 %sign, 16
  %shifted = shl i32 %body, 13
  %small = bitcast i32 %shifted to float
  %scaled = fmul float %small, 0x46F0000000000000
  %finite = bitcast float %scaled to i32
  %special = or i32 %shifted, 2139095040
  %isspecial = icmp uge i32 %body, 31744
  %bits = select i1 %isspecial, i32 %special, i32 %finite
  %signed = or i32 %bits, %sign32
  %v = bitcast i32 %signed to float
  ret float %v
}
define internal i16 @encode(float %v) alwaysinline {
  %bits = bitcast float %v to i32
  %body = and i32 %bits, 2147483647
  %sign = xor i32 %bits, %body
  %sign16 = lshr i32 %sign, 16
  %abs = bitcast i32 %body to float
  %sum = fadd float %abs, 5.0e-01
  %sumbits = bitcast float %sum to i32
  %subnormal = sub i32 %sumbits, 1056964608
  %cut = lshr i32 %body, 13
  %odd = and i32 %cut, 1
  %rebased = sub i32 %body, 939520001
  %rounded = add i32 %rebased, %odd
  %normal = lshr i32 %rounded, 13
  %issmall = icmp ult i32 %body, 947912704
  %finite = select i1 %issmall, i32 %subnormal, i32 %normal
  %isbig = icmp uge i32 %body, 1199566848
  %bounded = select i1 %isbig, i32 31744, i32 %finite
  %isnan = icmp ugt i32 %body, 2139095040
  %magnitude = select i1 %isnan, i32 32256, i32 %bounded
  %all = or i32 %magnitude, %sign16
  %s = trunc i32 %all to i16
  ret i16 %s
}
"""

# bfloat16 is the upper half of a binary32; rounding to nearest even is an integer sum.
_BFLOAT = """
define internal float @decode(i16 %s) alwaysinline {
  %w = zext i16 %s to i32
  %bits = shl i32 %w, 16
  %v = bitcast i32 %bits to float
  ret float %v
}
define internal i16 @encode(float %v) alwaysinline {
  %bits = bitcast float %v to i32
  %cut = lshr i32 %bits, 16
  %odd = and i32 %cut, 1
  %bias = add i32 %odd, 32767
  %sum = add i32 %bits, %bias
  %rounded = lshr i32 %sum, 16
  %quiet = or i32 %cut, 64
  %isnan = fcmp uno float %v, %v
  %all = select i1 %isnan, i32 %quiet, i32 %rounded
  %s = trunc i32 %all to i16
  ret i16 %s
}
"""


def _conversions(form: Format, target: Target) -> str:
    if form.kind == "bfloat":
        return _BFLOAT
    if form.bits == 16 and form.kind == "float":
        return _NATIVE_HALF if target.has_half else _SOFT_HALF
    return _SAME.format(t=_compute(form))


# Saving and restoring the floating-point environment: control (rounding, flush to zero) and
# status flags. 0x1F80 and 0 are the power-on defaults: nearest even, no flushing, no traps.

_ENVIRONMENT = {
    "x86_64": """
declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)
define internal void @enter(ptr %saved) alwaysinline {
  %default = alloca i32
  store i32 8064, ptr %default
  call void @llvm.x86.sse.stmxcsr(ptr %saved)
  call void @llvm.x86.sse.ldmxcsr(ptr %default)
  ret void
}
define internal void @leave(ptr %saved) alwaysinline {
  call void @llvm.x86.sse.ldmxcsr(ptr %saved)
  ret void
}
""",
    "aarch64": """
declare i64 @llvm.aarch64.get.fpcr()
declare void @llvm.aarch64.set.fpcr(i64)
declare i64 @llvm.aarch64.get.fpsr()
declare void @llvm.aarch64.set.fpsr(i64)
define internal void @enter(ptr %saved) alwaysinline {
  %control = call i64 @llvm.aarch64.get.fpcr()
  %status = call i64 @llvm.aarch64.get.fpsr()
  store i64 %control, ptr %saved
  %next = getelementptr i64, ptr %saved, i64 1
  store i64 %status, ptr %next
  call void @llvm.aarch64.set.fpcr(i64 0)
  ret void
}
define internal void @leave(ptr %saved) alwaysinline {
  %control = load i64, ptr %saved
  %next = getelementptr i64, ptr %saved, i64 1
  %status = load i64, ptr %next
  call void @llvm.aarch64.set.fpcr(i64 %control)
  call void @llvm.aarch64.set.fpsr(i64 %status)
  ret void
}
""",
}


def loop_ir(scalar: ScalarIR, form: Format, arity: int, target: Target) -> str:
    """LLVM IR of the module described above, to be linked with `scalar`."""
    storage, compute = _storage(form, target), _compute(form)
    compute_bits = max(32, form.bits)
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
            _conversions(form, target),
            _ENVIRONMENT[target.architecture],
            _copies(storage, form.itemsize),
            _entry(operands, form.itemsize, block),
            _metadata(target, compute_bits),
        ]
    )


def _copies(storage: str, itemsize: int) -> str:
    """@gather and @scatter: strided to dense and back, with a dense special case."""

    def copy(name: str, source: str, sink: str) -> str:
        strided, dense = f"mul i64 %i, %stride", f"mul i64 %i, {itemsize}"
        body = "\n".join(
            f"""
{label}:
  %i.{label} = phi i64 [ 0, %entry ], [ %next.{label}, %{label} ]
  %step.{label} = mul i64 %i.{label}, {stride}
  %dense.{label} = mul i64 %i.{label}, {itemsize}
  %from.{label} = getelementptr i8, ptr %source, i64 %{source}.{label}
  %to.{label} = getelementptr i8, ptr %sink, i64 %{sink}.{label}
  %item.{label} = load {storage}, ptr %from.{label}, align 1
  store {storage} %item.{label}, ptr %to.{label}, align 1
  %next.{label} = add i64 %i.{label}, 1
  %more.{label} = icmp ult i64 %next.{label}, %n
  br i1 %more.{label}, label %{label}, label %done"""
            for label, stride in (("any", "%stride"), ("unit", str(itemsize)), ("two", str(2 * itemsize)))
        )
        return f"""
define internal void @{name}(ptr noalias %source, ptr noalias %sink, i64 %stride, i64 %n) noinline #1 {{
entry:
  switch i64 %stride, label %any [ i64 {itemsize}, label %unit
                                   i64 {2 * itemsize}, label %two ]
{body}
done:
  ret void
}}"""

    return copy("gather", "step", "dense") + copy("scatter", "dense", "step")


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
"""
