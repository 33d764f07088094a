"""Threads of our own that share work: helpers, which wait for it in compiled code.

A call offers itself to helpers that have nothing to do, by a word of each, and takes the
offers back at its end that nobody has taken up. So it waits for nobody who has not come, needs
no GIL, and leaves nothing behind.

A helper spins for a while before it sleeps, since a thread that sleeps comes late, and who
wakes it loses time as well. So helpers that sleep are not woken for every call but once for
`WORTH_WAKING` of work, done in one call or in several; those that follow find them awake.
"""

import _thread
import ctypes
import sys
import time
from ctypes import CFUNCTYPE, c_int64, c_void_p
from typing import TYPE_CHECKING, Any

from . import _engine
from ._lock import MAKING

if TYPE_CHECKING:
    from ._targets import Target

MOST = 255
"""Helpers at most."""

SPIN = 1e-3
"""Seconds that a helper spins: calls 0.3 ms apart gain as much as calls that follow at once
(bench/NOTES.md)."""

WORTH_WAKING = 500_000_000
"""Picoseconds of work. To wake a thread costs a call 10 to 100 us on a virtual machine."""

_PAUSES = {
    "x86_64": ("declare void @llvm.x86.sse2.pause()", "call void @llvm.x86.sse2.pause()"),
    "aarch64": ("declare void @llvm.aarch64.hint(i32)", "call void @llvm.aarch64.hint(i32 1)"),
}
"""What tells a processor that this is a loop that waits, by architecture: declared, and called."""

_HELPER = 128  # bytes, two cache lines, as processors fetch pairs of them

_CPUS = 1024  # of a set of CPUs, as C libraries have it

_CALLS = ("yield", "take_lock", "release_lock", "engage", "interrupt", "cpu", "cpus", "set_cpus")
"""Functions of others; the last three may be missing."""


class _Team(ctypes.Structure):
    _fields_ = [
        (name, c_int64)
        for name in (
            "first",  # the address of the helpers
            "count",  # how many there are,
            "asked",  # have been started,
            "most",  # and may be
            "turns",  # that a helper spins
            "work",  # done since a helper was woken, in picoseconds
            "worth_waking",  # how much of it is
        )
    ]


class _Helper(ctypes.Structure):
    _fields_ = [
        (name, c_int64)
        for name in (
            "offer",  # 0, 1 while it works, or the address of a call
            "asleep",
            "lock",  # that it sleeps by
            "thread",
            "cpu",  # that it is on
            "without",  # the CPU that it must not be on
        )
    ]


