"""The layer "fastact": threads of this package, the helpers, which wait for work in compiled code.

They run no Python code, so neither the GIL nor the end of the interpreter affects them. Calls
start them when there is enough work; see ``_compiler/threads/helpers.py``.
"""

import ctypes
import sys
import time
from ctypes import CFUNCTYPE, PYFUNCTYPE, c_int64, c_size_t, c_void_p
from typing import TYPE_CHECKING, Any

from fastact._loading.loader import apart, load
from fastact._parallel.protocol import Functions

if TYPE_CHECKING:
    from fastact._compiler.threads.helpers import Team

NAME = "fastact"

# sigmoid of 16,384 float32 takes 9 us, and 1.1 to 1.6 times less with helpers that are awake
# (bench/NOTES.md).
SHARE = 5_000_000

MOST = 255
"""Maximum number of helpers."""

SPIN = 1e-3
"""Seconds that a helper spins before it sleeps: calls 0.3 ms apart gain as much as calls without
a pause (bench/NOTES.md)."""

WORTH_WAKING = 500_000_000
"""Picoseconds of work for which a call wakes a sleeping helper. Waking a thread costs the call 10
to 100 us on a virtual machine."""

_api = ctypes.pythonapi
_addresses: dict[str, int] = {}
_begun = False


def foresee() -> None:
    """See `protocol.Layer`: this layer needs nothing that may be missing."""


def begin() -> Functions:
    """See `protocol.Layer`: prepare the code that starts helpers when they are needed."""
    global _begun
    from fastact._compiler.threads.helpers import CALLS, STRIDE, Team  # not needed by `foresee`

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
        _addresses.update(found)  # last, since an interrupt may end this function anywhere
    if not _begun:
        # Never freed, since helpers read it until the process ends.
        allocate = PYFUNCTYPE(c_void_p, c_size_t, c_size_t)(("PyMem_RawCalloc", _api))
        start = allocate(MOST + 1, STRIDE)
        if not start:
            raise MemoryError("no memory for the helper threads")
        new = Team(
            first=start + -start % STRIDE, most=MOST, turns=_turns(), worth_waking=WORTH_WAKING
        )
        ctypes.pointer(team())[0] = new
        _begun = True
    return Functions(_addresses["parallel_for"])


@apart
def helper_addresses() -> dict[str, int]:
    """Compile the code of the helpers, or load it; return the addresses by name."""
    from fastact._compiler.threads.helpers import SYMBOLS, object_code

    return load("helpers", object_code, SYMBOLS)


def after_fork() -> None:
    """See `protocol.Layer`: the child has none of its parent's helpers."""
    global _begun
    _begun = False


def team() -> "Team":
    """The state that all helpers share; only after `begin`."""
    from fastact._compiler.threads.helpers import Team

    return Team.from_address(_addresses["team"])


def _turns() -> int:
    """How many turns of ``spin`` take `SPIN` seconds."""
    word, cpu, turns, times = c_int64(), c_int64(), 256, []
    spin = CFUNCTYPE(c_int64, c_void_p, c_int64, c_int64, c_void_p)(_addresses["spin"])
    for _ in range(5):
        start = time.perf_counter()
        spin(ctypes.addressof(word), 0, turns, ctypes.addressof(cpu))
        times.append(time.perf_counter() - start)
    return max(1, round(turns * SPIN / max(min(times), 1e-6)))


def _yield() -> Any:
    """The system's function that lets other threads run."""
    if hasattr(ctypes, "windll"):
        return ctypes.windll.kernel32.SwitchToThread
    return ctypes.CDLL(None).sched_yield


def _placing() -> dict[str, Any]:
    """The functions that read and set the CPUs of threads; none outside Linux.

    A woken thread may be put on the CPU of the thread that wakes it, although others are idle, and
    stay there for 100 ms of calls (bench/NOTES.md).
    """
    names = {"cpu": "sched_getcpu", "cpus": "sched_getaffinity", "set_cpus": "sched_setaffinity"}
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not all(hasattr(library, name) for name in names.values()):
        return {}
    found = {name: getattr(library, function) for name, function in names.items()}
    return {"thread": _api.PyThread_get_thread_native_id, **found}
