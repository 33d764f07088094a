"""LLVM IR of NumPy inner loops around a scalar function.

A loop is load, decode, compute, encode, store; it knows no activation. The module built here
holds

``loop``
    the entry, with the signature of an ArrayMethod's strided loop. Where elements depend on
    each other it takes them one at a time; much work it shares among threads.
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
    the hot loop for an output that is too large for any cache (``_streaming.py``).
``kernel_ahead``
    the same for one that is too large for those next to the core.
``buffered``
    everything else (strides, the last elements) in chunks through contiguous buffers that
    are padded to whole vectors. So there is no scalar copy of the computation, and no result
    depends on where its element lies.
"""

from ._codegen import ScalarIR
from ._conversions import compute_type, conversions_ir, storage_type
from ._environment import ENVIRONMENT_IR, UNTOUCHED_IR
from ._fan_out import FAN_OUT_IR, body_ir, sharing_ir
from ._formats import FORMATS, Format
from ._machine_code import ALONE, ENTRY
from ._streaming import AHEAD as AHEAD_KERNEL
from ._streaming import FENCES, PREFETCH_IR
from ._streaming import STREAMED as STREAMED_KERNEL
from ._targets import Target

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
            "declare i64 @llvm.smin.i64(i64, i64)\ndeclare i64 @llvm.smax.i64(i64, i64)",
            _scalar(scalar, compute, arity, results),
            conversions_ir(form, target),
            ENVIRONMENT_IR.get(target.architecture, UNTOUCHED_IR),
            _kernel("kernel", operands, storage, compute, block, "!0"),
            _kernel("kernel_short", operands, storage, compute, lanes, "!1"),
            copies_ir(storage, form, target),
            _buffered(operands, storage, form, lanes, block),
            _run(operands, form, block, target),
            FAN_OUT_IR,
            _body(operands),
            _relation_ir(operands, sizes),
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
    wide = target.architecture in FENCES and form.bits >= 32
    streams = wide and len(_inputs_and_outputs(operands)[1]) == 1
    declared, branch, streamed, handled = "", "br label %plain", "", "%handled.plain, %body.end"
    kernel = f"call void @kernel({_pointers(operands)}, i64 %blocks)"
    if wide:
        declared = f"\ndeclare void @{AHEAD_KERNEL}({_pointers(operands)}, i64)"
        kernel = f"""%bytes = mul i64 %whole, {size}
  %far = icmp uge i64 %bytes, {AHEAD}
  br i1 %far, label %body.far, label %body.near
body.far:
  call void @{AHEAD_KERNEL}({_pointers(operands)}, i64 %blocks)
  br label %body.end
body.near:
  {kernel}"""
    if streams:
        declared_too, streamed = _streamed(operands, size, block, target)
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


def _streamed(operands: list[str], size: int, block: int, target: Target) -> tuple[str, str]:
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
declare void @llvm.x86.sse.sfence()
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
  {FENCES[target.architecture]}
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
    # Whole pages, so that no two threads write to one line of the cache.
    shared = sharing_ir(_words(operands), "n", "%n", "4096")
    return f"""
define i32 @{name}(ptr %context, ptr %data, ptr %dimensions, ptr %strides, ptr %auxdata) #1 {{
entry:
  %n = load i64, ptr %dimensions{unpack}
  %empty = icmp sle i64 %n, 0
  br i1 %empty, label %end, label %start
start:{_apart(operands, sizes)}
  br i1 %apart, label %parallel, label %close
close:
  %relation = call i32 @relation({_strided(operands)}, i64 %n)
  switch i32 %relation, label %serial [ i32 0, label %parallel
                                        i32 1, label %single ]
parallel:{shared if name == ENTRY else chr(10) + "  br label %single"}
single:
  call void @run({_strided(operands)}, i64 %n, i64 %n)
  br label %end{_serial(operands)}
end:
  ret i32 0
}}"""


