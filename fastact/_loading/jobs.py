"""Threads of their own in which loops are made at their first use, one for each.

The thread that asks for a loop only waits. So nothing that strikes it then strikes what is
being made: not a signal or what its handler raises, not its depth of recursion, not a tracer. The
caller gets the exception at once, the job goes on, and the next call finds what it made. An
import broken off instead would leave Numba unusable for the rest of the process.

A fork waits for the jobs of other threads, whose locks nobody would release in the child.
"""

import atexit
import contextlib
import ctypes
import functools
import os
import sys
import time
from _thread import RLock, allocate_lock, get_ident, interrupt_main, stack_size, start_new_thread
from collections.abc import Callable, Hashable
from typing import Any, TypeVar, cast

Result = TypeVar("Result")

_STACK = 16 << 20  # bytes, where the program has chosen less for its threads than LLVM needs
_LONGEST_WAIT = 60.0  # seconds, of a fork
_IMPORTED = ("numba", "llvmlite", "platformdirs", "fastact")
_GLANCE = 0.01  # seconds between looks at whether a job pauses


def _raw(name: str, result: Any, *arguments: Any) -> Any:
    # Not PYFUNCTYPE: other threads run during the call.
    return ctypes.CFUNCTYPE(result, *arguments)((name, ctypes.pythonapi))


