"""LLVM IR that shares the work of loops of any kind among threads.

A loop asks ``@parts(work)`` how many threads a call is worth. If more than one, it describes the
call in a *job* and passes it to ``@fan_out(job, chunks, threads, work)``, which returns when all
chunks are done. Threads take chunks one by one, until none is left, and call the loop's
``run_chunk(job, chunk)`` for each. The first `JOB` words of a job are for the fan-out; the others
pass data from the loop to its ``run_chunk``.

Threads are started and stopped elsewhere (``_parallel``). Compiled code finds them through the
exported `SETTING`: the address of the process's `POOL_FIELDS`, and the cost of a unit of the
object's work. All words are zero until they are set; until then, there is one thread.
"""

import struct
from collections.abc import Sequence

from fastact._compiler.symbols import SETTING

POOL_FIELDS = (
    "parallel_for",  # numba's, or a function of the same signature; null before `start`
    "start",  # starts threads, and sets a word unless an interrupt came
    "get_mask",  # numba's number of threads in its TBB layer, which parallel_for overwrites;
    "set_mask",  # both may be null
    "get_limit",  # the number of threads that numba would use here; may be null
    "get_count",  # the calling thread's own number of threads, by `key`; 0 if it has none
    "key",
    "count",  # the number of threads for callers without their own number
    "share",  # picoseconds of work that are worth one thread
    "interrupt",  # PyErr_SetInterrupt
)
"""The data that a process passes to its loops, one word each: addresses and integers."""

JOB = 3
"""Words at the head of a job: how many chunks were taken from the front (lower half) and from the
back (upper half); the number of all chunks; and the address of ``run_chunk``."""

CHUNKS = 8
"""Chunks per thread: with more, a thread that is late or interrupted leaves less work undone."""

TASK = "ptr %args, ptr %counts, ptr %steps"
"""The first parameters of the functions that threads run: the operands, the numbers of elements and
the strides of numba's gufunc kernels. ``parallel_for`` has them after the function."""

TIME_STEP = 1
"""The word of %steps that tells ``parallel_for`` the time of the work in picoseconds."""

_WORD = struct.calcsize("P")


def _field(name: str, kind: str = "ptr") -> str:
    offset = _WORD * POOL_FIELDS.index(name)
    return f"""
  %{name}.at = getelementptr i8, ptr %pool, i64 {offset}
  %{name} = load {kind}, ptr %{name}.at"""


FAN_OUT_IR = f"""
@{SETTING} = global [4 x i64] zeroinitializer

; The picoseconds that the work takes.
define internal i64 @time(i64 %work) {{
  %near.at = getelementptr i64, ptr @{SETTING}, i64 1
  %near = load i64, ptr %near.at
  %far.at = getelementptr i64, ptr @{SETTING}, i64 2
  %far = load i64, ptr %far.at
  %much.at = getelementptr i64, ptr @{SETTING}, i64 3
  %much = load i64, ptr %much.at
  %is.far = icmp uge i64 %work, %much
  %cost = select i1 %is.far, i64 %far, i64 %near
  %time = mul i64 %work, %cost
  ret i64 %time
}}

define i64 @parts(i64 %work) noinline {{
entry:
  %pool = load ptr, ptr @{SETTING}
  %known = icmp ne ptr %pool, null
  br i1 %known, label %worth, label %one
worth:
  %time = call i64 @time(i64 %work){_field("share", "i64")}
  %half = lshr i64 %time, 1
  %more = icmp uge i64 %half, %share
  br i1 %more, label %ask, label %one
ask:{_field("get_count")}{_field("key")}{_field("count", "i64")}
  %own = call i64 %get_count(ptr %key)
  %none = icmp eq i64 %own, 0
  %wanted = select i1 %none, i64 %count, i64 %own{_field("get_limit")}
  %unlimited = icmp eq ptr %get_limit, null
  br i1 %unlimited, label %share_out, label %limited
limited:
  %limit.32 = call i32 %get_limit()
  %limit = sext i32 %limit.32 to i64
  %positive = icmp sgt i64 %limit, 0
  %less = icmp slt i64 %limit, %wanted
  %lower = and i1 %positive, %less
  %allowed = select i1 %lower, i64 %limit, i64 %wanted
  br label %share_out
share_out:
  %threads = phi i64 [ %wanted, %ask ], [ %allowed, %limited ]
  %worth.it = udiv i64 %time, %share
  %fewer = icmp ult i64 %worth.it, %threads
  %parts = select i1 %fewer, i64 %worth.it, i64 %threads
  ret i64 %parts
one:
  ret i64 1
}}

; What each thread runs. Our helpers pass null in place of the first arguments.
define void @run_chunks({TASK}, ptr %job) {{
entry:
  %total.at = getelementptr i64, ptr %job, i64 1
  %total = load i64, ptr %total.at
  %run_chunk.at = getelementptr i64, ptr %job, i64 2
  %run_chunk = load ptr, ptr %run_chunk.at
  ; The calling thread takes chunks from the front, our helpers take them from the back. So in the
  ; next call for the same operands, each finds most of its chunks in its own cache.
  %helps = icmp eq ptr %args, null
  %taking = select i1 %helps, i64 4294967296, i64 1
  br label %take
take:
  %taken = atomicrmw add ptr %job, i64 %taking monotonic
  %front = and i64 %taken, 4294967295
  %back = lshr i64 %taken, 32
  %count = add i64 %front, %back
  %some = icmp ult i64 %count, %total
  br i1 %some, label %do, label %end
do:
  %last = sub i64 %total, 1
  %behind = sub i64 %last, %back
  %chunk = select i1 %helps, i64 %behind, i64 %front
  call void %run_chunk(ptr %job, i64 %chunk)
  br label %take
end:
  ret void
}}

define i64 @fan_out(i64 %job.address, i64 %chunks, i64 %threads, i64 %work) noinline {{
entry:
  %job = inttoptr i64 %job.address to ptr
  %args = alloca i64
  %counts = alloca i64
  %steps = alloca [2 x i64]
  store i64 0, ptr %job
  %total.at = getelementptr i64, ptr %job, i64 1
  store i64 %chunks, ptr %total.at
  store i64 0, ptr %args
  store i64 %threads, ptr %counts
  store i64 1, ptr %steps
  %time.at = getelementptr i64, ptr %steps, i64 {TIME_STEP}
  %time = call i64 @time(i64 %work)
  store i64 %time, ptr %time.at
  %pool = load ptr, ptr @{SETTING}{_field("parallel_for")}
  %started = icmp ne ptr %parallel_for, null
  br i1 %started, label %ready, label %begin
begin:{_field("start")}
  %quiet.at = alloca i64
  store i64 0, ptr %quiet.at
  call void %start(ptr %quiet.at)
  %quiet = load i64, ptr %quiet.at
  %interrupted = icmp eq i64 %quiet, 0
  br i1 %interrupted, label %ask.again, label %begun
ask.again:{_field("interrupt")}
  ; An interrupt came in the code that starts threads, which could not raise it: set it again.
  call void %interrupt()
  br label %begun
begun:
  %found = load ptr, ptr %parallel_for.at
  %some = icmp ne ptr %found, null
  br i1 %some, label %ready, label %alone
ready:
  %share = phi ptr [ %parallel_for, %entry ], [ %found, %begun ]{_field("get_mask")}\
{_field("set_mask")}
  %threads.32 = trunc i64 %threads to i32
  %masked = icmp ne ptr %get_mask, null
  br i1 %masked, label %remember, label %share_out
remember:
  %mask = call i32 %get_mask()
  br label %share_out
share_out:
  %before = phi i32 [ 0, %ready ], [ %mask, %remember ]
  call void %share(ptr @run_chunks, {TASK}, ptr %job, i64 0, i64 1, i32 %threads.32)
  br i1 %masked, label %restore, label %alone
restore:
  ; Below 1, no number was set, and numba must go on using its default.
  %set = icmp sgt i32 %before, 0
  %after = select i1 %set, i32 %before, i32 0
  call void %set_mask(i32 %after)
  br label %alone
alone:
  ; The chunks that are left: all of them, if no threads could be started.
  call void @run_chunks({TASK}, ptr %job)
  ret i64 0
}}
"""
"""The functions described above."""


