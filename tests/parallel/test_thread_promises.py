"""Our threads together with other threads, forks, interrupts and other thread pools.

Each test starts new processes, with each layer. A process that hangs exceeds the time limit of
`run_python`.
"""

import functools
import multiprocessing
import os
import platform
import subprocess
import sys

import pytest
from conftest import LAYERS, needs_layer, run_python
from thread_program import PREPARED, run_prepared

NUMBA = """
import numba
ones = np.ones(200_000)
@numba.njit(parallel=True)
def total(x):
    s = 0.0
    for i in numba.prange(x.size):
        s += x[i] * 2
    return s
def numba_work():
    assert total(ones) == 400_000
"""


@pytest.fixture(scope="session", params=LAYERS)
def run(request):
    """``run(code)`` returns the output of a process in which our calls use three threads."""

    return functools.partial(run_prepared, layer=request.param)


def seconds(short, long):
    return pytest.mark.parametrize(
        "seconds", [short, pytest.param(long, marks=pytest.mark.exhaustive)]
    )


@seconds(2, 10)
def test_sixteen_threads_at_once(run, seconds):
    code = f"""
calls = repeat({seconds}, *[check_any] * 16)
assert min(calls) > 0, calls
print(sum(calls))
"""
    print(run(code).strip(), "calls", end=" ")


@seconds(1, 5)
def test_number_of_threads_changes_during_calls(run, seconds):
    code = f"""
def flip():
    fa.set_num_threads(int(rng.integers(1, 9)))
    check_any()
repeat({seconds}, *[flip] * 4)
"""
    run(code)


@seconds(1, 5)
@pytest.mark.parametrize("theirs", ["default", pytest.param("tbb", marks=needs_layer("tbb"))])
def test_beside_numba_and_blas(run, theirs, seconds):
    code = f"""
{NUMBA}
if {theirs!r} == "tbb":
    tbb.numba_layer()  # Numba does not find TBB by itself
numba.config.THREADING_LAYER = {theirs!r}
square = np.ones((300, 300))
numba_work()
def blas_work():
    assert (square @ square == 300).all()
# If Numba has no other layer, it uses its workqueue, which only one thread may enter.
repeat({seconds}, numba_work, blas_work, check_some, check_some)
"""
    run(code)


def test_executor(run):
    code = """
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(8) as executor:
    list(executor.map(check, list(range(len(CALLS))) * 3))
"""
    run(code)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("used", ["in the parent", "in the child only", "by other threads"])
def test_fork(run, used):
    code = f"""
used = {used!r}
stop = threading.Event()
def work():
    while not stop.is_set():
        check_some()
if used == "in the parent":
    check_some()
callers = []
if used == "by other threads":
    callers = [threading.Thread(target=work) for _ in range(3)]
    [t.start() for t in callers]
    time.sleep(0.1)
for _ in range(6):
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            check_some()
            # A child does not use TBB if its parent has used it.
            assert pool.state.layer == "fastact" or used == "in the child only"
            inner = os.fork()  # a grandchild
            if inner == 0:
                check_some()
                os._exit(0)
            status = os.waitpid(inner, 0)[1]
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
stop.set()
[t.join() for t in callers]
check_some()
"""
    run(code)


@needs_layer("tbb")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_fork_with_numba_beside(run):
    # Both use TBB. Numba is first used after the fork, then also before it.
    code = f"""
{NUMBA}
tbb.numba_layer()  # Numba does not find TBB by itself
numba.config.THREADING_LAYER = "tbb"
for numba_before in (False, True):
    check_some()
    if numba_before:
        numba_work()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            check_some()
            numba_work()
            check_some()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    check_some()
    numba_work()
"""
    run(code)


MULTIPROCESSING = """
import multiprocessing, sys
import numpy as np
import fastact as fa

def task(n):
    x = np.linspace(-9, 9, n)
    with fa.num_threads(1):
        expected = fa.sigmoid(x)
    return bool((fa.sigmoid(x) == expected).all()) and fa.get_num_threads() == 3

if __name__ == "__main__":
    method, before = sys.argv[1:]
    if before == "used":
        assert task(500_000)
    with multiprocessing.get_context(method).Pool(3) as pool:
        assert all(pool.map(task, [1, 1000, 300_000, 500_000] * 4))
    assert task(500_000)
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert all(pool.map(task, [500_000] * 4))
"""


@pytest.mark.parametrize("before", ["used", "not used"])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(tmp_path, layer_name, method, before):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} on this system")
    script = tmp_path / "script.py"
    script.write_text(MULTIPROCESSING)
    variables = {"FASTACT_THREADING_LAYER": layer_name, "FASTACT_NUM_THREADS": "3"}
    paths = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, script, method, before],
        env=os.environ | variables | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "rror" not in done.stderr


