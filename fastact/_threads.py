"""How many threads a call may use."""

import contextlib
import ctypes
import operator
import os
from collections.abc import Iterator, Mapping
from ctypes import c_int, c_void_p

__all__ = ["get_num_threads", "num_threads", "set_num_threads"]

VARIABLE = "FASTACT_NUM_THREADS"
LAYER_VARIABLE = "FASTACT_THREADING_LAYER"
LAYERS = ("fastact", "tbb")
"""What may share the work: threads of our own, or those of numba's layer for TBB."""
_LIMITS_OF_OTHERS = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")
_MOST = 1 << 15


def _api(name: str, result, *arguments):
    function = getattr(ctypes.pythonapi, name)
    function.restype, function.argtypes = result, arguments
    return function


# Compiled code asks without the GIL, which a contextvar cannot be read without. Python's
# thread-specific storage can, on every platform.
get_own = _api("PyThread_tss_get", c_void_p, c_void_p)
_set_own = _api("PyThread_tss_set", c_int, c_void_p, c_void_p)
KEY = _api("PyThread_tss_alloc", c_void_p)()
_api("PyThread_tss_create", c_int, c_void_p)(KEY)

_default = 0


def _chosen(environment: Mapping[str, str]) -> int | None:
    """What the variable of our own says."""
    text = environment.get(VARIABLE, "").strip()
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= _MOST:
        raise ValueError(f"{VARIABLE} must be a number of threads from 1 to {_MOST}, got {text!r}")
    return int(text)


def layer(environment: Mapping[str, str]) -> str:
    """Which of `LAYERS` is asked for."""
    name = environment.get(LAYER_VARIABLE, "").strip() or LAYERS[0]
    if name not in LAYERS:
        raise ValueError(f"{LAYER_VARIABLE} must be one of {', '.join(LAYERS)}, got {name!r}")
    return name


# An error belongs to the import: later, NumPy would take none.
_chosen(os.environ)
layer(os.environ)


def default() -> int:
    """The number of threads where nobody has set one; found out once.

    That is ``FASTACT_NUM_THREADS``, or the cores that this process may use, by affinity and by
    the limits of control groups, but no more than ``OMP_NUM_THREADS`` or ``NUMBA_NUM_THREADS``.
    """
    global _default
    _default = _default or count_threads(os.environ)
    return _default


def count_threads(environment: Mapping[str, str]) -> int:
    """The default under this environment."""
    chosen = _chosen(environment)
    if chosen is not None:
        return chosen
    from . import _system

    granted = _system.cgroup_limit()
    counts = [
        _system.affinity() or os.cpu_count() or 1,
        *([] if granted is None else [max(1, round(granted))]),
    ]
    for variable in _LIMITS_OF_OTHERS:
        # OpenMP's may be a list, a number for each level of nesting.
        text = environment.get(variable, "").split(",")[0].strip()
        if text.isascii() and text.isdigit() and int(text):
            counts.append(int(text))
    return min(counts)


def get_num_threads() -> int:
    """The number of threads that calls from this thread use at most.

    Returns
    -------
    int
        What :func:`set_num_threads` or :func:`num_threads` have set in this thread, else the
        default: the environment variable ``FASTACT_NUM_THREADS``, or the cores that this process
        may use, by its affinity and the limits of control groups, but no more than
        ``OMP_NUM_THREADS`` or ``NUMBA_NUM_THREADS``.

    Examples
    --------
    >>> import fastact as fa
    >>> with fa.num_threads(1):
    ...     fa.get_num_threads()
    1
    """
    return get_own(KEY) or default()


def set_num_threads(n: int) -> None:
    """Set the number of threads that calls from this thread use at most.

    Results do not depend on it. Calls that are too small to gain from it use fewer. Other
    threads, those started later too, have numbers of their own.

    Parameters
    ----------
    n : int
        At least 1. More than there are cores is of no use.

    Raises
    ------
    TypeError, ValueError
        If `n` is no integer, or less than 1.
    """
    _set_own(KEY, _checked("set_num_threads", n))


@contextlib.contextmanager
def num_threads(n: int) -> Iterator[None]:
    """Within a ``with`` block, use at most `n` threads in calls from this thread.

    Parameters
    ----------
    n : int
        At least 1; see :func:`set_num_threads`.

    Raises
    ------
    TypeError, ValueError
        If `n` is no integer, or less than 1.

    Examples
    --------
    >>> import numpy as np, fastact as fa
    >>> with fa.num_threads(1):
    ...     y = fa.sigmoid(np.zeros(1_000_000))
    """
    n = _checked("num_threads", n)
    before = get_own(KEY)
    _set_own(KEY, n)
    try:
        yield
    finally:
        _set_own(KEY, before)


def _checked(caller: str, n: int) -> int:
    try:
        count = operator.index(n)
    except TypeError:
        raise TypeError(f"{caller}: n must be an integer, got {type(n).__name__}") from None
    if not 0 < count <= _MOST:
        raise ValueError(f"{caller}: n must be from 1 to {_MOST}, got {count}")
    return count
