; What a compiled program calls: it finds the recipe of its key, and XLA's threads run its tasks.
;
; The first structures are the beginnings of those in XLA's xla/ffi/api/c_api.h, version 0.1, which newer versions keep;
; the others are those of handler.py, and oneDNN's dnnl_exec_arg_t.

%Buffers = type { i64, ptr, i64, ptr, ptr }            ; size, extension, count, types, buffers
%Attributes = type { i64, ptr, i64, ptr, ptr, ptr }    ; size, extension, count, types, names, values
%Frame = type { i64, ptr, ptr, ptr, i32, %Buffers, %Buffers, %Attributes }  ; size, extension, api, context, stage
%Buffer = type { i64, ptr, i32, i64 }                  ; size, extension, type, address
%Numbers = type { i32, i64, ptr }                      ; type, count, address
%Extension = type { i64, i32, ptr, ptr }               ; size, type, next, metadata
%Metadata = type { i64, i64, ptr, i32, i32, i32 }      ; size, of the version: size, extension, major, minor; traits
%Message = type { i64, ptr, ptr, i32 }                 ; size, extension, text, code
%Question = type { i64, ptr, ptr, ptr }                ; size, extension, context, where the answer goes
%Errand = type { i64, ptr, ptr, ptr, ptr }             ; size, extension, context, function, its argument
%Unwanted = type { i64, ptr, ptr }                     ; size, extension, an error
; size, extension, version, internal; from the 5th on functions: an error is made, read, destroyed, ...
%Api = type { i64, ptr, [3 x i64], ptr, ptr, ptr, ptr, [8 x ptr], ptr, ptr }  ; ..., a thread is asked, their number

%Node = type { i64, ptr, ptr }                         ; digest, recipe, next
%Recipe = type { i64, ptr, ptr, ptr, ptr, ptr, ptr, ptr, ptr, ptr, ptr, ptr, i64, i64 }  ; as in handler.py, like the next
%Task = type { i64, ptr, i64, ptr }
%Step = type { ptr, i64, i64 }
%Slot = type { i64, ptr, i64, i64 }
%Argument = type { i32, ptr }                          ; number, memory
; The tasks of one call: the next to take, how many are done, who looks at this, how many came, what failed; recipe,
; addresses.
%Job = type { i64, i64, i64, i64, ptr, ptr, [4 x i64] }

@nodes = global [256 x ptr] zeroinitializer
@find = global ptr null
@why = global ptr null

declare ptr @malloc(i64)
declare void @free(ptr)
declare i32 @sched_yield()

define ptr @handler(ptr %frame) {
  %f.extension = getelementptr %Frame, ptr %frame, i32 0, i32 1
  %extension = load ptr, ptr %f.extension
  %plain = icmp eq ptr %extension, null
  br i1 %plain, label %work, label %extended

extended:
  %e.type = getelementptr %Extension, ptr %extension, i32 0, i32 1
  %type = load i32, ptr %e.type
  %asks = icmp eq i32 %type, 1
  br i1 %asks, label %describe, label %work

describe: ; XLA asks what this is: a function of version 0.1
  %e.metadata = getelementptr %Extension, ptr %extension, i32 0, i32 3
  %metadata = load ptr, ptr %e.metadata
  %m.major = getelementptr %Metadata, ptr %metadata, i32 0, i32 3
  %m.minor = getelementptr %Metadata, ptr %metadata, i32 0, i32 4
  %m.traits = getelementptr %Metadata, ptr %metadata, i32 0, i32 5
  store i32 0, ptr %m.major
  store i32 1, ptr %m.minor
  store i32 0, ptr %m.traits
  ret ptr null

work:
  %recipe = call ptr @recipe(ptr %frame)
  %unknown = icmp eq ptr %recipe, null
  br i1 %unknown, label %no.recipe, label %call

no.recipe:
  %reason = load ptr, ptr @why
  br label %fail

call:
  %text = call ptr @shared(ptr %frame, ptr %recipe)
  %well = icmp eq ptr %text, null
  br i1 %well, label %return, label %fail

return:
  ret ptr null

fail:
  %words = phi ptr [ %reason, %no.recipe ], [ %text, %call ]
  %message = alloca %Message
  %g.extension = getelementptr %Message, ptr %message, i32 0, i32 1
  %g.text = getelementptr %Message, ptr %message, i32 0, i32 2
  %g.code = getelementptr %Message, ptr %message, i32 0, i32 3
  store i64 32, ptr %message
  store ptr null, ptr %g.extension
  store ptr %words, ptr %g.text
  store i32 13, ptr %g.code ; internal
  %f.api = getelementptr %Frame, ptr %frame, i32 0, i32 2
  %api = load ptr, ptr %f.api
  %a.error = getelementptr %Api, ptr %api, i32 0, i32 4
  %make.error = load ptr, ptr %a.error
  %error = call ptr %make.error(ptr %message)
  ret ptr %error
}

