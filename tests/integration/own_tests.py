"""The tests that a library has of itself, run with our patch, which counts calls."""

import collections
import functools
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent

calls = collections.Counter()


def counting(function, name):
    """`function`, whose calls are counted by `name`; for plugins of pytest."""

    @functools.wraps(function)
    def counted(*args, **kwargs):
        calls[name] += 1
        return function(*args, **kwargs)

    return counted


def pytest_terminal_summary(terminalreporter):
    """The hook of pytest, for plugins that import it."""
    for name, count in calls.items():
        terminalreporter.write_line(f"calls of {name}: {count}")


def run(plugin, modules, folder):
    """The number of tests that passed, and of calls by name.

    They run in `folder`, without our settings of pytest, and with a plugin of this folder.
    """
    options = ["-c", os.devnull, f"--rootdir={folder}", "-p", "no:cacheprovider", "-q"]
    path = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-p", plugin, "--pyargs", *modules],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    passed = int(re.search(r"(\d+) passed", done.stdout)[1])
    return passed, dict(re.findall(r"^calls of (.*): (\d+)$", done.stdout, re.MULTILINE))
