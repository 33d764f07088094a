"""LLVM IR of the threads that help calls, and of how a call gets their help.

A call offers its work to idle helpers, in one word of each. At its end, it takes back the offers
that no helper has accepted. So it never waits for a helper that has not come.

A helper spins for a while before it sleeps, because a sleeping thread comes late, and the thread
that wakes it loses time as well. For the same reason, sleeping helpers are not woken for every
call. One is woken for each `worth_waking` of work, done in one call or in several; the calls that
follow find it awake.
"""

import ctypes
from ctypes import c_int64
from typing import TYPE_CHECKING

from fastact._compiler.threads.helper_start import HELPER_START_IR
from fastact._compiler.threads.helper_thread import HELPER_THREAD_IR
from fastact._compiler.threads.parallel_for import PARALLEL_FOR_IR

if TYPE_CHECKING:
    from fastact._machine.targets import Target

SYMBOLS = ("calls", "team", "spin", "parallel_for")

CALLS = (
    *("yield", "start", "new_lock", "take_lock", "release_lock"),
    *("thread", "cpu", "cpus", "set_cpus"),  # these may be missing
)
"""Functions of the system and of Python that helpers and calls use."""


class Team(ctypes.Structure):
    """The state that all helpers share."""

    _fields_ = [
        (name, c_int64)
        for name in (
            "first",  # the address of the first helper
            "count",  # how many helpers have been started
            "most",  # how many may be started
            "turns",  # how long a helper spins before it sleeps
            "work",  # done since a helper was last woken, in picoseconds
            "worth_waking",  # how much work is
        )
    ]


class Helper(ctypes.Structure):
    """The state of one helper."""

    _fields_ = [
        (name, c_int64)
        for name in (
            "offer",  # 0, 1 while it works, or the address of a call
            "asleep",
            "lock",  # that it waits for when it sleeps
            "thread",  # the system's number of its thread; 0 if unknown
            "cpu",  # that it runs on; -1 if unknown
            "placing",  # a hash of the CPUs that it may run on, if we have chosen them
        )
    ]


STRIDE = 128
"""Bytes from one helper to the next: two cache lines, because processors fetch lines in pairs."""

_CPUS = 1024  # bits of a set of CPUs in C libraries


_DECLARATIONS_IR = """
@calls = global [{len_calls} x ptr] zeroinitializer
@team = global [{len_team} x i64] zeroinitializer
declare i{cpus} @llvm.ctpop.i{cpus}(i{cpus})
{declared}
"""


def object_code(target: "Target") -> bytes:
    """A relocatable object file of these functions for `target`."""
    from fastact._compiler import pipeline
    from fastact._compiler.threads.fan_out import TASK, TIME_STEP

    machine = pipeline.machine_of(target)
    pause = target.instructions.pause
    parts = (_DECLARATIONS_IR, HELPER_THREAD_IR, HELPER_START_IR, PARALLEL_FOR_IR)
    text = "\n".join(parts).format(
        task=TASK,
        time_step=TIME_STEP,
        declared=pause.declaration,
        pause=pause.call,
        size=STRIDE,
        cpus=_CPUS,
        bytes=_CPUS // 8,
        set_words=_CPUS // 64,
        # C's unsigned long, and size_t on the systems where a function has such an argument.
        word=f"i{8 * ctypes.sizeof(ctypes.c_ulong)}",
        len_calls=len(CALLS),
        len_team=len(Team._fields_),
        **{f"calls_{name}": k for k, name in enumerate(CALLS)},
        **{f"team_{field[0]}": k for k, field in enumerate(Team._fields_)},
        **{f"helper_{field[0]}": k for k, field in enumerate(Helper._fields_)},
    )
    module = pipeline.parse(text, target, machine)
    pipeline.optimise(module, machine)
    return pipeline.emit(module, machine)