; The recipe of a frame's key, found by its digest; where there is none, Python makes it, or says in @why why not.
define private ptr @recipe(ptr %frame) {
  %f.values = getelementptr %Frame, ptr %frame, i32 0, i32 7, i32 5
  %values = load ptr, ptr %f.values
  %numbers = load ptr, ptr %values
  %n.count = getelementptr %Numbers, ptr %numbers, i32 0, i32 1
  %n.key = getelementptr %Numbers, ptr %numbers, i32 0, i32 2
  %count = load i64, ptr %n.count
  %key = load ptr, ptr %n.key
  %digest = load i64, ptr %key
  %bucket = and i64 %digest, 255
  %head = getelementptr [256 x ptr], ptr @nodes, i32 0, i64 %bucket
  %first = load atomic ptr, ptr %head acquire, align 8
  br label %search

search:
  %node = phi ptr [ %first, %0 ], [ %next, %other ]
  %none = icmp eq ptr %node, null
  br i1 %none, label %ask, label %compare

compare:
  %its = load i64, ptr %node
  %same = icmp eq i64 %its, %digest
  br i1 %same, label %known, label %other

other:
  %n.next = getelementptr %Node, ptr %node, i32 0, i32 2
  %next = load ptr, ptr %n.next
  br label %search

known:
  %n.recipe = getelementptr %Node, ptr %node, i32 0, i32 1
  %found = load ptr, ptr %n.recipe
  ret ptr %found

ask:
  %function = load ptr, ptr @find
  %new = call ptr %function(ptr %key, i64 %count)
  ret ptr %new
}

; Run the tasks of a recipe, by this thread and those of XLA that come to it. A text where one failed.
define private ptr @shared(ptr %frame, ptr %recipe) {
  %job = call ptr @malloc(i64 80)
  %missing = icmp eq ptr %job, null
  br i1 %missing, label %no.job, label %begin

no.job:
  %r.no.memory = getelementptr %Recipe, ptr %recipe, i32 0, i32 10
  %no.memory = load ptr, ptr %r.no.memory
  ret ptr %no.memory

begin:
  %j.done = getelementptr %Job, ptr %job, i32 0, i32 1
  %j.users = getelementptr %Job, ptr %job, i32 0, i32 2
  %j.came = getelementptr %Job, ptr %job, i32 0, i32 3
  %j.failed = getelementptr %Job, ptr %job, i32 0, i32 4
  %j.recipe = getelementptr %Job, ptr %job, i32 0, i32 5
  %addresses = getelementptr %Job, ptr %job, i32 0, i32 6
  store i64 0, ptr %job
  store i64 0, ptr %j.done
  store i64 1, ptr %j.users
  store i64 0, ptr %j.came
  store ptr null, ptr %j.failed
  store ptr %recipe, ptr %j.recipe
  %f.operands = getelementptr %Frame, ptr %frame, i32 0, i32 5
  %f.results = getelementptr %Frame, ptr %frame, i32 0, i32 6
  %o.count = getelementptr %Buffers, ptr %f.operands, i32 0, i32 2
  %operands = load i64, ptr %o.count
  %free.address = getelementptr [4 x i64], ptr %addresses, i32 0, i64 %operands
  call void @gather(ptr %f.operands, ptr %addresses)
  call void @gather(ptr %f.results, ptr %free.address)
  %tasks = load i64, ptr %recipe
  %threads = call i64 @threads(ptr %frame)
  %fewer = icmp slt i64 %threads, %tasks
  %able = select i1 %fewer, i64 %threads, i64 %tasks
  %r.workers = getelementptr %Recipe, ptr %recipe, i32 0, i32 12
  %workers = load i64, ptr %r.workers
  %more = icmp slt i64 %able, %workers
  %most = select i1 %more, i64 %able, i64 %workers
  br label %invite

invite:
  %invited = phi i64 [ 1, %begin ], [ %invited.next, %invite.one ]
  %enough = icmp sge i64 %invited, %most
  br i1 %enough, label %take, label %invite.one

invite.one:
  %invited.next = add i64 %invited, 1
  call void @invite(ptr %frame, ptr %job)
  br label %invite

take: ; what others have begun is waited for: they run, whatever else waits for a thread
  call void @take(ptr %job)
  br label %wait

wait:
  %turn = phi i64 [ 0, %take ], [ %turn.next, %spin ]
  %done = load atomic i64, ptr %j.done acquire, align 8
  %finished = icmp eq i64 %done, %tasks
  br i1 %finished, label %end, label %longer

longer:
  %turn.next = add i64 %turn, 1
  %long = icmp sgt i64 %turn, 20000
  br i1 %long, label %yield, label %spin

yield:
  %yielded = call i32 @sched_yield()
  br label %spin

spin:
  br label %wait

end:
  %failed = load atomic ptr, ptr %j.failed acquire, align 8
  call void @release(ptr %job)
  ret ptr %failed
}

