"""LLVM IR of NumPy inner loops around a scalar function.

A loop is load, decode, compute, encode, store; it knows no activation. The module built here
holds

``loop``
    the entry, with the signature of an ArrayMethod's strided loop. Where elements depend on
    each other it takes them one at a time (``overlap.py``); much work it shares among threads.
``loop_alone``
    the same for callers that have shared their work among threads already.
``run``
    a part of the operands in one thread. It puts the floating-point environment aside, which
    every thread has one of, and puts it back.
``kernel``
    the hot loop over contiguous operands, vectorised and interleaved by LLVM.
``kernel_short``
    the same computation one vector at a time, for what is left over.
``kernel_stream``
    the hot loop for an output that is too large for any cache (``_compiler/nontemporal.py``).
``kernel_ahead``
    the same for one that is too large for those next to the core.
``buffered``
    everything else (strides, the last elements) in chunks through contiguous buffers that
    are padded to whole vectors. So there is no scalar copy of the computation, and no result
    depends on where its element lies.
"""

from fastact._compiler.conversions import compute_type, conversions_ir, storage_type
from fastact._compiler.environment import environment_ir
from fastact._compiler.nontemporal import AHEAD as AHEAD_KERNEL
from fastact._compiler.nontemporal import PREFETCH_IR
from fastact._compiler.nontemporal import STREAMED as STREAMED_KERNEL
from fastact._compiler.overlap import ANY, BLOCKS, apart_ir, relation_ir
from fastact._compiler.pipeline import ScalarIR
from fastact._compiler.symbols import ALONE, ENTRY
from fastact._compiler.threads.fan_out import FAN_OUT_IR, body_ir, sharing_ir
from fastact._machine.formats import FORMATS, Format
from fastact._machine.targets import Operation, Target

# Bytes of an output (bench/NOTES.md).
AHEAD = 1 << 19  # from which on what comes next is fetched meanwhile
STREAMED = 1 << 24  # from which on it goes past the caches
PAGE = 4096  # of memory
LINE = 64  # of a cache
PRIMED = 8  # lines of each page that are fetched by hand where results go past the caches
CHUNK = 512  # elements buffered at a time: three operands of 8 bytes are 12 KB, within L1


def loop_ir(scalar: ScalarIR, form: Format, arity: int, target: Target, results: int = 1) -> str:
    """LLVM IR of the module described above, to be linked with `scalar`."""
    compute = compute_type(form)
    lanes = target.vector_bits // FORMATS[form.compute].bits
    outputs = [f"y{i}" for i in range(results)] if results > 1 else ["y"]
    operands = [*(f"x{i}" for i in range(arity)), *outputs]
    storage = storage_type(form, target)
    sizes = dict.fromkeys(operands, form.itemsize)
    block = lanes * target.interleave
    return "\n".join(
        [
            _scalar(scalar, compute, arity, results),
            conversions_ir(form, target),
            environment_ir(target),
            _kernel("kernel", operands, storage, compute, block, "!0"),
            _kernel("kernel_short", operands, storage, compute, lanes, "!1"),
            copies_ir(storage, form, target),
            _buffered(operands, storage, form, lanes, block),
            _run(operands, form, block, target),
            FAN_OUT_IR,
            _body(operands),
            relation_ir(*_inputs_and_outputs(operands), sizes),
            *(_entry(name, operands, sizes) for name in (ENTRY, ALONE)),
            metadata_ir(target, lanes),
        ]
    )


def vector_loop_ir(name: str, scalar: ScalarIR, form: Format, target: Target) -> str:
    """LLVM IR of ``void NAME(x, y, count)``, of `count` vectors, to be linked with `scalar`."""
    compute, storage = compute_type(form), storage_type(form, target)
    lanes = target.vector_bits // FORMATS[form.compute].bits
    return "\n".join(
        [
            _scalar(scalar, compute, 1, 1),
            conversions_ir(form, target),
            _kernel(name, ["x0", "y"], storage, compute, lanes, "!1"),
            metadata_ir(target, lanes),
        ]
    )


def _scalar(scalar: ScalarIR, compute: str, arity: int, results: int) -> str:
    values = ", ".join(f"{compute} %v{i}" for i in range(arity))
    kind = f"[{results} x {compute}]"
    return f"""
declare void @llvm.assume(i1)
declare i32 @{scalar.symbol}(ptr, ptr, {", ".join([compute] * arity)})
define internal {kind} @scalar({values}) alwaysinline {{
  %r = alloca {kind}
  %status = call i32 @{scalar.symbol}(ptr %r, ptr null, {values})
  %v = load {kind}, ptr %r
  ret {kind} %v
}}"""


