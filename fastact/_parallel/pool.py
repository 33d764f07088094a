"""The threads that compiled loops share their work among, and what the loops know of them.

They are started at the first call that is worth it. In forked children TBB is not
used any more: there it has lost its threads, and maybe a lock that one of them held.
"""

import ctypes
import os
import sys
from _thread import RLock
from ctypes import CFUNCTYPE, c_int64, c_void_p
from types import ModuleType
from typing import NamedTuple

from fastact._compiler.threads.fan_out import POOL_FIELDS
from fastact._loading import jobs
from fastact._parallel import counts

# What a thread has to be given for the fan-out to pay, in picoseconds: sigmoid of 16,384 float32,
# 9 us, gains 1.1 to 1.6 with our own threads awake, and loses with TBB's (bench/NOTES.md).
_SHARES = {"fastact": 5_000_000, "tbb": 20_000_000}

_NEVER = 1 << 62

_STARTING = RLock()

# What one core takes to move a byte that comes from beyond its own caches, and the bytes that those
# hold at most. relu of 262,144 float32 takes 85 us here, 13 by its cost in cache.
_MEMORY = 0.03  # nanoseconds
_CACHED = 1 << 20


class _Fields(ctypes.Structure):
    _fields_ = [(name, c_int64) for name in POOL_FIELDS]


class State(NamedTuple):
    """What shares the work, "none" or "not started"; why it is not what was asked for, if so."""

    layer: str
    reason: str = ""


_fields = _Fields()
state = State("not started")


def attach(setting: int, cost: float, nbytes: int = 0) -> None:
    """Tell a loaded object about the threads.

    Parameters
    ----------
    setting : int
        The address of its ``SETTING``.
    cost : float
        Nanoseconds for a unit of its work, in cache.
    nbytes : int
        Bytes of all operands for a unit, where a call of many goes over them once.
    """
    _fields.count = counts.default()
    _fields.get_limit = _fields.get_limit or _limit_of_numba()
    words = (c_int64 * 4).from_address(setting)
    words[1] = max(1, round(1000 * cost))
    words[2] = max(words[1], round(1000 * nbytes * _MEMORY))
    words[3] = _CACHED // max(nbytes, 1)
    words[0] = ctypes.addressof(_fields)


def foreseen() -> State:
    """What `start` would start, and does not: nothing is compiled and no thread begun."""
    if state.layer != "not started":
        return state
    try:
        if counts.layer(os.environ) == "tbb":
            _tbb_layer()
            return State("tbb")
    except (ImportError, OSError, AttributeError) as reason:
        return State("fastact", f"no tbb: {reason}")
    except Exception as trouble:
        return State("none", f"{type(trouble).__name__}: {trouble}")
    return State("fastact")


def start() -> State:
    """Start the layer, if it is not; which it is."""
    if state.layer == "not started":
        # Who asks is a loop, which could hand on nothing that a signal handler raises.
        jobs.run("threads", _start_once, patiently=True)
    return state


def _start_once() -> None:
    global state
    with _STARTING:
        if state.layer == "not started":
            try:
                _start(counts.layer(os.environ))
            except Exception as trouble:  # whatever it is, one thread computes the same
                _fields.share = _NEVER
                state = State("none", f"{type(trouble).__name__}: {trouble}")


def _start(layer: str) -> None:
    if layer == "tbb":
        try:
            _start_tbb()
        except (ImportError, OSError, AttributeError) as reason:
            _start_own(f"no tbb: {reason}")
    else:
        _start_own()


def _start_tbb() -> None:
    global state
    layer = _tbb_layer()
    _fields.get_mask, _fields.set_mask = layer.get_num_threads, layer.set_num_threads
    _fields.get_limit = _fields.get_limit or layer.get_num_threads
    _fields.share = _SHARES["tbb"]
    _fields.parallel_for = layer.parallel_for
    state = State("tbb")


def _tbb_layer() -> ModuleType:
    if _forked:
        raise ImportError("this process was forked")
    from fastact._parallel import tbb as _tbb

    return _tbb.numba_layer()


def _start_own(reason: str = "") -> None:
    global state
    from fastact._parallel import helpers

    _fields.get_mask = _fields.set_mask = 0
    _fields.get_limit = _fields.get_limit or _limit_of_tbb()
    _fields.share = _SHARES["fastact"]
    _fields.parallel_for = helpers.begin()
    state = State("fastact", reason)


@CFUNCTYPE(None, c_void_p)
def _start_first(quiet: int) -> None:
    """Start the threads, at the first call that is worth it.

    Sets the word at `quiet` to 1 unless an exception prevents it, which can only be an interrupt.
    Python raises none between an assignment and the end.
    """
    global _interrupted
    cell = c_int64.from_address(quiet)
    if _interrupted:
        _interrupted = False
        return
    try:
        start()
    except KeyboardInterrupt:
        return
    cell.value = 1


@CFUNCTYPE(c_int64, c_void_p)
def _count_anew(key: int) -> int:
    """In place of ``get_count`` in a forked child, which may have been given other cores.

    It is called once, by the first call that is worth several threads.
    """
    global _interrupted
    try:
        _fields.count = counts.default()
        _fields.get_count = _OWN_COUNT
    except KeyboardInterrupt:  # which cannot leave this; the next call comes here again
        _interrupted = True
        return 2  # so that threads are to be started
    return counts.get_own(key) or _fields.count


def _limit_of_numba() -> int:
    """The address of the function that tells numba's number of threads, if it has any yet."""
    parallel = sys.modules.get("numba.np.ufunc.parallel")
    try:
        if parallel._is_initialized:
            return ctypes.cast(parallel._get_num_threads, c_void_p).value or 0
    except Exception:  # there is none, or something else is in its place
        pass
    return 0


def _limit_of_tbb() -> int:
    """The same of numba's layer for TBB, whether numba has started it yet or not."""
    try:
        from fastact._parallel import tbb as _tbb

        return _tbb.numba_layer().get_num_threads
    except Exception:
        return 0


def _reset() -> None:
    global state
    _fields.parallel_for = 0
    _fields.share = min(_SHARES.values())  # a call may have to find out which it is
    state = State("not started")


def _reset_in_child() -> None:
    global _forked
    if own := sys.modules.get("fastact._parallel.helpers"):
        own.forget_helpers()
    # A child of a process that never started TBB has nothing to lose.
    _forked = _forked or state.layer == "tbb"
    _fields.get_count = ctypes.cast(_count_anew, c_void_p).value
    _reset()


_forked = False
_interrupted = False  # where that cannot be told; `_start_first` can
_OWN_COUNT = ctypes.cast(counts.get_own, c_void_p).value
_fields.get_count = _OWN_COUNT
_fields.key = counts.KEY
_fields.start = ctypes.cast(_start_first, c_void_p).value
_fields.interrupt = ctypes.cast(ctypes.pythonapi.PyErr_SetInterrupt, c_void_p).value
_reset()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_in_child)
