"""What helpers run, and what a call does to get their help: LLVM IR.

A call offers itself to helpers that have nothing to do, by a word of each, and takes the
offers back at its end that nobody has taken up. So it waits for nobody who has not come.

A helper spins for a while before it sleeps, since a thread that sleeps comes late, and who
wakes it loses time as well. So helpers that sleep are not woken for every call but one for
each `worth_waking` of work, done in one call or in several; those that follow find it awake.
"""

import ctypes
from ctypes import c_int64
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastact._machine.targets import Target

SYMBOLS = ("calls", "team", "spin", "parallel_for")

CALLS = (
    *("yield", "start", "new_lock", "take_lock", "release_lock"),
    *("thread", "cpu", "cpus", "set_cpus"),  # these may be missing
)
"""Functions of others."""


class Team(ctypes.Structure):
    """What is known of the helpers together."""

    _fields_ = [
        (name, c_int64)
        for name in (
            "first",  # the address of the helpers
            "count",  # how many have been started,
            "most",  # and may be
            "turns",  # that a helper spins
            "work",  # done since a helper was last woken, in picoseconds
            "worth_waking",  # how much of it is
        )
    ]


class Helper(ctypes.Structure):
    """What is known of one."""

    _fields_ = [
        (name, c_int64)
        for name in (
            "offer",  # 0, 1 while it works, or the address of a call
            "asleep",
            "lock",  # that it sleeps by
            "thread",  # the system's number of it; 0 where that is not known
            "cpu",  # that it is on
            "placing",  # what stands for the CPUs that it may be on, where we have chosen them
        )
    ]


STRIDE = 128
"""Bytes from helper to helper: two cache lines, as processors fetch pairs of them."""

_CPUS = 1024  # of a set of CPUs, as C libraries have it