def _apart(operands: list[str], sizes: dict[str, int]) -> str:
    """%apart: whether it is plain that elements do not depend on each other.

    So it is where no output shares memory with another operand or is one of the inputs exactly,
    and no two of its elements share memory. The rest is for :func:`_relation_ir`.
    """
    inputs, outputs = _inputs_and_outputs(operands)
    text = "\n  %span = sub i64 %n, 1"
    for p in operands:
        text += f"""
  %{p}.span = mul i64 %{p}.stride, %span
  %{p}.back = call i64 @llvm.smin.i64(i64 %{p}.span, i64 0)
  %{p}.ahead = call i64 @llvm.smax.i64(i64 %{p}.span, i64 0)
  %{p}.int = ptrtoint ptr %{p} to i64
  %{p}.low = add i64 %{p}.int, %{p}.back
  %{p}.top = add i64 %{p}.int, %{p}.ahead
  %{p}.high = add i64 %{p}.top, {sizes[p]}"""
    apart = "true"
    for k, y in enumerate(outputs):
        # |stride| >= size as one unsigned comparison.
        text += f"""
  %{y}.beyond = add i64 %{y}.stride, {sizes[y] - 1}
  %{y}.separate = icmp uge i64 %{y}.beyond, {2 * sizes[y] - 1}
  %apart.{y} = and i1 {apart}, %{y}.separate"""
        apart = f"%apart.{y}"
        for x in [*inputs, *outputs[:k]]:
            pair = f"{x}.{y}"
            text += f"""
  %{pair}.below = icmp ule i64 %{x}.high, %{y}.low
  %{pair}.above = icmp ule i64 %{y}.high, %{x}.low
  %{pair}.disjoint = or i1 %{pair}.below, %{pair}.above"""
            fine = f"%{pair}.disjoint"
            if x in inputs and sizes[x] == sizes[y]:
                text += f"""
  %{pair}.here = icmp eq ptr %{x}, %{y}
  %{pair}.alike = icmp eq i64 %{x}.stride, %{y}.stride
  %{pair}.same = and i1 %{pair}.here, %{pair}.alike
  %{pair}.fine = or i1 {fine}, %{pair}.same"""
                fine = f"%{pair}.fine"
            text += f"\n  %apart.{pair} = and i1 {apart}, {fine}"
            apart = f"%apart.{pair}"
    return f"{text}\n  %one = icmp eq i64 %n, 1\n  %apart = or i1 %one, {apart}"


def _relation_ir(operands: list[str], sizes: dict[str, int]) -> str:
    """@relation: what order the elements of `n` > 0 are to be computed in.

    0 for any, 1 for blocks from the first to the last, and 2 for one at a time. NumPy calls the
    same loop for reduce and accumulate, where the output of one element is an input of the
    next, and hands over outputs that lie behind their inputs, and those that share memory with
    themselves.
    """
    inputs, outputs = _inputs_and_outputs(operands)
    text, worst = "", "0"
    for k, y in enumerate(outputs):
        # Elements that are written to one place are so in order, but in one thread only.
        text += f"""
  %{y}.beyond = add i64 %{y}.stride, {sizes[y] - 1}
  %{y}.mingled = icmp ult i64 %{y}.beyond, {2 * sizes[y] - 1}
  %{y}.relation = zext i1 %{y}.mingled to i32
  %worst.{y} = call i32 @llvm.umax.i32(i32 {worst}, i32 %{y}.relation)"""
        worst = f"%worst.{y}"
        for x in [*inputs, *outputs[:k]]:
            pair = f"{x}.{y}"
            text += f"""
  %{pair}.relation = call i32 @pair(ptr %{x}, i64 %{x}.stride, i64 {sizes[x]}, \
ptr %{y}, i64 %{y}.stride, i64 {sizes[y]}, i64 %n, i1 {"true" if x in inputs else "false"})
  %worst.{pair} = call i32 @llvm.umax.i32(i32 {worst}, i32 %{pair}.relation)"""
            worst = f"%worst.{pair}"
    return f"""{_PAIR_IR}
define internal i32 @relation({_strided(operands)}, i64 %n) noinline #1 {{{text}
  ret i32 {worst}
}}"""


