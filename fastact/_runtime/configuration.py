"""Versions, machine and settings, for people who report a bug.

Collecting them changes nothing: nothing is compiled, no thread is started, no file is written, and
Numba is not imported. A value that cannot be determined is reported as unknown, with the reason,
since a report is needed most where something is broken.
"""

import importlib.metadata
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastact._machine import system

DEPENDENCIES = ("numpy", "numba", "llvmlite", "platformdirs")
PEERS = (
    *("ml_dtypes", "scipy", "torch", "onnxruntime", "jax", "numexpr", "tbb"),
    *("scikit-learn", "pandas", "xarray", "dask", "matplotlib"),
)
"""Distributions with their own arrays or threads that may be used in the same process."""

SETTINGS = ("FASTACT_", "NUMBA_", "OMP_NUM_THREADS")
"""Prefixes of the environment variables that change which code is made, or how it runs."""


def show_config(mode: str = "stdout") -> dict[str, dict[str, Any]] | None:
    """Show versions, machine and settings that matter to this package.

    It compiles nothing and starts no thread. ``python -m fastact info`` prints the same.

    Parameters
    ----------
    mode : {"stdout", "dicts"}, optional
        Whether to print the report, or to return it as a dictionary of dictionaries.

    Returns
    -------
    dict or None
        The sections by name, if `mode` is "dicts". They contain strings, numbers, lists, booleans
        and None. A value that cannot be determined is a string that begins with "unknown".

    Raises
    ------
    ValueError
        If `mode` is neither.

    Examples
    --------
    >>> import fastact as fa
    >>> config = fa.show_config("dicts")
    >>> list(config)
    ['versions', 'machine', 'code', 'threads', 'cache', 'environment']
    >>> config["threads"]["threads"] == fa.get_num_threads()
    True
    """
    if mode not in ("stdout", "dicts"):
        raise ValueError(f"show_config: mode must be 'stdout' or 'dicts', got {mode!r}")
    report = collect()
    if mode == "dicts":
        return report
    print(as_text(report))
    return None


def collect() -> dict[str, dict[str, Any]]:
    """The whole report, by section; it can be written as JSON."""
    from fastact import __version__

    return {
        "versions": {
            "fastact": f"{__version__} in {Path(__file__).parents[1]}",
            "Python": f"{platform.python_version()} ({platform.python_implementation()})",
            "LLVM": _known(_llvm_version),
            **_versions(),
        },
        "machine": {
            "system": _known(platform.platform),
            "processor": _known(system.cpu_model),
            "cores": _known(os.cpu_count),
            "cores by affinity": _known(system.affinity),
            "cores by cgroup": _known(system.cgroup_limit),
        },
        "code": _known(_target),
        "threads": _known(_threads_state),
        "cache": _known(_cache_state),
        "environment": {k: v for k, v in sorted(os.environ.items()) if k.startswith(SETTINGS)},
    }


def as_text(report: dict[str, Any]) -> str:
    """The report as lines, with a column of names and one of values."""
    lines = []
    for section, content in report.items():
        rows = content if isinstance(content, dict) else {"": content}
        lines.append(section)
        lines += [f"  {name:18} {_as_text(value)}".rstrip() for name, value in rows.items()]
        lines += ["  none"] * (not rows)
    return "\n".join(lines)


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " ".join(value) or "none"
    return "no limit" if value is None else str(value)


def _known(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except Exception as reason:
        return _unknown(reason)


def _unknown(reason: Exception) -> str:
    return f"unknown ({type(reason).__name__}: {reason})"


def _versions() -> dict[str, str]:
    """The versions of dependencies and of installed peers; none of them is imported."""
    versions = {}
    for name in (*DEPENDENCIES, *PEERS):
        try:
            versions[name] = importlib.metadata.version(name) or "unknown"
        except importlib.metadata.PackageNotFoundError:
            if name in DEPENDENCIES:
                versions[name] = "not installed"
        except Exception as reason:
            versions[name] = _unknown(reason)
    return versions


def _llvm_version() -> str:
    import llvmlite.binding

    return ".".join(map(str, llvmlite.binding.llvm_version_info))


def _cache_state() -> dict[str, Any]:
    from fastact._loading.cache import state

    return state()


def _threads_state() -> dict[str, Any]:
    from fastact._parallel import counts, pool

    state = pool.foreseen()
    return {
        "threads": counts.get_num_threads(),
        "layer": state.layer + (f" ({state.reason})" if state.reason else ""),
    }


def _target() -> dict[str, Any]:
    """The machine that code is made for."""
    from fastact._compiler.host import host
    from fastact._machine import cpu

    target = host()
    available = target.features.split(",")
    return {
        cpu.VARIABLE: cpu.chosen(os.environ),
        "triple": target.triple,
        "processor": target.cpu,
        "features": [name for name in target.instructions.reported if f"+{name}" in available],
        "vector bits": target.vector_bits,
        "vectors at a time": target.interleave,
        "fused multiply-add": target.has_fma,
        "half conversions": target.has_half,
    }
