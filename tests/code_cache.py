"""Caches of machine code for tests, and programs that use one."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from kinds import TYPICAL

import fastact
from fastact._declarations.records import FAST, NORMALIZATIONS, OBJECTIVES, ROW_ACTIVATIONS
from fastact._loading import cache
from fastact._machine.targets import BASELINES

ROOT = str(Path(fastact.__file__).parents[1])
CODE = bytes(range(256)) * 8
posix = pytest.mark.skipif(os.name != "posix", reason="owners and modes are those of POSIX")


class Kept:
    """A cache with entries that are never run, and a count of how often they have been made."""

    def __init__(self, folder, source):
        self.folder, self.source, self.built = folder, source, 0
        self.arguments = {
            "name": "some-thing",
            "sources": [str(source)],
            "imported": time.time_ns() + 10**12,
            "target": BASELINES["x86-64-v3"],
            "options": "",
        }

    def get(self, code=CODE, **changes):
        """Return the code, and whether it had to be made."""
        cache._content.cache_clear()  # as in a new process
        before = self.built

        def build():
            self.built += 1
            return code

        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FASTACT_CACHE_DIR", str(self.folder))
            code = cache.object_code(**self.arguments | changes, build=build)
        cache.warn_of_trouble()
        return code, self.built > before

    def entry(self):
        (path,) = self.folder.glob("*.code")
        return path

    def reset(self):
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def one_warning(*words):
    """Expect one warning, about the first reason, however many reasons there are."""
    with pytest.warns(RuntimeWarning) as caught:
        yield
    assert len(caught) == 1
    for word in words:
        assert word in str(caught[0].message)


CODES = {
    name: "efd" + "bBhHiIlLqQ" * getattr(declared, "keeps_integers", False)
    for name, declared in {
        **TYPICAL,
        **FAST,
        **ROW_ACTIVATIONS,
        **NORMALIZATIONS,
        **OBJECTIVES,
    }.items()
}

USE_ALL = """
import json, sys
import ml_dtypes, numpy as np, fastact
from fastact._declarations.declare import ufunc_of

results = {}
for name, codes in <CODES>.items():
    function = ufunc_of(name)
    for dtype in [*map(np.dtype, codes), np.dtype(ml_dtypes.bfloat16)]:
        x = [np.arange(100).astype(dtype)[::-1]] * function.nin
        results[f"{name} {dtype.char}"] = np.stack([function(*x)]).tobytes().hex()
for dtype in "fd":
    for columns in range(1, 17):
        layer = fastact.Dense(np.ones((3, columns), dtype), activation="tanh")
        results[f"Dense {dtype} {columns}"] = layer(np.ones(3, dtype)).tobytes().hex()
    for activation in ("silu", "tanh"):
        layer = fastact.Gated(*np.ones((2, 3, 16), dtype), activation)
        results[f"Gated {dtype} {activation}"] = layer(np.ones(3, dtype)).tobytes().hex()
print(json.dumps([sorted({"numba", "llvmlite"} & set(sys.modules)), results]))
""".replace("<CODES>", str(CODES))


USE_SEVERAL_TYPES = """
import json
import numpy as np, fastact
from fastact._runtime import engine
from fastact._machine.formats import CONVERSIONS, FLOATS

x, i = np.ones(3, "f"), np.arange(3)
used = [fastact.sigmoid(i), fastact.heaviside(x, i), fastact.logistic_grad_hess(x, i)[0]]
used += [fastact.prelu_backward(x, i, i)[0]]
used += [fastact.softmax(i), fastact.softmax_backward(x, i)]
floats = FLOATS.values()
for pair in CONVERSIONS:
    if pair[1] in floats and (pair[0] != pair[1] or pair[1].bits > 16):
        used.append(engine.convert_addresses(*pair))
print(json.dumps([str(one) for one in used]))
"""

USE = """
import json, sys, warnings
import numpy as np
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import fastact
    y = fastact.relu(np.float32([-1, 2])), fastact.step(np.float32([-1, 2]))
print(json.dumps([np.array(y).tolist(), [str(w.message) for w in caught]]))
"""


def use(*prefix, code=USE, cwd=None, **environment):
    """Run `code` in a process started by the command `prefix`; return the completed process."""
    environment = os.environ | {"PYTHONPATH": ROOT} | environment
    return subprocess.run(
        [*prefix, sys.executable, "-c", code],
        cwd=cwd,
        env={k: v for k, v in environment.items() if v is not None},
        capture_output=True,
        text=True,
        timeout=300,
    )


def assert_works_uncached(done, *words):
    assert done.returncode == 0 and done.stderr == "", done.stderr
    result, caught = json.loads(done.stdout)
    assert result == [[0, 2], [0, 1]]
    assert len(caught) == 1
    for word in words:
        assert word in caught[0]


def in_four_threads(work):
    start = threading.Barrier(4)

    def at_once():
        start.wait()
        work()

    threads = [threading.Thread(target=at_once) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
