"""LLVM IR that starts helpers, and chooses the CPUs that they may run on."""

HELPER_START_IR = """
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
  ; Mark it as busy forever. If a call has made it an offer, the call takes that back at its end.
  %marked = cmpxchg ptr %helper, i64 0, i64 1 seq_cst seq_cst
  store atomic i64 %count, ptr %most.at monotonic, align 8
  br label %end
end:
  ret void
}}

; Lets a helper run on the CPUs in %set only, unless %placing says that this is so already.
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

; Writes the CPUs for helpers of this caller to %set: those that it may run on, without %here.
; Returns how many there are, or -1 if that is unknown, and writes a hash of them to %placing.at.
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
"""
