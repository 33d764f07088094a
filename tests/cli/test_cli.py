"""The command line: its output, its errors, and the correctness of its graphs."""

import functools
import importlib.metadata
import io
import itertools
import json
import os
import platform
import re
import subprocess
import sys
import xml.etree.ElementTree
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import mpmath
import numpy as np
import pytest
from conftest import ROOT, run_python
from hypothesis import assume, example, given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg

import fastact
from fastact.__main__ import VERBS, main
from fastact._cli import _curve, _figure, plot
from fastact._declarations.records import ACTIVATIONS
from fastact._loading import whole_file
from fastact._machine import system

UNARY = [name for name, declared in ACTIVATIONS.items() if declared.nin == 1]
DRAWN = [name for name in UNARY if getattr(fastact, name).signature is None]
STARTS = {".pdf": b"%PDF-", ".png": b"\x89PNG\r\n", ".svg": b"<?xml"}


def refused(capsys, *arguments):
    """Return what is printed to stderr before the exit with status 2; stdout must stay empty."""
    with pytest.raises(SystemExit) as exit_:
        main([str(argument) for argument in arguments])
    assert exit_.value.code == 2
    output = capsys.readouterr()
    assert output.out == ""
    return output.err


# The command in general.


def test_importing_is_light():
    heavy = {"argparse", "matplotlib", "fastact.__main__", "fastact._cli"}
    assert run_python(f"import fastact, sys; print({heavy} & set(sys.modules))") == "set()\n"


def test_no_verb_prints_help(capsys):
    assert main([]) == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: python -m fastact ")
    for verb in VERBS:
        assert re.search(rf"^ +{verb.__name__.rpartition('.')[2]} +\w", out, re.MULTILINE)


