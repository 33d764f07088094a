"""LLVM IR that replaces the caller's floating-point environment by the default during a loop.

``@enter`` saves the control settings (rounding, flush to zero) and the status flags, and installs
the power-on default: rounding to nearest even, no flushing, no traps. ``@leave`` restores what was
saved. So the caller's settings change no result, and the flags that branch-free code raises do not
reach the caller.
"""

from fastact._machine.targets import Target


def environment_ir(target: Target) -> str:
    """The two functions, which save in the 16 bytes at ``%saved``."""
    environment = target.instructions.environment
    return f"""{environment.declarations}
define internal void @enter(ptr %saved) alwaysinline {{{environment.enter}
  ret void
}}
define internal void @leave(ptr %saved) alwaysinline {{{environment.leave}
  ret void
}}
"""