def _kernel(
    name: str, operands: list[str], storage: str, compute: str, block: int, metadata: str
) -> str:
    """A loop over `%blocks` > 0 times `block` contiguous elements."""
    inputs, outputs = _inputs_and_outputs(operands)
    kind = f"[{len(outputs)} x {compute}]"
    loads = "".join(
        f"""
  %p.{x} = getelementptr inbounds {storage}, ptr %{x}, i64 %i
  %s.{x} = load {storage}, ptr %p.{x}, align 1, !llvm.access.group !9
  %v.{x} = call {compute} @decode({storage} %s.{x})"""
        for x in inputs
    )
    values = ", ".join(f"{compute} %v.{x}" for x in inputs)
    stores = "".join(
        f"""
  %v.{y} = extractvalue {kind} %v, {k}
  %s.{y} = call {storage} @encode({compute} %v.{y})
  %p.{y} = getelementptr inbounds {storage}, ptr %{y}, i64 %i
  store {storage} %s.{y}, ptr %p.{y}, align 1, !llvm.access.group !9"""
        for k, y in enumerate(outputs)
    )
    return f"""
define void @{name}({_pointers(operands)}, i64 %blocks) noinline #0 {{
entry:
  %some = icmp ne i64 %blocks, 0
  call void @llvm.assume(i1 %some)
  %n = mul nuw nsw i64 %blocks, {block}
  br label %body
body:
  %i = phi i64 [ 0, %entry ], [ %next, %body ]{loads}
  %v = call {kind} @scalar({values}){stores}
  %next = add nuw nsw i64 %i, 1
  %more = icmp ult i64 %next, %n
  br i1 %more, label %body, label %done, !llvm.loop {metadata}
done:
  ret void
}}"""


def _inputs_and_outputs(operands: list[str]) -> tuple[list[str], list[str]]:
    inputs = [p for p in operands if p.startswith("x")]
    return inputs, operands[len(inputs) :]


def _pointers(operands: list[str], suffix: str = "") -> str:
    return ", ".join(f"ptr %{p}{suffix}" for p in operands)


def _strided(operands: list[str]) -> str:
    return ", ".join(f"ptr %{p}, i64 %{p}.stride" for p in operands)


def copies_ir(storage: str, form: Format, target: Target) -> str:
    """@gather and @scatter: any stride to unit stride, and back.

    A stride of two elements (x[::2], real parts) is gathered by whole vectors, keeping every
    other lane; all others one element at a time, since gather instructions are no faster
    (bench/NOTES.md).
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
  br i1 %more.{label}, label %{label}, label %done, !llvm.loop !{10 if label == "any" else 11}"""

    even = ", ".join(f"i32 {2 * lane}" for lane in range(lanes))
    wide, narrow = f"<{2 * lanes} x {storage}>", f"<{lanes} x {storage}>"
    parameters = "ptr noalias %source, ptr noalias %sink, i64 %stride, i64 %n"
    return f"""
define internal void @gather({parameters}) #0 {{
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

define internal void @scatter({parameters}) #0 {{
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


def _buffered(operands: list[str], storage: str, form: Format, lanes: int, block: int) -> str:
    """@buffered: operands of any strides, by way of buffers."""
    inputs, outputs = _inputs_and_outputs(operands)
    allocate = "".join(
        f"\n  %{p}.buffer = alloca [{CHUNK} x {storage}], align 64" for p in operands
    )
    # The last vector is cleared first: its padding is computed too, and must not be slow
    # (subnormal) by chance.
    gather = "".join(
        f"""
  %{p}.last = getelementptr {storage}, ptr %{p}.buffer, i64 %last
  store <{lanes} x {storage}> zeroinitializer, ptr %{p}.last, align 1
  %{p}.offset = mul i64 %i, %{p}.stride
  %{p}.at = getelementptr i8, ptr %{p}, i64 %{p}.offset
  call void @gather(ptr %{p}.at, ptr %{p}.buffer, i64 %{p}.stride, i64 %m)"""
        for p in inputs
    )
    scatter = "".join(
        f"""
  %{p}.offset = mul i64 %i, %{p}.stride
  %{p}.at = getelementptr i8, ptr %{p}, i64 %{p}.offset
  call void @scatter(ptr %{p}.buffer, ptr %{p}.at, i64 %{p}.stride, i64 %m)"""
        for p in outputs
    )
    rest = "".join(
        f"\n  %{p}.rest = getelementptr {storage}, ptr %{p}.buffer, i64 %handled" for p in operands
    )
    return f"""
