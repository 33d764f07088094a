"""Interrupts, errors and forks during a first call reach the caller and break nothing."""

import os

import numpy as np
import pytest
from conftest import run_python

from fastact._loading import jobs

posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="signals and forks as POSIX has them")

SOFTPLUS_1 = 1.3132616875182228


def first(code, **environment):
    """Return what `code` prints in a new process that uses no cache."""
    return run_python(code, **({"FASTACT_CACHE": "0"} | environment))


def steps(*few, many):
    """Return the `few` delays, and `many` more for the exhaustive tests, which take minutes."""
    return [*few, *(pytest.param(t, marks=pytest.mark.exhaustive) for t in many if t not in few)]


INTERRUPTED = """
import _thread, signal, threading, time
import fastact as fa

class Mine(Exception):
    pass

def handler(*_):
    raise Mine

def wake(delay):
    {how}

results = []
wake({delay})
until = time.monotonic() + {delay} + 0.5
while time.monotonic() < until or len(results) < 4:
    try:
        while time.monotonic() < until or len(results) < 4:
            results.append(float(fa.softplus(1.0)))
    except ({expected}) as error:
        results.append(type(error).__name__)
print(*sorted(set(map(str, results))), sum(isinstance(r, str) for r in results))
assert fa.softplus.types == ["e->e", "f->f", "d->d"]
"""


@posix
@pytest.mark.parametrize("delay", steps(0.01, 0.12, 0.6, many=np.arange(1, 16) / 10))
@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("threading.Timer(delay, _thread.interrupt_main).start()", "KeyboardInterrupt"),
        (
            "signal.signal(signal.SIGALRM, handler); signal.setitimer(signal.ITIMER_REAL, delay)",
            "Mine",
        ),
    ],
)
def test_interrupts(how, expected, delay):
    """The exception is raised once and unchanged; calls work afterwards."""
    output = first(INTERRUPTED.format(how=how, delay=delay, expected=expected))
    assert output == f"{SOFTPLUS_1} {expected} 1\n"


@posix
@pytest.mark.parametrize("period", [0.0005, 0.004, 0.03])
@pytest.mark.parametrize("cache", ["0", "1"])
def test_signal_handlers_may_call_what_they_interrupt(period, cache):
    code = f"""
import signal
import fastact as fa
results = []

def handler(*_):
    results.append(float(fa.softplus(1.0)))

signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, {period}, {period})
for _ in range(3):
    results.append(float(fa.softplus(1.0)))
signal.setitimer(signal.ITIMER_REAL, 0)
print(*set(results))
"""
    for _ in range(1 + int(cache)):  # the second time, code is loaded from the cache
        assert run_python(code, FASTACT_CACHE=cache) == f"{SOFTPLUS_1}\n"


def test_exceptions_set_by_other_threads():
    code = """
import ctypes, threading, time
import fastact as fa

class Stop(Exception):
    pass

found = []
def work():
    try:
        found.append(float(fa.softplus(1.0)))
        time.sleep(0.1)
    except Stop:
        found.append("Stop")

thread = threading.Thread(target=work)
thread.start()
time.sleep(0.2)
ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(Stop))
thread.join()
print(found[-1], float(fa.softplus(1.0)), fa.softplus.types)
"""
    assert first(code) == f"Stop {SOFTPLUS_1} ['e->e', 'f->f', 'd->d']\n"


def test_recursion_depth():
    """A job has its own recursion depth; a call for which none is left raises RecursionError."""
    code = """
import sys
import fastact as fa

def call(depth):
    return float(fa.softplus(1.0)) if depth == 0 else call(depth - 1)

assert sys.getrecursionlimit() == 1000
for depth in range(900, 1000, 3):
    try:
        result = call(depth)
    except RecursionError:
        result = "RecursionError"
    print(depth, result)
"""
    results = dict(line.split() for line in first(code).splitlines())
    assert set(results.values()) == {str(SOFTPLUS_1), "RecursionError"}
    assert results["900"] == results["969"] == str(SOFTPLUS_1)
    assert results["999"] == "RecursionError"


