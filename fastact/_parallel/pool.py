"""The threads that compiled loops share their work among, and what the loops know of them.

They are started at the first call that is worth it. Which threads, `layers` knows.
"""

import ctypes
import os
from _thread import RLock
from collections.abc import Callable
from ctypes import CFUNCTYPE, c_int64, c_void_p
from typing import TYPE_CHECKING, NamedTuple

from fastact._compiler.threads.fan_out import POOL_FIELDS
from fastact._loading import jobs
from fastact._parallel import counts, layers, numba_limit

if TYPE_CHECKING:
    from fastact._parallel.protocol import Layer

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
    _fields.get_limit = _fields.get_limit or numba_limit.of_running()
    words = (c_int64 * 4).from_address(setting)
    words[1] = max(1, round(1000 * cost))
    words[2] = max(words[1], round(1000 * nbytes * _MEMORY))
    words[3] = _CACHED // max(nbytes, 1)
    words[0] = ctypes.addressof(_fields)


def foreseen() -> State:
    """What `start` would start, and does not: nothing is compiled and no thread begun."""
    if state.layer != "not started":
        return state
    return _first_that_works(lambda layer: layer.foresee())


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
            begun = _first_that_works(_begin)
            if begun.layer == "none":
                _fields.share = _NEVER
            state = begun


def _first_that_works(attempt: Callable[["Layer"], None]) -> State:
    """The layer that is asked for, else the default; "none" where neither works.

    Whatever is wrong with both, one thread computes the same.
    """
    try:
        name = layers.chosen(os.environ)
        try:
            attempt(layers.LAYERS[name]())
            return State(name)
        except (ImportError, OSError, AttributeError) as reason:
            if name == layers.DEFAULT:
                raise
            missing = f"no {name}: {reason}"
        attempt(layers.LAYERS[layers.DEFAULT]())
        return State(layers.DEFAULT, missing)
    except Exception as trouble:
        return State("none", f"{type(trouble).__name__}: {trouble}")


def _begin(layer: "Layer") -> None:
    _begun.append(layer)  # first, as an interrupt may end this anywhere
    functions = layer.begin()
    _fields.get_mask, _fields.set_mask = functions.get_mask, functions.set_mask
    _fields.get_limit = _fields.get_limit or numba_limit.of_tbb()
    _fields.share = layer.SHARE
    _fields.parallel_for = functions.parallel_for


@CFUNCTYPE(None, c_void_p)  # type: ignore[untyped-decorator] # of ctypes
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


@CFUNCTYPE(c_int64, c_void_p)  # type: ignore[untyped-decorator] # of ctypes
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
    return int(counts.get_own(key) or _fields.count)


def _reset() -> None:
    global state
    _fields.parallel_for = 0
    _fields.share = layers.LEAST_SHARE  # a call may have to find out which it is
    state = State("not started")


def _reset_in_child() -> None:
    while _begun:
        _begun.pop().after_fork()
    _fields.get_count = ctypes.cast(_count_anew, c_void_p).value
    _reset()


_begun: list["Layer"] = []
_interrupted = False  # where that cannot be told; `_start_first` can
_OWN_COUNT = ctypes.cast(counts.get_own, c_void_p).value
_fields.get_count = _OWN_COUNT
_fields.key = counts.KEY
_fields.start = ctypes.cast(_start_first, c_void_p).value
_fields.interrupt = ctypes.cast(ctypes.pythonapi.PyErr_SetInterrupt, c_void_p).value
_reset()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_in_child)
