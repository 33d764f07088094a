"""Programs in which threads share even small calls."""

from conftest import run_python

PREPARED = """
import ctypes, os, signal, sys, threading, time, warnings
warnings.filterwarnings("ignore", "This process", DeprecationWarning)  # forks with threads
import numpy as np
import fastact as fa
from fastact._declarations.records import ROW_ACTIVATIONS
from fastact._parallel import helpers, layers, pool, tbb

# Share calls of a few thousand elements already, so that the tests are short.
helpers.SHARE = tbb.SHARE = layers.LEAST_SHARE = 2_000_000
helpers.WORTH_WAKING = 0
pool._reset()

rng = np.random.default_rng(0)
SIZES = [1, 100, 5_000, 70_000, 300_000]
INPUTS = [(rng.standard_normal(n) * 4).astype(t) for n in SIZES for t in "fd"]
DENSE = fa.Dense(rng.standard_normal((70, 90)).astype("f"), activation="softplus")
ROWS = rng.standard_normal((2000, 70)).astype("f")
UNARY = ["relu", "sigmoid", "softplus", "step", "tanh"]
CALLS = [lambda f=getattr(fa, name), x=x: f(x) for name in UNARY for x in INPUTS]
CALLS += [lambda f=getattr(fa, name): f(INPUTS[-1].reshape(300, 1000)) for name in ROW_ACTIVATIONS]
CALLS += [lambda: DENSE(ROWS), lambda: fa.dense(ROWS, ROWS[:70, :50], None, "tanh")]

with fa.num_threads(1):
    EXPECTED = [call() for call in CALLS]

def check(k):
    y = CALLS[k]()
    assert y.tobytes() == EXPECTED[k].tobytes(), (k, os.getpid())

def repeat(seconds, *whats):
    # Call each of `whats` repeatedly in its own thread; return how often each was called.
    counts = [0] * len(whats)
    wrong = []
    started = threading.Barrier(len(whats))  # on a busy machine, starting 16 took 2 s
    def work(me):
        try:
            started.wait(60)
            end = time.time() + seconds
            while time.time() < end:
                whats[me]()
                counts[me] += 1
        except BaseException as error:
            wrong.append(error)
    threads = [threading.Thread(target=work, args=(me,)) for me in range(len(whats))]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert not wrong, wrong
    return counts

def check_any(rng=np.random.default_rng(1)):
    check(rng.integers(len(CALLS)))

def check_some():
    for k in (9, 19, 29, 49, -1, -2, -3):
        check(k)
"""


def run_prepared(code, layer, started=True, **environment):
    """Run `code` after `PREPARED`, with three threads of `layer`; return its output.

    `started` is whether the threads have been started at its end.
    """
    variables = {"FASTACT_THREADING_LAYER": layer, "FASTACT_NUM_THREADS": "3"}
    state = layer if started else "not started"
    code = PREPARED + code + f"\nassert pool.state.layer == {state!r}, pool.state"
    return run_python(code, **variables | environment)
