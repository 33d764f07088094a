"""LLVM IR of NumPy inner loops around a scalar function.

A loop loads, decodes, computes, encodes and stores; it knows no activation. The module built here
holds

``loop``
    the entry, with the signature of an ArrayMethod's strided loop. If elements depend on each
    other, it computes them one at a time (``overlap.py``). It shares much work among threads.
``loop_alone``
    the same for callers that have shared their work among threads already.
``run``
    a part of the operands in one thread. It saves the thread's floating-point environment, sets
    the default, and restores what it saved.
``hot_loop``
    the hot loop over contiguous operands, vectorised and interleaved by LLVM.
``hot_loop_uniform``
    the hot loop for a last input that is one number, such as the parameter of an activation, where
    the target asks for it.
``hot_loop_short``
    the same computation one vector at a time, for what is left over.
``hot_loop_stream``
    the hot loop for an output that is too large for any cache (``_compiler/nontemporal.py``).
``hot_loop_ahead``
    the hot loop for an output that is too large for the caches next to the core, but not for all.
``buffered``
    everything else (strides, the last elements), in chunks through contiguous buffers that
    are padded to whole vectors. So there is no scalar copy of the computation, and no result
    depends on the position of its element.
"""

from fastact._compiler import nontemporal
from fastact._compiler.conversions import compute_type, conversions_ir, storage_type
from fastact._compiler.environment import environment_ir
from fastact._compiler.loops.hot_loop import ASSUME_IR, hot_loop_ir
from fastact._compiler.loops.loop_metadata import NO_CALLS, LoopMetadata
from fastact._compiler.loops.operands import inputs_and_outputs, pointers, strided
from fastact._compiler.loops.overlap import ANY, BLOCKS, apart_ir, relation_ir
from fastact._compiler.loops.past_the_caches import in_place_ir, streamed_ir
from fastact._compiler.loops.scalar_call import scalar_call_ir
from fastact._compiler.loops.strided_copies import copies_ir
from fastact._compiler.pipeline import ScalarIR
from fastact._compiler.symbols import ALONE, ENTRY
from fastact._compiler.threads.fan_out import FAN_OUT_IR, chunk_ir, sharing_ir
from fastact._machine.formats import FORMATS, Format
from fastact._machine.targets import Target

# Bytes of an output (bench/NOTES.md).
AHEAD = 1 << 19  # from here on, the next elements are prefetched ...
FAR = 1 << 23  # ... up to here
STREAMED = 1 << 24  # from here on, stores bypass the caches
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
    loop, notes = (operands, storage, compute), LoopMetadata()
    return "\n".join(
        [
            ASSUME_IR,
            scalar_call_ir("scalar", scalar, compute, arity, results),
            conversions_ir(form, target),
            environment_ir(target),
            hot_loop_ir("hot_loop", *loop, block, notes, (lanes, target.interleave), target),
            hot_loop_ir(
                *("hot_loop_uniform", *loop, block, notes, (lanes, target.interleave), target),
                one_number=operands[arity - 1],
            )
            if target.one_number
            else "",
            hot_loop_ir("hot_loop_short", *loop, lanes, notes, (lanes, 1), target),
            copies_ir(storage, form, notes, target),
            _buffered(operands, storage, form, lanes, block, target),
            _run(operands, form, block, target),
            FAN_OUT_IR,
            _run_chunk(operands),
            relation_ir(*inputs_and_outputs(operands), sizes),
            *(_entry(name, operands, sizes) for name in (ENTRY, ALONE)),
            notes.ir(),
        ]
    )


