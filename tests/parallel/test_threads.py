"""The number of threads that calls use, and that results do not depend on it."""

import ctypes
import itertools
import math
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from conftest import LAYERS, ROOT, assert_same, needs_layer, run_python, sample
from hypothesis import given, settings
from hypothesis import strategies as st
from kinds import TYPICAL

import fastact as fa
from fastact._compiler.threads import helpers as helper_code
from fastact._declarations.records import ROW_ACTIVATIONS
from fastact._machine import system
from fastact._parallel import counts as thread_counts
from fastact._parallel import helpers, layers, pool, tbb

pytestmark = pytest.mark.functional

needs_tbb = needs_layer("tbb")


@pytest.fixture(scope="module", params=LAYERS)
def layer(request):
    """Each layer, with four threads, which share even the least work."""
    pool._reset()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTACT_THREADING_LAYER", request.param)
        assert pool.start().layer == request.param, pool.state
    pool._fields.share = 1
    with fa.num_threads(4), pytest.MonkeyPatch.context() as patch:
        if request.param == "fastact":
            patch.setattr(helpers.team(), "worth_waking", 0)
        yield request.param
    pool._reset()


@pytest.fixture
def shared(monkeypatch):
    """The number of threads for each call that was shared."""
    pool.start()
    original = PARALLEL_FOR(pool._fields.parallel_for)
    seen = []

    @PARALLEL_FOR
    def record(task, args, counts, *rest):
        seen.append(np.ctypeslib.as_array(ctypes.cast(counts, INTEGERS), (1,))[0])
        original(task, args, counts, *rest)

    monkeypatch.setattr(pool._fields, "parallel_for", ctypes.cast(record, ctypes.c_void_p).value)
    monkeypatch.setattr(pool._fields, "share", 1)
    with fa.num_threads(4):
        yield seen


INTEGERS = ctypes.POINTER(ctypes.c_int64)
PARALLEL_FOR = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 7, ctypes.c_int)


def alone(function, *args, **kwargs):
    with fa.num_threads(1):
        return function(*args, **kwargs)


# Results.


@pytest.mark.parametrize("n", [1, 4097, 300_001])
def test_same_bits_for_any_number_of_threads(layer, activation, ufunc, dtype, n):
    x = sample(activation, dtype, (n,))
    expected = alone(ufunc, *x)
    for threads in (2, 16):
        with fa.num_threads(threads):
            assert_same(ufunc(*x), expected)


@given(data=st.data())
@settings(max_examples=60)
def test_same_bits_for_any_strides(layer, data):
    name = data.draw(st.sampled_from([*TYPICAL]))
    shape = data.draw(hnp.array_shapes(max_dims=2, min_side=1, max_side=40))
    stretch = data.draw(st.integers(1, 4000))
    steps = data.draw(st.tuples(*[st.sampled_from([-3, -1, 1, 2, 5])] * len(shape)))
    shape = (*shape[:-1], shape[-1] * stretch % 20_000 + 1)
    whole = tuple(n * abs(step) for n, step in zip(shape, steps, strict=True))
    cut = tuple(slice(None, None, step) for step in steps)
    x = [v[cut] for v in sample(TYPICAL[name], np.dtype("f"), whole)]
    function = getattr(fa, name)
    expected = alone(function, *x)
    assert_same(function(*x), expected)
    out = np.full(whole, 7, "f")
    function(*x, out=out[cut])
    assert_same(out[cut], expected)
    out[cut] = 7
    assert (out == 7).all()  # nothing else was written


def test_in_place(layer, activation, ufunc, dtype):
    x = sample(activation, dtype, (100_003,))
    expected = alone(ufunc, *x)
    ufunc(*x, out=x[0])
    assert_same(x[0], expected)


def test_elements_that_depend_on_each_other(layer):
    x = np.resize([1.0, 0.0, 2.0, -1.0, 0.0], 30_000)
    for function in (fa.heaviside.accumulate, fa.heaviside.reduce):
        assert_same(function(x), alone(function, x))
    expected = np.heaviside.accumulate(x)
    assert_same(fa.heaviside.accumulate(x), expected)


