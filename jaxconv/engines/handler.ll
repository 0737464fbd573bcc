; What a compiled program calls: it finds the recipe of its key, makes the memories, runs the primitives.
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
%Api = type { i64, ptr, i64, ptr, i64, ptr, ptr }      ; ..., the function that makes errors
%Message = type { i64, ptr, ptr, i32 }                 ; size, extension, text, code

%Node = type { i64, ptr, ptr }                         ; digest, recipe, next
%Recipe = type { i64, ptr, i64, ptr, ptr, ptr, ptr, ptr, ptr, ptr, ptr, ptr, ptr, ptr }  ; as Recipe below
%Slot = type { i32, ptr, i64, i64 }                    ; number, description, which address, offset
%Step = type { ptr, i32, i32, i64 }                    ; primitive, threads, count of slots, the first
%Argument = type { i32, ptr }                          ; number, memory

@nodes = global [256 x ptr] zeroinitializer
@find = global ptr null
@why = global ptr null

define ptr @handler(ptr %frame) {
  %addresses = alloca [4 x i64]
  %i = alloca i64
  %made = alloca i64
  %text = alloca ptr
  store ptr null, ptr %text
  %f.extension = getelementptr %Frame, ptr %frame, i32 0, i32 1
  %extension = load ptr, ptr %f.extension
  %plain = icmp eq ptr %extension, null
  br i1 %plain, label %look, label %extended

extended:
  %e.type = getelementptr %Extension, ptr %extension, i32 0, i32 1
  %type = load i32, ptr %e.type
  %asks = icmp eq i32 %type, 1
  br i1 %asks, label %describe, label %look

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

look: ; the recipe of the digest
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
  %node = phi ptr [ %first, %look ], [ %next, %other ]
  %none = icmp eq ptr %node, null
  br i1 %none, label %ask, label %compare

compare:
  %its = load i64, ptr %node
  %n.recipe = getelementptr %Node, ptr %node, i32 0, i32 1
  %known = load ptr, ptr %n.recipe
  %same = icmp eq i64 %its, %digest
  br i1 %same, label %cook, label %other

other:
  %n.next = getelementptr %Node, ptr %node, i32 0, i32 2
  %next = load ptr, ptr %n.next
  br label %search

ask:
  %function = load ptr, ptr @find
  %new = call ptr %function(ptr %key, i64 %count)
  %nothing = icmp eq ptr %new, null
  br i1 %nothing, label %unknown, label %cook

unknown:
  %reason = load ptr, ptr @why
  store ptr %reason, ptr %text
  br label %fail

cook:
  %recipe = phi ptr [ %known, %compare ], [ %new, %ask ]
  %r.slots.count = getelementptr %Recipe, ptr %recipe, i32 0, i32 0
  %slots.count = load i64, ptr %r.slots.count
  %r.slots = getelementptr %Recipe, ptr %recipe, i32 0, i32 1
  %slots = load ptr, ptr %r.slots
  %r.steps.count = getelementptr %Recipe, ptr %recipe, i32 0, i32 2
  %steps.count = load i64, ptr %r.steps.count
  %r.steps = getelementptr %Recipe, ptr %recipe, i32 0, i32 3
  %steps = load ptr, ptr %r.steps
  %r.engine = getelementptr %Recipe, ptr %recipe, i32 0, i32 4
  %engine = load ptr, ptr %r.engine
  %r.stream = getelementptr %Recipe, ptr %recipe, i32 0, i32 5
  %stream = load ptr, ptr %r.stream
  %r.create = getelementptr %Recipe, ptr %recipe, i32 0, i32 6
  %create = load ptr, ptr %r.create
  %r.execute = getelementptr %Recipe, ptr %recipe, i32 0, i32 7
  %execute = load ptr, ptr %r.execute
  %r.destroy = getelementptr %Recipe, ptr %recipe, i32 0, i32 8
  %destroy = load ptr, ptr %r.destroy
  %r.wait = getelementptr %Recipe, ptr %recipe, i32 0, i32 9
  %wait = load ptr, ptr %r.wait
  %r.get.threads = getelementptr %Recipe, ptr %recipe, i32 0, i32 10
  %get.threads = load ptr, ptr %r.get.threads
  %r.set.threads = getelementptr %Recipe, ptr %recipe, i32 0, i32 11
  %set.threads = load ptr, ptr %r.set.threads
  %r.no.memory = getelementptr %Recipe, ptr %recipe, i32 0, i32 12
  %no.memory = load ptr, ptr %r.no.memory
  %r.no.result = getelementptr %Recipe, ptr %recipe, i32 0, i32 13
  %no.result = load ptr, ptr %r.no.result
  %f.operands = getelementptr %Frame, ptr %frame, i32 0, i32 5, i32 4
  %operands = load ptr, ptr %f.operands
  %p.0 = getelementptr ptr, ptr %operands, i64 0
  %b.0 = load ptr, ptr %p.0
  %a.0 = getelementptr %Buffer, ptr %b.0, i32 0, i32 3
  %address.0 = load i64, ptr %a.0
  %t.0 = getelementptr [4 x i64], ptr %addresses, i32 0, i64 0
  store i64 %address.0, ptr %t.0
  %p.1 = getelementptr ptr, ptr %operands, i64 1
  %b.1 = load ptr, ptr %p.1
  %a.1 = getelementptr %Buffer, ptr %b.1, i32 0, i32 3
  %address.1 = load i64, ptr %a.1
  %t.1 = getelementptr [4 x i64], ptr %addresses, i32 0, i64 1
  store i64 %address.1, ptr %t.1
  %f.results = getelementptr %Frame, ptr %frame, i32 0, i32 6, i32 4
  %results = load ptr, ptr %f.results
  %p.2 = getelementptr ptr, ptr %results, i64 0
  %b.2 = load ptr, ptr %p.2
  %a.2 = getelementptr %Buffer, ptr %b.2, i32 0, i32 3
  %address.2 = load i64, ptr %a.2
  %t.2 = getelementptr [4 x i64], ptr %addresses, i32 0, i64 2
  store i64 %address.2, ptr %t.2
  %p.3 = getelementptr ptr, ptr %results, i64 1
  %b.3 = load ptr, ptr %p.3
  %a.3 = getelementptr %Buffer, ptr %b.3, i32 0, i32 3
  %address.3 = load i64, ptr %a.3
  %t.3 = getelementptr [4 x i64], ptr %addresses, i32 0, i64 3
  store i64 %address.3, ptr %t.3
  %arguments = alloca %Argument, i64 %slots.count
  %before = call i32 %get.threads()
  store i64 0, ptr %made
  br label %make

make: ; a memory for each argument
  %slot.i = load i64, ptr %made
  %all.made = icmp eq i64 %slot.i, %slots.count
  br i1 %all.made, label %begin, label %make.one

make.one:
  %slot = getelementptr %Slot, ptr %slots, i64 %slot.i
  %number = load i32, ptr %slot
  %s.description = getelementptr %Slot, ptr %slot, i32 0, i32 1
  %s.which = getelementptr %Slot, ptr %slot, i32 0, i32 2
  %s.offset = getelementptr %Slot, ptr %slot, i32 0, i32 3
  %description = load ptr, ptr %s.description
  %which = load i64, ptr %s.which
  %offset = load i64, ptr %s.offset
  %a.which = getelementptr [4 x i64], ptr %addresses, i32 0, i64 %which
  %start = load i64, ptr %a.which
  %there = add i64 %start, %offset
  %address = inttoptr i64 %there to ptr
  %argument = getelementptr %Argument, ptr %arguments, i64 %slot.i
  store i32 %number, ptr %argument
  %memory = getelementptr %Argument, ptr %argument, i32 0, i32 1
  %status.made = call i32 %create(ptr %memory, ptr %description, ptr %engine, ptr %address)
  %is.made = icmp eq i32 %status.made, 0
  br i1 %is.made, label %make.next, label %make.fail

make.next:
  %slot.next = add i64 %slot.i, 1
  store i64 %slot.next, ptr %made
  br label %make

make.fail:
  store ptr %no.memory, ptr %text
  br label %end

begin: ; the primitives, one after the other
  store i64 0, ptr %i
  br label %run

run:
  %step.i = load i64, ptr %i
  %all.run = icmp eq i64 %step.i, %steps.count
  br i1 %all.run, label %finish, label %run.one

run.one:
  %step = getelementptr %Step, ptr %steps, i64 %step.i
  %primitive = load ptr, ptr %step
  %s.threads = getelementptr %Step, ptr %step, i32 0, i32 1
  %s.count = getelementptr %Step, ptr %step, i32 0, i32 2
  %s.first = getelementptr %Step, ptr %step, i32 0, i32 3
  %threads = load i32, ptr %s.threads
  %argument.count = load i32, ptr %s.count
  %argument.first = load i64, ptr %s.first
  %list = getelementptr %Argument, ptr %arguments, i64 %argument.first
  call void %set.threads(i32 %threads)
  %status.run = call i32 %execute(ptr %primitive, ptr %stream, i32 %argument.count, ptr %list)
  %step.next = add i64 %step.i, 1
  store i64 %step.next, ptr %i
  %is.run = icmp eq i32 %status.run, 0
  br i1 %is.run, label %run, label %run.fail

finish:
  %status.wait = call i32 %wait(ptr %stream)
  %is.finished = icmp eq i32 %status.wait, 0
  br i1 %is.finished, label %end, label %run.fail

run.fail:
  store ptr %no.result, ptr %text
  br label %end

end:
  call void %set.threads(i32 %before)
  store i64 0, ptr %i
  br label %clear

clear:
  %clear.i = load i64, ptr %i
  %count.made = load i64, ptr %made
  %all.clear = icmp eq i64 %clear.i, %count.made
  br i1 %all.clear, label %return, label %clear.one

clear.one:
  %c.memory = getelementptr %Argument, ptr %arguments, i64 %clear.i, i32 1
  %old = load ptr, ptr %c.memory
  %status.clear = call i32 %destroy(ptr %old)
  %clear.next = add i64 %clear.i, 1
  store i64 %clear.next, ptr %i
  br label %clear

return:
  %said = load ptr, ptr %text
  %well = icmp eq ptr %said, null
  br i1 %well, label %return.well, label %fail

return.well:
  ret ptr null

fail:
  %words = load ptr, ptr %text
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
  %a.error = getelementptr %Api, ptr %api, i32 0, i32 6
  %make.error = load ptr, ptr %a.error
  %error = call ptr %make.error(ptr %message)
  ret ptr %error
}