@pytest.fixture(params=LAYERS)
def layer_name(request):
    return request.param


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_joblib(tmp_path, layer_name, backend):
    code = f"""
import sys
import warnings
warnings.simplefilter("ignore")
sys.path.insert(0, {str(tmp_path)!r})
import joblib
from joblib_task import task
with joblib.parallel_config({backend!r}, n_jobs=3):
    results = joblib.Parallel()(joblib.delayed(task)(n) for n in [1, 300_000, 500_000] * 4)
print(results == [True] * 12)
if {backend!r} == "loky":
    with joblib.parallel_config("loky", n_jobs=2, inner_max_num_threads=1):
        counts = joblib.Parallel()(joblib.delayed(threads)() for _ in range(4))
        print(counts)
"""
    (tmp_path / "joblib_task.py").write_text("""
import numpy as np
import fastact as fa

def task(n):
    x = np.linspace(-9, 9, n)
    with fa.num_threads(1):
        expected = fa.sigmoid(x)
    return bool((fa.sigmoid(x) == expected).all())

def threads():
    return fa.get_num_threads()
""")
    code = code.replace("import task\n", "import task, threads\n")
    variables = {"PYTHONWARNINGS": "ignore", "FASTACT_THREADING_LAYER": layer_name}
    output = run_python(code, **variables).splitlines()
    assert output[0] == "True"
    if backend == "loky":
        assert output[1] == "[1, 1, 1, 1]"  # joblib sets OMP_NUM_THREADS


@pytest.mark.skipif(os.name == "nt", reason="signals as POSIX has them")
@pytest.mark.parametrize("first", [True, False])
def test_interrupts(run, first):
    # Each interrupt is raised, and no result is incomplete, since NumPy lets the call end. The
    # first call starts the threads, by Python code that runs inside it.
    code = f"""
x = rng.standard_normal({100_000 if first else 2_000_000})
with fa.num_threads(1):
    expected = fa.softplus(x)
y = np.empty_like(x)
pool.start()  # imports modules, whose finalizers may swallow an interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGALRM, signal.default_int_handler)
def ignore(unraisable):  # called for an interrupt in the first instruction of a callback
    assert unraisable.exc_type in (KeyboardInterrupt, ResourceWarning), unraisable
sys.unraisablehook = ignore
for delay in np.linspace(1e-6, {3e-3 if first else 30e-3}, 40):
    y[:] = 7
    if {first}:
        helpers.after_fork()
        pool._reset()
    try:
        signal.setitimer(signal.ITIMER_REAL, delay)
        fa.softplus(x, out=y)
        time.sleep(10)
        raise AssertionError("the interrupt is lost")
    except KeyboardInterrupt:
        assert (y == expected).all() or (y == 7).all()
check_some()
"""
    run(code)


def test_an_error_in_another_thread_meanwhile(run):
    code = """
def fail():
    for _ in range(300):
        try:
            fa.sigmoid(np.ones(300_000), out=np.ones(2))
        except ValueError:
            pass
        try:
            fa.sigmoid(np.array(["no"] * 10))
        except TypeError:
            pass
threads = [threading.Thread(target=fail) for _ in range(3)]
[t.start() for t in threads]
for _ in range(20):
    check_some()
[t.join() for t in threads]
"""
    run(code)


def test_workers_keep_their_floating_point_environment(layer_name):
    # Flush to zero in the caller affects no result, whichever thread computes it.
    if platform.machine() not in ("x86_64", "AMD64") or os.name == "nt":
        pytest.skip("the registers are set through glibc on x86-64")
    code = (
        PREPARED
        + """
libm = ctypes.CDLL("libm.so.6")
environment = (ctypes.c_ubyte * 64)()
libm.fegetenv(environment)
changed = (ctypes.c_ubyte * 64).from_buffer_copy(environment)
control = ctypes.c_uint32.from_buffer(changed, 28)
control.value |= 0x8040 | 0x6000  # flush to zero, denormals are zero, round towards zero
x = np.full(300_000, -100.0, np.float32)
expected = EXPECTED
with fa.num_threads(1):
    alone = fa.sigmoid(x)
libm.fesetenv(changed)
together = fa.sigmoid(x)
libm.fesetenv(environment)
print((alone == together).all(), alone[0] > 0, pool.state.layer)
"""
    )
    variables = {"FASTACT_THREADING_LAYER": layer_name, "FASTACT_NUM_THREADS": "3"}
    assert run_python(code, **variables) == f"True True {layer_name}\n"


@needs_layer("tbb")
def test_numba_limits_the_number_of_threads(layer_name):
    # A call uses no more threads than Numba has been told to use in this thread, and leaves Numba's
    # number as it is.
    code = (
        PREPARED
        + """
import numba
tbb.numba_layer()  # Numba does not find TBB by itself
numba.config.THREADING_LAYER = "tbb"
numba.set_num_threads(2)
pool.start()
seen = []
PARALLEL_FOR = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 7, ctypes.c_int)
original = PARALLEL_FOR(pool._fields.parallel_for)
@PARALLEL_FOR
def record(*args):
    seen.append(args[-1])
    original(*args)
pool._fields.parallel_for = ctypes.cast(record, ctypes.c_void_p).value
check_some()
assert set(seen) == {2}, seen
assert numba.get_num_threads() == 2
numba.set_num_threads(1)
del seen[:]
check_some()
assert not seen
assert numba.get_num_threads() == 1
other = []
thread = threading.Thread(target=lambda: (check_some(), other.append(numba.get_num_threads())))
thread.start(); thread.join()
assert other == [numba.config.NUMBA_NUM_THREADS], other
assert set(seen) == {3}, seen
"""
    )
    variables = {"FASTACT_THREADING_LAYER": layer_name, "FASTACT_NUM_THREADS": "3"}
    run_python(code, **variables, NUMBA_NUM_THREADS="4")