@pytest.mark.parametrize(
    "shape", [(1, 5), (1000, 3), (3, 1000), (257, 129), (65, 128), (5, 40_000)]
)
@pytest.mark.parametrize("name", ROW_ACTIVATIONS)
def test_functions_of_rows(layer, name, dtype, shape):
    x, function = np.random.default_rng(0).normal(0, 3, shape).astype(dtype), getattr(fa, name)
    assert_same(function(x), alone(function, x))
    assert_same(function(x, axis=0), alone(function, x, axis=0))


SIZES = [
    *((1, 300, 200), (2, 50, 1000), (33, 7, 17), (64, 64, 64), (500, 30, 8), (1000, 64, 37)),
    *((3, 2000, 515), (100, 1, 100), (40, 1100, 300), (200, 20, 1)),
]


@pytest.mark.parametrize("activation", [None, "sigmoid", *ROW_ACTIVATIONS])
@pytest.mark.parametrize("dtype", ["f", "d"])
@pytest.mark.parametrize("size", SIZES)
def test_dense(layer, size, dtype, activation):
    rows, depth, columns = size
    rng = np.random.default_rng(0)
    x, W, b = (
        rng.normal(size=shape).astype(dtype) for shape in ((rows, depth), (depth, columns), columns)
    )
    expected = alone(fa.dense, x, W, b, activation)
    packed = fa.Dense(W, b, activation)
    for threads in (2, 3, 7, 50):
        with fa.num_threads(threads):
            assert_same(fa.dense(x, W, b, activation), expected)
            assert_same(packed(x), expected)
            padded = np.full((rows, columns + 3), 7, dtype)
            packed(x, out=padded[:, :columns])
            assert_same(padded[:, :columns], expected)
            assert (padded[:, columns:] == 7).all()


def test_sequential(layer):
    rng = np.random.default_rng(0)
    widths = (20, 100, 300, 10)
    layers = [
        fa.Dense(rng.normal(size=size).astype("f"), activation="relu")
        for size in itertools.pairwise(widths)
    ]
    stack = fa.Sequential([*layers, "softmax"])
    x = rng.normal(size=(5000, 20)).astype("f")
    assert_same(stack(x), alone(stack, x))


# The number of threads.


def test_work_is_shared(shared):
    # The tests above would pass even if no work were shared.
    x = np.ones(100_000)
    for function in (fa.relu, fa.softmax, lambda x: fa.heaviside(x, x)):
        del shared[:]
        function(x.reshape(100, 1000))
        assert len(shared) == 1
        assert shared[0] > 1
    layer = fa.Dense(np.ones((30, 500)))
    for rows in (1, 5000):  # columns are divided, then rows
        del shared[:]
        layer(np.ones((rows, 30)))
        assert len(shared) == 1
        assert shared[0] > 1


def test_little_work_is_not_shared(shared, monkeypatch):
    monkeypatch.setattr(pool._fields, "share", 1 << 60)
    fa.relu(np.ones(1_000_000))
    fa.Dense(np.ones((100, 100)))(np.ones((1000, 100)))
    assert shared == []


def test_more_costly_work_is_shared_sooner(shared, monkeypatch):
    def least(function):
        """Return the least number of elements that is shared, to a factor of 1.1."""
        n = 64
        while True:
            x = np.ones(n)
            del shared[:]
            function(x, out=x)
            if shared:
                return n
            n = math.ceil(1.1 * n)

    monkeypatch.setattr(pool._fields, "share", 2_000_000)
    assert 3 * least(fa.softplus) < least(fa.relu)


