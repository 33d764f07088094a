"""The threads that compiled loops share their work among, and what the loops know of them.

They are started at the first call with enough work for them; `layers` says which threads.
"""

import atexit
import ctypes
import os
from _thread import RLock
from collections.abc import Callable
from ctypes import CFUNCTYPE, c_int64, c_void_p
from typing import TYPE_CHECKING, NamedTuple

from fastact._compiler.threads.fan_out import POOL_FIELDS
from fastact._loading import jobs
from fastact._loading.lasting import lasting
from fastact._parallel import counts, layers, numba_limit

if TYPE_CHECKING:
    from fastact._parallel.protocol import Layer

_NEVER = 1 << 62

_STARTING = RLock()

# The time that one core takes to move a byte from outside its caches, and the bytes that these
# hold at most. relu of 262,144 float32 takes 85 us here; by its cost in cache it would take 13.
_MEMORY = 0.03  # nanoseconds
_CACHED = 1 << 20


class _Fields(ctypes.Structure):
    _fields_ = [(name, c_int64) for name in POOL_FIELDS]


class State(NamedTuple):
    """The layer in use, "none" or "not started"; the reason if it is not the one asked for."""

    layer: str
    reason: str = ""


_fields = lasting(_Fields())
state = State("not started")


def attach(setting: int, cost: float, nbytes: int = 0) -> None:
    """Tell a loaded object about the threads.

    Parameters
    ----------
    setting : int
        The address of its ``SETTING``.
    cost : float
        Nanoseconds for a unit of its work, with the operands in cache.
    nbytes : int
        Bytes of all operands for a unit, if a large call passes over them only once.
    """
    _fields.count = counts.default()
    _fields.get_limit = _fields.get_limit or numba_limit.of_running()
    words = (c_int64 * 4).from_address(setting)
    words[1] = max(1, round(1000 * cost))
    words[2] = max(words[1], round(1000 * nbytes * _MEMORY))
    words[3] = _CACHED // max(nbytes, 1)
    words[0] = ctypes.addressof(_fields)


def foreseen() -> State:
    """The state that `start` would return; compile nothing, and start no thread."""
    if state.layer != "not started":
        return state
    return _first_that_works(lambda layer: layer.foresee())


def start() -> State:
    """Start the layer unless it has been started; return the state."""
    if state.layer == "not started":
        # The caller is a compiled loop, which could not hand on an exception of a signal handler.
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
    """The layer that is asked for, or else the default, or "none" if neither works.

    Any exception is accepted as the reason, since one thread computes the same results.
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
    _begun.append(layer)  # first, since an interrupt may end this function anywhere
    functions = layer.begin()
    _fields.get_mask, _fields.set_mask = functions.get_mask, functions.set_mask
    _fields.get_limit = _fields.get_limit or numba_limit.of_tbb()
    _fields.share = layer.SHARE
    _fields.parallel_for = functions.parallel_for


@lasting
@CFUNCTYPE(None, c_void_p)  # type: ignore[untyped-decorator] # of ctypes
def _start_first(quiet: int) -> None:
    """Start the threads, at the first call with enough work for them.

    Set the word at `quiet` to 1 unless an exception prevents it, which can only be an interrupt.
    Python raises none between the assignment and the end of the function.
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


@lasting
@CFUNCTYPE(c_int64, c_void_p)  # type: ignore[untyped-decorator] # of ctypes
def _count_anew(key: int) -> int:
    """Stand in for ``get_count`` in a forked child, which may have been given other cores.

    The first call with enough work for several threads calls it, once.
    """
    global _interrupted
    try:
        _fields.count = counts.default()
        _fields.get_count = _OWN_COUNT
    except KeyboardInterrupt:  # it cannot leave this function; the next call comes here again
        _interrupted = True
        return 2  # more than one, so that the loop calls `_start_first`
    return int(counts.get_own(key) or _fields.count)


def _reset() -> None:
    global state
    _fields.parallel_for = 0
    _fields.share = layers.LEAST_SHARE  # a call with more work starts the layer, which sets its own
    state = State("not started")


def _start_no_more() -> None:
    """Start no threads any more, since the interpreter ends.

    Without it, a thread that has no GIL cannot call `_start_first`.
    """
    if state.layer == "not started":
        _fields.share = _NEVER


def _reset_in_child() -> None:
    while _begun:
        _begun.pop().after_fork()
    _fields.get_count = ctypes.cast(_count_anew, c_void_p).value
    _reset()


_begun: list["Layer"] = []
_interrupted = False  # whether `_count_anew` was, which cannot report it; `_start_first` does
_OWN_COUNT = ctypes.cast(counts.get_own, c_void_p).value
_fields.get_count = _OWN_COUNT
_fields.key = counts.KEY
_fields.start = ctypes.cast(_start_first, c_void_p).value
_fields.interrupt = ctypes.cast(ctypes.pythonapi.PyErr_SetInterrupt, c_void_p).value
_reset()
atexit.register(_start_no_more)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_in_child)