# A call, on its caller's stack: the task, its argument, and how many helpers have left it.
_IR = """
@calls = global [{len_calls} x ptr] zeroinitializer
@team = global [{len_team} x i64] zeroinitializer
declare i{cpus} @llvm.ctpop.i{cpus}(i{cpus})
{declared}

; What the function of others, if there is one, says without arguments; or -1.
define internal i64 @said(i64 %which) {{
  %function.at = getelementptr ptr, ptr @calls, i64 %which
  %function = load ptr, ptr %function.at
  %unknown = icmp eq ptr %function, null
  br i1 %unknown, label %nothing, label %ask
ask:
  %value.32 = call i32 %function()
  %value = sext i32 %value.32 to i64
  ret i64 %value
nothing:
  ret i64 -1
}}

; Waits up to %turns, for the word at %at to be anything but %still.
define i64 @spin(ptr %at, i64 %still, i64 %turns, ptr %cpu.at) {{
entry:
  %yield.at = getelementptr ptr, ptr @calls, i64 {calls_yield}
  %yield = load ptr, ptr %yield.at
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
  %cpu = call i64 @said(i64 {calls_cpu})
  store atomic i64 %cpu, ptr %cpu.at monotonic, align 8
  br label %patient
patient:
  br label %turn
end:
  ret i64 %now
}}

; What a helper's thread does.
define internal void @help(ptr %helper) {{
entry:
  %asleep.at = getelementptr i64, ptr %helper, i64 {helper_asleep}
  %cpu.at = getelementptr i64, ptr %helper, i64 {helper_cpu}
  %lock.at = getelementptr i64, ptr %helper, i64 {helper_lock}
  %lock = load ptr, ptr %lock.at
  %turns.at = getelementptr i64, ptr @team, i64 {team_turns}
  %sleep.at = getelementptr ptr, ptr @calls, i64 {calls_take_lock}
  %sleep = load ptr, ptr %sleep.at
  %number = call i64 @said(i64 {calls_thread})
  %known = icmp sgt i64 %number, 0
  %thread = select i1 %known, i64 %number, i64 0
  %thread.at = getelementptr i64, ptr %helper, i64 {helper_thread}
  store atomic i64 %thread, ptr %thread.at release, align 8
  br label %idle
idle:
  %turns = load atomic i64, ptr %turns.at monotonic, align 8
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

; Starts helpers until there are %wanted.
define internal void @start(i64 %wanted) noinline {{
entry:
  %count.at = getelementptr i64, ptr @team, i64 {team_count}
  %most.at = getelementptr i64, ptr @team, i64 {team_most}
  br label %look
look:
  %count = load atomic i64, ptr %count.at acquire, align 8
  %most = load atomic i64, ptr %most.at monotonic, align 8
  %few = icmp ult i64 %count, %wanted
  %possible = icmp ult i64 %count, %most
  %go.on = and i1 %few, %possible
  br i1 %go.on, label %claim, label %end
claim:
  %team = load ptr, ptr @team
  %offset = mul i64 %count, {size}
  %helper = getelementptr i8, ptr %team, i64 %offset
  %next = add i64 %count, 1
  %claimed = cmpxchg ptr %count.at, i64 %count, i64 %next seq_cst seq_cst
  %mine = extractvalue {{ i64, i1 }} %claimed, 1
  br i1 %mine, label %make.lock, label %look
make.lock:
  %new.at = getelementptr ptr, ptr @calls, i64 {calls_new_lock}
  %new = load ptr, ptr %new.at
  %lock = call ptr %new()
  %no.lock = icmp eq ptr %lock, null
  br i1 %no.lock, label %give.up, label %make.thread
make.thread:
  %take.at = getelementptr ptr, ptr @calls, i64 {calls_take_lock}
  %take = load ptr, ptr %take.at
  %ignored = call i32 %take(ptr %lock, i32 0)
  %lock.at = getelementptr i64, ptr %helper, i64 {helper_lock}
  store ptr %lock, ptr %lock.at
  %cpu.at = getelementptr i64, ptr %helper, i64 {helper_cpu}
  store atomic i64 -1, ptr %cpu.at monotonic, align 8
  %begin.at = getelementptr ptr, ptr @calls, i64 {calls_start}
  %begin = load ptr, ptr %begin.at
  %thread = call {word} %begin(ptr @help, ptr %helper)
  %failed = icmp eq {word} %thread, -1
  br i1 %failed, label %give.up, label %look
give.up:
  ; It is busy for ever, unless a call has an offer there, which waits until it takes that back.
  %marked = cmpxchg ptr %helper, i64 0, i64 1 seq_cst seq_cst
  store atomic i64 %count, ptr %most.at monotonic, align 8
  br label %end
end:
  ret void
}}

; Lets a helper run where its caller may, but not on the caller's CPU, unless that is so already.
define internal void @place(ptr %helper, ptr %set, i64 %placing) {{
entry:
  %placing.at = getelementptr i64, ptr %helper, i64 {helper_placing}
  %before = load atomic i64, ptr %placing.at monotonic, align 8
  %same = icmp eq i64 %before, %placing
  br i1 %same, label %end, label %who
who:
  %thread.at = getelementptr i64, ptr %helper, i64 {helper_thread}
  %thread.64 = load atomic i64, ptr %thread.at acquire, align 8
  %unknown = icmp eq i64 %thread.64, 0
  br i1 %unknown, label %end, label %put
put:
  %thread = trunc i64 %thread.64 to i32
  %put.at = getelementptr ptr, ptr @calls, i64 {calls_set_cpus}
  %put.function = load ptr, ptr %put.at
  %ignored = call i32 %put.function(i32 %thread, {word} {bytes}, ptr %set)
  store atomic i64 %placing, ptr %placing.at monotonic, align 8
  br label %end
end:
  ret void
}}

; The CPUs for helpers of this caller: how many there are, or -1 if that is not known; what stands
; for them is left at %placing.at.
define internal i64 @others(ptr %set, i64 %here, ptr %placing.at) noinline {{
entry:
  %strange = icmp uge i64 %here, {cpus}
  br i1 %strange, label %unknown, label %ask
ask:
  %get.at = getelementptr ptr, ptr @calls, i64 {calls_cpus}
  %get = load ptr, ptr %get.at
  %failed.32 = call i32 %get(i32 0, {word} {bytes}, ptr %set)
  %failed = icmp ne i32 %failed.32, 0
  br i1 %failed, label %unknown, label %take.out
take.out:
  %all = load i{cpus}, ptr %set
  %wide = zext i64 %here to i{cpus}
  %bit = shl i{cpus} 1, %wide
  %but = xor i{cpus} %bit, -1
  %rest = and i{cpus} %all, %but
  store i{cpus} %rest, ptr %set
  %count.wide = call i{cpus} @llvm.ctpop.i{cpus}(i{cpus} %rest)
  %count = trunc i{cpus} %count.wide to i64
  br label %hash
hash:
  %k = phi i64 [ 0, %take.out ], [ %k.next, %hash ]
  %sum = phi i64 [ 0, %take.out ], [ %sum.next, %hash ]
  %word.at = getelementptr i64, ptr %set, i64 %k
  %word = load i64, ptr %word.at
  %with = xor i64 %sum, %word
  %sum.next = mul i64 %with, 11400714819323198485
  %k.next = add i64 %k, 1
  %more = icmp ult i64 %k.next, {set_words}
  br i1 %more, label %hash, label %known
known:
  store i64 %sum.next, ptr %placing.at
  ret i64 %count
unknown:
  ret i64 -1
}}

define void @parallel_for(ptr %task, ptr %args, ptr %counts, ptr %steps, ptr %data, \
i64 %inner, i64 %operands, i32 %threads) {{
entry:
  %call = alloca [3 x i64], align 8
  %nowhere = alloca i64
  %set = alloca i{cpus}
  %placing.at = alloca i64
  store ptr %task, ptr %call
  %data.at = getelementptr i64, ptr %call, i64 1
  store ptr %data, ptr %data.at
  %left.at = getelementptr i64, ptr %call, i64 2
  store i64 0, ptr %left.at
  %offer = ptrtoint ptr %call to i64
  %wanted.32 = sub i32 %threads, 1
  %wanted = zext i32 %wanted.32 to i64
  %count.at = getelementptr i64, ptr @team, i64 {team_count}
  %time.at = getelementptr i64, ptr %steps, i64 1
  %time = load i64, ptr %time.at
  %work.at = getelementptr i64, ptr @team, i64 {team_work}
  %work.before = atomicrmw add ptr %work.at, i64 %time monotonic
  %work = add i64 %work.before, %time
  %worth.at = getelementptr i64, ptr @team, i64 {team_worth_waking}
  %worth = load atomic i64, ptr %worth.at monotonic, align 8
  %worth.waking = icmp uge i64 %work, %worth
  %wake.at = getelementptr ptr, ptr @calls, i64 {calls_release_lock}
  %wake = load ptr, ptr %wake.at
  %here = call i64 @said(i64 {calls_cpu})
  br i1 %worth.waking, label %prepare, label %begin
prepare:
  store atomic i64 0, ptr %work.at monotonic, align 8
  %others = call i64 @others(ptr %set, i64 %here, ptr %placing.at)
  %known = icmp sge i64 %others, 0
  %fewer = icmp ult i64 %others, %wanted
  %possible = select i1 %fewer, i64 %others, i64 %wanted
  call void @start(i64 %possible)
  %placing = load i64, ptr %placing.at
  br label %begin
begin:
  %most = phi i64 [ %wanted, %entry ], [ %possible, %prepare ]
  %places = phi i1 [ 0, %entry ], [ %known, %prepare ]
  %place = phi i64 [ 0, %entry ], [ %placing, %prepare ]
  %count = load atomic i64, ptr %count.at acquire, align 8
  %team = load ptr, ptr @team
  br label %ask
ask:
  %i = phi i64 [ 0, %begin ], [ %i.next, %asked ]
  %offered = phi i64 [ 0, %begin ], [ %offered.next, %asked ]
  %budget = phi i64 [ %work, %begin ], [ %budget.next, %asked ]
  %another = icmp ult i64 %i, %count
  %lacking = icmp ult i64 %offered, %most
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
  %affordable = icmp uge i64 %budget, %worth
  %reachable = or i1 %awake, %affordable
  %fit = and i1 %free, %reachable
  br i1 %fit, label %where, label %asked
where:
  br i1 %places, label %put.it, label %locate
put.it:
  call void @place(ptr %helper, ptr %set, i64 %place)
  br label %offer.it
locate:
  ; On our own CPU it would only be in the way; it will be placed when there is more work.
  %cpu.at = getelementptr i64, ptr %helper, i64 {helper_cpu}
  %cpu = load atomic i64, ptr %cpu.at monotonic, align 8
  %somewhere = icmp sge i64 %here, 0
  %beside = icmp eq i64 %cpu, %here
  %in.our.way = and i1 %beside, %somewhere
  br i1 %in.our.way, label %asked, label %offer.it
offer.it:
  %given = cmpxchg ptr %helper, i64 0, i64 %offer seq_cst seq_cst
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
  br label %asked
asked:
  %one = phi i64 [ 0, %ask.one ], [ 0, %locate ], [ 0, %offer.it ], [ 1, %look ], [ 1, %rouse ], \
[ 1, %wake.it ]
  %spent = phi i64 [ 0, %ask.one ], [ 0, %locate ], [ 0, %offer.it ], [ 0, %look ], [ 0, %rouse ], \
[ %worth, %wake.it ]
  %offered.next = add i64 %offered, %one
  %budget.next = sub i64 %budget, %spent
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


def object_code(target: "Target") -> bytes:
    """The functions above for `target`."""
    from fastact._compiler import pipeline

    machine = pipeline.machine_of(target)
    pause = target.instructions.pause
    text = _IR.format(
        declared=pause.declaration,
        pause=pause.call,
        size=STRIDE,
        cpus=_CPUS,
        bytes=_CPUS // 8,
        set_words=_CPUS // 64,
        # C's unsigned long and size_t, which are as wide as a word where they are given.
        word=f"i{8 * ctypes.sizeof(ctypes.c_ulong)}",
        len_calls=len(CALLS),
        len_team=len(Team._fields_),
        **{f"calls_{name}": k for k, name in enumerate(CALLS)},
        **{f"team_{name}": k for k, (name, _) in enumerate(Team._fields_)},
        **{f"helper_{name}": k for k, (name, _) in enumerate(Helper._fields_)},
    )
    module = pipeline.parse(text, target, machine)
    pipeline.optimise(module, machine)
    return pipeline.emit(module, machine)