; The addresses of some buffers.
define private void @gather(ptr %buffers, ptr %addresses) {
  %b.count = getelementptr %Buffers, ptr %buffers, i32 0, i32 2
  %b.list = getelementptr %Buffers, ptr %buffers, i32 0, i32 4
  %count = load i64, ptr %b.count
  %list = load ptr, ptr %b.list
  br label %each

each:
  %i = phi i64 [ 0, %0 ], [ %i.next, %one ]
  %all = icmp eq i64 %i, %count
  br i1 %all, label %end, label %one

one:
  %b.one = getelementptr ptr, ptr %list, i64 %i
  %buffer = load ptr, ptr %b.one
  %b.address = getelementptr %Buffer, ptr %buffer, i32 0, i32 3
  %address = load i64, ptr %b.address
  %there = getelementptr i64, ptr %addresses, i64 %i
  store i64 %address, ptr %there
  %i.next = add i64 %i, 1
  br label %each

end:
  ret void
}

; How many threads XLA has for this; 1 where it does not say.
define private i64 @threads(ptr %frame) {
  %answer = alloca i64
  %question = alloca %Question
  store i64 1, ptr %answer
  %f.api = getelementptr %Frame, ptr %frame, i32 0, i32 2
  %f.context = getelementptr %Frame, ptr %frame, i32 0, i32 3
  %api = load ptr, ptr %f.api
  %context = load ptr, ptr %f.context
  %q.extension = getelementptr %Question, ptr %question, i32 0, i32 1
  %q.context = getelementptr %Question, ptr %question, i32 0, i32 2
  %q.answer = getelementptr %Question, ptr %question, i32 0, i32 3
  store i64 32, ptr %question
  store ptr null, ptr %q.extension
  store ptr %context, ptr %q.context
  store ptr %answer, ptr %q.answer
  %a.threads = getelementptr %Api, ptr %api, i32 0, i32 9
  %function = load ptr, ptr %a.threads
  %error = call ptr %function(ptr %question)
  %well = icmp eq ptr %error, null
  br i1 %well, label %end, label %fail

fail:
  call void @dismiss(ptr %api, ptr %error)
  br label %end

end:
  %threads = load i64, ptr %answer
  ret i64 %threads
}

; Ask one of XLA's threads to help.
define private void @invite(ptr %frame, ptr %job) {
  %errand = alloca %Errand
  %f.api = getelementptr %Frame, ptr %frame, i32 0, i32 2
  %f.context = getelementptr %Frame, ptr %frame, i32 0, i32 3
  %api = load ptr, ptr %f.api
  %context = load ptr, ptr %f.context
  %e.extension = getelementptr %Errand, ptr %errand, i32 0, i32 1
  %e.context = getelementptr %Errand, ptr %errand, i32 0, i32 2
  %e.function = getelementptr %Errand, ptr %errand, i32 0, i32 3
  %e.argument = getelementptr %Errand, ptr %errand, i32 0, i32 4
  store i64 40, ptr %errand
  store ptr null, ptr %e.extension
  store ptr %context, ptr %e.context
  store ptr @help, ptr %e.function
  store ptr %job, ptr %e.argument
  %j.users = getelementptr %Job, ptr %job, i32 0, i32 2
  %users = atomicrmw add ptr %j.users, i64 1 acq_rel
  %a.schedule = getelementptr %Api, ptr %api, i32 0, i32 8
  %function = load ptr, ptr %a.schedule
  %error = call ptr %function(ptr %errand)
  %well = icmp eq ptr %error, null
  br i1 %well, label %end, label %fail

fail:
  call void @dismiss(ptr %api, ptr %error)
  call void @release(ptr %job)
  br label %end

end:
  ret void
}