@pytest.mark.skipif("EMULATED_PYTHON" in os.environ, reason="costs are those of an emulator")
def test_work_beyond_the_caches_is_known_to_take_longer(shared, monkeypatch):
    # relu takes about 0.05 ns per element in cache; the 2 MB of the second call do not stay there.
    monkeypatch.setattr(pool._fields, "share", 25_000_000)
    fa.relu(np.ones(8_192, np.float32))
    assert not shared
    fa.relu(np.ones(262_144, np.float32))
    (threads,) = shared
    assert threads >= 2  # 3 if the cost was measured in a slow moment


@pytest.mark.parametrize("n", [1, 2, 3, 1000])
def test_set_and_get(n):
    before = fa.get_num_threads()
    with fa.num_threads(5):
        fa.set_num_threads(n)
        assert fa.get_num_threads() == n
    assert fa.get_num_threads() == before


def test_one_thread_uses_no_other(shared):
    with fa.num_threads(1):
        fa.sigmoid(np.ones(1_000_000))
        fa.softmax(np.ones((1000, 1000)))
        fa.dense(np.ones((100, 100)), np.ones((100, 100)))
    assert shared == []


def test_threads_of_python_have_numbers_of_their_own(shared):
    found = []

    def other():
        found.append(fa.get_num_threads())
        fa.set_num_threads(1)
        ready.set()
        go.wait(10)
        fa.relu(np.ones(100_000))
        found.append(fa.get_num_threads())

    ready, go = threading.Event(), threading.Event()
    thread = threading.Thread(target=other)
    with fa.num_threads(7):
        thread.start()
        ready.wait(10)
        assert fa.get_num_threads() == 7
        del shared[:]
        go.set()
        thread.join()
    assert found == [thread_counts.default(), 1]
    assert shared == []


def test_an_error_in_the_block_puts_the_number_back():
    before = fa.get_num_threads()
    with pytest.raises(KeyError), fa.num_threads(before + 1):
        raise KeyError
    assert fa.get_num_threads() == before


@pytest.mark.parametrize("function", [fa.set_num_threads, lambda n: fa.num_threads(n).__enter__()])
@pytest.mark.parametrize(
    ("bad", "error", "what"),
    [
        (0, ValueError, "n must be from 1 to 32768, got 0"),
        (-2, ValueError, "got -2"),
        (1 << 40, ValueError, "got 1099511627776"),
        (1.0, TypeError, "n must be an integer, got float"),
        ("2", TypeError, "got str"),
        (None, TypeError, "got NoneType"),
    ],
)
def test_bad_numbers(function, bad, error, what):
    before = fa.get_num_threads()
    with pytest.raises(error, match=what):
        function(bad)
    assert fa.get_num_threads() == before


@pytest.mark.parametrize(
    ("environment", "affinity", "granted", "count"),
    [
        ({}, 8, None, 8),
        ({}, 8, 3.0, 3),
        ({}, 8, 0.4, 1),
        ({}, 2, 16.0, 2),
        ({"OMP_NUM_THREADS": "3"}, 8, None, 3),
        ({"OMP_NUM_THREADS": "3,2"}, 8, None, 3),
        ({"OMP_NUM_THREADS": "many"}, 8, None, 8),
        ({"OMP_NUM_THREADS": "64"}, 8, None, 8),
        ({"NUMBA_NUM_THREADS": "2"}, 8, None, 2),
        ({"OMP_NUM_THREADS": "4", "NUMBA_NUM_THREADS": "2"}, 8, None, 2),
        ({"FASTACT_NUM_THREADS": "6", "OMP_NUM_THREADS": "1"}, 2, 1.0, 6),
        ({"FASTACT_NUM_THREADS": " "}, 4, None, 4),
        ({"FASTACT_NUM_THREADS": "0" * 5000 + "3"}, 4, None, 3),
        ({"FASTACT_NUM_THREADS": "x"}, 4, None, 4),  # as if set after the import
        *(
            ({variable: text}, 8, None, 8)
            for variable in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")
            for text in ("9" * 5000, "0" * 5000, "0", "-1", "2.5", "²", "\udcff", ",", " ,1", "1e1")
        ),
        ({"OMP_NUM_THREADS": "0" * 5000 + "3"}, 8, None, 3),
        ({"OMP_NUM_THREADS": f"{'9' * 5000},1", "NUMBA_NUM_THREADS": "2"}, 8, None, 2),
    ],
)
def test_default(monkeypatch, environment, affinity, granted, count):
    monkeypatch.setattr(system, "affinity", lambda: affinity)
    monkeypatch.setattr(system, "cgroup_limit", lambda: granted)
    assert thread_counts.count_threads(environment) == count