@pytest.mark.parametrize(
    "settings",
    [["DISABLE_JIT"], ["DEBUGINFO", "ENABLE_PROFILING", "BOUNDSCHECK", "FULL_TRACEBACKS"]],
    ids=" ".join,
)
def test_settings_of_numba(settings):
    """Settings to debug or profile the code of users do not affect ours."""
    code = """
import numpy as np
import fastact as fa
print(fa.softplus(1.0), *fa.softmax(np.zeros(2, np.float16)))
from numba import config
print(config.DISABLE_JIT, config.DEBUGINFO_DEFAULT)
"""
    disabled = "DISABLE_JIT" in settings
    expected = f"{SOFTPLUS_1} 0.5 0.5\n{int(disabled)} {int(not disabled)}\n"
    assert first(code, **{f"NUMBA_{setting}": "1" for setting in settings}) == expected


def test_types_are_listed_while_a_loop_is_made():
    code = """
import threading
import fastact as fa
seen = set()
thread = threading.Thread(target=lambda: fa.relu(1.0))
thread.start()
while thread.is_alive():
    seen.add((tuple(fa.relu.types), fa.relu.ntypes))
print(len(seen), len(fa.relu.types))
"""
    assert first(code) == "1 13\n"


def test_a_thread_that_compiles_with_numba_and_another():
    """They would wait for each other if they acquired two locks in different orders."""
    code = """
import threading, time
import numba
import fastact as fa
from numba.extending import overload

inside = threading.Event()

def mark(x):
    pass

@overload(mark)
def compiled_mark(x):
    inside.set()
    time.sleep(0.3)
    value = float(fa.sigmoid(0.0))
    return lambda x: x + value

found = {}
def by_numba():
    found["by numba"] = numba.njit(lambda x: mark(x))(1.0)

def first_call():
    inside.wait()
    found["first call"] = float(fa.tanh(0.0))

threads = [threading.Thread(target=f, daemon=True) for f in (by_numba, first_call)]
[thread.start() for thread in threads]
[thread.join(60) for thread in threads]
print(sorted(found.items()))
"""
    assert first(code) == "[('by numba', 1.5), ('first call', 0.0)]\n"


FORK = """
import os, signal, threading, time, warnings
import {imports}
import fastact as fa

warnings.simplefilter("ignore", DeprecationWarning)  # about a fork with threads
thread = threading.Thread(target=lambda: fa.tanh(1.0))
thread.start()
time.sleep({delay})
child = os.fork()
if child == 0:
    signal.alarm(250)
    os._exit(0 if (fa.tanh(0.0), fa.softplus(1.0)) == (0, {expected}) else 1)
print(os.waitpid(child, 0)[1])
thread.join()
"""


@posix
@pytest.mark.parametrize("imports", ["fastact", "logging"])
@pytest.mark.parametrize("delay", steps(0.0, 0.05, 0.3, many=np.arange(1, 11) / 5))
def test_forks_while_another_thread_makes_its_first_call(imports, delay):
    """A fork acquires the lock of `logging`, which is imported before this package or after it."""
    code = FORK.format(imports=imports, delay=delay, expected=SOFTPLUS_1)
    assert first(code) == "0\n"


FORK_WITH_HOOKS = """
import os, sys, threading, time, warnings
import fastact as fa
from fastact._loading import jobs

waiting = threading.Event()

class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "numba" and not waiting.is_set():
            if {before}:
                __import__({name!r})
            waiting.set()
            time.sleep(0.5)  # by now, the fork waits
            module = __import__({name!r}, fromlist=["any"])
            with module.{lock}:
                pass

jobs._LONGEST_WAIT = 1e6
warnings.simplefilter("ignore", DeprecationWarning)  # about a fork with threads
sys.meta_path.insert(0, Slow())
thread = threading.Thread(target=lambda: fa.tanh(1.0))
thread.start()
assert {name!r} not in sys.modules and waiting.wait(60)
child = os.fork()
if child == 0:
    os._exit(0 if fa.tanh(0.0) == 0 else 1)
print(os.waitpid(child, 0)[1])
thread.join()
print(sys.modules[{name!r}].{lock}.acquire(timeout=60))
sys.modules[{name!r}].{lock}.release()
"""