# A call, on its caller's stack: the task, its argument, and how many helpers have left it.
_IR = """
@calls = global [{len_calls} x ptr] zeroinitializer
@team = global [{len_team} x i64] zeroinitializer
{declared}

; The CPU that this thread is on, or -1.
define i64 @here() {{
  %get.at = getelementptr ptr, ptr @calls, i64 {calls_cpu}
  %get = load ptr, ptr %get.at
  %unknown = icmp eq ptr %get, null
  br i1 %unknown, label %nowhere, label %ask
ask:
  %cpu.32 = call i32 %get()
  %cpu = sext i32 %cpu.32 to i64
  ret i64 %cpu
nowhere:
  ret i64 -1
}}

; Waits up to %turns, for the word at %at to be anything but %still.
define i64 @spin(ptr %at, i64 %still, i64 %turns, ptr %cpu.at) {{
entry:
  %yield = load ptr, ptr @calls
  br label %turn
turn:
  %k = phi i64 [ 0, %entry ], [ %next, %patient ]
  %now = load atomic i64, ptr %at acquire, align 8
  %changed = icmp ne i64 %now, %still
  %late = icmp uge i64 %k, %turns
  %stop = or i1 %changed, %late
  br i1 %stop, label %end, label %wait
wait:
  {pause}
  %next = add i64 %k, 1
  %sixteenth = and i64 %next, 15
  %polite = icmp eq i64 %sixteenth, 0
  br i1 %polite, label %others, label %patient
others:
  %ignored = call i32 %yield()
  %cpu = call i64 @here()
  store atomic i64 %cpu, ptr %cpu.at monotonic, align 8
  br label %patient
patient:
  br label %turn
end:
  ret i64 %now
}}

; Moves a helper to where its caller may run, but not to the caller's CPU; 0 if there is no other.
define i1 @move_away(ptr %helper, i64 %cpu) noinline {{
entry:
  %set = alloca i{cpus}
  %get.at = getelementptr ptr, ptr @calls, i64 {calls_cpus}
  %get = load ptr, ptr %get.at
  %failed = call i32 %get(i32 0, i64 {bytes}, ptr %set)
  %unknown = icmp ne i32 %failed, 0
  %beyond = icmp uge i64 %cpu, {cpus}
  %strange = or i1 %unknown, %beyond
  br i1 %strange, label %leave.it, label %take.out
take.out:
  %all = load i{cpus}, ptr %set
  %wide = zext i64 %cpu to i{cpus}
  %bit = shl i{cpus} 1, %wide
  %others = xor i{cpus} %bit, -1
  %rest = and i{cpus} %all, %others
  %nowhere = icmp eq i{cpus} %rest, 0
  br i1 %nowhere, label %stay, label %move
move:
  store i{cpus} %rest, ptr %set
  %thread.at = getelementptr i64, ptr %helper, i64 {helper_thread}
  %thread.64 = load i64, ptr %thread.at
  %thread = trunc i64 %thread.64 to i32
  %put.at = getelementptr ptr, ptr @calls, i64 {calls_set_cpus}
  %put = load ptr, ptr %put.at
  %ignored = call i32 %put(i32 %thread, i64 {bytes}, ptr %set)
  %without.at = getelementptr i64, ptr %helper, i64 {helper_without}
  store atomic i64 %cpu, ptr %without.at monotonic, align 8
  br label %leave.it
leave.it:
  ret i1 1
stay:
  ret i1 0
}}

define void @help(ptr %helper) {{
entry:
  %asleep.at = getelementptr i64, ptr %helper, i64 {helper_asleep}
  %lock.at = getelementptr i64, ptr %helper, i64 {helper_lock}
  %lock = load ptr, ptr %lock.at
  %cpu.at = getelementptr i64, ptr %helper, i64 {helper_cpu}
  %turns.at = getelementptr i64, ptr @team, i64 {team_turns}
  %sleep.at = getelementptr ptr, ptr @calls, i64 {calls_take_lock}
  %sleep = load ptr, ptr %sleep.at
  br label %idle
idle:
  %turns = load i64, ptr %turns.at
  %offer = call i64 @spin(ptr %helper, i64 0, i64 %turns, ptr %cpu.at)
  %some = icmp ne i64 %offer, 0
  br i1 %some, label %accept, label %lie.down
accept:
  %taken = cmpxchg ptr %helper, i64 %offer, i64 1 seq_cst seq_cst
  %mine = extractvalue {{ i64, i1 }} %taken, 1
  br i1 %mine, label %work, label %idle
work:
  %call = inttoptr i64 %offer to ptr
  %task = load ptr, ptr %call
  %data.at = getelementptr i64, ptr %call, i64 1
  %data = load ptr, ptr %data.at
  call void %task(ptr null, ptr null, ptr null, ptr %data)
  %left.at = getelementptr i64, ptr %call, i64 2
  %before = atomicrmw add ptr %left.at, i64 1 release
  store atomic i64 0, ptr %helper release, align 8
  br label %idle
lie.down:
  store atomic i64 1, ptr %asleep.at seq_cst, align 8
  %late = load atomic i64, ptr %helper seq_cst, align 8
  %none = icmp eq i64 %late, 0
  br i1 %none, label %sleep.now, label %get.up
get.up:
  %still = atomicrmw xchg ptr %asleep.at, i64 0 seq_cst
  %woken.already = icmp eq i64 %still, 0
  br i1 %woken.already, label %sleep.now, label %idle
sleep.now:  ; until somebody releases the lock, or at once if that has happened
  %ignored = call i32 %sleep(ptr %lock, i32 1)
  br label %idle
}}

define void @parallel_for(ptr %task, ptr %args, ptr %counts, ptr %steps, ptr %data, \
i64 %inner, i64 %operands, i32 %threads) {{
entry:
  %call = alloca [3 x i64]
  store ptr %task, ptr %call
  %data.at = getelementptr i64, ptr %call, i64 1
  store ptr %data, ptr %data.at
  %left.at = getelementptr i64, ptr %call, i64 2
  store i64 0, ptr %left.at
  %offer = ptrtoint ptr %call to i64
  %nowhere = alloca i64
  %wanted.32 = sub i32 %threads, 1
  %wanted = zext i32 %wanted.32 to i64
  %count.at = getelementptr i64, ptr @team, i64 {team_count}
  %asked.at = getelementptr i64, ptr @team, i64 {team_asked}
  %most.at = getelementptr i64, ptr @team, i64 {team_most}
  %asked.for = load i64, ptr %asked.at
  %most = load i64, ptr %most.at
  %few = icmp ult i64 %asked.for, %wanted
  %more = icmp ult i64 %asked.for, %most
  %engage = and i1 %few, %more
  br i1 %engage, label %grow, label %begin
grow:
  %engage.at = getelementptr ptr, ptr @calls, i64 {calls_engage}
  %engage.more = load ptr, ptr %engage.at
  %quiet.at = alloca i64
  store i64 0, ptr %quiet.at
  call void %engage.more(i64 %wanted, ptr %quiet.at)
  %quiet = load i64, ptr %quiet.at
  %interrupted = icmp eq i64 %quiet, 0
  br i1 %interrupted, label %ask.again, label %begin
ask.again:
  ; It was an exception that could not leave the code which starts threads.
  %interrupt.at = getelementptr ptr, ptr @calls, i64 {calls_interrupt}
  %interrupt = load ptr, ptr %interrupt.at
  call void %interrupt()
  br label %begin
begin:
  %count = load atomic i64, ptr %count.at acquire, align 8
  %time.at = getelementptr i64, ptr %steps, i64 1
  %time = load i64, ptr %time.at
  %work.at = getelementptr i64, ptr @team, i64 {team_work}
  %work.before = atomicrmw add ptr %work.at, i64 %time monotonic
  %work = add i64 %work.before, %time
  %worth.at = getelementptr i64, ptr @team, i64 {team_worth_waking}
  %worth = load i64, ptr %worth.at
  %worth.waking = icmp uge i64 %work, %worth
  %team = load ptr, ptr @team
  %wake.at = getelementptr ptr, ptr @calls, i64 {calls_release_lock}
  %wake = load ptr, ptr %wake.at
  %here = call i64 @here()
  %somewhere = icmp sge i64 %here, 0
  br label %ask
ask:
  %i = phi i64 [ 0, %begin ], [ %i.next, %asked ]
  %offered = phi i64 [ 0, %begin ], [ %offered.next, %asked ]
  %another = icmp ult i64 %i, %count
  %lacking = icmp ult i64 %offered, %wanted
  %go.on = and i1 %another, %lacking
  br i1 %go.on, label %ask.one, label %asked.all
ask.one:
  %offset = mul i64 %i, {size}
  %helper = getelementptr i8, ptr %team, i64 %offset
  %busy = load atomic i64, ptr %helper monotonic, align 8
  %free = icmp eq i64 %busy, 0
  %asleep.at = getelementptr i64, ptr %helper, i64 {helper_asleep}
  %dozes = load atomic i64, ptr %asleep.at monotonic, align 8
  %awake = icmp eq i64 %dozes, 0
  %reachable = or i1 %awake, %worth.waking
  %fit = and i1 %free, %reachable
  br i1 %fit, label %locate, label %asked
locate:
  ; One that is awake is where it is; one that sleeps may wake up anywhere but where it must not.
  %cpu.at = getelementptr i64, ptr %helper, i64 {helper_cpu}
  %cpu = load atomic i64, ptr %cpu.at monotonic, align 8
  %without.at = getelementptr i64, ptr %helper, i64 {helper_without}
  %without = load atomic i64, ptr %without.at monotonic, align 8
  %beside = icmp ne i64 %cpu, %here
  %kept.away = icmp eq i64 %without, %here
  %apart = select i1 %awake, i1 %beside, i1 %kept.away
  %in.the.way = xor i1 %apart, 1
  %in.our.way = and i1 %in.the.way, %somewhere
  br i1 %in.our.way, label %part, label %offer.it
part:
  %moved = call i1 @move_away(ptr %helper, i64 %here)
  br i1 %moved, label %offer.it, label %asked
offer.it:
  %given = cmpxchg ptr %helper, i64 {helper_offer}, i64 %offer seq_cst seq_cst
  %ok = extractvalue {{ i64, i1 }} %given, 1
  br i1 %ok, label %look, label %asked
look:
  %asleep = load atomic i64, ptr %asleep.at seq_cst, align 8
  %sleeps = icmp ne i64 %asleep, 0
  br i1 %sleeps, label %rouse, label %asked
rouse:
  %was = atomicrmw xchg ptr %asleep.at, i64 0 seq_cst
  %mine = icmp eq i64 %was, 1
  br i1 %mine, label %wake.it, label %asked
wake.it:
  %lock.at = getelementptr i64, ptr %helper, i64 {helper_lock}
  %lock = load ptr, ptr %lock.at
  call void %wake(ptr %lock)
  store atomic i64 0, ptr %work.at monotonic, align 8
  br label %asked
asked:
  %one = phi i64 [ 0, %ask.one ], [ 0, %part ], [ 0, %offer.it ], [ 1, %look ], [ 1, %rouse ], \
[ 1, %wake.it ]
  %offered.next = add i64 %offered, %one
  %i.next = add i64 %i, 1
  br label %ask
asked.all:
  call void %task(ptr %args, ptr %counts, ptr %steps, ptr %data)
  br label %take.back
take.back:
  %j = phi i64 [ 0, %asked.all ], [ %j.next, %back ]
  %entered = phi i64 [ %offered, %asked.all ], [ %entered.next, %back ]
  %one.more = icmp ult i64 %j, %i
  br i1 %one.more, label %back, label %wait
back:
  %j.offset = mul i64 %j, {size}
  %j.helper = getelementptr i8, ptr %team, i64 %j.offset
  %returned = cmpxchg ptr %j.helper, i64 %offer, i64 0 seq_cst seq_cst
  %unused = extractvalue {{ i64, i1 }} %returned, 1
  %less = zext i1 %unused to i64
  %entered.next = sub i64 %entered, %less
  %j.next = add i64 %j, 1
  br label %take.back
wait:
  %left = load atomic i64, ptr %left.at acquire, align 8
  %all = icmp uge i64 %left, %entered
  br i1 %all, label %end, label %wait.more
wait.more:
  %seen = call i64 @spin(ptr %left.at, i64 %left, i64 1000, ptr %nowhere)
  br label %wait
end:
  ret void
}}
"""