def test_default_of_this_process():
    code = "import fastact as fa; print(fa.get_num_threads())"
    assert run_python(code, OMP_NUM_THREADS="1") == "1\n"
    assert run_python(code, FASTACT_NUM_THREADS="3", OMP_NUM_THREADS="1") == "3\n"
    pinned = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); " + code
    if hasattr(os, "sched_setaffinity"):
        assert run_python(pinned) == "1\n"


class Unreadable(dict):
    def get(self, *_):
        raise MemoryError


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), ValueError, MemoryError]
)
def test_limits_that_cannot_be_read_are_ignored(monkeypatch, error):
    def fail():
        raise error

    def count(environment, failed):
        failures = []
        found = thread_counts.count_threads(environment, failures)
        assert len(failures) == failed
        return found

    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    monkeypatch.setattr(system, "affinity", lambda: 8)
    monkeypatch.setattr(system, "cgroup_limit", fail)
    assert count({}, 1) == 8
    assert count({"OMP_NUM_THREADS": "3"}, 1) == 3
    monkeypatch.setattr(system, "affinity", fail)
    monkeypatch.setattr(system, "cgroup_limit", lambda: 5.0)
    assert count({}, 1) == 5
    monkeypatch.setattr(system, "cgroup_limit", lambda: None)
    assert count({}, 1) == 16
    monkeypatch.setattr(os, "cpu_count", fail)
    monkeypatch.setattr(system, "cgroup_limit", fail)
    assert count({}, 3) == 1
    assert count(Unreadable(), 6) == 1


def test_a_count_is_kept_once_all_is_known(monkeypatch):
    """A failure may be temporary: for example, a lack of memory or the recursion limit."""

    def fail():
        raise RecursionError

    monkeypatch.setattr(thread_counts, "_default", 0)
    monkeypatch.delenv("FASTACT_NUM_THREADS", raising=False)
    with monkeypatch.context() as patch:
        patch.setattr(system, "affinity", fail)
        patch.setattr(system, "cgroup_limit", lambda: 1.0)
        assert thread_counts.default() == 1
    with monkeypatch.context() as patch:
        patch.setattr(thread_counts, "_LIMITS_OF_OTHERS", ())
        patch.setattr(system, "affinity", lambda: 7)
        patch.setattr(system, "cgroup_limit", lambda: None)
        assert thread_counts.default() == 7
    assert thread_counts.default() == 7


UNSEARCHABLE = """
import os, numpy as np, fastact as fa
try:
    os.listdir("/sys/fs/cgroup")
except PermissionError:
    print(fa.relu(np.float32(-1)), fa.get_num_threads() == len(os.sched_getaffinity(0)))
"""


