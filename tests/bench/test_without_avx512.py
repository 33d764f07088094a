"""Libraries measured without AVX-512 do not use it, and the results say so."""

import json
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from bench import results, without_avx512

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="Linux on x86-64 only"
)

FLAGS = Path("/proc/cpuinfo").read_text().split() if sys.platform == "linux" else []

can_hide = pytest.mark.skipif("cpuid_fault" not in FLAGS, reason="the processor always answers")

PROBE = """
import json, sys
from numpy._core._multiarray_umath import __cpu_features__ as known_to_numpy
import llvmlite.binding as llvm
from fastact._compiler import host

known = known_to_numpy | llvm.get_host_cpu_features()
names = sorted(name.lower() for name, has in known.items() if has)
print(json.dumps([names, host.host().vector_bits, sys.argv[1:]]))
"""


def run(module, *arguments, folder=""):
    return subprocess.run(
        [sys.executable, "-m", "bench.without_avx512", module, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(folder)},
        timeout=300,
    )


@can_hide
def test_nobody_sees_avx512(tmp_path):
    (tmp_path / "probe.py").write_text(PROBE)
    done = run("probe", "one", "two", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    names, bits, arguments = json.loads(done.stdout)
    assert {"avx2", "fma"} <= set(names)
    assert not [name for name in names if name.startswith(("avx512", "avx10", "amx"))]
    assert bits == 256
    assert arguments == ["one", "two"]


@can_hide
@pytest.mark.skipif("avx512f" not in FLAGS, reason="there is nothing to hide")
def test_results_say_so(tmp_path):
    small = ["--functions", "relu", "--dtypes", "float32", "--sizes", "64", "--shapes", "8x8x8"]
    output = str(tmp_path / "out")
    done = run(
        *("bench", *small, "--repetitions", "1", "--no-accuracy", "--libraries", "numpy"),
        *("--output", output),
    )
    assert done.returncode == 0, done.stderr
    found = results.read(tmp_path / "out/results.json")
    assert found.machine["limits"]["CPUID"] == "no-avx512"
    assert "CPUID=no-avx512" in (tmp_path / "out/report.md").read_text()
    assert found.rows and not found.scaling
    done = run("bench", *small, "--parts", "threads", "--output", output)
    assert done.returncode == 2
    assert "--parts threads starts processes" in done.stderr


@can_hide
def test_other_faults_still_end_the_process(tmp_path):
    (tmp_path / "fault.py").write_text("import ctypes; ctypes.string_at(0)")
    assert run("fault", folder=tmp_path).returncode == -signal.SIGSEGV


def test_refused_elsewhere(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(OSError, match="only Linux on x86-64 can hide"):
        without_avx512.hide()


def test_a_module_is_needed():
    done = subprocess.run(
        [sys.executable, "-m", "bench.without_avx512"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr == "usage: python -m bench.without_avx512 MODULE [ARGUMENT ...]\n"
