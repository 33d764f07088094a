"""The comparison runs, reports what it could not do, and refuses wrong results; no times."""

import dataclasses
import functools
import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench import peers, report, timing
from bench.__main__ import DTYPES, main, parse
from bench.peers import PEERS, Library, Peer
from fastact._declare import ACTIVATIONS

SMALL = ["--functions", "sigmoid", "--dtypes", "float32", "--sizes", "64", "--repetitions", "1"]


@pytest.fixture
def files(tmp_path):
    """Options that write both files, and what reads them."""
    as_json, as_markdown = tmp_path / "out.json", tmp_path / "out.md"
    options = ["--json", str(as_json), "--markdown", str(as_markdown)]
    return options, lambda: json.loads(as_json.read_text()), as_markdown.read_text


@pytest.fixture
def numpy_is(monkeypatch):
    """Replaces NumPy's sigmoid."""

    def replace(factory, **fields):
        library = Library("0", {"sigmoid": factory})
        monkeypatch.setitem(PEERS, "numpy", Peer(lambda: library, **fields))

    return replace


def cell(results, library):
    return results["rows"][0]["cells"][library]


@pytest.mark.parametrize(
    ("option", "known"),
    [
        ("--functions", list(ACTIVATIONS)),
        ("--dtypes", DTYPES),
        ("--libraries", list(PEERS)),
        ("--sizes", ["positive integer"]),
        ("--repetitions", ["positive integer"]),
        ("--json", ["no place for a file"]),
    ],
)
def test_bad_values_are_told_what_is_known(option, known, capsys):
    with pytest.raises(SystemExit) as exit_:
        main([option, "no/such"])
    message = capsys.readouterr().err
    assert exit_.value.code == 2
    assert option in message
    assert all(name in message.split("error:")[1] for name in known)


