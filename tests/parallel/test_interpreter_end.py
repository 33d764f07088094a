"""Calls while the interpreter ends: in daemon threads, and in destructors.

At its end the interpreter empties all modules, `sys` as the last but one. Meanwhile daemon threads
go on until they need the GIL. `LATE` keeps the process alive in that state.
"""

import os
import signal

import pytest
from conftest import LAYERS
from thread_program import run_prepared

LATE = """
class Late:
    def __init__(self, function):
        self.function = function
    def __del__(self):
        self.function()
def at_the_end(function):
    sys.destroyed_last = Late(function)
"""

LONG_CALL = """
# NumPy calls the loop for each row, and takes the GIL only after the last.
shape = (1_000_000, 80_000)
x = np.broadcast_to(np.float32(0.5), shape)
out = np.lib.stride_tricks.as_strided(np.empty(shape[1], np.float32), shape, (0, 4))
caller = threading.Thread(target=lambda: fa.softplus(x, out=out), daemon=True)
caller.start()
time.sleep(0.05)
"""


@pytest.mark.parametrize("layer", LAYERS)
def test_many_short_calls(layer):
    code = """
last = (UNARY.index("softplus") + 1) * len(INPUTS) - 1  # of its largest inputs
called = threading.Semaphore(0)
def work():
    while True:
        CALLS[last - 1]()
        check(last)
        called.release()
for _ in range(4):
    threading.Thread(target=work, daemon=True).start()
for _ in range(20):
    assert called.acquire(timeout=60)
"""
    for _ in range(5):
        run_prepared(code, layer)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_long_call(layer):
    code = f"""
{LATE}
check_some()
{LONG_CALL}
at_the_end(lambda sleep=time.sleep: sleep(0.3))
"""
    run_prepared(code, layer)


@pytest.mark.skipif(os.name == "nt", reason="signals as POSIX has them")
def test_a_call_that_would_start_threads():
    # It comes after the end of the interpreter, when threads cannot wait for the GIL any more: a
    # signal handler of C puts the caller to sleep for a second, and then the process pauses.
    code = f"""
pool._fields.share = pool._NEVER
{LONG_CALL}
library = ctypes.CDLL(None)
library.signal.argtypes = ctypes.c_int, ctypes.c_void_p
library.signal(1, ctypes.cast(library.sleep, ctypes.c_void_p))
signal.pthread_kill(caller.ident, 1)
time.sleep(0.05)
pool._fields.share = layers.LEAST_SHARE
ctypes.pythonapi.Py_AtExit(library.pause)
signal.setitimer(signal.ITIMER_REAL, 1.3)
"""
    run_prepared(code, "fastact", started=False, returncode=-signal.SIGALRM)


def test_destructors():
    # They can use loops that have been made; others are refused. Where this failed, it was only in
    # every second process.
    code = f"""
{LATE}
def late(calls=[getattr(fa, name) for name in UNARY], known=INPUTS[-1], new=np.ones(9, "e"),
         expected=EXPECTED[len(INPUTS) - 1].tobytes(), others=np.ones((3, 4), object),
         described=[(getattr(fa, name).__doc__, getattr(fa, name).types) for name in UNARY],
         add=np.add, write=os.write):
    assert calls[0](known).tobytes() == expected
    assert [(call.__doc__, call.types) for call in calls] == described
    for call in calls * 20:
        add(others, others)  # leaves other values on the stack
        call(known[:3])
        try:
            call(new)
            return
        except TypeError:
            pass
    write(1, b"done")
at_the_end(late)
"""
    for _ in range(2):
        assert run_prepared(code, "fastact", started=False) == "done"
