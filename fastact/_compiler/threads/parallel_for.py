"""LLVM IR of a call that offers its work to helpers, and takes back unaccepted offers."""

PARALLEL_FOR_IR = """
define void @parallel_for(ptr %task, {task}, ptr %data, i64 %inner, i64 %operands, \
i32 %threads) {{
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
  %time.at = getelementptr i64, ptr %steps, i64 {time_step}
  %time = load i64, ptr %time.at
  %work.at = getelementptr i64, ptr @team, i64 {team_work}
  %work.before = atomicrmw add ptr %work.at, i64 %time monotonic
  %work = add i64 %work.before, %time
  %worth.at = getelementptr i64, ptr @team, i64 {team_worth_waking}
  %worth = load atomic i64, ptr %worth.at monotonic, align 8
  %worth.waking = icmp uge i64 %work, %worth
  %wake.at = getelementptr ptr, ptr @calls, i64 {calls_release_lock}
  %wake = load ptr, ptr %wake.at
  %here = call i64 @call_or_minus_one(i64 {calls_cpu})
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
  ; A helper on our own CPU would only be in the way. It is moved when there is more work.
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
  call void %task({task}, ptr %data)
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