define internal void @buffered({_strided(operands)}, i64 %n) noinline #1 {{
entry:{allocate}
  br label %chunk
chunk:
  %i = phi i64 [ 0, %entry ], [ %next, %finish ]
  %left = sub i64 %n, %i
  %final = icmp ult i64 %left, {CHUNK}
  %m = select i1 %final, i64 %left, i64 {CHUNK}
  %m.up = add i64 %m, {lanes - 1}
  %vectors = udiv i64 %m.up, {lanes}
  %padded = mul i64 %vectors, {lanes}
  %last = sub i64 %padded, {lanes}{gather}
  %blocks = udiv i64 %m, {block}
  %handled = mul i64 %blocks, {block}
  %any = icmp ne i64 %blocks, 0
  br i1 %any, label %whole, label %between
whole:
  call void @kernel({_pointers(operands, ".buffer")}, i64 %blocks)
  br label %between
between:{rest}
  %open = sub i64 %padded, %handled
  %short = udiv i64 %open, {lanes}
  %some = icmp ne i64 %short, 0
  br i1 %some, label %tail, label %finish
tail:
  call void @kernel_short({_pointers(operands, ".rest")}, i64 %short)
  br label %finish
finish:{scatter}
  %next = add i64 %i, {CHUNK}
  %more = icmp ult i64 %next, %n
  br i1 %more, label %chunk, label %done
done:
  ret void
}}"""


def _run(operands: list[str], form: Format, block: int, target: Target) -> str:
    """@run: `n` > 0 elements, in any order, of a call for `whole`."""
    size = form.itemsize
    apart, strides = "0", ""
    for p in operands:
        strides += f"""
  %{p}.apart = xor i64 %{p}.stride, {size}
  %apart.{p} = or i64 {apart}, %{p}.apart"""
        apart = f"%apart.{p}"
    rest = "".join(f"\n  %{p}.rest = getelementptr i8, ptr %{p}, i64 %offset" for p in operands)
    tail = ", ".join(f"ptr %{p}.rest, i64 {size}" for p in operands)
    # LLVM has no such stores of vectors of elements below 32 bits (bench/NOTES.md).
    fence = target.instructions.fence if form.bits >= 32 else None
    declared, branch, streamed, handled = "", "br label %plain", "", "%handled.plain, %body.end"
    kernel = f"call void @kernel({_pointers(operands)}, i64 %blocks)"
    if fence is not None:
        declared = f"\ndeclare void @{AHEAD_KERNEL}({_pointers(operands)}, i64)"
        kernel = f"""%bytes = mul i64 %whole, {size}
  %far = icmp uge i64 %bytes, {AHEAD}
  br i1 %far, label %body.far, label %body.near
body.far:
  call void @{AHEAD_KERNEL}({_pointers(operands)}, i64 %blocks)
  br label %body.end
body.near:
  {kernel}"""
    if fence is not None and len(_inputs_and_outputs(operands)[1]) == 1:
        declared_too, streamed = _streamed(operands, size, block, target, fence)
        declared += declared_too
        branch = f"""%output = mul i64 %whole, {size}
  %large = icmp uge i64 %output, {STREAMED}
  br i1 %large, label %stream, label %plain"""
        handled = "%handled.plain, %body.end ], [ %handled.stream, %streamed"
    return f"""{declared}
define internal void @run({_strided(operands)}, i64 %n, i64 %whole) noinline #1 {{
entry:
  %saved = alloca [2 x i64]
  call void @enter(ptr %saved){strides}
  %contiguous = icmp eq i64 {apart}, 0
  br i1 %contiguous, label %direct, label %strided
direct:
  {branch}{streamed}
plain:
  %blocks = udiv i64 %n, {block}
  %handled.plain = mul i64 %blocks, {block}
  %some = icmp ne i64 %blocks, 0
  br i1 %some, label %body, label %body.end