define private void @dismiss(ptr %api, ptr %error) {
  %unwanted = alloca %Unwanted
  %u.extension = getelementptr %Unwanted, ptr %unwanted, i32 0, i32 1
  %u.error = getelementptr %Unwanted, ptr %unwanted, i32 0, i32 2
  store i64 24, ptr %unwanted
  store ptr null, ptr %u.extension
  store ptr %error, ptr %u.error
  %a.destroy = getelementptr %Api, ptr %api, i32 0, i32 6
  %function = load ptr, ptr %a.destroy
  call void %function(ptr %unwanted)
  ret void
}

define private void @help(ptr %job) {
  call void @take(ptr %job)
  call void @release(ptr %job)
  ret void
}

define private void @release(ptr %job) {
  %j.users = getelementptr %Job, ptr %job, i32 0, i32 2
  %users = atomicrmw sub ptr %j.users, i64 1 acq_rel
  %last = icmp eq i64 %users, 1
  br i1 %last, label %done, label %end

done:
  call void @free(ptr %job)
  br label %end

end:
  ret void
}

; Run tasks as long as there are any, in a part of the scratch memory that nobody else has.
define private void @take(ptr %job) {
  %mine = alloca [4 x i64]
  %j.done = getelementptr %Job, ptr %job, i32 0, i32 1
  %j.failed = getelementptr %Job, ptr %job, i32 0, i32 4
  %j.recipe = getelementptr %Job, ptr %job, i32 0, i32 5
  %addresses = getelementptr %Job, ptr %job, i32 0, i32 6
  %j.came = getelementptr %Job, ptr %job, i32 0, i32 3
  %place = atomicrmw add ptr %j.came, i64 1 acq_rel
  %recipe = load ptr, ptr %j.recipe
  %r.each = getelementptr %Recipe, ptr %recipe, i32 0, i32 13
  %each = load i64, ptr %r.each
  %offset = mul i64 %place, %each
  %all = load [4 x i64], ptr %addresses
  %scratch = extractvalue [4 x i64] %all, 3
  %there = add i64 %scratch, %offset
  %own = insertvalue [4 x i64] %all, i64 %there, 3
  store [4 x i64] %own, ptr %mine
  br label %next

next:
  %i = atomicrmw add ptr %job, i64 1 acq_rel
  %tasks = load i64, ptr %recipe
  %more = icmp slt i64 %i, %tasks
  br i1 %more, label %one, label %end

one:
  %r.tasks = getelementptr %Recipe, ptr %recipe, i32 0, i32 1
  %list = load ptr, ptr %r.tasks
  %task = getelementptr %Task, ptr %list, i64 %i
  %text = call ptr @run(ptr %recipe, ptr %task, ptr %mine)
  %well = icmp eq ptr %text, null
  br i1 %well, label %count, label %fail

fail:
  store atomic ptr %text, ptr %j.failed release, align 8
  br label %count

count: ; the job may end here, and the recipe with it
  %done = atomicrmw add ptr %j.done, i64 1 acq_rel
  br label %next

end:
  ret void
}

