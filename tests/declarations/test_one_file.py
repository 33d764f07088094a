"""An activation is one file: what is written in ``fastact/_functions`` appears everywhere.

A copy of the package gets a file more, and processes that import the copy look for it.
"""

import os
import shutil

import pytest
from conftest import ROOT, run_python

SOFTSIGN = '''
"""The softsign and its derivative."""

from fastact._declarations.declare import activation, derivative
from fastact._declarations.records import TorchModule
from fastact._kernels.vocabulary import like, magnitude, or_nan, quiet


@activation(
    summary="Softsign, element-wise.",
    formula="softsign(x) = x / (1 + |x|)",
    notes="In the arithmetic of the format. Infinities give NaN.",
    reference=lambda m, x: x / (1 + abs(x)),
    specials=[(0.0, 0.0), (-0.0, -0.0), (1.0, 0.5), (-3.0, -0.75)],
    interval=(-5.0, 5.0),
    ulp={"float16": 0.5, "bfloat16": 0.5, "float32": 1.0, "float64": 1.0},
    steepest=1.0,
    torch_modules=[TorchModule("Softsign")],
    sklearn_names=["softsign"],
)
def softsign(x):
    y = x / (like(x, 1) + magnitude(x))
    return y if x == x else quiet(x)


@derivative(
    formula="softsign_backward(grad_output, output) = grad_output * (1 - |output|)**2",
    notes="In the arithmetic of the format.",
    reference=lambda m, g, y: g * (1 - abs(y)) * (1 - abs(y)),
    slope=lambda m, y: -2 * (1 - abs(y)) * (1 - 2 * (y < 0)),
    specials=[(2.0, 0.0, 2.0), (2.0, 0.5, 0.5), (2.0, 1.0, 0.0)],
    interval=(-1.0, 1.0),
    ulp={"float16": 1.0, "bfloat16": 1.0, "float32": 2.0, "float64": 2.0},
)
def softsign_backward(grad_output, output):
    rest = like(output, 1) - magnitude(output)
    slope = rest * rest if output == output else output
    return quiet(or_nan(grad_output * slope, grad_output))
'''

APPEARS = """
import inspect
import pathlib

import mpmath
import numba
import numpy as np

import fastact as fa

assert pathlib.Path(fa.__file__).samefile({copy!r} + "/__init__.py")
x = np.array([-4.0, -0.3, 0.0, 1e-3, 2.5, 1e6])
exact = np.array([float(v / (1 + abs(v))) for v in map(mpmath.mpf, x.tolist())])

# The ufuncs, and what documents them.
assert type(fa.softsign) is type(fa.softsign_backward) is np.ufunc
assert (abs(fa.softsign(x) - exact) <= np.spacing(abs(exact))).all()
assert fa.softsign(np.float16(1)).dtype == np.float16
documented = inspect.getdoc(fa.softsign)
assert "softsign(x) = x / (1 + |x|)" in documented and "softsign(-3.0) = -0.75" in documented
assert {{"softsign", "softsign_backward"}} <= {{*fa.__all__, *dir(fa)}}

# Numba, layers and their gradients.
assert numba.njit(lambda x: fa.softsign(x))(3.0) == 0.75
W, b = np.array([[1.0, -1.0], [0.5, 2.0]]), np.array([0.25, -0.5])
rows = x.reshape(3, 2)
y = fa.Dense(W, b, "softsign")(rows)
inner = rows @ W + b
np.testing.assert_allclose(y, inner / (1 + abs(inner)), rtol=1e-14)
grad_b = fa.dense_backward(np.ones_like(y), rows, W, y, fa.softsign)[2]
slopes = [[float(mpmath.diff(lambda v: v / (1 + abs(v)), v)) for v in row] for row in inner]
np.testing.assert_allclose(grad_b, np.sum(slopes, 0), rtol=1e-12)

# Names in other libraries.
from fastact._dense import from_sklearn, from_torch

assert "Softsign" in from_torch._SUPPORTED and from_sklearn._NAMES["softsign"] == "softsign"

# The command line.
from fastact.__main__ import main
from fastact._cli import plot, warmup

assert "softsign" in plot.drawable() and {{"softsign", "softsign_backward"}} <= {{*warmup.NAMES}}
assert main(["plot", "softsign", "-o", {picture!r}]) == 0
assert "softsign" in pathlib.Path({picture!r}).read_text(encoding="utf-8")
assert main(["warmup", "softsign", "--dtypes", "float32"]) == 0

# The benchmark and the stub.
from bench import measure, peers, problems, workloads
from tools import stub

found = [w for w in workloads.every(workloads.functions()) if w.function == "softsign"]
assert {{w.layout for w in found}} >= {{*peers.ARRAY_LAYOUTS, *peers.SCALAR_LAYOUTS}}
case = problems.problem(workloads.Workload("softsign", "float32", (64,)))
libraries, _ = peers.load([peers.OURS, "numpy"])
row = measure.measure(case, libraries, 1, with_ulp=True, with_bounds=False)
assert [cell.status for cell in row.cells.values()] == ["measured"] * 2
for name in ("softsign", "softsign_backward"):
    assert f"from fastact._functions.softsign import {{name}} as {{name}}" in stub.stub()
print("all of it")
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the package with a file more."""
    package = tmp_path_factory.mktemp("copy") / "fastact"
    shutil.copytree(ROOT / "fastact", package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "_functions/softsign.py").write_text(SOFTSIGN.lstrip(), encoding="utf-8")
    return package


def path_of(package):
    """What makes a process import the copy, but all else from here."""
    return {
        "PYTHONPATH": os.pathsep.join([str(package.parent), str(ROOT)]),
        "PYTHONSAFEPATH": "1",
    }


def test_a_new_activation_appears_everywhere(copy, tmp_path):
    code = APPEARS.format(copy=str(copy), picture=str(tmp_path / "a.svg"))
    assert run_python(code, **path_of(copy)).endswith("all of it\n")