_PAIR_IR = """
declare i32 @llvm.umax.i32(i32, i32)
declare i64 @llvm.abs.i64(i64, i1)

; Whether elements at any multiples of the strides x.stride and y.stride are apart, `distance` from
; y to x, by the remainder that all the places of each have in common.
define internal i1 @interleaved(i64 %distance, i64 %x.stride, i64 %x.size, i64 %y.stride, \
i64 %y.size) noinline #1 {
entry:
  %x.abs = call i64 @llvm.abs.i64(i64 %x.stride, i1 false)
  %y.abs = call i64 @llvm.abs.i64(i64 %y.stride, i1 false)
  br label %euclid
euclid:
  %a = phi i64 [ %x.abs, %entry ], [ %b, %step ]
  %b = phi i64 [ %y.abs, %entry ], [ %r, %step ]
  %divides = icmp eq i64 %b, 0
  br i1 %divides, label %found, label %step
step:
  %r = urem i64 %a, %b
  br label %euclid
found:
  %none = icmp eq i64 %a, 0
  br i1 %none, label %no, label %place
place:
  %signed = srem i64 %distance, %a
  %raised = add i64 %signed, %a
  %offset = urem i64 %raised, %a
  %end = add i64 %offset, %x.size
  %after = icmp uge i64 %offset, %y.size
  %before = icmp ule i64 %end, %a
  %apart = and i1 %after, %before
  ret i1 %apart
no:
  ret i1 false
}

; The relation of two operands, the second of which is an output. Elements go in blocks if %blocks.
define internal i32 @pair(ptr %x, i64 %x.stride, i64 %x.size, ptr %y, i64 %y.stride, \
i64 %y.size, i64 %n, i1 %blocks) noinline #1 {
entry:
  %last = sub i64 %n, 1
  %x.span = mul i64 %x.stride, %last
  %y.span = mul i64 %y.stride, %last
  %x.back = call i64 @llvm.smin.i64(i64 %x.span, i64 0)
  %y.back = call i64 @llvm.smin.i64(i64 %y.span, i64 0)
  %x.ahead = call i64 @llvm.smax.i64(i64 %x.span, i64 0)
  %y.ahead = call i64 @llvm.smax.i64(i64 %y.span, i64 0)
  %x.first = ptrtoint ptr %x to i64
  %y.first = ptrtoint ptr %y to i64
  %x.end = add i64 %x.first, %x.size
  %y.end = add i64 %y.first, %y.size
  %x.low = add i64 %x.first, %x.back
  %y.low = add i64 %y.first, %y.back
  %x.high = add i64 %x.end, %x.ahead
  %y.high = add i64 %y.end, %y.ahead
  %below = icmp ule i64 %x.high, %y.low
  %above = icmp ule i64 %y.high, %x.low
  %disjoint = or i1 %below, %above
  br i1 %disjoint, label %any, label %close
close:
  %distance = sub i64 %x.first, %y.first
  %interleaved = call i1 @interleaved(i64 %distance, i64 %x.stride, i64 %x.size, \
i64 %y.stride, i64 %y.size)
  br i1 %interleaved, label %any, label %shared
shared:
  br i1 %blocks, label %compare, label %one
compare:
  ; Whether no element reads what one before it has written: the second read is past the first
  ; result, and from there on what is read moves at least as fast.
  %x.next = add i64 %x.first, %x.stride
  %x.next.end = add i64 %x.next, %x.size
  %up.past = icmp uge i64 %x.next, %y.end
  %down.past = icmp ule i64 %x.next.end, %y.first
  %up = icmp sge i64 %x.stride, 0
  %down = icmp sle i64 %x.stride, 0
  %up.fast = icmp sge i64 %x.stride, %y.stride
  %down.fast = icmp sle i64 %x.stride, %y.stride
  %up.1 = and i1 %up, %up.fast
  %up.2 = and i1 %up.1, %up.past
  %down.1 = and i1 %down, %down.fast
  %down.2 = and i1 %down.1, %down.past
  %unwritten = or i1 %up.2, %down.2
  br i1 %unwritten, label %equal, label %one
equal:
  %here = icmp eq i64 %distance, 0
  %alike = icmp eq i64 %x.stride, %y.stride
  %as.large = icmp eq i64 %x.size, %y.size
  %same.place = and i1 %here, %alike
  %same = and i1 %same.place, %as.large
  br i1 %same, label %any, label %in.blocks
any:
  ret i32 0
in.blocks:
  ret i32 1
one:
  ret i32 2
}
"""


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
