"""Threads of our own that share work: helpers, which wait for it in compiled code.

They run no Python: neither the GIL nor the end of the interpreter concerns them. Calls start
them when there is enough to do; see ``_compiler/threads/helpers.py``.
"""

import ctypes
import sys
import time
from ctypes import CFUNCTYPE, PYFUNCTYPE, c_int64, c_size_t, c_void_p
from typing import Any

from fastact._compiler.threads.helpers import CALLS, STRIDE, SYMBOLS, Team, object_code
from fastact._loading.loader import apart, load

MOST = 255
"""Helpers at most."""

SPIN = 1e-3
"""Seconds that a helper spins: calls 0.3 ms apart gain as much as calls that follow at once
(bench/NOTES.md)."""

WORTH_WAKING = 500_000_000
"""Picoseconds of work. To wake a thread costs a call 10 to 100 us on a virtual machine."""

_api = ctypes.pythonapi
_addresses: dict[str, int] = {}
_begun = False


def begin() -> int:
    """Make ready what starts helpers when they are wanted.

    Returns
    -------
    int
        The address of ``parallel_for``, which has the signature of numba's.
    """
    global _begun
    if not _addresses:
        found = helper_addresses()
        calls = (c_void_p * len(CALLS)).from_address(found["calls"])
        functions = {
            "yield": _yield(),
            "start": _api.PyThread_start_new_thread,
            "new_lock": _api.PyThread_allocate_lock,
            "take_lock": _api.PyThread_acquire_lock,
            "release_lock": _api.PyThread_release_lock,
            **_placing(),
        }
        for name, function in functions.items():
            calls[CALLS.index(name)] = ctypes.cast(function, c_void_p)
        _addresses.update(found)  # last, as an interrupt may end this anywhere
    if not _begun:
        # Never freed: helpers look at it until the process ends.
        allocate = PYFUNCTYPE(c_void_p, c_size_t, c_size_t)(("PyMem_RawCalloc", _api))
        start = allocate(MOST + 1, STRIDE)
        if not start:
            raise MemoryError("no memory for threads")
        new = Team(
            first=start + -start % STRIDE, most=MOST, turns=_turns(), worth_waking=WORTH_WAKING
        )
        ctypes.pointer(team())[0] = new
        _begun = True
    return _addresses["parallel_for"]


@apart
def helper_addresses() -> dict[str, int]:
    """Compile what threads of our own run, or load its code; the addresses by name."""
    return load("helpers", object_code, SYMBOLS)


def forget_helpers() -> None:
    """In a forked child, which has none of its parent's."""
    global _begun
    _begun = False


def team() -> Team:
    """What is known of the helpers together, once there is something."""
    return Team.from_address(_addresses["team"])


def _turns() -> int:
    """How many turns of ``spin`` are `SPIN`."""
    word, cpu, turns, times = c_int64(), c_int64(), 256, []
    spin = CFUNCTYPE(c_int64, c_void_p, c_int64, c_int64, c_void_p)(_addresses["spin"])
    for _ in range(5):
        start = time.perf_counter()
        spin(ctypes.addressof(word), 0, turns, ctypes.addressof(cpu))
        times.append(time.perf_counter() - start)
    return max(1, round(turns * SPIN / max(min(times), 1e-6)))


def _yield():
    """The system's function that lets other threads run."""
    if hasattr(ctypes, "windll"):
        return ctypes.windll.kernel32.SwitchToThread
    return ctypes.CDLL(None).sched_yield


def _placing() -> dict[str, Any]:
    """The functions that tell and set the CPUs of threads; none outside Linux.

    A thread that is woken may come to the CPU of who wakes it, while others are idle, and stay
    there for 100 ms of calls (bench/NOTES.md).
    """
    names = {"cpu": "sched_getcpu", "cpus": "sched_getaffinity", "set_cpus": "sched_setaffinity"}
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not all(hasattr(library, name) for name in names.values()):
        return {}
    found = {name: getattr(library, function) for name, function in names.items()}
    return {"thread": _api.PyThread_get_thread_native_id, **found}
