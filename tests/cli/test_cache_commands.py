"""``fastact warmup`` and ``fastact cache``."""

import json
import os
import subprocess
import sys
import types

import pytest
from code_cache import USE_ALL, USE_SEVERAL_TYPES, posix
from conftest import ROOT, run_python

from fastact.__main__ import main
from fastact._cli import warmup
from fastact._compiler import host as host_module
from fastact._compiler.gemm.interface import lanes_for
from fastact._declarations.records import FAST, OBJECTIVES, along_rows, element_wise
from fastact._loading import cache, loader
from fastact._machine.formats import FLOATS


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    output = capsys.readouterr()
    assert output.out == ""
    return output.err


def command(*arguments):
    return run_python(f"import fastact.__main__ as m, sys; sys.exit(m.main({list(arguments)}))")


def test_warmup(kept):
    warm = ("warmup", "relu", "heaviside", "--dtypes", "float32", "int8")
    assert command(*warm).startswith("11 ready, 11 of them compiled in ")
    names = {entry.name for entry in cache.entries()}
    loops = {"relu-float32", "relu-int8", "heaviside-float32", "heaviside-float64"}
    conversions = {"convert-int8-float32", "convert-int8-float64", "convert-float32-float64"}
    assert names == loops | conversions | {"helpers", "direct-call", "mixed-1-1", "mixed-2-1"}
    assert command(*warm).startswith("11 ready, 0 of them compiled in ")
    code = "import sys, numpy as np, fastact; fastact.relu(np.int8([1])); print(*sys.modules)"
    assert "numba" not in run_python(code).split()


def test_warmup_does_not_count_what_another_process_makes(kept):
    warm = ["warmup", "relu", "--dtypes", "float32"]
    command(*warm)
    code = f"""
import fastact.__main__ as m
from fastact._cli import warmup
def meanwhile(jobs):
    open({str(kept.folder / f"step-float32-{0:032x}.code")!r}, "w").close()
    return jobs
warmup._progress = meanwhile
m.main({warm})
"""
    assert run_python(code).startswith("5 ready, 0 of them compiled in ")
    assert len(cache.entries()) == 6


def test_warmup_knows_everything():
    run_python(USE_ALL)
    count = sum(4 + 8 * declared.keeps_integers for declared in element_wise().values())
    count += 4 * len([*FAST, *along_rows(), *OBJECTIVES])
    host = host_module.host()
    for form in (FLOATS["float32"], FLOATS["float64"]):
        count += len({lanes_for(columns, form, host) for columns in range(1, 17)})
        count += 1  # the product of gated layers
    # Weights in int8, for each number of lanes, and in the two 16-bit formats.
    count += len({lanes_for(n, FLOATS["float32"], host) for n in range(1, 17)}) + 2
    run_python("from fastact._parallel import helpers; helpers.helper_addresses()")
    count += (
        3  # and direct calls, made with the first function, and calls of layers, with the first
    )
    used = json.loads(run_python(USE_SEVERAL_TYPES))
    count += len(used)
    assert command("warmup").startswith(f"{count} ready, ")
    assert command("warmup").startswith(f"{count} ready, 0 of them compiled in ")


def test_warmup_refuses(kept, capsys, monkeypatch):
    error = refused(capsys, "warmup", "relu", "swoosh", "gelu2")
    assert "'swoosh', 'gelu2'" in error
    for name in element_wise():
        assert name in error
    error = refused(capsys, "warmup", "--dtypes", "complex64")
    assert "'complex64'" in error and "bfloat16" in error and "int8" in error
    monkeypatch.setenv("FASTACT_CACHE", "0")
    assert "FASTACT_CACHE" in refused(capsys, "warmup")


@pytest.mark.parametrize("error", [ValueError, RuntimeError])
def test_warmup_reports_errors_of_the_host(kept, capsys, monkeypatch, error):
    def host():
        raise error("FASTACT_CPU must be less")

    monkeypatch.setattr(loader, "host", host)
    message = "python -m fastact warmup: error: FASTACT_CPU must be less\n"
    assert refused(capsys, "warmup", "relu") == message


def test_warmup_without_numba(kept, capsys, monkeypatch):
    def without(*_):
        raise ModuleNotFoundError("No module named 'numba'")

    monkeypatch.setitem(warmup.UFUNCS, "relu", types.SimpleNamespace(nin=1, nout=1, signature=None))
    monkeypatch.setattr(warmup, "partial", lambda *_, **__: without)
    message = "error: compiling needs Numba and llvmlite (No module named 'numba')\n"
    assert refused(capsys, "warmup", "relu", "--dtypes", "int8").endswith(message)


def test_warmup_fails_where_nothing_is_kept(kept):
    kept.folder.mkdir()
    kept.folder.chmod(0o777)
    code = "import fastact.__main__ as m; print(m.main(['warmup', 'relu', '--dtypes', 'float32']))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "1\n"
    assert "RuntimeWarning" in done.stderr and str(kept.folder) in done.stderr


def test_cache_command(kept, capsys):
    assert main(["cache", "path"]) == 0
    assert capsys.readouterr().out == f"{kept.folder}\n"
    assert main(["cache", "clear"]) == 0
    assert capsys.readouterr().out.startswith("0 files removed")
    kept.get()
    kept.get(name="another")
    foreign = kept.folder / "foreign.code"
    foreign.write_text("")
    size = sum(path.stat().st_size for path in kept.folder.iterdir())
    for arguments in (["cache"], ["cache", "info"]):
        assert main(arguments) == 0
        report = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
        assert report["folder"] == str(kept.folder)
        assert (report["entries"], report["bytes"]) == ("2", str(size))
    assert main(["cache", "clear"]) == 0
    assert capsys.readouterr().out == f"2 files removed from {kept.folder}\n"
    assert list(kept.folder.iterdir()) == [foreign]
    assert "'path'" in refused(capsys, "cache", "empty")


def test_state_of_the_cache(kept, monkeypatch):
    assert cache.state()["in use"] == "yes"
    assert not kept.folder.exists()
    kept.get()
    assert cache.state()["in use"] == "yes"
    kept.folder.chmod(0o777)
    assert "written to by others" in cache.state()["in use"]
    kept.folder.chmod(0o755)
    monkeypatch.setenv("FASTACT_CACHE_DIR", "/dev/null/cache")
    assert cache.state()["in use"] == "no: /dev/null is not a folder"
    monkeypatch.setenv("FASTACT_CACHE_DIR", str(kept.folder / "a" / "b"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode: path != str(kept.folder))
        assert cache.state()["in use"] == f"no: it cannot be made in {kept.folder}"
    monkeypatch.setenv("FASTACT_CACHE", "0")
    assert cache.state()["in use"] == "no: FASTACT_CACHE is 0"


@posix
@pytest.mark.parametrize("home", [None, "", "rel"])
def test_commands_of_a_user_without_home(kept, monkeypatch, capsys, home):
    for variable in ("FASTACT_CACHE_DIR", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(variable, raising=False)
    if home is not None:
        monkeypatch.setenv("HOME", home)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    for arguments in (["cache"], ["cache", "path"], ["cache", "clear"], ["warmup", "relu"]):
        error = refused(capsys, *arguments)
        assert error.startswith(f"python -m fastact {arguments[0]}: error: the platform's folder")
        assert error.count("\n") == 1
    assert cache.state()["in use"].startswith("no: the platform's folder for caches")