; One task: make a memory for each slot, run the steps, destroy the memories. A text where that failed.
define private ptr @run(ptr %recipe, ptr %task, ptr %addresses) {
  %r.engine = getelementptr %Recipe, ptr %recipe, i32 0, i32 2
  %r.stream = getelementptr %Recipe, ptr %recipe, i32 0, i32 3
  %r.create = getelementptr %Recipe, ptr %recipe, i32 0, i32 4
  %r.execute = getelementptr %Recipe, ptr %recipe, i32 0, i32 5
  %r.destroy = getelementptr %Recipe, ptr %recipe, i32 0, i32 6
  %r.wait = getelementptr %Recipe, ptr %recipe, i32 0, i32 7
  %r.get.threads = getelementptr %Recipe, ptr %recipe, i32 0, i32 8
  %r.set.threads = getelementptr %Recipe, ptr %recipe, i32 0, i32 9
  %r.no.memory = getelementptr %Recipe, ptr %recipe, i32 0, i32 10
  %r.no.result = getelementptr %Recipe, ptr %recipe, i32 0, i32 11
  %engine = load ptr, ptr %r.engine
  %stream = load ptr, ptr %r.stream
  %create = load ptr, ptr %r.create
  %execute = load ptr, ptr %r.execute
  %destroy = load ptr, ptr %r.destroy
  %wait = load ptr, ptr %r.wait
  %get.threads = load ptr, ptr %r.get.threads
  %set.threads = load ptr, ptr %r.set.threads
  %no.memory = load ptr, ptr %r.no.memory
  %no.result = load ptr, ptr %r.no.result
  %t.slots = getelementptr %Task, ptr %task, i32 0, i32 1
  %t.steps.count = getelementptr %Task, ptr %task, i32 0, i32 2
  %t.steps = getelementptr %Task, ptr %task, i32 0, i32 3
  %slots.count = load i64, ptr %task
  %slots = load ptr, ptr %t.slots
  %steps.count = load i64, ptr %t.steps.count
  %steps = load ptr, ptr %t.steps
  %arguments = alloca %Argument, i64 %slots.count
  br label %make

make: ; a memory for each slot
  %slot.i = phi i64 [ 0, %0 ], [ %slot.next, %made ]
  %all.made = icmp eq i64 %slot.i, %slots.count
  br i1 %all.made, label %begin, label %make.one

make.one:
  %slot = getelementptr %Slot, ptr %slots, i64 %slot.i
  %s.description = getelementptr %Slot, ptr %slot, i32 0, i32 1
  %s.which = getelementptr %Slot, ptr %slot, i32 0, i32 2
  %s.offset = getelementptr %Slot, ptr %slot, i32 0, i32 3
  %number = load i64, ptr %slot
  %description = load ptr, ptr %s.description
  %which = load i64, ptr %s.which
  %offset = load i64, ptr %s.offset
  %a.which = getelementptr [4 x i64], ptr %addresses, i32 0, i64 %which
  %start = load i64, ptr %a.which
  %there = add i64 %start, %offset
  %address = inttoptr i64 %there to ptr
  %argument = getelementptr %Argument, ptr %arguments, i64 %slot.i
  %short = trunc i64 %number to i32
  store i32 %short, ptr %argument
  %memory = getelementptr %Argument, ptr %argument, i32 0, i32 1
  %status.made = call i32 %create(ptr %memory, ptr %description, ptr %engine, ptr %address)
  %is.made = icmp eq i32 %status.made, 0
  br i1 %is.made, label %made, label %end

made:
  %slot.next = add i64 %slot.i, 1
  br label %make

begin: ; the steps, one after the other, by this thread alone
  %before = call i32 %get.threads()
  call void %set.threads(i32 1)
  br label %step

step:
  %step.i = phi i64 [ 0, %begin ], [ %step.next, %step.one ]
  %status = phi i32 [ 0, %begin ], [ %status.run, %step.one ]
  %all.run = icmp eq i64 %step.i, %steps.count
  %is.run = icmp eq i32 %status, 0
  %stop.now = xor i1 %is.run, true
  %stop = or i1 %all.run, %stop.now
  br i1 %stop, label %finish, label %step.one

step.one:
  %step.here = getelementptr %Step, ptr %steps, i64 %step.i
  %s.count = getelementptr %Step, ptr %step.here, i32 0, i32 1
  %s.first = getelementptr %Step, ptr %step.here, i32 0, i32 2
  %primitive = load ptr, ptr %step.here
  %count.long = load i64, ptr %s.count
  %first = load i64, ptr %s.first
  %count = trunc i64 %count.long to i32
  %list = getelementptr %Argument, ptr %arguments, i64 %first
  %status.run = call i32 %execute(ptr %primitive, ptr %stream, i32 %count, ptr %list)
  %step.next = add i64 %step.i, 1
  br label %step

finish:
  %status.wait = call i32 %wait(ptr %stream)
  call void %set.threads(i32 %before)
  %both = or i32 %status, %status.wait
  %is.finished = icmp eq i32 %both, 0
  %said = select i1 %is.finished, ptr null, ptr %no.result
  br label %end

end:
  %text = phi ptr [ %no.memory, %make.one ], [ %said, %finish ]
  br label %clear

clear:
  %clear.i = phi i64 [ 0, %end ], [ %clear.next, %clear.one ]
  %all.clear = icmp eq i64 %clear.i, %slot.i
  br i1 %all.clear, label %return, label %clear.one

clear.one:
  %c.memory = getelementptr %Argument, ptr %arguments, i64 %clear.i, i32 1
  %old = load ptr, ptr %c.memory
  %status.clear = call i32 %destroy(ptr %old)
  %clear.next = add i64 %clear.i, 1
  br label %clear

return:
  ret ptr %text
}
