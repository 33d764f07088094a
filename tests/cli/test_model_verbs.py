"""The verbs for models: describe and run."""

import io
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import ROOT

import fastact as fa
from fastact.__main__ import main

TEXT = """<ir_version: 10, opset_import: ["": 21, "ai.onnx.ml": 3]>
graph (float[N, 3] x) => (float[N, 2] y) {
h = Gemm(x, W, b) s = PRelu(h, a) z = MatMul(s, V) y = Softmax(z) }"""
RNG = np.random.default_rng(0)
ARRAYS = {
    name: RNG.normal(size=shape).astype("f")
    for name, shape in {"W": (3, 4), "b": 4, "a": 4, "V": (4, 2)}.items()
}
X = RNG.normal(size=(5, 3)).astype("f")


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A model in the file model.onnx of the current folder, which has rows in x.npy as well."""
    monkeypatch.chdir(tmp_path)
    proto = onnx.parser.parse_model(TEXT)
    for name, array in ARRAYS.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.save(proto, "model.onnx")
    np.save("x.npy", X)
    return fa.Sequential.from_onnx("model.onnx")


def refused(capsys, *arguments):
    """What is printed to stderr before the exit with status 2; stdout must stay empty."""
    with pytest.raises(SystemExit) as exit_:
        main(list(arguments))
    assert exit_.value.code == 2
    output = capsys.readouterr()
    assert output.out == "" and output.err.count("\n") == 1
    return output.err


def test_describe(model, capsys):
    assert main(["describe", "model.onnx"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["layer", "shape", "activation", "dtype", "parameters", "bytes"],
        ["0", "3", "->", "4", "prelu", "float32", "20", "80"],
        ["1", "4", "->", "2", "softmax", "float32", "8", "32"],
        ["total", "3", "->", "2", "float32", "28", "112"],
    ]


def test_models_that_were_saved(capsys, tmp_path):
    """A file with another suffix is one of `save`."""
    layers = [
        fa.Dense(np.ones((3, 40), "f"), np.ones(40), "relu", "int8"),
        fa.Gated(
            np.ones((40, 5), "f"), np.ones((40, 5), "f"), b_up=np.ones(5), weights_dtype="int8"
        ),
        ("prelu", [0.1, 0.2, 0.3, 0.4, 0.5]),
        fa.Dense(np.ones((5, 2), "f"), None, "tanh", "bfloat16"),
        "softmax",
    ]
    path = str(tmp_path / "model.safetensors")
    fa.Sequential(layers, classes_=["a", "b"]).save(path)
    assert main(["describe", path]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1:] == [
        ["0", "3", "->", "40", "relu", "int8", "160", str(120 + 160 + 160)],
        ["1", "40", "->", "5", "gated,", "silu", "int8", "405", str(400 + 20 + 40)],
        ["2", "prelu", "5", "40"],
        ["3", "5", "->", "2", "tanh", "bfloat16", "10", "20"],
        ["4", "softmax", "0", "0"],
        ["total", "3", "->", "2", "float32", "580", "960"],
        ["classes:", "a,", "b"],
    ]


def test_a_single_layer(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    layer = fa.Dense(np.ones((3, 2)), activation="tanh")
    layer.save("layer.safetensors")
    assert main(["describe", "layer.safetensors"]) == 0
    last = capsys.readouterr().out.splitlines()[-1].split()
    assert last == ["total", "3", "->", "2", "float64", "6", "48"]
    np.save("x.npy", X)
    assert main(["run", "layer.safetensors", "--input", "x.npy", "--output", "y.npy"]) == 0
    np.testing.assert_array_equal(np.load("y.npy"), layer(X))


@pytest.mark.parametrize("suffix", ["npy", "csv"])
def test_run(model, suffix, capsys):
    np.savetxt("x.csv", X, fmt="%.9g", delimiter=",")
    assert main(["run", "model.onnx", "--input", f"x.{suffix}", "--output", "y.npy"]) == 0
    y = np.load("y.npy")
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y, model(X))
    assert capsys.readouterr().out == ""


def test_csv_of_a_spreadsheet(model):
    """It begins with a byte order mark."""
    np.savetxt("x.csv", X, fmt="%.9g", delimiter=",", encoding="utf-8-sig")
    assert main(["run", "model.onnx", "-i", "x.csv", "-o", "y.npy"]) == 0
    np.testing.assert_array_equal(np.load("y.npy"), model(X))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_run_from_one_pipe_to_another(model):
    """/dev/stdin is one. A pipe can be read only once, and must not be replaced by a file."""
    for name in ("in", "out"):
        os.mkfifo(name)
    given = Path("x.npy").read_bytes()
    writer = threading.Thread(target=Path("in").write_bytes, args=(given,), daemon=True)
    writer.start()
    ends = os.open("out", os.O_RDWR)  # takes what is written without a reader
    assert main(["run", "model.onnx", "-i", "in", "-o", "out"]) == 0
    writer.join()
    content = os.read(ends, 1 << 16)
    os.close(ends)
    np.testing.assert_array_equal(np.load(io.BytesIO(content)), model(X))
    assert stat.S_ISFIFO(os.stat("out").st_mode)


def test_standard_input_that_is_closed(model, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    message = refused(capsys, "run", "model.onnx", "-i", "-", "-o", "y.npy")
    assert "cannot read '-': Bad file descriptor" in message


def test_run_replaces_the_output_in_one_step(model, monkeypatch):
    """A failure keeps the old file."""
    np.save("y.npy", X)
    arguments = ["run", "model.onnx", "-i", "x.npy", "-o", "y.npy"]
    with monkeypatch.context() as patch:
        patch.setattr(np, "save", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            main(arguments)
    np.testing.assert_array_equal(np.load("y.npy"), X)
    assert main(arguments) == 0
    np.testing.assert_array_equal(np.load("y.npy"), model(X))
    assert sorted(os.listdir()) == ["model.onnx", "x.npy", "y.npy"]


def test_run_between_standard_input_and_output(model):
    content = io.BytesIO()
    np.save(content, X)
    done = subprocess.run(
        [sys.executable, "-m", "fastact", "run", "model.onnx", "-i", "-", "-o", "-"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        input=content.getvalue(),
        capture_output=True,
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    np.testing.assert_array_equal(np.load(io.BytesIO(done.stdout)), model(X))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_output_that_cannot_be_written(model):
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "fastact", "run", "model.onnx", "-i", "x.npy", "-o", "-"],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=300,
        )
    expected = b"python -m fastact: error: cannot write the output: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, expected)


def test_requests_that_are_refused(model, capsys):
    np.save("wide.npy", np.ones((2, 5)))
    np.save("text.npy", np.array([["a", "b", "c"]]))
    np.save("objects.npy", np.array([None, 1]), allow_pickle=True)
    np.savez("several.npz", x=X)
    for name in ("broken.npy", "broken.csv", "broken.onnx"):
        with open(name, "w", encoding="utf-8") as file:
            file.write("1,x\n" * 3)
    for name in ("empty.npy", "empty.csv"):
        open(name, "w").close()
    for given, message in {
        "absent.npy": "cannot read 'absent.npy': No such file or directory",
        "wide.npy": r"cannot take 'wide.npy': Sequential: x must have shape (..., 3) to match W",
        "text.npy": "cannot take 'text.npy': Sequential: x must be",
        "objects.npy": "'objects.npy' must contain an array of numbers: ",
        "several.npz": "'several.npz' must contain an array of numbers: it is an archive",
        "broken.npy": "'broken.npy' must contain an array of numbers: the magic string",
        "empty.npy": "'empty.npy' must contain an array of numbers: EOF",
        "broken.csv": "'broken.csv' must contain an array of numbers: ",
        "empty.csv": "'empty.csv' must contain an array of numbers: it has no rows",
        ".": "cannot read '.': Is a directory",
    }.items():
        assert message in refused(capsys, "run", "model.onnx", "-i", given, "-o", "y.npy")
    message = refused(capsys, "run", "model.onnx", "-i", "x.npy", "-o", "absent/y.npy")
    assert "cannot write 'absent/y.npy': No such file or directory" in message
    assert not os.path.exists("y.npy")
    for verb in (["describe"], ["run", "-i", "x.npy", "-o", "y.npy"]):
        assert "cannot read 'absent.onnx': No such" in refused(capsys, *verb, "absent.onnx")
        message = refused(capsys, *verb, "broken.onnx")
        assert "cannot convert 'broken.onnx': from_onnx: model must be a valid ONNX" in message


def test_without_the_package_onnx(model, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert 'pip install "fastact[onnx]" installs it' in refused(capsys, "describe", "model.onnx")