def sharing_ir(words: Sequence[tuple[str, str]], count: str, work: str, granule: str) -> str:
    """Share %`count` units, `work` in all, among threads if that is worth it.

    The code branches to label %end if the work is done, and to %single if one thread should do it.
    `words` are the types and names of the values that ``@run_chunk`` needs. The number of units in
    a chunk is a multiple of `granule`, a power of two.
    """
    stores = "".join(
        f"{_at(k, name)}\n  store {kind} %{name}, ptr %{name}.at"
        for k, (kind, name) in enumerate([*words, ("i64", "chunk")])
    )
    return f"""
  %parts = call i64 @parts(i64 {work})
  %several = icmp ugt i64 %parts, 1
  br i1 %several, label %share, label %single
share:
  %most = mul i64 %parts, {CHUNKS}
  %even.chunk = udiv i64 %{count}, %most
  %chunk.up = add i64 %even.chunk, {granule}
  %chunk.mask = sub i64 0, {granule}
  %chunk = and i64 %chunk.up, %chunk.mask
  %last.unit = sub i64 %{count}, 1
  %last.chunk = udiv i64 %last.unit, %chunk
  %chunks = add i64 %last.chunk, 1
  %job = alloca [{JOB + len(words) + 1} x i64]
  %run_chunk.at = getelementptr i64, ptr %job, i64 2
  store ptr @run_chunk, ptr %run_chunk.at{stores}
  %job.address = ptrtoint ptr %job to i64
  %shared = call i64 @fan_out(i64 %job.address, i64 %chunks, i64 %parts, i64 {work})
  br label %end"""


def chunk_ir(words: Sequence[tuple[str, str]], count: str, work: str) -> str:
    """@run_chunk, which does `work` for %m of the %`count` units, from %start on.

    `work` is LLVM IR that refers to the `words` by name.
    """
    loads = "".join(
        f"{_at(k, name)}\n  %{name} = load {kind}, ptr %{name}.at"
        for k, (kind, name) in enumerate([*words, ("i64", "chunk")])
    )
    return f"""
declare i64 @llvm.umin.i64(i64, i64)
define internal void @run_chunk(ptr %job, i64 %index) {{{loads}
  %start = mul i64 %index, %chunk
  %left = sub i64 %{count}, %start
  %m = call i64 @llvm.umin.i64(i64 %left, i64 %chunk){work}
  ret void
}}"""


def _at(k: int, name: str) -> str:
    return f"\n  %{name}.at = getelementptr i64, ptr %job, i64 {JOB + k}"