def test_accuracy_without_gmpy2(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert not parse([]).accuracy
    with pytest.raises(SystemExit) as exit_:
        parse(["--accuracy"])
    assert exit_.value.code == 2
    assert "gmpy2" in capsys.readouterr().err


def test_defaults():
    full, quick = parse([]), parse(["--quick"])
    assert full.libraries == list(PEERS)
    assert full.functions == quick.functions == list(ACTIVATIONS)
    assert quick.libraries == ["numpy", "scipy"]
    assert quick.repetitions < full.repetitions
    assert parse(["--quick", "--dtypes", "float16"]).dtypes == ["float16"]


def test_small_run(files, capsys):
    options, read_json, read_markdown = files
    assert main([*SMALL, "--libraries", "numpy", "scipy", *options]) == 0
    screen = capsys.readouterr().out
    for text in (screen, read_markdown()):
        lines = [line.replace("|", " ").split() for line in text.splitlines()]
        headers = [line for line in lines if line[:2] == ["function", "dtype"]]
        assert headers[0][:6] == ["function", "dtype", "size", "fastact", "numpy", "scipy"]
        assert headers[1] == ["function", "dtype", "fastact", "numpy", "scipy"]
    assert "|---" in read_markdown()
    assert "|---" not in screen
    for part in (report.cpu_model(), np.__version__, "`python -m bench --functions sigmoid"):
        assert part in read_markdown().splitlines()[0]
    results = read_json()
    assert results["versions"]["numpy"] == np.__version__
    assert (results["incomplete"], results["missing"], results["threads"]) == (False, {}, 1)
    for library in ("fastact", "numpy", "scipy"):
        measured = cell(results, library)
        assert 0 < measured["ns"]["q1"] <= measured["ns"]["median"] <= measured["ns"]["q3"]
        assert 0 < measured["ulp"] < 10


def test_accuracy_can_be_left_out(files, capsys):
    options, read_json, _ = files
    main([*SMALL, "--no-accuracy", "--libraries", "numpy", *options])
    assert cell(read_json(), "numpy")["ulp"] is None
    assert report.ACCURACY not in capsys.readouterr().out


def test_every_installed_library_computes_every_function(tmp_path):
    """In another process, since libraries keep threads and settings."""
    file = tmp_path / "all.json"
    command = [sys.executable, "-m", "bench", "--sizes", "17", "--repetitions", "1"]
    root = Path(__file__).parents[1]
    run = subprocess.run(
        [*command, "--json", str(file)], cwd=root, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    results = json.loads(file.read_text())
    assert results["versions"].keys() | results["missing"].keys() == PEERS.keys()
    assert len(results["rows"]) == len(ACTIVATIONS) * len(DTYPES)
    for row in results["rows"]:
        assert {c["status"] for c in row["cells"].values()} <= {"measured", "unsupported"}
        assert row["cells"]["fastact"]["ulp"] <= ACTIVATIONS[row["function"]].ulp[row["dtype"]]


def test_numpy_and_this_package_have_every_activation():
    for name in ("numpy", "fastact"):
        assert PEERS[name].load().factories.keys() >= ACTIVATIONS.keys()


def test_missing_library_is_reported(monkeypatch, files, capsys):
    def load():
        raise ImportError("no module of that name")

    monkeypatch.setitem(PEERS, "scipy", Peer(load))
    options, read_json, read_markdown = files
    assert main([*SMALL, "--libraries", "scipy", "numpy", *options]) == 0
    assert "scipy is missing: no module of that name" in capsys.readouterr().err
    assert read_json()["missing"] == {"scipy": "no module of that name"}
    assert list(read_json()["versions"]) == ["fastact", "numpy"]
    assert "scipy missing" in read_markdown()


def half_written(inputs, out):
    return lambda: np.copyto(out[:32], 1 / (1 + np.exp(-inputs[0][:32])))


def returned(value):
    return lambda inputs, out: lambda: value(inputs[0])


@pytest.mark.parametrize(
    ("factory", "writes"),
    [
        (lambda inputs, out: functools.partial(np.cos, inputs[0], out=out), True),
        (half_written, True),
        (returned(lambda x: 1 / (1 + np.exp(-x.astype("f8")))), False),  # another dtype
        (returned(lambda x: 1 / (1 + np.exp(-x[:, None]))), False),  # another shape
    ],
)
def test_wrong_result_is_refused(numpy_is, files, capsys, factory, writes):
    numpy_is(factory, writes=writes)
    options, read_json, read_markdown = files
    assert main([*SMALL, "--libraries", "numpy", *options]) == 1
    screen = capsys.readouterr()
    assert "wrong" in screen.out
    assert "numpy: sigmoid float32 64: wrong: " in screen.err
    assert "numpy: sigmoid float32 64: wrong: " in read_markdown()
    refused, ours = cell(read_json(), "numpy"), cell(read_json(), "fastact")
    assert (refused["status"], refused["ns"], refused["ulp"]) == ("wrong", None, None)
    assert ours["status"] == "measured"


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [(peers.Unsupported("no such kernel"), "unsupported", 0), (ValueError("broken"), "error", 1)],
)
def test_library_that_fails_does_not_end_the_run(numpy_is, files, error, status, code):
    def factory(inputs, out):
        raise error

    numpy_is(factory)
    options, read_json, _ = files
    assert main([*SMALL, "--libraries", "numpy", "scipy", *options]) == code
    failed = cell(read_json(), "numpy")
    assert failed["status"] == status
    assert str(error) in failed["note"]
    assert cell(read_json(), "scipy")["status"] == "measured"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_errors_are_measured(numpy_is, dtype):
    """Results moved by 16 times the distance of 1 to its neighbour: 8 to 16 ulp and a bit."""
    factor = np.dtype(dtype).type(1 + 16 * np.finfo(dtype).eps)
    numpy_is(returned(lambda x: factor / (1 + np.exp(-x))), writes=False)
    libraries, _ = peers.load(["numpy"])
    case = timing.problem(ACTIVATIONS["sigmoid"], dtype, 3000)
    assert 14 < timing.measure(case, libraries, 1, True)["numpy"].ulp < 40


def test_errors_with_two_inputs():
    libraries, _ = peers.load(["fastact"])
    largest = timing.problem(ACTIVATIONS["heaviside"], "float64", 100)
    largest.inputs[0][:50] = 0
    want = ACTIVATIONS["heaviside"].reference(np, *largest.inputs)
    case = dataclasses.replace(largest, want=want)
    assert timing.measure(case, libraries, 1, True)["fastact"].ulp == 0


def test_interruption_keeps_finished_rows(monkeypatch, files, capsys):
    measure = timing.interleaved
    sizes = []

    def interrupted(calls, counts, repetitions):
        sizes.append(counts)
        if len(sizes) == 3:
            raise KeyboardInterrupt
        return measure(calls, counts, repetitions)

    monkeypatch.setattr(timing, "interleaved", interrupted)
    options, read_json, read_markdown = files
    small = [*SMALL, "--libraries", "numpy", *options]
    assert main([*small, "--sizes", "8", "16", "32", "64"]) == 130
    assert read_json()["incomplete"]
    assert [row["size"] for row in read_json()["rows"]] == [8, 16]
    assert "Incomplete" in read_markdown()
    assert capsys.readouterr().out.count("sigmoid") == 3  # two rows of times, one of errors


def test_interruption_before_the_first_row(monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(timing, "measure", interrupted)
    assert main([*SMALL, "--libraries", "numpy"]) == 130
    assert "fastact" in capsys.readouterr().out


def test_ratios():
    times = {"fastact": 0.5, "numpy": 2.0, "scipy": 3.0, "torch": 1.0}
    cells = {name: timing.Cell("measured", "", (ns, ns, ns)) for name, ns in times.items()}
    results = report.Results("", 1, versions=dict.fromkeys([*times, "jax"], "1"))
    results.rows.append(timing.Row("sigmoid", "float32", 64, cells))
    line = report.speed_table(results, "plain").splitlines()[1].split()
    assert line == ["sigmoid", "float32", "64", "0.5", "2", "3", "1", "-", "0%", "2.00", "4.00"]


def test_no_garbage_is_collected_during_samples(numpy_is):
    seen = []

    def factory(inputs, out):
        def call():
            seen.append(gc.isenabled())
            out[:] = 1 / (1 + np.exp(-inputs[0]))

        return call

    numpy_is(factory)
    libraries, _ = peers.load(["numpy"])
    timing.measure(timing.problem(ACTIVATIONS["sigmoid"], "float32", 64), libraries, 1, False)
    assert seen[0]
    assert not seen[-1]
    assert gc.isenabled()


def test_one_thread_is_undone(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_of_the_user")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    before = dict(os.environ)
    pinning = hasattr(os, "sched_getaffinity")
    cores = os.sched_getaffinity(0) if pinning else None
    with timing.one_thread() as core:
        assert os.environ["OMP_NUM_THREADS"] == os.environ["MKL_NUM_THREADS"] == "1"
        assert os.environ["XLA_FLAGS"].startswith("--xla_of_the_user --xla_cpu_multi")
        if pinning:
            assert core == max(cores)
            assert os.sched_getaffinity(0) == {core}
    assert dict(os.environ) == before
    if pinning:
        assert os.sched_getaffinity(0) == cores


def test_arrays_are_on_cache_lines():
    for size in (1, 1000, 100_000):
        case = timing.problem(ACTIVATIONS["heaviside"], "float16", size)
        assert {a.ctypes.data % 64 for a in (*case.inputs, case.out)} == {0}
        assert case.out.shape == (size,)