SYMBOLS = ("calls", "team", "spin", "help", "parallel_for")

_api = ctypes.pythonapi
_new_lock = _api.PyThread_allocate_lock
_new_lock.restype = c_void_p
_take_lock = _api.PyThread_acquire_lock
_take_lock.argtypes = (c_void_p, ctypes.c_int)

_helpers: ctypes.Array | None = None  # their words, and what may not be freed while they live
_joining = _thread.allocate_lock()
_addresses: dict[str, int] = {}


def object_code(target: "Target") -> bytes:
    """The functions above for `target`."""
    from . import _codegen

    machine = _codegen.machine_of(target)
    declared, pause = _PAUSES.get(target.architecture, ("", ""))
    text = _IR.format(
        declared=declared,
        pause=pause,
        size=_HELPER,
        cpus=_CPUS,
        bytes=_CPUS // 8,
        len_calls=len(_CALLS),
        len_team=len(_Team._fields_),
        **{f"calls_{name}": k for k, name in enumerate(_CALLS)},
        **{f"team_{name}": k for k, (name, _) in enumerate(_Team._fields_)},
        **{f"helper_{name}": k for k, (name, _) in enumerate(_Helper._fields_)},
    )
    module = _codegen.parse(text, target, machine)
    _codegen.optimise(module, machine)
    return machine.emit_object(module)