def test_control_groups_that_may_not_be_searched():
    """The process mounts a folder without permissions in their place."""
    mount = 'mount -t tmpfs -o mode=000 tmpfs /sys/fs/cgroup && exec "$@"'
    prefix = ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]
    prefix += ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
    try:
        subprocess.run([*prefix, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as reason:
        pytest.skip(f"no file systems can be mounted here: {reason}")
    run_python("import numpy as np, fastact; fastact.relu(np.float32(1))")
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    done = subprocess.run(
        [*prefix, sys.executable, "-c", UNSEARCHABLE],
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("0.0 True\n", "")


@pytest.mark.parametrize("variable", ["OMP_NUM_THREADS", "NUMBA_NUM_THREADS"])
def test_first_call_beside_garbage_in_variables_of_others(variable):
    code = "import numpy as np, fastact as fa; print(fa.relu(np.float32(-1)))"
    run_python(code)
    assert run_python(code, **{variable: "9" * 5000}) == "0.0\n"


OTHER_CORES = """
import os, time, numpy as np, fastact as fa
from fastact._parallel import helpers, pool
cores = sorted(os.sched_getaffinity(0))
x = np.ones(1 << 22, np.float32)

def count_tasks():
    # The thread of a job may be about to end.
    counts = []
    while len(counts) < 3 or len(set(counts[-3:])) > 1:
        counts.append(len(os.listdir("/proc/self/task")))
        time.sleep(0.05)
    return counts[-1]

others = count_tasks() - 1  # an emulator has threads of its own
os.sched_setaffinity(0, cores[: {before}])
assert fa.get_num_threads() == {before}
fa.relu(x)
started = count_tasks()
child = os.fork()
if child == 0:
    os.sched_setaffinity(0, cores[: {after}])
    {ask}
    fa.relu(x)
    assert pool._fields.count == {after}, pool._fields.count
    assert fa.get_num_threads() == {after}
    assert count_tasks() - others == {after}, count_tasks()
    grandchild = os.fork()  # its cores are counted again
    if grandchild == 0:
        os.sched_setaffinity(0, cores[: {before}])
        fa.relu(x)
        assert count_tasks() - others == {before}, count_tasks()
        os._exit(0)
    os._exit(os.waitpid(grandchild, 0)[1] >> 8)
print(os.waitpid(child, 0)[1], count_tasks() - started, fa.get_num_threads())
"""


@pytest.mark.skipif((system.affinity() or 1) < 2, reason="there is one core to run on")
@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="no list of threads here")
@pytest.mark.parametrize("ask", ["pass", "fa.get_num_threads()", "fa.relu(x[:10])"])
@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_cores_are_counted_anew_in_a_forked_child(before, after, ask):
    code = OTHER_CORES.format(before=before, after=after, ask=ask)
    settings = {"OMP_NUM_THREADS": "", "NUMBA_NUM_THREADS": "", "FASTACT_NUM_THREADS": ""}
    settings |= {"OPENBLAS_NUM_THREADS": "1"}
    # Compile before: Numba does not accept empty variables.
    run_python("import numpy as np, fastact; fastact.relu(np.float32(1))")
    ignore = "import warnings; warnings.simplefilter('ignore', DeprecationWarning)\n"
    assert run_python(ignore + code, **settings) == f"0 0 {before}\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
def test_forked_children_inherit_set_num_threads():
    code = """
import os, numpy as np, fastact as fa
fa.set_num_threads(1)
child = os.fork()
if child == 0:
    fa.relu(np.ones(1 << 22))
    os._exit(fa.get_num_threads())
print(os.waitpid(child, 0)[1] >> 8)
"""
    assert run_python(code) == "1\n"


def test_an_interrupt_while_cores_are_counted_anew():
    """It is raised after the call, and the next call counts the cores."""
    code = """
import ctypes, numpy as np, fastact as fa
from fastact._parallel import pool, counts as thread_counts
x = np.ones(1 << 22, np.float32)
fa.relu(x)
thread_counts._forget()
pool._reset_in_child()
counted = thread_counts.default
def interrupted():
    raise KeyboardInterrupt
thread_counts.default = interrupted
try:
    y = fa.relu(x)
    for _ in range(1000):
        pass
except KeyboardInterrupt:
    print("interrupted")
thread_counts.default = counted
assert (fa.relu(x) == x).all()
print(pool._fields.count == counted(), pool._fields.get_count == pool._OWN_COUNT)
"""
    assert run_python(code) == "interrupted\nTrue True\n"


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", "99999", "²"])
def test_bad_environment(value):
    code = """
try:
    import fastact
except ValueError as error:
    print(error)
"""
    expected = f"FASTACT_NUM_THREADS must be a number of threads from 1 to 32768, got {value!r}\n"
    assert run_python(code, FASTACT_NUM_THREADS=value, PYTHONIOENCODING="utf-8") == expected


def test_long_garbage_in_the_environment_is_cut():
    code = "try:\n import fastact\nexcept ValueError as error: print(error)"
    printed = run_python(code, FASTACT_NUM_THREADS="9" * 5000)
    expected = f"from 1 to 32768, got '{'9' * 36}...'\n"
    assert printed == f"FASTACT_NUM_THREADS must be a number of threads {expected}"


# Layers.


def test_own_threads_without_numba():
    code = """
import sys, numpy as np, fastact as fa
fa.sigmoid(np.ones(1 << 22))
from fastact._parallel import pool
print(*pool.state, "numba" in sys.modules)
"""
    run_python(code)  # compiles, with Numba
    assert run_python(code, FASTACT_NUM_THREADS="2") == "fastact  False\n"


@pytest.mark.parametrize(
    "change",
    ["None", "7", "types.SimpleNamespace(_is_initialized=True)", "types.ModuleType('parallel')"],
)
def test_something_else_in_place_of_a_module_of_numba(change):
    run_python("import numpy as np, fastact; fastact.relu(np.float32(1))")  # compiles, with Numba
    code = f"""
import sys, types, numpy as np, fastact as fa
sys.modules["numba.np.ufunc.parallel"] = {change}
print(fa.relu(np.float32(-1)))
"""
    assert run_python(code) == "0.0\n"


@pytest.mark.parametrize("layer", LAYERS)
def test_something_else_in_place_of_numba(layer):
    """Calls use threads nevertheless."""
    code = """
import sys, types, numpy as np, fastact as fa
{change}
from fastact._parallel import pool
foreseen = pool.foreseen()
print(fa.relu(np.float32(-1)), *pool.start(), sep=", ")
assert foreseen == pool.state
"""
    run_python(code.format(change=""))
    code = code.format(change="sys.modules['numba'] = types.ModuleType('numba')")
    reason = "no tbb: Numba is not found" if layer == "tbb" else ""
    assert run_python(code, FASTACT_THREADING_LAYER=layer) == f"0.0, fastact, {reason}\n"


def test_bad_layer():
    code = "try:\n import fastact\nexcept ValueError as e: print(e)"
    expected = "FASTACT_THREADING_LAYER must be one of fastact, tbb, got 'omp'\n"
    assert run_python(code, FASTACT_THREADING_LAYER="omp") == expected


@needs_tbb
def test_tbb_is_found_without_help():
    code = """
import sys, numpy as np, fastact as fa
fa.sigmoid(np.ones(1 << 22))
from fastact._parallel import pool
print(*pool.state, "numba" in sys.modules)
"""
    environment = {
        "LD_LIBRARY_PATH": "",
        "FASTACT_NUM_THREADS": "2",
        "FASTACT_THREADING_LAYER": "tbb",
    }
    run_python(code, **environment)  # compiles, with Numba
    assert run_python(code, **environment) == "tbb  False\n"


def test_without_tbb(monkeypatch):
    monkeypatch.setattr(tbb, "_places", lambda name: iter(["/nowhere/" + name]))
    monkeypatch.setattr(tbb, "_LIBRARIES", dict.fromkeys(["linux", "win32", "darwin"], "no-tbb"))
    monkeypatch.setattr(pool, "_fields", pool._Fields())
    monkeypatch.setattr(pool, "state", pool.State("not started"))
    monkeypatch.setenv("FASTACT_THREADING_LAYER", "tbb")
    state = pool.start()
    assert state.layer == "fastact"
    assert 'TBB is not found, pip install "fastact[tbb]"' in state.reason


def test_the_least_share_is_that_of_a_layer():
    assert min(layer().SHARE for layer in layers.LAYERS.values()) == layers.LEAST_SHARE


@pytest.mark.parametrize("name", layers.LAYERS)
def test_layers_are_listed_by_their_names(name):
    assert name == layers.LAYERS[name]().NAME


def test_without_any_layer(monkeypatch):
    def fail():
        raise OSError("nothing works")

    monkeypatch.setattr(helpers, "begin", fail)
    monkeypatch.setattr(pool, "state", pool.State("not started"))
    monkeypatch.setattr(pool._fields, "parallel_for", 0)
    monkeypatch.setattr(pool._fields, "share", 1)
    with fa.num_threads(2):
        y = fa.sigmoid(np.zeros(10_000))
    assert pool.state == ("none", "OSError: nothing works")
    assert (y == 0.5).all()
    assert pool._fields.share > 1 << 60  # the next call does not try again


def test_helpers_that_cannot_be_started(monkeypatch):
    @ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_void_p, ctypes.c_void_p)
    def fail(function, argument):
        tried.append(argument)
        return ctypes.c_ulong(-1).value

    tried = []
    monkeypatch.setattr(pool, "state", pool.State("not started"))
    monkeypatch.setattr(pool._fields, "parallel_for", 0)
    assert pool.start().layer == "fastact"
    helpers.after_fork()
    helpers.begin()
    names = helper_code.CALLS
    calls = (ctypes.c_void_p * len(names)).from_address(helpers._addresses["calls"])
    k = names.index("start")
    original, calls[k] = calls[k], ctypes.cast(fail, ctypes.c_void_p)
    monkeypatch.setattr(pool._fields, "share", 1)
    try:
        for _ in range(3):
            with fa.num_threads(4):
                assert (fa.sigmoid(np.zeros(1 << 23)) == 0.5).all()
        assert len(tried) == 1 or (system.affinity() or 1) < 2
    finally:
        calls[k] = original
        helpers.after_fork()
        helpers.begin()


@needs_tbb
def test_old_tbb(monkeypatch):
    monkeypatch.setattr(tbb, "_INTERFACE", 10**6)
    with pytest.raises(ImportError, match=r"older than 2021\.6"):
        tbb.numba_layer()


@needs_tbb
def test_numba_without_the_layer(monkeypatch):
    monkeypatch.setattr(tbb, "_MODULE", "elsewhere")
    monkeypatch.setattr(tbb.importlib.machinery, "EXTENSION_SUFFIXES", [".none"])
    with pytest.raises(ImportError, match="no layer for TBB"):
        tbb.numba_layer()


@pytest.mark.parametrize("layer", LAYERS)
def test_number_of_running_threads_does_not_grow(layer):
    code = """
import os, threading, time, numpy as np, fastact as fa
x = np.ones(300_000, np.float32)
def count(): return len(os.listdir("/proc/self/task"))
fa.sigmoid(x)
before = count()
for _ in range(50):
    callers = [threading.Thread(target=fa.sigmoid, args=(x,)) for _ in range(8)]
    [t.start() for t in callers]
    [t.join() for t in callers]
end = time.time() + 10
while count() > before and time.time() < end:
    time.sleep(0.01)
print(before, count())
"""
    if not Path("/proc/self/task").exists():
        pytest.skip("threads are counted in /proc")
    output = run_python(code, FASTACT_THREADING_LAYER=layer, FASTACT_NUM_THREADS="2")
    before, after = map(int, output.split())
    assert after <= before + 1  # TBB's helper may start late


# Helpers.

HELPERS = """
import ctypes, os, sys, threading, time
from fastact._parallel import helpers, pool
from fastact._compiler.threads.helpers import STRIDE, Helper

TASK = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 4)
pool.start()
parallel_for = ctypes.CFUNCTYPE(None, TASK, *[ctypes.c_void_p] * 6, ctypes.c_int)(
    pool._fields.parallel_for)
team = helpers.team()
turns = team.turns

def threads_of(wanted, expected, work=10**12):
    # Return the threads that take part in a call, in which each waits for `expected` or for 0.5 s.
    seen = set()
    @TASK
    def task(*_):
        seen.add(threading.get_native_id())
        if threading.get_native_id() != threading.main_thread().native_id:
            team.turns = turns
        end = time.monotonic() + 0.5
        while len(seen) < expected and time.monotonic() < end:
            time.sleep(0.001)
    counts, steps = (ctypes.c_int64 * 1)(wanted), (ctypes.c_int64 * 2)(1, work)
    parallel_for(task, None, counts, steps, None, 0, 1, wanted)
    return seen

def helper(k):
    return Helper.from_address(team.first + k * STRIDE)

def sleeps(k):
    end = time.monotonic() + 5
    while not helper(k).asleep and time.monotonic() < end:
        time.sleep(0.001)
    return bool(helper(k).asleep)
"""

two_cores = pytest.mark.skipif((system.affinity() or 1) < 2, reason="one core only")


@two_cores
def test_helpers_sleep_and_come_when_they_are_woken():
    code = f"""{HELPERS}
threads_of(2, 2)
for _ in range(20):
    assert team.count == 1 and sleeps(0)
    team.turns = 10**9  # it must come because it is woken, not as its spinning ends
    assert len(threads_of(2, 2)) == 2
"""
    run_python(code)


@two_cores
def test_helpers_are_woken_for_enough_work_only():
    code = f"""{HELPERS}
threads_of(2, 2)
assert sleeps(0)
team.work = 0
part = team.worth_waking // 4 + 1
assert [len(threads_of(2, 2, part)) for _ in range(4)] == [1, 1, 1, 2]
assert team.work == 0
"""
    run_python(code)


def test_as_many_helpers_as_are_wanted_and_useful():
    code = f"""{HELPERS}
team.worth_waking = 0
cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 9
for wanted in (3, 2, 9):
    threads_of(wanted, 1)
    assert team.count <= min(8, cores - 1)
assert team.count == min(8, cores - 1)
"""
    run_python(code)


@two_cores
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="affinity cannot be set")
def test_helpers_run_where_their_caller_may_but_not_on_its_cpu():
    code = f"""{HELPERS}
cores = sorted(os.sched_getaffinity(0))[:2]
os.sched_setaffinity(0, cores)
for _ in range(10):
    threads_of(2, 2)
    assert sleeps(0)
(core,) = os.sched_getaffinity(helper(0).thread)
assert core in cores
os.sched_setaffinity(0, [core])  # the helper's core; no other is left for the helper
assert len(threads_of(2, 2)) == 1
assert os.sched_getaffinity(0) == {{core}}
"""
    run_python(code)


