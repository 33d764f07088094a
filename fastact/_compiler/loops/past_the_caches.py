"""LLVM IR of the part of an element-wise loop for outputs that are too large for any cache.

Its stores bypass the caches (``_compiler/nontemporal.py``), which would otherwise read every line
of the output before it is overwritten.
"""

import itertools

from fastact._compiler.loops.operands import inputs_and_outputs, pointers
from fastact._compiler.nontemporal import LINE, PREFETCH_IR, STREAMED
from fastact._machine.targets import Operation, Target

PAGE = 4096  # bytes of a page of memory

PRIMED = 8  # lines of each page that are prefetched explicitly


def streamed_ir(
    operands: list[str], size: int, block: int, target: Target, fence: Operation
) -> tuple[str, str]:
    """The part of @run for large outputs, from label %stream to the end of %streamed.

    The elements before the first aligned vector go through buffers. If `in_place_ir` finds that
    the output is an input, nothing would be gained, because the lines of the output are read
    anyway.
    """
    *inputs, y = operands
    vector = target.vector_bits // 8
    head = ", ".join(f"ptr %{p}, i64 {size}" for p in operands)
    begin = "".join(
        f"\n  %{p}.begin = getelementptr i8, ptr %{p}, i64 %head.bytes" for p in operands
    )
    declared = f"""{PREFETCH_IR}
{fence.declaration}
declare ptr @llvm.ptrmask.p0.i64(ptr, i64)
declare void @{STREAMED}({pointers(operands)}, i64)"""
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
  %unaligned = icmp ne i64 %y.odd, 0
  %unfit.1 = or i1 %unaligned, %in.place
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
  call void @{STREAMED}({pointers(operands, ".here")}, i64 %blocks.page)
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


def in_place_ir(operands: list[str]) -> str:
    """%in.place: whether an output begins where an input does."""
    text, found = "", "false"
    for x, y in itertools.product(*inputs_and_outputs(operands)):
        text += f"""
  %{x}.{y}.same = icmp eq ptr %{x}, %{y}
  %in.place.{x}.{y} = or i1 {found}, %{x}.{y}.same"""
        found = f"%in.place.{x}.{y}"
    return f"{text}\n  %in.place = or i1 {found}, false"


def _prime(x: str) -> str:
    """Prefetch the first lines of the page after next of `x`.

    The processor prefetches by itself within a page, but begins anew at the next page.
    """
    lines = "".join(
        f"""
  %{x}.line.{k} = getelementptr i8, ptr %{x}.page, i64 {2 * PAGE + LINE * k}
  call void @llvm.prefetch.p0(ptr %{x}.line.{k}, i32 0, i32 2, i32 1)"""
        for k in range(PRIMED)
    )
    return f"""
  %{x}.page = call ptr @llvm.ptrmask.p0.i64(ptr %{x}.here, i64 {-PAGE}){lines}"""