body:
  {kernel}
  br label %body.end
body.end:
  br label %remainder
remainder:
  %handled = phi i64 [ {handled} ]
  %left = sub i64 %n, %handled
  %offset = mul i64 %handled, {size}{rest}
  %more = icmp ne i64 %left, 0
  br i1 %more, label %tail, label %finish
tail:
  call void @buffered({tail}, i64 %left)
  br label %finish
strided:
  call void @buffered({_strided(operands)}, i64 %n)
  br label %finish
finish:
  call void @leave(ptr %saved)
  ret void
}}"""


def _streamed(
    operands: list[str], size: int, block: int, target: Target, fence: Operation
) -> tuple[str, str]:
    """The part of @run for large outputs, from label %stream to the end of %streamed.

    What comes before a multiple of the vectors' size goes through buffers. In place nothing is
    gained, as the lines of the output are read anyway.
    """
    *inputs, y = operands
    in_place, tests = "false", ""
    for x in inputs:
        tests += f"""
  %{x}.same = icmp eq ptr %{x}, %{y}
  %in.place.{x} = or i1 {in_place}, %{x}.same"""
        in_place = f"%in.place.{x}"
    vector = target.vector_bits // 8
    head = ", ".join(f"ptr %{p}, i64 {size}" for p in operands)
    begin = "".join(
        f"\n  %{p}.begin = getelementptr i8, ptr %{p}, i64 %head.bytes" for p in operands
    )
    declared = f"""{PREFETCH_IR}
{fence.declaration}
declare ptr @llvm.ptrmask.p0.i64(ptr, i64)
declare void @{STREAMED_KERNEL}({_pointers(operands)}, i64)"""
    here = "".join(
        f"\n  %{p}.here = getelementptr i8, ptr %{p}.begin, i64 %bytes.done" for p in operands
    )
    prime = "".join(_prime(x) for x in inputs)
    return (
        declared,
        f"""
stream:
  %y.int = ptrtoint ptr %{y} to i64
  %y.odd = and i64 %y.int, {size - 1}
  %unaligned = icmp ne i64 %y.odd, 0{tests}
  %unfit.1 = or i1 %unaligned, {in_place}
  %y.less = sub i64 0, %y.int
  %head.bytes = and i64 %y.less, {vector - 1}
  %head = udiv i64 %head.bytes, {size}
  %few = icmp ult i64 %n, {vector + block}
  %unfit = or i1 %unfit.1, %few
  br i1 %unfit, label %plain, label %fit
fit:
  %ahead = icmp ne i64 %head, 0
  br i1 %ahead, label %align, label %aligned
align:
  call void @buffered({head}, i64 %head)
  br label %aligned
aligned:
  %behind = sub i64 %n, %head
  %blocks.stream = udiv i64 %behind, {block}{begin}
  br label %page
