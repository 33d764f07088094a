"""LLVM IR that puts the floating-point environment aside during a loop.

``@enter`` saves control (rounding, flush to zero) and status flags and installs the power-on
default: nearest even, no flushing, no traps. ``@leave`` puts everything back. So neither do
the caller's settings change a result, nor do the flags that branch-free code raises reach
the caller.
"""

from fastact._machine.targets import Target


def environment_ir(target: Target) -> str:
    """The functions described above, for the 16 bytes at ``%saved``."""
    environment = target.instructions.environment
    return f"""{environment.declarations}
define internal void @enter(ptr %saved) alwaysinline {{{environment.enter}
  ret void
}}
define internal void @leave(ptr %saved) alwaysinline {{{environment.leave}
  ret void
}}
"""
