"""How many threads a call may use."""

import contextlib
import ctypes
import operator
import os
from collections.abc import Callable, Iterator, Mapping
from ctypes import c_int, c_void_p
from types import ModuleType
from typing import Any

__all__ = ["get_num_threads", "num_threads", "set_num_threads"]

VARIABLE = "FASTACT_NUM_THREADS"
_LIMITS_OF_OTHERS = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")
_MOST = 1 << 15


def _api(name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(ctypes.pythonapi, name)
    function.restype, function.argtypes = result, arguments
    return function


# Compiled code reads the number without the GIL. A contextvar cannot be read so; Python's
# thread-specific storage can, on every platform.
get_own = _api("PyThread_tss_get", c_void_p, c_void_p)
_set_own = _api("PyThread_tss_set", c_int, c_void_p, c_void_p)
KEY = _api("PyThread_tss_alloc", c_void_p)()
_api("PyThread_tss_create", c_int, c_void_p)(KEY)

_default = 0


def _chosen(environment: Mapping[str, str]) -> int | None:
    """The number in the variable ``FASTACT_NUM_THREADS``; None if it is not set."""
    text = environment.get(VARIABLE, "").strip()
    if not text:
        return None
    count = _count(text)
    if not 0 < count <= _MOST:
        shown = text if len(text) <= 40 else f"{text[:36]}..."
        raise ValueError(f"{VARIABLE} must be a number of threads from 1 to {_MOST}, got {shown!r}")
    return count


def _count(text: str) -> int:
    """The number in `text`, or 10**9 if it has ten digits or more; 0 if `text` is not a number."""
    if not text.isascii() or not text.isdigit():
        return 0
    digits = text.lstrip("0")
    return int(digits or "0") if len(digits) < 10 else 10**9  # int() refuses thousands of digits


def check(environment: Mapping[str, str]) -> None:
    """Raise `ValueError` if ``FASTACT_NUM_THREADS`` is set, but not to a number of threads."""
    _chosen(environment)


def default() -> int:
    """The number of threads if none has been set; determined once in each process.

    That is ``FASTACT_NUM_THREADS``, or the number of cores that this process may use, by its
    affinity and the limits of control groups, but no more than ``OMP_NUM_THREADS`` or
    ``NUMBA_NUM_THREADS``.
    """
    global _default
    if _default:
        return _default
    failures: list[Exception] = []
    count = count_threads(os.environ, failures)
    if not failures:  # they may be temporary
        _default = count
    return count


def count_threads(environment: Mapping[str, str], failures: list[Exception] | None = None) -> int:
    """The default number of threads in this environment.

    A limit that cannot be determined is no limit, and its exception is appended to `failures`.
    Nothing is raised, since a failure should cost a caller time at most.
    """

    def known(ask: Callable[..., int | None], *arguments: str) -> int:
        try:
            return ask(*arguments) or 0
        except Exception as reason:
            if failures is not None:
                failures.append(reason)
            return 0

    def granted() -> int | None:
        limit = system().cgroup_limit()
        return None if limit is None else max(1, round(limit))

    def of_others(variable: str) -> int:
        # OMP_NUM_THREADS may be a list of numbers, one for each level of nesting.
        return _count(environment.get(variable, "").split(",")[0].strip())

    chosen = known(lambda: _chosen(environment))
    if chosen:
        return chosen
    counts = [
        known(lambda: system().affinity()) or known(os.cpu_count),
        known(granted),
        *(known(of_others, variable) for variable in _LIMITS_OF_OTHERS),
    ]
    return min((count for count in counts if count), default=1)


def system() -> ModuleType:
    # Not at the top: it imports `pathlib` and `platform`, which the package can do without.
    from fastact._machine import system

    return system


def _forget() -> None:
    """Forget the default in a forked child, which may have been given other cores."""
    global _default
    _default = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def get_num_threads() -> int:
    """Return the maximum number of threads that calls from this thread use.

    Returns
    -------
    int
        The number that :func:`set_num_threads` or :func:`num_threads` has set in this thread, or
        else the default: the environment variable ``FASTACT_NUM_THREADS``, or the number of cores
        that this process may use, by its affinity and the limits of control groups, but no more
        than ``OMP_NUM_THREADS`` or ``NUMBA_NUM_THREADS``.

    Examples
    --------
    >>> import fastact as fa
    >>> with fa.num_threads(1):
    ...     fa.get_num_threads()
    1
    """
    return get_own(KEY) or default()


def set_num_threads(n: int) -> None:
    """Set the maximum number of threads that calls from this thread use.

    Results do not depend on it. Calls that are too small to gain from so many threads use fewer.
    The setting does not apply to other threads, not even to those started later.

    Parameters
    ----------
    n : int
        At least 1. More threads than cores are of no use.

    Raises
    ------
    TypeError, ValueError
        If `n` is not an integer, or is less than 1.

    Examples
    --------
    >>> import fastact as fa
    >>> before = fa.get_num_threads()
    >>> fa.set_num_threads(1)
    >>> fa.get_num_threads()
    1
    >>> fa.set_num_threads(before)
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
        If `n` is not an integer, or is less than 1.

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