page:
  %blocks.done = phi i64 [ 0, %aligned ], [ %blocks.next, %page ]
  %bytes.done = mul i64 %blocks.done, {block * size}{here}{prime}
  %blocks.open = sub i64 %blocks.stream, %blocks.done
  %blocks.page = call i64 @llvm.umin.i64(i64 %blocks.open, i64 {PAGE // (block * size)})
  call void @{STREAMED_KERNEL}({_pointers(operands, ".here")}, i64 %blocks.page)
  %blocks.next = add i64 %blocks.done, %blocks.page
  %unfinished = icmp ult i64 %blocks.next, %blocks.stream
  br i1 %unfinished, label %page, label %ordered
ordered:
  {fence.call}
  %done.stream = mul i64 %blocks.stream, {block}
  %handled.stream = add i64 %head, %done.stream
  br label %streamed
streamed:
  br label %remainder""",
    )


def _prime(x: str) -> str:
    """Fetch the first lines of the page after next of `x`, where the processor begins anew.

    It fetches ahead by itself within a page.
    """
    lines = "".join(
        f"""
  %{x}.line.{k} = getelementptr i8, ptr %{x}.page, i64 {2 * PAGE + LINE * k}
  call void @llvm.prefetch.p0(ptr %{x}.line.{k}, i32 0, i32 2, i32 1)"""
        for k in range(PRIMED)
    )
    return f"""
  %{x}.page = call ptr @llvm.ptrmask.p0.i64(ptr %{x}.here, i64 {-PAGE}){lines}"""


def _words(operands: list[str]) -> list[tuple[str, str]]:
    """What @body has to know, with types."""
    kinds = [("ptr", p) for p in operands], [("i64", f"{p}.stride") for p in operands]
    return [*kinds[0], *kinds[1], ("i64", "n")]


def _body(operands: list[str]) -> str:
    there = "".join(
        f"""
  %{p}.offset = mul i64 %start, %{p}.stride
  %{p}.start = getelementptr i8, ptr %{p}, i64 %{p}.offset"""
        for p in operands
    )
    arguments = ", ".join(f"ptr %{p}.start, i64 %{p}.stride" for p in operands)
    work = f"{there}\n  call void @run({arguments}, i64 %m, i64 %n)"
    return body_ir(_words(operands), "n", work)


def _entry(name: str, operands: list[str], sizes: dict[str, int]) -> str:
    """@NAME: int (context, char **data, npy_intp *dimensions, npy_intp *strides, auxdata)."""
    unpack = "".join(
        f"""
  %{p}.slot = getelementptr ptr, ptr %data, i64 {k}
  %{p} = load ptr, ptr %{p}.slot
  %{p}.step = getelementptr i64, ptr %strides, i64 {k}
  %{p}.stride = load i64, ptr %{p}.step"""
        for k, p in enumerate(operands)
    )
    inputs, outputs = _inputs_and_outputs(operands)
    # Whole pages, so that no two threads write to one line of the cache.
    shared = sharing_ir(_words(operands), "n", "%n", "4096")
    return f"""
define i32 @{name}(ptr %context, ptr %data, ptr %dimensions, ptr %strides, ptr %auxdata) #1 {{
entry:
  %n = load i64, ptr %dimensions{unpack}
  %empty = icmp sle i64 %n, 0
  br i1 %empty, label %end, label %start
start:{apart_ir(inputs, outputs, sizes)}
  br i1 %apart, label %parallel, label %close
close:
  %relation = call i32 @relation({_strided(operands)}, i64 %n)
  switch i32 %relation, label %serial [ i32 {ANY}, label %parallel
                                        i32 {BLOCKS}, label %single ]
parallel:{shared if name == ENTRY else chr(10) + "  br label %single"}
single:
  call void @run({_strided(operands)}, i64 %n, i64 %n)
  br label %end{_serial(operands)}
end:
  ret i32 0
}}"""


def _serial(operands: list[str]) -> str:
    at = "".join(
        f"""
  %{p}.serial.offset = mul i64 %k, %{p}.stride
  %{p}.serial = getelementptr i8, ptr %{p}, i64 %{p}.serial.offset"""
        for p in operands
    )
    arguments = ", ".join(f"ptr %{p}.serial, i64 %{p}.stride" for p in operands)
    return f"""
serial:
  %k = phi i64 [ 0, %close ], [ %k.next, %serial ]{at}
  call void @run({arguments}, i64 1, i64 1)
  %k.next = add i64 %k, 1
  %k.more = icmp ult i64 %k.next, %n
  br i1 %k.more, label %serial, label %end"""


def metadata_ir(target: Target, lanes: int) -> str:
    """The attributes and loop metadata that the functions above refer to."""
    # Every iteration touches its own element only, so the accesses are parallel whether or
    # not the output is the input: no run-time overlap check, and no scalar code in place.
    # "no-builtins" keeps LLVM from turning the copies into calls of memcpy.
    return f"""
attributes #0 = {{ "prefer-vector-width"="{target.vector_bits}" "no-builtins" }}
attributes #1 = {{ "no-builtins" }}
!0 = distinct !{{!0, !2, !3, !4, !5}}
!1 = distinct !{{!1, !2, !3, !6, !5}}
!2 = !{{!"llvm.loop.vectorize.enable", i1 true}}
!3 = !{{!"llvm.loop.vectorize.width", i32 {lanes}}}
!4 = !{{!"llvm.loop.interleave.count", i32 {target.interleave}}}
!5 = !{{!"llvm.loop.parallel_accesses", !9}}
!6 = !{{!"llvm.loop.interleave.count", i32 1}}
!7 = !{{!"llvm.loop.vectorize.enable", i1 false}}
!8 = !{{!"llvm.loop.unroll.count", i32 4}}
!9 = distinct !{{}}
!10 = distinct !{{!10, !7, !8}}
!11 = distinct !{{!11, !2}}
"""
