"""LLVM IR that a helper's thread runs: it waits for an offer, works, and sleeps."""

HELPER_THREAD_IR = """
; Calls function number %which of @calls, without arguments; -1 if it is missing.
define internal i64 @call_or_minus_one(i64 %which) {{
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

; Waits for up to %turns turns, until the word at %at is no longer %still; returns the word.
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
  %cpu = call i64 @call_or_minus_one(i64 {calls_cpu})
  store atomic i64 %cpu, ptr %cpu.at monotonic, align 8
  br label %patient
patient:
  br label %turn
end:
  ret i64 %now
}}

; The main function of a helper's thread.
define internal void @help(ptr %helper) {{
entry:
  %asleep.at = getelementptr i64, ptr %helper, i64 {helper_asleep}
  %cpu.at = getelementptr i64, ptr %helper, i64 {helper_cpu}
  %lock.at = getelementptr i64, ptr %helper, i64 {helper_lock}
  %lock = load ptr, ptr %lock.at
  %turns.at = getelementptr i64, ptr @team, i64 {team_turns}
  %sleep.at = getelementptr ptr, ptr @calls, i64 {calls_take_lock}
  %sleep = load ptr, ptr %sleep.at
  %number = call i64 @call_or_minus_one(i64 {calls_thread})
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
sleep.now:  ; until the lock is released; returns at once if it has been released already
  %ignored = call i32 %sleep(ptr %lock, i32 1)
  br label %idle
}}
"""