def test_version(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"fastact {fastact.__version__}\n"


def test_unknown_verb(capsys):
    message = refused(capsys, "polt")
    assert "'polt'" in message
    assert all(verb.__name__.rpartition(".")[2] in message for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.__name__)
def test_help_of_a_verb(verb, capsys):
    with pytest.raises(SystemExit) as exit_:
        main([verb.__name__.rpartition(".")[2], "--help"])
    assert exit_.value.code == 0
    assert verb.SUMMARY in capsys.readouterr().out


def command(*arguments, prefix=(), options=(), **environment):
    """Run the command line in a new process, started by the command `prefix`."""
    return subprocess.run(
        [*prefix, sys.executable, *options, "-m", "fastact", *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


CALLS = {
    "help": ["--help"],
    "info": ["info"],
    "cache": ["cache"],
    "warmup": ["warmup", "relu", "--dtypes", "float32"],
    "plot": ["plot", "relu", "-o", "relu.svg"],
}


@pytest.mark.parametrize("arguments", CALLS.values(), ids=CALLS)
def test_without_docstrings(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = command(*arguments, options=["-OO"])
    assert (done.returncode, done.stderr) == (0, "")
    if arguments == ["--help"]:
        for verb in VERBS:
            assert verb.SUMMARY[1:].rstrip(".") in " ".join(done.stdout.split())


# Not plot: matplotlib itself reads text without an encoding.
@pytest.mark.parametrize("name", sorted(set(CALLS) - {"plot"}))
def test_where_text_without_an_encoding_is_an_error(name):
    command(*CALLS[name])  # compiles; Numba reads such text, too
    done = command(*CALLS[name], options=["-X", "warn_default_encoding", "-W", "error"])
    assert (done.returncode, done.stderr) == (0, "")
    assert "unknown (" not in done.stdout


# Output that cannot be written.

REDIRECTED = {
    "full": (">/dev/full", "No space left on device"),
    "closed": (">&-", "Bad file descriptor"),
    "no reader": ("| true", None),  # the reader has closed the pipe, which is not reported
}
WRITERS = {"version": "--version", "verb's help": "cache --help", "path": "cache path"}
WRITERS |= {name: " ".join(call) for name, call in CALLS.items() if name != "plot"}


# Without a buffer, the first call of print fails, or the one that argparse makes.
UNBUFFERED = ("version", "info")


@pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")
@pytest.mark.parametrize(("where", "reason"), REDIRECTED.values(), ids=REDIRECTED)
@pytest.mark.parametrize(
    ("arguments", "unbuffered"),
    [
        *(pytest.param(call, "", id=f"{name}-buffered") for name, call in WRITERS.items()),
        *(pytest.param(WRITERS[name], "1", id=f"{name}-unbuffered") for name in UNBUFFERED),
    ],
)
def test_output_that_cannot_be_written(where, reason, arguments, unbuffered):
    if "full" in where and not os.path.exists("/dev/full"):
        pytest.skip("no device that is always full")
    # A pipeline returns the status of its last command, so the script prints this status itself.
    script = f'{{ "$0" -m fastact {arguments}; echo $? >&3; }} 3>&2 {where}'
    if where == "| true":  # the reader has to end first
        script = f'{{ sleep 0.1; "$0" -m fastact {arguments}; echo $? >&2; }} | true'
    done = subprocess.run(
        ["sh", "-c", script, sys.executable],
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": unbuffered},
        capture_output=True,
        text=True,
        timeout=300,
    )
    expected = f"python -m fastact: error: cannot write the output: {reason}\n" if reason else ""
    assert (done.stdout, done.stderr) == ("", expected + "1\n")


@pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")
@pytest.mark.parametrize("where", ["2>&-", "2>/dev/full"])
@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
def test_errors_that_cannot_be_shown(where, unbuffered):
    """The exit status is the same as usual."""
    if "full" in where and not os.path.exists("/dev/full"):
        pytest.skip("no device that is always full")
    calls = {"info": 0, "warmup relu --dtypes float32": 0, "warmup tanhh": 2, "nonsense": 2}
    for arguments, status in calls.items():
        done = subprocess.run(
            ["sh", "-c", f'"$0" -m fastact {arguments} {where}', sys.executable],
            env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": unbuffered},
            capture_output=True,
            timeout=300,
        )
        assert (done.returncode, done.stderr) == (status, b"")


# Invalid settings.

SETTINGS = {
    "FASTACT_NUM_THREADS": ("x", "a number of threads from 1 to 32768, got 'x'"),
    "FASTACT_THREADING_LAYER": ("omp", "one of fastact, tbb, got 'omp'"),
}


@pytest.mark.parametrize("variable", SETTINGS)
@pytest.mark.parametrize("arguments", [["info"], ["--help"], ["cache", "path"], []], ids=str)
def test_invalid_settings_are_refused(variable, arguments):
    value, wanted = SETTINGS[variable]
    done = command(*arguments, **{variable: value})
    expected = f"python -m fastact: error: {variable} must be {wanted}\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", expected)


@pytest.mark.parametrize("how", ["-mfastact", "-Bmfastact"])
def test_invalid_settings_are_refused_however_the_command_is_started(how):
    done = subprocess.run(
        [sys.executable, how, "cache", "fastact"],
        env=os.environ | {"PYTHONPATH": str(ROOT), "FASTACT_NUM_THREADS": "0"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("python -m fastact: error: ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", ["-m notfastact", "-m fastact._machine.formats", "-c import fastact"]
)
def test_other_programs_get_the_exception(arguments, tmp_path):
    (tmp_path / "notfastact").mkdir()
    (tmp_path / "notfastact" / "__init__.py").write_text("import fastact")
    (tmp_path / "notfastact" / "__main__.py").write_text("")
    done = subprocess.run(
        [sys.executable, *arguments.split(" ", 1), "fastact"],
        env=os.environ
        | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}", "FASTACT_NUM_THREADS": "0"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ValueError: FASTACT_NUM_THREADS must be" in done.stderr


# info


def test_info_as_text_and_json(capsys, monkeypatch):
    monkeypatch.setenv("FASTACT_SOMETHING", "in the way")
    assert main(["info"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert main(["info", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    headings = [line for line in lines if not line.startswith(" ")]
    assert headings == list(report)
    shown = [line.split() for line in lines]
    assert ["numpy", np.__version__] in shown
    assert ["FASTACT_SOMETHING", "in", "the", "way"] in shown
    assert report["versions"]["fastact"].split()[0] == fastact.__version__
    assert report["versions"]["Python"].startswith(platform.python_version())
    for name in ("numpy", "numba", "llvmlite", "scipy", "matplotlib"):
        assert report["versions"][name] == __import__(name).__version__
    assert report["machine"]["cores"] == os.cpu_count()
    assert report["code"]["vector bits"] in (128, 256, 512)
    assert report["environment"]["FASTACT_SOMETHING"] == "in the way"


def test_info_needs_neither_numba_nor_a_compiler():
    code = """
import sys
from fastact.__main__ import main
main(["info"])
heavy = {"numba", "scipy", "torch", "matplotlib", "fastact._compiler.pipeline"}
print(heavy & sys.modules.keys())
"""
    assert run_python(code).endswith("set()\n")


WATCHED = """
import contextlib, io, json, os, sys
import numpy  # its BLAS starts threads
had = set(os.listdir("/proc/self/task")) if os.path.exists("/proc/self/task") else set()
from fastact.__main__ import main
with contextlib.redirect_stdout(io.StringIO()) as output:
    main(["info", "--json"])
now = set(os.listdir("/proc/self/task")) if os.path.exists("/proc/self/task") else set()
from fastact._parallel import pool
from fastact._loading import cache
place = os.environ["FASTACT_CACHE_DIR"]
print(len(now - had), os.path.exists(place), pool.state.layer, cache.compiled)
print("numba" in sys.modules, "fastact._compiler.threads.helpers" in sys.modules)
foreseen = json.loads(output.getvalue())["threads"]["layer"]
pool.start()
print(foreseen == pool.state.layer + f" ({pool.state.reason})" * bool(pool.state.reason))
"""


@pytest.mark.parametrize("layer", ["fastact", "tbb", "tbb in a child"])
def test_info_changes_nothing(layer, tmp_path):
    """It starts and compiles nothing, and it predicts the layer that is used later."""
    place = str(tmp_path / "cache")
    code = WATCHED
    if layer == "tbb in a child":
        code = f"from fastact._parallel import tbb\ntbb._lost = True\n{WATCHED}"
    layer = layer.partition(" ")[0]
    printed = run_python(code, FASTACT_CACHE_DIR=place, FASTACT_THREADING_LAYER=layer)
    assert printed == "0 False not started 0\nFalse False\nTrue\n"


def test_info_where_versions_are_broken(monkeypatch, capsys):
    def version(name):
        if name == "numba":
            return None  # as for metadata without a version
        raise {"scipy": KeyError("Version")}.get(name, PackageNotFoundError(name))

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert main(["info", "--json"]) == 0
    versions = json.loads(capsys.readouterr().out)["versions"]
    assert versions["numba"] == "unknown"
    assert versions["scipy"] == "unknown (KeyError: 'Version')"
    assert versions["numpy"] == "not installed"


def test_info_where_things_are_missing():
    """A broken part does not affect the rest of the report."""
    code = """
import importlib.metadata, platform, sys
sys.modules["llvmlite"] = None
def version(name):
    raise importlib.metadata.PackageNotFoundError(name)
importlib.metadata.version = version
platform.platform = lambda: 1 / 0
from fastact.__main__ import main
sys.exit(main(["info", "--json"]))
"""
    report = json.loads(run_python(code))
    assert report["versions"]["numba"] == "not installed"
    assert "scipy" not in report["versions"]
    assert report["machine"]["system"] == "unknown (ZeroDivisionError: division by zero)"
    for unknown in (report["code"], report["versions"]["LLVM"]):
        assert re.fullmatch(r"unknown \(ModuleNotFoundError: .*llvmlite.*\)", unknown)
    assert report["machine"]["cores"] == os.cpu_count()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_info_sees_affinity():
    code = """
import os, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from fastact.__main__ import main
sys.exit(main(["info", "--json"]))
"""
    assert json.loads(run_python(code))["machine"]["cores by affinity"] == 1


CGROUPS = {
    "none": ("", {}, None),
    "v2": ("0::/a", {"a/cpu.max": "150000 100000\n"}, 1.5),
    "v2 unlimited": ("0::/a", {"a/cpu.max": "max 100000\n"}, None),
    "v2 around": ("0::/a/b", {"a/cpu.max": "50000 100000", "a/b/cpu.max": "max 100000"}, 0.5),
    "v2 tightest": ("0::/a/b", {"a/cpu.max": "3000 1000", "a/b/cpu.max": "2000 1000"}, 2),
    "v2 in a container": ("0::/outer/name", {"cpu.max": "400000 100000"}, 4),
    "v1": (
        "3:memory:/m\n2:cpu,cpuacct:/a\n1:name=systemd:/s",
        {"cpu,cpuacct/a/cpu.cfs_quota_us": "25000\n", "cpu,cpuacct/a/cpu.cfs_period_us": "100000"},
        0.25,
    ),
    "v1 under another name": (
        "2:cpu,cpuacct:/",
        {"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"},
        3,
    ),
    "v1 unlimited": (
        "2:cpu:/a",
        {"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "100000"},
        None,
    ),
    "another controller": ("2:memory:/a", {"a/cpu.max": "1000 1000"}, None),
    "a colon in the name": ("0::/a:b", {"a:b/cpu.max": "1000 1000"}, 1),
    "no controller": ("1::/a\n0::/b", {"a/cpu.max": "1000 1000"}, None),
    "lines that tell nothing": ("\n0\n0:\n::/a\n0::/a", {"a/cpu.max": "3000 1000"}, 3),
    "no file": ("0::/a", {"a/cpu.max/x": ""}, IsADirectoryError),
    "empty": ("0::/a", {"a/cpu.max": ""}, ValueError),
    "no period": ("0::/a", {"a/cpu.max": "1000"}, ValueError),
    "words": ("0::/a", {"a/cpu.max": "many more"}, ValueError),
    "nothing at all": ("0::/a", {"a/cpu.max": "0 1000"}, ValueError),
    "less than nothing": ("0::/a", {"a/cpu.max": "-5 1000"}, ValueError),
    "no time": ("0::/a", {"a/cpu.max": "1000 0"}, ZeroDivisionError),
    "too long": ("0::/a", {"a/cpu.max": "9" * 5000 + " 1000"}, ValueError),
    "too large": ("0::/a", {"a/cpu.max": "9" * 4000 + " 1"}, OverflowError),
    "no text": ("0::/\udcff", {"cpu.max": "\udcff"}, ValueError),
    "null": ("0::/a\0b", {"cpu.max": "2000 1000"}, 2),
    "empty below another": ("0::/a/b", {"a/cpu.max": "2000 1000", "a/b/cpu.max": ""}, 2),
    "empty around another": ("0::/a/b", {"a/cpu.max": "", "a/b/cpu.max": "2000 1000"}, 2),
    "v1 empty": ("2:cpu:/a", {"cpu/a/cpu.cfs_quota_us": ""}, ValueError),
    "v1 without a period": ("2:cpu:/a", {"cpu/a/cpu.cfs_quota_us": "2000"}, None),
}


@pytest.mark.parametrize(("groups", "files", "limit"), CGROUPS.values(), ids=CGROUPS)
def test_cgroup_limit(groups, files, limit, tmp_path):
    own, mount = tmp_path / "cgroup", tmp_path / "mount"
    own.write_bytes(os.fsencode(groups))
    for name, content in files.items():
        (mount / name).parent.mkdir(parents=True, exist_ok=True)
        (mount / name).write_bytes(os.fsencode(content))
    # A limit outside the hierarchy does not count.
    (tmp_path / "cpu.max").write_text("1 1000")
    if isinstance(limit, type):  # nothing is known, and info says why
        with pytest.raises(limit):
            system.cgroup_limit(own, mount)
    else:
        assert system.cgroup_limit(own, mount) == limit


def test_cgroup_limit_without_cgroups(tmp_path):
    assert system.cgroup_limit(tmp_path / "none", tmp_path) is None


def test_processor_model_that_cannot_be_read(monkeypatch):
    def read_bytes(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    assert system.cpu_model() == (platform.processor() or platform.machine())


# plot: the files


def test_plot_of_all_by_default(tmp_path, monkeypatch, capsys):
    drawn = []
    rendered = _figure.rendered
    monkeypatch.setattr(
        _figure, "rendered", lambda panels, form: (drawn.extend(panels), rendered(panels, form))[1]
    )
    file = tmp_path / "graphs.svg"
    assert main(["plot", "-o", str(file)]) == 0
    assert file.read_bytes().startswith(STARTS[".svg"])
    assert drawn == [ACTIVATIONS[name].formula for name in DRAWN]
    assert os.listdir(tmp_path) == [file.name]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", [*STARTS, ".PNG"])
def test_the_suffix_chooses_the_format(suffix, tmp_path, capsys):
    file = tmp_path / f"graphs{suffix}"
    assert main(["plot", "relu", "tanh", "-o", str(file)]) == 0
    assert file.read_bytes().startswith(STARTS[suffix.lower()])
    assert os.listdir(tmp_path) == [file.name]
    assert capsys.readouterr() == ("", "")


def test_plot_of_some_in_their_order(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(_figure, "rendered", lambda panels, form: drawn.extend(panels) or b"")
    main(["plot", "tanh", "relu", "tanh", "-o", str(tmp_path / "a.svg")])
    assert drawn == [ACTIVATIONS["tanh"].formula, ACTIVATIONS["relu"].formula]


def test_plot_is_reproducible(tmp_path):
    """Another process writes the same bytes, whatever the user's settings."""
    contents = []
    (tmp_path / "matplotlibrc").write_text("axes.facecolor: black\n")
    for seed, style in (("1", ""), ("2", str(tmp_path / "matplotlibrc"))):
        files = [tmp_path / f"{seed}{suffix}" for suffix in STARTS]
        code = "import os, sys\n"
        if style:
            code += f"os.environ['MATPLOTLIBRC'] = {style!r}\n"
        code += "from fastact.__main__ import main\n"
        code += "".join(f"main(['plot', 'step', '-o', {str(file)!r}])\n" for file in files)
        run_python(code)
        contents.append([file.read_bytes() for file in files])
    pdf, png, svg = contents[0]
    assert contents[0] == contents[1]
    assert b"Date" not in pdf + svg
    assert b"tIME" not in png


def test_plot_without_matplotlib(tmp_path):
    file = tmp_path / "a.png"
    code = f"""
import contextlib, io, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "matplotlib":
            raise ModuleNotFoundError("No module named 'matplotlib'", name=name)
sys.meta_path.insert(0, Blocker())
from fastact.__main__ import main
with contextlib.redirect_stderr(io.StringIO()) as errors:
    try:
        main(["plot", "-o", {str(file)!r}])
    except SystemExit as exit_:
        print(exit_.code)
print(errors.getvalue())
"""
    out = run_python(code)
    assert out.startswith("2\npython -m fastact plot: error: ")
    assert "matplotlib, which the extra 'plot' installs" in out
    assert out.count("\n") == 3
    assert not file.exists()
    assert re.search(r"^plot = \[\n +\"matplotlib", (ROOT / "pyproject.toml").read_text(), re.M)


@pytest.mark.parametrize("name", ["sigmiod", "heaviside", "Tanh", ""])
def test_plot_of_unknown_names(name, tmp_path, capsys):
    message = refused(capsys, "plot", "tanh", name, "-o", tmp_path / "a.png")
    assert repr(name) in message
    assert all(known in message.split("any of")[1] for known in DRAWN)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["a.jpg", "a", ".svg", "a.svg.gz"])
def test_plot_with_unknown_suffix(name, tmp_path, capsys):
    message = refused(capsys, "plot", "-o", tmp_path / name)
    assert f"'{tmp_path / name}'" in message
    assert all(suffix in message for suffix in STARTS)
    assert os.listdir(tmp_path) == []


def test_plot_without_a_file(capsys):
    assert "-o/--output" in refused(capsys, "plot", "tanh")


@pytest.fixture
def drawn_at_once(monkeypatch):
    monkeypatch.setattr(_figure, "rendered", lambda panels, form: b"new")


def test_plot_to_where_nothing_can_be_written(drawn_at_once, tmp_path, capsys):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").touch()
    for name in ("no/such/a.png", "folder.png", "file/a.png", "x" * 300 + ".png"):
        message = refused(capsys, "plot", "step", "-o", tmp_path / name)
        assert re.search(r"error: cannot write '.*\.png': [A-Z]\w+ ", message)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.png"]


@pytest.mark.skipif(os.name != "posix", reason="elsewhere no folder in use can be removed")
def test_plot_to_a_folder_that_is_gone(tmp_path):
    assert command("plot", "step", "-o", str(tmp_path / "a.svg")).returncode == 0  # compiles
    (tmp_path / "gone").mkdir()
    gone = ["sh", "-c", 'cd "$0" && rmdir "$0" && exec "$@"', str(tmp_path / "gone")]
    done = command("plot", "step", "-o", "a.svg", prefix=gone)
    error = "python -m fastact plot: error: cannot write 'a.svg': No such file or directory\n"
    assert (done.returncode, done.stderr) == (2, error)


def test_plot_onto_a_full_disk_keeps_what_was_there(drawn_at_once, tmp_path, monkeypatch, capsys):
    file = tmp_path / "a.png"
    file.write_bytes(b"old")

    class Full(io.FileIO):
        def write(self, content):
            super().write(content[:1])
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(whole_file, "open", Full, raising=False)
    assert "No space left on device" in refused(capsys, "plot", "step", "-o", file)
    assert file.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.png"]


def test_plot_replaces_the_file_at_once(drawn_at_once, tmp_path):
    """No process sees a partial file, not even one that has the old file open."""
    file, same = tmp_path / "a.png", tmp_path / "same"
    file.write_bytes(b"old")
    os.link(file, same)
    main(["plot", "step", "-o", str(file)])
    assert (file.read_bytes(), same.read_bytes()) == (b"new", b"old")


def test_plot_through_a_link(drawn_at_once, tmp_path):
    (tmp_path / "a.png").write_bytes(b"old")
    (tmp_path / "link.png").symlink_to(tmp_path / "a.png")
    main(["plot", "step", "-o", str(tmp_path / "link.png")])
    assert (tmp_path / "a.png").read_bytes() == b"new"
    assert (tmp_path / "link.png").is_symlink()


# plot: the analysis of curves


@functools.cache
def traced(name):
    return plot.curve(name)


# From textbooks.
FACTS = {
    "sigmoid": ([], [(-1, 0, 0), (1, 0, 1)]),
    "tanh": ([], [(-1, 0, -1), (1, 0, 1)]),
    "relu": ([(0, 0, False)], []),
    "step": ([(0, 1, True)], []),
    "softplus": ([], [(-1, 0, 0), (1, 1, 0)]),
}


@pytest.mark.parametrize("name", FACTS)
def test_breaks_and_asymptotes(name):
    curve = traced(name)
    breaks, asymptotes = FACTS[name]
    assert [(b.x, b.value, b.jumps) for b in curve.breaks] == breaks
    assert [(a.side, a.slope, a.intercept) for a in curve.asymptotes] == asymptotes
    assert len(curve.pieces) == len(breaks) + 1


@pytest.mark.parametrize("name", DRAWN)
def test_values_and_derivatives(name):
    """Compared with mpmath inside the pieces, and with the neighbouring point at their ends."""
    reference = functools.partial(ACTIVATIONS[name].reference, mpmath.mp)
    for piece in traced(name).pieces:
        for i in range(2, len(piece.x) - 2, 83):
            x = float(piece.x[i])
            assert piece.y[i] == pytest.approx(float(reference(mpmath.mpf(x))), abs=1e-12)
            assert piece.slope[i] == pytest.approx(float(mpmath.diff(reference, x)), abs=1e-12)
        for end, inner in ((0, 1), (-1, -2)):
            step = abs(piece.slope[end] * (piece.x[end] - piece.x[inner]))
            assert piece.y[end] == pytest.approx(piece.y[inner], abs=0.02 + step)
            assert piece.slope[end] == pytest.approx(piece.slope[inner], abs=0.02, rel=0.15)


numbers = st.floats(-2, 2)


@given(st.floats(-3.5, 3.5), numbers, numbers, numbers, numbers, st.sampled_from("lrm"))
@example(-2.5, 0.0, -2.0, 1.0, -6e-8, "l")  # one slope is below the rounding errors
@example(0.0, 0.0, 0.0, 5e-324, 5e-324, "l")  # all values are subnormal numbers
def test_jumps_and_bends_are_found(place, left, right, slope_left, slope_right, owner):
    """Two lines meet or jump at `place`; the value there is a limit from one side or the mean."""
    jumps, bends = abs(left - right) > 0.05, abs(slope_left - slope_right) > 0.05
    assume(jumps or left == right)
    assume(bends or slope_left == slope_right)

    def function(x):
        with np.errstate(invalid="ignore"):  # 0 * inf
            low = left + slope_left * (x - place)
            high = right + slope_right * (x - place)
        value = {"l": left, "r": right, "m": (left + right) / 2}[owner]
        return np.where(x < place, low, np.where(x > place, high, value))

    curve = _curve.trace(function, -4.0, 4.0)
    if not (jumps or bends):
        assert curve.breaks == []
        return
    (found,) = curve.breaks
    assert found.x == pytest.approx(place, abs=1e-5)
    assert found.jumps == jumps
    assert min(abs(found.value - v) for v in (left, right, (left + right) / 2)) < 1e-4
    before, after = curve.pieces
    assert (before.y[-1], after.y[0]) == pytest.approx((left, right), abs=1e-4)
    assert (before.slope[-1], after.slope[0]) == pytest.approx((slope_left, slope_right), abs=1e-4)


def at_infinity(function, left, right):
    """Return `function` with its limits at infinity, where it is not defined."""

    def continued(x):
        finite = np.where(np.isinf(x), 0.0, x)
        return np.where(np.isinf(x), np.where(x < 0, left, right), function(finite))

    return continued


INF = np.inf
SHAPES = {
    "line": (lambda x: 2 * x + 1, [], []),
    "constant": (at_infinity(lambda x: 0 * x + 3, 3, 3), [], []),
    "square": (lambda x: x * x, [], []),
    "cube": (lambda x: x**3, [], []),
    "logarithm": (lambda x: np.log1p(abs(x) ** 3), [], []),
    "root": (lambda x: np.cbrt(1 + x * x), [], []),
    "sine": (at_infinity(np.sin, np.nan, np.nan), [], []),
    "line and waves": (at_infinity(lambda x: x + np.sin(x), -INF, INF), [], []),
    "sign": (np.sign, [(0, True)], []),
    "floor": (np.floor, [(x, True) for x in range(-3, 4)], []),
    "steep": (lambda x: np.tanh(100 * x), [], [(-1, 0, -1), (1, 0, 1)]),
    "hyperbola": (lambda x: np.hypot(x, 1) + 1, [], [(-1, -1, 1), (1, 1, 1)]),
    "hard sigmoid": (lambda x: np.clip(x / 6 + 0.5, 0, 1), [(-3, False), (3, False)], []),
    "jump and bends": (
        lambda x: np.where(x > 0, 1 + abs(x - 2), abs(x + 1) - 5),
        [(-1, False), (0, True), (2, False)],
        [],
    ),
    "elu": (
        lambda x: np.where(x > 0, x, 1.5 * np.expm1(np.minimum(x, 0))),
        [(0, False)],
        [(-1, 0, -1.5)],
    ),
    "bell": (lambda x: np.exp(-x * x), [], [(-1, 0, 0), (1, 0, 0)]),
}


@pytest.mark.parametrize(("function", "breaks", "asymptotes"), SHAPES.values(), ids=SHAPES)
def test_other_shapes(function, breaks, asymptotes):
    curve = _curve.trace(function, -4.0, 4.0)
    assert [(b.x, b.jumps) for b in curve.breaks] == breaks
    found = [(a.side, a.slope, a.intercept) for a in curve.asymptotes]
    assert np.array(found).ravel() == pytest.approx(np.array(asymptotes).ravel(), abs=1e-5)


def test_slopes_at_a_bend_of_curved_pieces():
    before, after = _curve.trace(SHAPES["elu"][0], -4.0, 4.0).pieces
    assert (before.slope[-1], after.slope[0]) == pytest.approx((1.5, 1.0), abs=1e-4)


# plot: the picture


@functools.cache
def laid_out(*names):
    with _figure.styled():
        drawn = _figure.figure({ACTIVATIONS[name].formula: traced(name) for name in names})
        FigureCanvasAgg(drawn).draw()
    return drawn


@pytest.fixture
def figure():
    """All panels."""
    return laid_out(*DRAWN)


@pytest.fixture
def panel():
    """``panel(name)``: the panel of a function, among those whose curves are known here."""
    names = [*FACTS]
    drawn = laid_out(*names)
    return lambda name: drawn.axes[names.index(name)]


def lines(axes, style):
    return [line for line in axes.lines if line.get_color() == style["color"]]


def texts(axes):
    return {text.get_text() for text in axes.texts}


def test_panels_show_the_formulas(figure):
    for axes, name in zip(figure.axes, DRAWN, strict=True):
        assert axes.title.get_window_extent().width < axes.get_window_extent().width
        shown = axes.get_title().replace("\N{MINUS SIGN}", "-").replace("\n", " ")
        assert shown.replace("\N{GREATER-THAN OR EQUAL TO}", ">=") == ACTIVATIONS[name].formula


def test_axes_go_through_the_origin(figure):
    for axes in figure.axes:
        for spine in ("left", "bottom"):
            assert axes.spines[spine].get_position() == ("data", 0)


def test_numbers_keep_clear_of_the_other_axis_and_the_arrow(figure):
    for axes in figure.axes:
        assert "0" not in texts(axes)
        assert {0.0} & {*axes.get_xticks(), *axes.get_yticks()} == set()
    assert _figure._ticks(-1, 5.05, 0) == [-1, 1, 2, 3, 4]


def test_numbers_stand_where_the_curve_is_not(panel):
    below, above = (
        next(text for text in panel("tanh").texts if text.get_text() == number)
        for number in ("\N{MINUS SIGN}0.5", "0.5")
    )
    assert (below.get_ha(), above.get_ha()) == ("left", "right")


def test_no_line_crosses_a_jump(panel):
    for style in (_figure._FUNCTION, _figure._DERIVATIVE):
        for line in lines(panel("step"), style):
            if line.get_linestyle() != "None":
                assert np.ptp(line.get_ydata()) < 1e-6
    dots = [line for line in lines(panel("step"), _figure._FUNCTION) if line.get_marker() == "o"]
    filled = {
        (x, y): line.get_markerfacecolor() != "white"
        for line in dots
        for x, y in zip(*line.get_data(), strict=True)
    }
    assert filled[0, 0] is False
    assert filled[0, 1] is True


def test_asymptotes_are_dashed_and_labelled(panel):
    for name in FACTS:
        dashed = lines(panel(name), _figure._ASYMPTOTE)
        assert all(line.is_dashed() for line in dashed)
        assert len(dashed) == len(FACTS[name][1])
    assert {"y = 0", "y = 1"} <= texts(panel("sigmoid"))
    assert {"y = \N{MINUS SIGN}1", "y = 1"} <= texts(panel("tanh"))
    assert {"y = 0", "y = x"} <= texts(panel("softplus"))
    # Each label is at the end that is away from the curve.
    places = {text.get_text(): text.xy[0] for text in panel("sigmoid").texts}
    assert places["y = 1"] < 0 < places["y = 0"]
    assert lines(panel("softplus"), _figure._ASYMPTOTE)[1].get_data()[0] == pytest.approx(
        lines(panel("softplus"), _figure._ASYMPTOTE)[1].get_data()[1]
    )


@pytest.mark.parametrize(
    ("line", "equation"),
    [
        ((0, -1.758099), "y = \N{MINUS SIGN}1.758"),
        ((1, 0), "y = x"),
        ((-1, 0.5), "y = \N{MINUS SIGN}x + 0.5"),
        ((1.0507, -2), "y = 1.051x \N{MINUS SIGN} 2"),
    ],
)
def test_equations(line, equation):
    assert _figure._equation(_curve.Asymptote(1, *line)) == equation


def test_bounded_functions_share_their_range(panel):
    ranges = {panel(name).get_ylim() for name in ("sigmoid", "tanh", "step")}
    assert len(ranges) == 1
    for name in ("relu", "softplus"):  # equal scales: a slope of 1 is drawn at 45 degrees
        axes = panel(name)
        box = axes.get_window_extent()
        unit = np.array([box.width, box.height]) / [
            np.ptp(axes.get_xlim()),
            np.ptp(axes.get_ylim()),
        ]
        assert unit[0] == pytest.approx(unit[1])


def extent(text):
    """The box around a text; if it is rotated, without the empty corners."""
    box = text.get_window_extent()
    return box.expanded(0.6, 0.6) if text.get_rotation() % 90 else box


@pytest.mark.parametrize("count", sorted({1, 2, 3, 4, len(DRAWN)}))
def test_nothing_covers_anything(count):
    """Texts do not overlap each other, and the legend does not overlap panels with their titles."""
    figure = laid_out(*DRAWN[:count])
    around = figure.legends[0].get_window_extent()
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    for one, other in itertools.combinations([around, *boxes], 2):
        assert not one.overlaps(other)
    page = figure.bbox
    for box in (around, *boxes):
        assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1
    for axes in figure.axes:
        shown = [extent(text) for text in (*axes.texts, axes.title)]
        for one, other in itertools.combinations(shown, 2):
            assert not one.overlaps(other)


# The documents.


def test_picture_in_the_readme(tmp_path, monkeypatch):
    """The documented command draws the picture, which shows all current functions."""
    page = (ROOT / "docs/guide/command-line.md").read_text(encoding="utf-8")
    command = re.search(r"`python -m fastact (plot -o (docs/\S+\.svg))`", page)
    assert f"({command[2]})" in (ROOT / "README.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    Path("docs").mkdir()
    assert main(command[1].split()) == 0
    pictures = [xml.etree.ElementTree.parse(root / command[2]) for root in (ROOT, tmp_path)]
    ids = [{e.get("id") for e in picture.iter() if "id" in e.attrib} for picture in pictures]
    panels = [{name for name in found if re.fullmatch(r"axes_\d+", name)} for found in ids]
    assert panels[0]
    assert panels[0] == panels[1]
