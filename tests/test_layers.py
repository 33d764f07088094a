"""The contracts on imports between packages hold, and detect imports that are not allowed."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT


def lint(folder):
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


def test_contracts_hold():
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("_loading/loader", "from fastact._runtime import engine"),
        (
            "_loading/loader",
            "def later():\n    from fastact._runtime import engine\n    return engine",
        ),
        ("_compiler/pipeline", "def later():\n    import numba\n    return numba"),
        ("_machine/targets", "import llvmlite"),
    ],
    ids=["at the top", "inside a function", "Numba", "LLVM"],
)
def test_an_import_that_is_not_allowed_is_found(tmp_path, module, line):
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "fastact", tmp_path / "fastact", ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    path = tmp_path / "fastact" / f"{module}.py"
    path.write_text(f"{path.read_text()}\n\n{line}\n")
    done = lint(tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "fastact" in done.stdout and "BROKEN" in done.stdout