def _buffered(
    operands: list[str], storage: str, form: Format, lanes: int, block: int, target: Target
) -> str:
    """@buffered: compute operands of any strides through buffers.

    In whole chunks, contiguous operands need none.
    """
    inputs, outputs = inputs_and_outputs(operands)
    start, gather, scatter = "", "", ""
    for p in operands:
        start += f"""
  %{p}.buffer = alloca [{CHUNK} x {storage}], align 64
  %{p}.dense = icmp eq i64 %{p}.stride, {form.itemsize}"""
    # The last vector is cleared first, because its padding is computed too, and must not be
    # subnormal (slow) by chance.
    for p in inputs:
        gather += f"""
  br i1 %{p}.direct, label %{p}.gathered, label %{p}.gather
{p}.gather:
  %{p}.last = getelementptr {storage}, ptr %{p}.buffer, i64 %last
  store <{lanes} x {storage}> zeroinitializer, ptr %{p}.last, align 1
  call void @gather(ptr %{p}.at, ptr %{p}.buffer, i64 %{p}.stride, i64 %m)
  br label %{p}.gathered
{p}.gathered:"""
    for p in outputs:
        scatter += f"""
  br i1 %{p}.direct, label %{p}.scattered, label %{p}.scatter
{p}.scatter:
  call void @scatter(ptr %{p}.buffer, ptr %{p}.at, i64 %{p}.stride, i64 %m)
  br label %{p}.scattered
{p}.scattered:"""
    places = "".join(
        f"""
  %{p}.offset = mul i64 %i, %{p}.stride
  %{p}.at = getelementptr i8, ptr %{p}, i64 %{p}.offset
  %{p}.direct = and i1 %{p}.dense, %full
  %{p}.here = select i1 %{p}.direct, ptr %{p}.at, ptr %{p}.buffer"""
        for p in operands
    )
    rest = "".join(
        f"\n  %{p}.rest = getelementptr {storage}, ptr %{p}.buffer, i64 %handled" for p in operands
    )
    return f"""
define internal void @buffered({strided(operands)}, i64 %n) noinline {NO_CALLS} {{
entry:{start}
  br label %chunk
chunk:
  %i = phi i64 [ 0, %entry ], [ %next, %end ]
  %left = sub i64 %n, %i
  %full = icmp uge i64 %left, {CHUNK}
  %m = select i1 %full, i64 {CHUNK}, i64 %left
  %m.up = add i64 %m, {lanes - 1}
  %vectors = udiv i64 %m.up, {lanes}
  %padded = mul i64 %vectors, {lanes}
  %last = sub i64 %padded, {lanes}{places}{gather}
  %blocks = udiv i64 %m, {block}
  %handled = mul i64 %blocks, {block}
  %any = icmp ne i64 %blocks, 0
  br i1 %any, label %whole, label %between
whole:{_whole(operands, target)}
between:{rest}
  %open = sub i64 %padded, %handled
  %short = udiv i64 %open, {lanes}
  %some = icmp ne i64 %short, 0
  br i1 %some, label %tail, label %finish
tail:
  call void @hot_loop_short({pointers(operands, ".rest")}, i64 %short)
  br label %finish
finish:{scatter}
  br label %end
end:
  %next = add i64 %i, {CHUNK}
  %more = icmp ult i64 %next, %n
  br i1 %more, label %chunk, label %done
done:
  ret void
}}"""


def _whole(operands: list[str], target: Target) -> str:
    """Compute whole blocks, by @hot_loop_uniform if the last of several inputs has stride 0."""
    inputs, _ = inputs_and_outputs(operands)
    arguments = f"({pointers(operands, '.here')}, i64 %blocks)"
    usual = f"""
  call void @hot_loop{arguments}
  br label %between"""
    if not target.one_number:
        return usual
    return f"""
  %uniform = icmp eq i64 %{inputs[-1]}.stride, 0
  br i1 %uniform, label %one.number, label %numbers
one.number:
  call void @hot_loop_uniform{arguments}
  br label %between
numbers:{usual}"""


