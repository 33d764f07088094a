"""LLVM IR that puts the floating-point environment aside during a loop.

``@enter`` saves control (rounding, flush to zero) and status flags and installs the power-on
default: nearest even, no flushing, no traps. ``@leave`` puts everything back. So neither do
the caller's settings change a result, nor do the flags that branch-free code raises reach
the caller.
"""

ENVIRONMENT_IR = {
    "x86_64": """
declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)
define internal void @enter(ptr %saved) alwaysinline {
  %default = alloca i32
  store i32 8064, ptr %default
  call void @llvm.x86.sse.stmxcsr(ptr %saved)
  call void @llvm.x86.sse.ldmxcsr(ptr %default)
  ret void
}
define internal void @leave(ptr %saved) alwaysinline {
  call void @llvm.x86.sse.ldmxcsr(ptr %saved)
  ret void
}
""",
    "aarch64": """
declare i64 @llvm.aarch64.get.fpcr()
declare void @llvm.aarch64.set.fpcr(i64)
declare i64 @llvm.aarch64.get.fpsr()
declare void @llvm.aarch64.set.fpsr(i64)
define internal void @enter(ptr %saved) alwaysinline {
  %control = call i64 @llvm.aarch64.get.fpcr()
  %status = call i64 @llvm.aarch64.get.fpsr()
  store i64 %control, ptr %saved
  %next = getelementptr i64, ptr %saved, i64 1
  store i64 %status, ptr %next
  call void @llvm.aarch64.set.fpcr(i64 0)
  ret void
}
define internal void @leave(ptr %saved) alwaysinline {
  %control = load i64, ptr %saved
  %next = getelementptr i64, ptr %saved, i64 1
  %status = load i64, ptr %next
  call void @llvm.aarch64.set.fpcr(i64 %control)
  call void @llvm.aarch64.set.fpsr(i64 %status)
  ret void
}
""",
}
"""By architecture."""

UNTOUCHED_IR = """
define internal void @enter(ptr %saved) alwaysinline { ret void }
define internal void @leave(ptr %saved) alwaysinline { ret void }
"""
"""For architectures not listed, where the environment stays the caller's."""