_new_lock = _raw("PyThread_allocate_lock", ctypes.c_void_p)
_take_lock = _raw("PyThread_acquire_lock", ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
_release_lock = _raw("PyThread_release_lock", None, ctypes.c_void_p)


class Job:
    """Something to do once, in a thread that may be another's."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function
        self.thread = 0
        self.pauses = False  # until a fork is over
        self.lost = False  # with its thread, in a forked child
        self.value: Any = None
        self.error: BaseException | None = None
        self.ended = False
        # One for each who waits, as an exception may keep a lock from being handed on.
        self._releases: list[Callable[[], None]] = []

    def run(self) -> None:
        """Do it in this thread."""
        self.thread = get_ident()
        self.pauses = True
        try:
            _running.append(self)
            with _forking:
                self.pauses = False
            self.value = self.function()
        except BaseException as error:  # whatever it is belongs to who asked
            self.error = error
        finally:
            self.end()

    def end(self) -> None:
        """Let go whoever waits."""
        self.ended = True
        while self._releases:
            self._releases.pop()()
        with contextlib.suppress(ValueError):
            _running.remove(self)

    def wait(self, seconds: float = -1) -> bool:
        """Whether it is done, at the latest after so many seconds; signal handlers may raise."""
        lock = allocate_lock()
        lock.acquire()
        self._releases.append(lock.release)
        return self.ended or lock.acquire(timeout=seconds)

    def wait_undisturbed(self) -> None:
        """Wait until it is done; signal handlers run afterwards."""
        lock = _new_lock()
        _take_lock(lock, 1)
        self._releases.append(functools.partial(_release_lock, lock))
        if not self.ended:
            _take_lock(lock, 1)


# Of all modules that are being imported, by name: weak references.
_import_locks = getattr(sys.modules.get("_frozen_importlib"), "_module_locks", {})

_running: list[Job] = []
_shared: dict[Hashable, Job] = {}  # in threads of their own, by what they make
_waiting: set[int] = set()  # threads
_publishing = RLock()
_forking = RLock()  # held during a fork, and for a moment by jobs
_forks: list[bool] = []  # one for each time that a fork holds it
_registered = False
_watched = False
_logging_forks_first = False  # if it is imported, its hook has been called before ours


def run(key: Hashable, function: Callable[[], Result], patiently: bool = False) -> Result:
    """What `function` returns or raises, called in another thread where that is possible.

    Parameters
    ----------
    key : hashable
        Calls with an equal one share a job that is under way.
    function : callable
        It finds out by itself what has been done already.
    patiently : bool
        Whether signal handlers run only afterwards: for callers that could not hand on what
        they raise. It is so within a signal handler that has interrupted another call.
    """
    while not _belongs_here():
        try:
            job, ours = _job(key, function)
        except RuntimeError:  # the system has no more threads
            break
        thread = get_ident()
        if patiently or thread in _waiting:
            job.wait_undisturbed()
        else:
            _waiting.add(thread)
            try:
                job.wait()
            finally:
                _waiting.discard(thread)
        if not job.lost and (ours or job.error is None):
            return cast(Result, _outcome(job))
    if _own_job() is not None:
        return function()
    job = Job(function)
    job.run()
    return cast(Result, _outcome(job))


def _own_job() -> Job | None:
    """The job that this thread is at."""
    thread = get_ident()
    return next((job for job in list(_running) if job.thread == thread), None)


def _outcome(job: Job) -> Any:
    if job.error is None:
        return job.value
    try:
        raise job.error
    finally:
        del job  # which the traceback would hold, and be held by


def _job(key: Hashable, function: Callable[[], Any]) -> tuple[Job, bool]:
    """The job under way for `key`, or a new one, and whether it is new."""
    # Jobs themselves do without this lock: a signal handler may come here while this thread holds
    # it, start a job of its own, since none is known that has not been started, and wait for it.
    with _publishing:
        job = _shared.get(key)
        if job is not None and not job.ended:
            return job, False
        _register()
        job = Job(function)
        _start(key, job)
        _shared[key] = job
        return job, True


def _start(key: Hashable, job: Job) -> None:
    chosen = stack_size()
    if 0 < chosen < _STACK:
        stack_size(_STACK)
    try:
        start_new_thread(_work, (key, job))
    finally:
        if 0 < chosen < _STACK:
            stack_size(chosen)


def _work(key: Hashable, job: Job) -> None:
    try:
        job.run()
    finally:
        if _shared.get(key) is job:
            del _shared[key]


def _belongs_here() -> bool:
    """Whether another thread could not do it: it would wait for this one, or never run."""
    return (
        _own_job() is not None
        or sys.is_finalizing()
        or _holds_numba()
        or _imports_what_jobs_import()
    )


def _holds_numba() -> bool:
    """Whether this thread is amid a compilation by Numba, which lets no other compile."""
    module = sys.modules.get("numba.core.compiler_lock")
    lock = getattr(module, "global_compiler_lock", None)
    return lock is not None and lock.is_locked()


def _imports_what_jobs_import() -> bool:
    """Whether this thread is amid an import that a job would wait for."""
    thread = get_ident()
    for name, reference in list(_import_locks.items()):
        if name.partition(".")[0] in _IMPORTED and getattr(reference(), "owner", 0) == thread:
            return True
    return False


def begin_compiling() -> None:
    """Say that what runs in this thread is about to import Numba and to compile; it holds no lock.

    That may wait for locks which a fork takes, such as that of `logging`. The hook that waits for
    such a job has to come before those that take them, so it is registered after them.
    """
    global _watched
    job = _own_job()
    if job is not None:
        job.pauses = True
    with _forking:  # after a fork that is under way, which knows neither hook
        if job is not None:
            job.pauses = False
        import concurrent.futures.thread  # noqa: F401 - Numba imports it, and it registers one
        import logging  # noqa: F401 - so does this

        if not _watched and hasattr(os, "register_at_fork"):
            _watched = True
            os.register_at_fork(before=_hold_back, after_in_parent=_after_fork)


def _register() -> None:
    """Have forks and the end of the process wait for jobs, from the first one on."""
    global _registered, _logging_forks_first
    if _registered:
        return
    _logging_forks_first = "logging" not in sys.modules

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child
        )
    atexit.register(_finish)
    _registered = True


def _hold_back() -> None:
    """Let no job start or begin to compile, and wait for those of other threads."""
    until = time.monotonic() + _LONGEST_WAIT
    thread = get_ident()
    held = False
    while True:
        try:
            # An exception here would be printed, and the fork happen all the same.
            if not held:
                _forking.acquire()
                held = True
                _forks.append(True)
            for job in list(_running):
                while not (
                    job.thread == thread
                    or job.pauses
                    or time.monotonic() > until
                    or job.wait(_GLANCE)
                ):
                    pass
            return
        except KeyboardInterrupt:
            interrupt_main()
            until = 0  # it is to be heard
        except Exception:  # of a signal handler, which nobody could be given here
            continue


def _before_fork() -> None:
    _hold_back()
    # The lock of `logging`, which is released after a fork, if it was imported amid this one.
    module: Any = sys.modules.get("logging")
    lock: Any = getattr(module, "_lock", None)
    complete = lock is not None and not module.__spec__._initializing
    if _logging_forks_first and complete and not lock._is_owned():
        lock.acquire()


def _after_fork() -> None:
    if _forks:
        _forks.pop()
        _forking.release()


def _after_fork_in_child() -> None:
    """Give up the jobs that were not done."""
    global _publishing
    thread = get_ident()
    for job in [*_running, *_shared.values()]:
        if job.thread != thread:
            job.lost = True
            job.end()
    _shared.clear()
    _waiting.intersection_update({thread})
    while _forks:
        _after_fork()
    if not _publishing._is_owned():  # type: ignore[attr-defined] # for `threading` alone
        _publishing = RLock()


def _finish() -> None:
    """Wait for jobs before the libraries that they use are torn down."""
    thread = get_ident()
    for job in list(_running):
        if job.thread != thread:
            job.wait()
