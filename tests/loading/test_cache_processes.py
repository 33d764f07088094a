"""Several threads and processes use one cache, and some are killed."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from code_cache import USE_ALL, in_four_threads, posix
from conftest import ROOT, run_python

from fastact._compiler import frontend
from fastact._declarations.records import ACTIVATIONS
from fastact._runtime import engine

KILLED = """
import os, signal, sys
from fastact._loading import cache, whole_file
from fastact._machine.targets import BASELINES

LINES = {whole_file.write.__code__, cache._evict.__code__}

def kill_at(line):
    left = line
    def trace(frame, event, argument):
        nonlocal left
        if frame.f_code not in LINES:
            return None
        if event == "line":
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
        return trace
    sys.settrace(trace)

def store():
    build = lambda: b"c" * 9999
    cache.object_code("thing", [cache.__file__], 2**63, BASELINES["aarch64"], "", build)

for line in range(99):
    child = os.fork()
    if child == 0:
        kill_at(line)
        store()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print(os.WTERMSIG(status), flush=True)
    made = 0
    def build():
        global made
        made += 1
        return b"c" * 9999
    code = cache.object_code("thing", [cache.__file__], 2**63, BASELINES["aarch64"], "", build)
    assert code == b"c" * 9999
    cache.object_code("thing", [cache.__file__], 2**63, BASELINES["aarch64"], "", build)
    assert made <= 1
    if status == 0:
        break
    for entry in cache.entries():
        os.unlink(entry.path)
"""


@posix
def test_killed_before_any_line_while_writing(kept):
    """The next process works, whatever files the killed one has left."""
    kept.folder.mkdir()
    signals = run_python(KILLED).split()
    assert signals[-1] == "0"
    assert len(signals) > 12
    assert set(signals[:-1]) == {str(signal.SIGKILL.value)}
    left = list(kept.folder.glob("*.tmp"))
    assert left  # some processes were killed while they wrote
    for path in left:
        os.utime(path, (1, 1))
    kept.get()
    assert not list(kept.folder.glob("*.tmp"))


SIXTEEN = """
import os, sys, warnings
import numpy as np
import fastact

# Import Numba once for all processes: its import takes longer than the calls to be tested.
os.environ["FASTACT_CACHE"] = "0"
fastact.heaviside(np.float32(1), np.float32(1))
os.environ["FASTACT_CACHE"] = "1"

x = np.linspace(-9, 9, 50, dtype=np.float32)
read, write = os.pipe()
children = []
for k in range(16):
    child = os.fork()
    if child == 0:
        os.close(write)
        os.read(read, 1)  # until all processes exist
        try:
            for function in [fastact.relu, fastact.step][:: 1 if k % 2 else -1]:
                y = {"relu": np.maximum(x, 0), "step": x >= 0}[function.__name__]
                np.testing.assert_array_equal(function(x), y)
        except BaseException as error:
            sys.stderr.write(repr(error))
            os._exit(1)
        os._exit(0)
    children.append(child)
os.close(read)
os.close(write)
print([os.waitpid(child, 0)[1] for child in children])
"""


@posix
def test_sixteen_processes_start_cold(kept):
    assert run_python(SIXTEEN) == f"{[0] * 16}\n"
    names = sorted(path.name.split("-")[0] for path in kept.folder.iterdir())
    assert names == ["direct", "relu", "step"]  # and what both use
    code = "import sys, numpy as np, fastact as f; f.relu(np.float32(f.step(np.float32(1))))"
    assert "numba" not in run_python(f"{code}; print(*sys.modules)").split()


def run_at_once(code, count):
    """Run `code` in `count` processes at the same time; return what each prints."""
    command = [sys.executable, "-W", "error", "-c", code]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    children = [subprocess.Popen(command, env=environment, **pipes) for _ in range(count)]
    ends = [child.communicate(timeout=900) for child in children]
    assert {errors for _, errors in ends} == {""}
    assert {child.returncode for child in children} == {0}
    return [output for output, _ in ends]


@pytest.mark.exhaustive
def test_sixteen_whole_processes_start_cold(kept):
    # In one dtype only: every function took 200 s on two cores.
    some = USE_ALL
    for all_of_them, instead in {
        "map(np.dtype, codes)": 'map(np.dtype, "f")',
        "range(1, 17)": "(16,)",
    }.items():
        assert all_of_them in some
        some = some.replace(all_of_them, instead)
    printed = run_at_once(some, 16)
    assert len({json.dumps(json.loads(output)[1]) for output in printed}) == 1
    assert not list(kept.folder.glob("*.tmp"))


CROWD = """
import sys, time
from fastact._loading import cache
from fastact._machine.targets import BASELINES

cache.LIMIT = 30_000
end = time.monotonic() + 2
turn = built = 0
while time.monotonic() < end:
    turn += 1
    name = f"thing{turn % 7}"
    def build():
        global built
        built += 1
        return name.encode() * 1000
    code = cache.object_code(name, [cache.__file__], 2**63, BASELINES["aarch64"], "", build)
    assert code == name.encode() * 1000
assert cache.trouble is None, cache.trouble
print(turn, built)
"""


def test_several_processes_write_read_and_evict(kept):
    """Processes replace and remove entries that others are reading."""
    for output in run_at_once(CROWD, 4):
        turns, built = map(int, output.split())
        assert 0 < built < turns
    assert not list(kept.folder.glob("*.tmp"))


@pytest.fixture
def made(monkeypatch):
    """A list with an item for each kernel that has been compiled."""
    made, compile_kernel = [], frontend.scalar_ir
    monkeypatch.setattr(frontend, "scalar_ir", lambda *a: made.append(a) or compile_kernel(*a))
    return made


def test_threads_compile_once(monkeypatch, fresh, made):
    monkeypatch.setenv("FASTACT_CACHE", "0")
    monkeypatch.setattr(engine, "loop_address", engine.loop_address.__wrapped__)
    function = fresh(ACTIVATIONS["relu"])
    in_four_threads(lambda: function(np.ones(3, np.float32)))
    assert len(made) == 1


def test_threads_that_ask_for_one_entry_compile_once(kept, made):
    kernel = ACTIVATIONS["relu"].kernel
    in_four_threads(lambda: engine.loop_address(kernel, 1, type(np.dtype("f"))))
    assert len(made) == 1
    assert kept.entry().name.startswith("relu-float32-")
