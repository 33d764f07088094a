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


_DECLARATIONS_IR = """
@calls = global [{len_calls} x ptr] zeroinitializer
@team = global [{len_team} x i64] zeroinitializer
declare i{cpus} @llvm.ctpop.i{cpus}(i{cpus})
{declared}
"""


def object_code(target: "Target") -> bytes:
    """The functions above for `target`."""
    from fastact._compiler import pipeline

    machine = pipeline.machine_of(target)
    pause = target.instructions.pause
    parts = (_DECLARATIONS_IR, HELPER_THREAD_IR, HELPER_START_IR, PARALLEL_FOR_IR)
    text = "\n".join(parts).format(
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
        **{f"team_{field[0]}": k for k, field in enumerate(Team._fields_)},
        **{f"helper_{field[0]}": k for k, field in enumerate(Helper._fields_)},
    )
    module = pipeline.parse(text, target, machine)
    pipeline.optimise(module, machine)
    return pipeline.emit(module, machine)
