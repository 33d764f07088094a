"""Type checkers know the types of the ufuncs."""

import subprocess
import sys

from conftest import ROOT


def check(*arguments):
    # All with the options of the configuration: with others, such as --follow-imports, each test
    # would discard what the last one has kept in mypy's cache, which takes 10 s to make.
    command = [sys.executable, "-m", "mypy", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def test_real_calls_are_accepted():
    check("--strict", "tests/declarations/typed_calls.py")


def test_configured_files_pass():
    """The files of ``[tool.mypy]``, strictly."""
    check()


def test_file_hidden_by_the_stub_passes():
    """Checked with all others, ``fastact/__init__.py`` would hide ``__init__.pyi`` instead."""
    check("fastact/__init__.py")