def _run(operands: list[str], form: Format, block: int, target: Target) -> str:
    """@run: compute `n` > 0 of the `whole` elements of a call, in any order."""
    size = form.itemsize
    apart, strides = "0", ""
    for p in operands:
        strides += f"""
  %{p}.apart = xor i64 %{p}.stride, {size}
  %apart.{p} = or i64 {apart}, %{p}.apart"""
        apart = f"%apart.{p}"
    rest = "".join(f"\n  %{p}.rest = getelementptr i8, ptr %{p}, i64 %offset" for p in operands)
    tail = ", ".join(f"ptr %{p}.rest, i64 {size}" for p in operands)
    # LLVM has no non-temporal stores of vectors of elements below 32 bits (bench/NOTES.md).
    fence = target.instructions.fence if form.bits >= 32 else None
    declared, in_place, streamed = "", "", ""
    branch, handled = "br label %plain", "%handled.plain, %body.end"
    hot_loop = f"call void @hot_loop({pointers(operands)}, i64 %blocks)"
    if fence is not None:
        declared = f"\ndeclare void @{nontemporal.AHEAD}({pointers(operands)}, i64)"
        # In place, the prefetches would only take time: 0.081 ns for relu of 65,536 float64 with
        # vectors of 256 bits, and 0.047 without them (bench/NOTES.md).
        in_place = in_place_ir(operands)
        hot_loop = f"""%bytes = mul i64 %whole, {size}
  %beyond = sub i64 %bytes, {AHEAD}
  %between = icmp ult i64 %beyond, {FAR - AHEAD}
  %elsewhere = xor i1 %in.place, true
  %prefetched = and i1 %between, %elsewhere
  br i1 %prefetched, label %body.ahead, label %body.near
body.ahead:
  call void @{nontemporal.AHEAD}({pointers(operands)}, i64 %blocks)
  br label %body.end
body.near:
  {hot_loop}"""
    if fence is not None and len(inputs_and_outputs(operands)[1]) == 1:
        declared_too, streamed = streamed_ir(operands, size, block, target, fence)
        declared += declared_too
        branch = f"""%output = mul i64 %whole, {size}
  %large = icmp uge i64 %output, {STREAMED}
  br i1 %large, label %stream, label %plain"""
        handled = "%handled.plain, %body.end ], [ %handled.stream, %streamed"
    return f"""{declared}
define internal void @run({strided(operands)}, i64 %n, i64 %whole) noinline {NO_CALLS} {{
entry:
  %saved = alloca [2 x i64]
  call void @enter(ptr %saved){strides}
  %contiguous = icmp eq i64 {apart}, 0
  br i1 %contiguous, label %direct, label %strided
direct:{in_place}
  {branch}{streamed}
plain:
  %blocks = udiv i64 %n, {block}
  %handled.plain = mul i64 %blocks, {block}
  %some = icmp ne i64 %blocks, 0
  br i1 %some, label %body, label %body.end
body:
  {hot_loop}
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
  call void @buffered({strided(operands)}, i64 %n)
  br label %finish
finish:
  call void @leave(ptr %saved)
  ret void
}}"""


def _words(operands: list[str]) -> list[tuple[str, str]]:
    """The types and names of the values that @run_chunk needs."""
    kinds = [("ptr", p) for p in operands], [("i64", f"{p}.stride") for p in operands]
    return [*kinds[0], *kinds[1], ("i64", "n")]


def _run_chunk(operands: list[str]) -> str:
    there = "".join(
        f"""
  %{p}.offset = mul i64 %start, %{p}.stride
  %{p}.start = getelementptr i8, ptr %{p}, i64 %{p}.offset"""
        for p in operands
    )
    arguments = ", ".join(f"ptr %{p}.start, i64 %{p}.stride" for p in operands)
    work = f"{there}\n  call void @run({arguments}, i64 %m, i64 %n)"
    return chunk_ir(_words(operands), "n", work)


def _entry(name: str, operands: list[str], sizes: dict[str, int]) -> str:
    """@NAME: int (context, char **data, npy_intp *dimensions, npy_intp *strides, auxdata)."""
    unpack = "".join(
        f"""
  %{p}.slot = getelementptr ptr, ptr %data, i64 {k}
  %{p} = load ptr, ptr %{p}.slot
  %{p}.stride.slot = getelementptr i64, ptr %strides, i64 {k}
  %{p}.stride = load i64, ptr %{p}.stride.slot"""
        for k, p in enumerate(operands)
    )
    inputs, outputs = inputs_and_outputs(operands)
    # Whole pages, so that no two threads write to the same cache line.
    shared = sharing_ir(_words(operands), "n", "%n", "4096")
    return f"""
define i32 @{name}(ptr %context, ptr %data, ptr %dimensions, ptr %strides, ptr %auxdata) \
{NO_CALLS} {{
entry:
  %n = load i64, ptr %dimensions{unpack}
  %empty = icmp sle i64 %n, 0
  br i1 %empty, label %end, label %start
start:{apart_ir(inputs, outputs, sizes)}
  br i1 %apart, label %parallel, label %close
close:
  %relation = call i32 @relation({strided(operands)}, i64 %n)
  switch i32 %relation, label %serial [ i32 {ANY}, label %parallel
                                        i32 {BLOCKS}, label %single ]
parallel:{shared if name == ENTRY else chr(10) + "  br label %single"}
single:
  call void @run({strided(operands)}, i64 %n, i64 %n)
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