# Memory.


@pytest.mark.parametrize(
    "call",
    [
        "fa.sigmoid(x, out=y)",
        "fa.sigmoid(x, out=x)",
        "fa.relu(x[::2], out=y[::2])",
        "fa.softplus(x[::-1], out=y)",
        "fa.sigmoid(h, out=k)",
        "fa.heaviside(x, y, out=y)",
        "fa.softmax(x.reshape(-1, 100), out=y.reshape(-1, 100))",
    ],
)
def test_no_temporary_grows_with_the_operands(call):
    code = f"""
import resource, numpy as np, fastact as fa
n = 8_000_000
x, y = np.ones(n, np.float32), np.ones(n, np.float32)
h, k = np.ones(n, np.float16), np.ones(n, np.float16)
def run(x, y, h, k): {call}
run(x[:900_000], y[:900_000], h[:900_000], k[:900_000])  # compiles, and starts threads
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
run(x, y, h, k)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    run_python(code)  # compiles, since Numba's memory must not count
    assert int(run_python(code)) < 4000  # kilobytes; the operands take 16,000 and more


def test_another_thread_does_part_of_the_work():
    if (system.affinity() or 1) < 2:
        pytest.skip("one core only")
    x = np.ones(1 << 22)
    with fa.num_threads(2):
        fa.softplus(x, out=x)
        for _ in range(50):
            start = time.process_time(), time.thread_time()
            fa.softplus(x, out=x)
            others = time.process_time() - start[0] - (time.thread_time() - start[1])
            if others > 0.1 * (time.thread_time() - start[1]):
                return
    raise AssertionError("the calling thread did all the work")
