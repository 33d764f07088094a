"""What results depend on: the machine, the version of Python and the commit."""

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm

from fastact._machine import cpu

ROOT = Path(__file__).parents[1]

LIMITS = (
    "ATEN_CPU_CAPABILITY",
    "MKL_ENABLE_INSTRUCTIONS",
    "NPY_DISABLE_CPU_FEATURES",
    "ONEDNN_MAX_CPU_ISA",
    "OPENBLAS_CORETYPE",
)
"""Variables that limit the instructions of other libraries. They can be set for a whole machine
without its user's knowledge, and would make a comparison unfair."""

CPUID = "CPUID"
"""The instruction that says what a processor can do."""


def cpu_model() -> str:
    """The name of the processor, from /proc/cpuinfo if it has one."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def cores() -> set[int]:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def commit() -> str | None:
    """The commit of the working tree, marked if files differ from it."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=12", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None  # this is not a clone, or git is not installed
    return done.stdout.strip()


def limits() -> dict[str, str]:
    """What other libraries do not use of the processor, by what limits them."""
    found = {name: os.environ[name] for name in LIMITS if name in os.environ}
    cpuinfo = Path("/proc/cpuinfo")  # the kernel's knowledge; see without_avx512.py
    known = cpuinfo.read_text().split() if cpuinfo.exists() else []
    if "avx512f" in known and not llvm.get_host_cpu_features().get("avx512f"):
        found[CPUID] = "no-avx512"
    return found


def describe() -> dict[str, Any]:
    """The machine and the commit, for a result file."""
    features = llvm.get_host_cpu_features()
    return {
        "platform": platform.platform(),
        "cpu": cpu_model(),
        "level": cpu.chosen(os.environ),
        "limits": limits(),
        "features": sorted(name for name, has in features.items() if has),
        "cores": len(cores()),
        "python": platform.python_version(),
        "commit": commit(),
    }