def begin() -> int:
    """Make ready, in this process for the first time, what starts helpers when they are wanted.

    Returns
    -------
    int
        The address of ``parallel_for``, which has the signature of numba's.
    """
    global _helpers
    if not _addresses:
        found = _engine.helper_addresses()
        calls = (c_void_p * len(_CALLS)).from_address(found["calls"])
        functions = {
            "yield": _yield(),
            "take_lock": _take_lock,
            "release_lock": _api.PyThread_release_lock,
            "engage": _engage,
            "interrupt": _api.PyErr_SetInterrupt,
            **_placing(),
        }
        for name, function in functions.items():
            calls[_CALLS.index(name)] = ctypes.cast(function, c_void_p)
        _addresses.update(found)  # last, as an interrupt may end this anywhere
    if _helpers is None:
        helpers = ctypes.create_string_buffer((MOST + 1) * _HELPER)
        start = ctypes.addressof(helpers)
        new = _Team(
            first=start + -start % _HELPER, most=MOST, turns=_turns(), worth_waking=WORTH_WAKING
        )
        ctypes.pointer(team())[0] = new
        _helpers = helpers
    return _addresses["parallel_for"]


def forget_helpers() -> None:
    """In a forked child, which has none of its parent's."""
    global _helpers, _joining
    _helpers, _joining = None, _thread.allocate_lock()


