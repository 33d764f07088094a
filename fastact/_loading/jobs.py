"""Jobs: each makes a loop at its first use, in a separate thread.

The thread that asks for a loop only waits. So the job is not affected by anything that happens
in that thread: a signal or an exception of its handler, the depth of recursion, a tracer. The
caller gets the exception at once, the job goes on, and the next call finds the loop. Without the
separate thread, the exception would interrupt an import, which would leave Numba unusable for the
rest of the process.

A fork waits for the jobs of other threads, since nobody would release their locks in the child.
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

_STACK = 16 << 20  # bytes, if the program has chosen less for its threads; LLVM needs more
_LONGEST_WAIT = 60.0  # seconds that a fork waits for jobs
_IMPORTED = ("numba", "llvmlite", "platformdirs", "fastact")
_GLANCE = 0.01  # seconds between checks whether a job pauses


def _raw(name: str, result: Any, *arguments: Any) -> Any:
    # CFUNCTYPE releases the GIL during the call; PYFUNCTYPE would not.
    return ctypes.CFUNCTYPE(result, *arguments)((name, ctypes.pythonapi))


_new_lock = _raw("PyThread_allocate_lock", ctypes.c_void_p)
_take_lock = _raw("PyThread_acquire_lock", ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
_release_lock = _raw("PyThread_release_lock", None, ctypes.c_void_p)


class Job:
    """Work to do once, for one or several threads that wait for it."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function
        self.thread = 0
        self.pauses = False  # while it waits for a fork to end
        self.lost = False  # in a forked child, which does not have its thread
        self.value: Any = None
        self.error: BaseException | None = None
        self.ended = False
        # A lock for each waiting thread: if they handed on a single one, an exception in one of
        # them could leave the others waiting.
        self._releases: list[Callable[[], None]] = []

    def run(self) -> None:
        """Do the work in this thread."""
        self.thread = get_ident()
        self.pauses = True
        try:
            _running.append(self)
            with _forking:
                self.pauses = False
            self.value = self.function()
        except BaseException as error:  # of any kind: the thread that asked raises it
            self.error = error
        finally:
            self.end()

    def end(self) -> None:
        """Mark the job as ended, and release the threads that wait for it."""
        self.ended = True
        while self._releases:
            self._releases.pop()()
        with contextlib.suppress(ValueError):
            _running.remove(self)

    def wait(self, seconds: float = -1) -> bool:
        """Wait at most so many seconds for the end of the job; return whether it has ended.

        Signal handlers run meanwhile, and may raise.
        """
        lock = allocate_lock()
        lock.acquire()
        self._releases.append(lock.release)
        return self.ended or lock.acquire(timeout=seconds)

    def wait_undisturbed(self) -> None:
        """Wait for the end of the job; signal handlers run afterwards."""
        lock = _new_lock()
        _take_lock(lock, 1)
        self._releases.append(functools.partial(_release_lock, lock))
        if not self.ended:
            _take_lock(lock, 1)


# Weak references to the locks of all modules that are being imported, by the names of these.
_import_locks = getattr(sys.modules.get("_frozen_importlib"), "_module_locks", {})

_running: list[Job] = []
_shared: dict[Hashable, Job] = {}  # the jobs in separate threads, by their keys
_waiting: set[int] = set()  # the threads that wait in `run`
_publishing = RLock()
_forking = RLock()  # held during a fork, and for a moment by each job
_forks: list[bool] = []  # an element for each time that a fork has acquired `_forking`
_registered = False
# Modules that Numba or the program may import while a job runs, with the lock that their hooks
# acquire before a fork and release after it.
_LOCKS_OF_HOOKS = {"logging": "_lock", "concurrent.futures.thread": "_global_shutdown_lock"}
# Those that had not been imported when our hook was registered: their hooks run before ours.
_earlier_hooks: set[str] = set()


