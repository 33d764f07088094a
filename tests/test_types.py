"""Type checkers see the ufuncs as they are."""

import subprocess
import sys

from conftest import ROOT


def test_real_calls_are_accepted():
    """Errors elsewhere in the package are its own affair, as they are for users of a wheel."""
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent"]
    done = subprocess.run(
        [*command, "tests/typed_calls.py"], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_listed_passes():
    """The files of ``[tool.mypy]``, strictly."""
    done = subprocess.run(
        [sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_the_stub_hides_passes():
    """``fastact/__init__.py``: checked with all others, it would hide ``__init__.pyi`` instead."""
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "fastact/__init__.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