@posix
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize(("name", "lock"), jobs._LOCKS_OF_HOOKS.items())
def test_forks_and_hooks_of_modules_that_are_imported_by_a_job(name, lock, before):
    """A job can use the locks that hooks acquire for a fork, and each is acquired only once."""
    code = FORK_WITH_HOOKS.format(name=name, lock=lock, before=before)
    assert first(code) == "0\nTrue\n"


def test_a_module_in_the_place_of_numba():
    code = """
import sys, types
import fastact as fa
sys.modules["numba"] = types.ModuleType("numba")
for _ in range(2):
    try:
        fa.softplus(1.0)
    except ImportError as error:
        print(type(error).__name__)
del sys.modules["numba"]
print(fa.softplus(1.0))
"""
    assert first(code) == f"ModuleNotFoundError\nModuleNotFoundError\n{SOFTPLUS_1}\n"


@pytest.mark.parametrize("module", ["llvmlite", "numba"])
def test_a_module_that_is_missing(module):
    code = f"""
import sys
import fastact as fa
sys.modules["{module}"] = None
try:
    fa.softplus([1.0])
except ModuleNotFoundError as error:
    print("{module}" in str(error))
del sys.modules["{module}"]
print(fa.softplus(1.0))
"""
    assert first(code) == f"True\n{SOFTPLUS_1}\n"


def test_an_attribute_error_is_the_cause_of_another():
    code = """
import fastact as fa
from fastact._runtime import engine
right = engine.load
def wrong(*_, **__):
    raise AttributeError("no such thing")
engine.load = wrong
try:
    fa.softplus(1.0)
except RuntimeError as error:
    print(error, repr(error.__cause__))
engine.load = right
print(fa.softplus(1.0))
"""
    message = "the loop cannot be made: no such thing AttributeError('no such thing')"
    assert first(code) == f"{message}\n{SOFTPLUS_1}\n"


def test_the_end_of_the_interpreter():
    """Later calls fail as imports do, and a job that nobody waits for ends before that."""
    code = """
import builtins, os, threading
import fastact as fa

class Late:
    def __del__(self, call=fa.tanh, write=os.write, error=BaseException, name=type):
        try:
            call(1.0)
            write(1, b"a result")
        except error as reason:
            write(1, name(reason).__name__.encode())

builtins.late = Late()
threading.Thread(target=lambda: fa.softplus(1.0), daemon=True).start()
"""
    assert first(code) == "ImportError"


def test_threads_of_small_stacks():
    code = """
import threading
import fastact as fa
threading.stack_size(65536)
print(fa.softplus(1.0), threading.stack_size())
"""
    assert first(code) == f"{SOFTPLUS_1} 65536\n"


def test_a_current_folder_that_is_gone(tmp_path):
    code = f"""
import os
import fastact as fa
os.chdir({str(tmp_path)!r})
os.rmdir({str(tmp_path)!r})
print(fa.softplus(1.0), *fa.softmax([0.0, 0.0]))
"""
    assert first(code) == f"{SOFTPLUS_1} 0.5 0.5\n"


def test_warnings_for_text_without_an_encoding():
    code = """
import subprocess, sys
code = "import fastact as fa; print(fa.softplus(1.0), *fa.softmax([0.0, 0.0]))"
options = ["-X", "warn_default_encoding", "-W", "error"]
subprocess.run([sys.executable, *options, "-c", code], check=True)
"""
    assert first(code) == f"{SOFTPLUS_1} 0.5 0.5\n"