def team() -> _Team:
    """What is known of the helpers together, once there is something."""
    return _Team.from_address(_addresses["team"])


def _turns() -> int:
    """How many turns of ``spin`` are `SPIN`."""
    word, cpu, turns, times = c_int64(), c_int64(), 256, []
    spin = CFUNCTYPE(c_int64, c_void_p, c_int64, c_int64, c_void_p)(_addresses["spin"])
    for _ in range(5):
        start = time.perf_counter()
        spin(ctypes.addressof(word), 0, turns, ctypes.addressof(cpu))
        times.append(time.perf_counter() - start)
    return max(1, round(turns * SPIN / min(times)))


@CFUNCTYPE(None, c_int64, c_void_p)
def _engage(wanted: int, quiet: int) -> None:
    """Start helpers until there are `wanted`.

    Sets the word at `quiet` to 1 unless an exception prevents it, which can only be an interrupt.
    Python raises none between an assignment and the end.
    """
    cell = c_int64.from_address(quiet)
    try:
        with MAKING:  # a fork waits for it
            _start(wanted)
    except KeyboardInterrupt:
        return
    cell.value = 1


def _start(wanted: int) -> None:
    ours = team()
    while ours.asked < min(wanted, ours.most):
        try:
            _thread.start_new_thread(_help, ())
        except RuntimeError:  # no more threads can be started
            ours.most = ours.asked
            return
        # An interrupt before this line means one helper more than was asked for.
        ours.asked += 1


def _help() -> None:
    with _joining:
        ours = team()
        if ours.count >= MOST:
            return
        address = ours.first + ours.count * _HELPER
        helper = _Helper.from_address(address)
        helper.lock, helper.thread = _new_lock(), _thread.get_native_id()
        helper.cpu = helper.without = -1
        _take_lock(helper.lock, 0)
        ours.count += 1
    CFUNCTYPE(None, c_void_p)(_addresses["help"])(address)


def _yield():
    """The system's function that lets other threads run."""
    if hasattr(ctypes, "windll"):
        return ctypes.windll.kernel32.SwitchToThread
    return ctypes.CDLL(None).sched_yield


def _placing() -> dict[str, Any]:
    """The functions that tell and set the CPUs of threads; none outside Linux.

    A thread that is woken may come to the CPU of who wakes it, while others are idle, and stay
    there for 100 ms of calls (bench/NOTES.md).
    """
    names = {"cpu": "sched_getcpu", "cpus": "sched_getaffinity", "set_cpus": "sched_setaffinity"}
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not all(hasattr(library, name) for name in names.values()):
        return {}
    return {name: getattr(library, function) for name, function in names.items()}
