"""Python threads that share work: where there is no TBB, and in forked children.

The chunks of a call are taken one by one, by the thread that asked for help and by those that
come to help it. So a call never waits for a thread that has not come, and whatever happens to
Python while it wakes them, an interrupt or the end of the interpreter, the work gets done.
"""

import _thread
import ctypes
import functools
from _queue import SimpleQueue  # as `queue` has it, whose import takes longer
from ctypes import CFUNCTYPE, c_int64, c_void_p

from . import _codegen, _host, _machine_code

_SYMBOLS = ("parallel_for", "help", "calls")

# What helpers have of a call outlives it: the next chunk, the chunks done and all of them, the
# task and its argument, and how many threads may still look here; the last frees it.
_IR = """
@calls = global [5 x ptr] zeroinitializer

define internal void @work(ptr %call) {
entry:
  %args = alloca i64
  %counts = alloca i64
  %steps = alloca i64
  store i64 1, ptr %counts
  store i64 1, ptr %steps
  %done.at = getelementptr i64, ptr %call, i64 1
  %total.at = getelementptr i64, ptr %call, i64 2
  %total = load i64, ptr %total.at
  %task.at = getelementptr i64, ptr %call, i64 3
  %task = load ptr, ptr %task.at
  %data.at = getelementptr i64, ptr %call, i64 4
  %data = load ptr, ptr %data.at
  br label %take
take:
  %chunk = atomicrmw add ptr %call, i64 1 monotonic
  %some = icmp ult i64 %chunk, %total
  br i1 %some, label %do, label %end
do:
  store i64 %chunk, ptr %args
  call void %task(ptr %args, ptr %counts, ptr %steps, ptr %data)
  %before = atomicrmw add ptr %done.at, i64 1 release
  br label %take
end:
  ret void
}

define internal void @release(ptr %call, i64 %threads) {
entry:
  %users.at = getelementptr i64, ptr %call, i64 5
  %users = atomicrmw sub ptr %users.at, i64 %threads acq_rel
  %last = icmp eq i64 %users, %threads
  br i1 %last, label %forget, label %end
forget:
  %free.at = getelementptr ptr, ptr @calls, i64 1
  %free = load ptr, ptr %free.at
  call void %free(ptr %call)
  br label %end
end:
  ret void
}

define void @help(ptr %call) {
  call void @work(ptr %call)
  call void @release(ptr %call, i64 1)
  ret void
}

define void @parallel_for(ptr %task, ptr %args, ptr %counts, ptr %steps, ptr %data, \
i64 %inner, i64 %operands, i32 %threads.32) {
entry:
  %threads = zext i32 %threads.32 to i64
  %helpers = sub i64 %threads, 1
  %total = load i64, ptr %counts
  %malloc = load ptr, ptr @calls
  %call = call ptr %malloc(i64 48)
  %none = icmp eq ptr %call, null
  br i1 %none, label %give.up, label %describe
give.up:  ; who called sees that nothing is done
  ret void
describe:
  store i64 0, ptr %call
  %done.at = getelementptr i64, ptr %call, i64 1
  store i64 0, ptr %done.at
  %total.at = getelementptr i64, ptr %call, i64 2
  store i64 %total, ptr %total.at
  %task.at = getelementptr i64, ptr %call, i64 3
  store ptr %task, ptr %task.at
  %data.at = getelementptr i64, ptr %call, i64 4
  store ptr %data, ptr %data.at
  %users.at = getelementptr i64, ptr %call, i64 5
  store i64 %threads, ptr %users.at
  %wake.at = getelementptr ptr, ptr @calls, i64 2
  %wake = load ptr, ptr %wake.at
  %woken.at = alloca i64
  store i64 0, ptr %woken.at
  call void %wake(ptr %call, i64 %helpers, ptr %woken.at)
  %woken = load i64, ptr %woken.at
  ; 0 is an interrupt: an exception that could not leave the code which wakes. It is asked for
  ; again.
  %interrupt.came = icmp eq i64 %woken, 0
  br i1 %interrupt.came, label %interrupted, label %begin
interrupted:
  %interrupt.at = getelementptr ptr, ptr @calls, i64 4
  %interrupt = load ptr, ptr %interrupt.at
  call void %interrupt()
  br label %begin
begin:
  call void @work(ptr %call)
  %yield.at = getelementptr ptr, ptr @calls, i64 3
  %yield = load ptr, ptr %yield.at
  br label %look
look:
  %done = load atomic i64, ptr %done.at acquire, align 8
  %all = icmp uge i64 %done, %total
  br i1 %all, label %done.all, label %wait
wait:
  %ignored = call i32 %yield()
  br label %look
done.all:
  ; Where it is not known who was woken, these 48 bytes stay.
  %known = icmp sgt i64 %woken, 0
  br i1 %known, label %leave, label %end
leave:
  %absent = sub i64 %helpers, %woken
  %gone = add i64 %absent, 1
  call void @release(ptr %call, i64 %gone)
  br label %end
end:
  ret void
}
"""

_queue: SimpleQueue[int] = SimpleQueue()
_started = 0


@CFUNCTYPE(None, c_void_p, c_int64, c_void_p)
def _wake(call: int, helpers: int, woken: int) -> None:
    """Ask helpers to come.

    Sets the word at `woken` to how many will, or -1 where that is not known; it stays 0 where an
    interrupt comes. Python raises none between an assignment and the end.
    """
    global _started
    cell = c_int64.from_address(woken)
    try:
        while _started < helpers:
            _started += 1
            _thread.start_new_thread(_serve, (_queue,))
        for _ in range(helpers):
            _queue.put(call)
    except KeyboardInterrupt:
        return
    except RuntimeError:  # no more threads can be started
        helpers = -1
    cell.value = helpers


def _serve(queue: "SimpleQueue[int]") -> None:
    help_with = CFUNCTYPE(None, c_void_p)(addresses()["help"])
    while True:
        help_with(queue.get())


@functools.cache
def addresses() -> dict[str, int]:
    """The compiled functions by name; "parallel_for" has the signature of numba's."""
    target = _host.host()
    machine = _codegen.machine_of(target)
    module = _codegen.parse(_IR, target, machine)
    _codegen.optimise(module, machine)
    found = _machine_code.load_all(machine.emit_object(module), _SYMBOLS)
    calls = (c_void_p * 5).from_address(found["calls"])
    api = ctypes.pythonapi
    memory = (api.PyMem_RawMalloc, api.PyMem_RawFree)
    for k, function in enumerate((*memory, _wake, _yield(), api.PyErr_SetInterrupt)):
        calls[k] = ctypes.cast(function, c_void_p)
    return found


def _yield():
    """The system's function that lets other threads run."""
    if hasattr(ctypes, "windll"):
        return ctypes.windll.kernel32.SwitchToThread
    return ctypes.CDLL(None).sched_yield


def forget_threads() -> None:
    """In a forked child, which has none of its parent's."""
    global _queue, _started
    _queue, _started = SimpleQueue(), 0