def run(key: Hashable, function: Callable[[], Result], patiently: bool = False) -> Result:
    """Call `function`, in another thread if possible; return or raise what it does.

    Parameters
    ----------
    key : hashable
        Calls with an equal key share a running job.
    function : callable
        It has to check by itself what has been done already.
    patiently : bool
        Whether signal handlers run only afterwards, for callers that could not hand on an
        exception of theirs. A signal handler that has interrupted another call always waits so.
    """
    while not _belongs_here():
        try:
            job, ours = _job(key, function)
        except RuntimeError:  # no more threads can be started
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
    """The job that runs in this thread."""
    thread = get_ident()
    return next((job for job in list(_running) if job.thread == thread), None)


def _outcome(job: Job) -> Any:
    if job.error is None:
        return job.value
    try:
        raise job.error
    finally:
        del job  # otherwise it and the traceback would keep each other alive


def _job(key: Hashable, function: Callable[[], Any]) -> tuple[Job, bool]:
    """The running job for `key`, or a new one, and whether it is new."""
    # A signal handler may come here while this thread holds the lock. It finds no job that has not
    # been started, so it starts another and waits for it. That job must not need this lock.
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
    """Whether this thread must do the work: another one would wait for it, or never run."""
    return (
        _own_job() is not None
        or sys.is_finalizing()
        or _holds_numba()
        or _imports_what_jobs_import()
    )


def _holds_numba() -> bool:
    """Whether this thread is compiling with Numba, which lets no other thread compile."""
    module = sys.modules.get("numba.core.compiler_lock")
    lock = getattr(module, "global_compiler_lock", None)
    return lock is not None and lock.is_locked()


def _imports_what_jobs_import() -> bool:
    """Whether this thread is in the middle of an import that a job would wait for."""
    thread = get_ident()
    for name, reference in list(_import_locks.items()):
        if name.partition(".")[0] in _IMPORTED and getattr(reference(), "owner", 0) == thread:
            return True
    return False


def _register() -> None:
    """Make forks and the end of the process wait for jobs."""
    global _registered
    if _registered:
        return
    _earlier_hooks.update(name for name in _LOCKS_OF_HOOKS if name not in sys.modules)

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child
        )
    atexit.register(_finish)
    _registered = True


def _hold_back() -> None:
    """Keep jobs from starting and from compiling, and wait for those of other threads."""
    until = time.monotonic() + _LONGEST_WAIT
    thread = get_ident()
    held = False
    while True:
        try:
            # An exception that left this hook would only be printed, and the fork would happen.
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
            until = 0  # wait no longer, so that the interrupt takes effect
        except Exception:  # of a signal handler; there is no caller to raise it in
            continue


def _before_fork() -> None:
    # The jobs that this fork waits for may need the locks that it has acquired.
    for lock in _locks_of_hooks():
        with contextlib.suppress(RuntimeError):  # its hook was registered a moment too late
            lock.release()
    _hold_back()
    # Also those of modules that were imported meanwhile, which are released after the fork, too.
    for lock in _locks_of_hooks():
        lock.acquire()


def _locks_of_hooks() -> list[Any]:
    """The locks of hooks that run before ours."""
    locks = []
    for name in _earlier_hooks:
        module = sys.modules.get(name)
        spec = getattr(module, "__spec__", None)
        if hasattr(module, _LOCKS_OF_HOOKS[name]) and not getattr(spec, "_initializing", False):
            locks.append(getattr(module, _LOCKS_OF_HOOKS[name]))
    return locks


def _after_fork() -> None:
    if _forks:
        _forks.pop()
        _forking.release()


def _after_fork_in_child() -> None:
    """Give up the jobs that had not ended."""
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
    if not _publishing._is_owned():  # type: ignore[attr-defined] # not in the stubs of `_thread`
        _publishing = RLock()


def _finish() -> None:
    """Wait for jobs before the libraries that they use are torn down."""
    thread = get_ident()
    for job in list(_running):
        if job.thread != thread:
            job.wait()
