"""One file makes an activation: what is declared in ``fastact/_functions`` appears everywhere.

The tests add files to a copy of the package; processes that import the copy look for them.
"""

import importlib.util
import os
import shutil

import pytest
from conftest import ROOT, run_python

ELLIOTT = '''
"""Elliott's function and its derivative."""

from fastact._declarations.declare import activation, derivative
from fastact._declarations.records import TorchModule
from fastact._kernels.vocabulary import like, magnitude, or_nan, quiet


@activation(
    summary="Elliott's function, element-wise.",
    formula="elliott(x) = x / (1 + |x|)",
    notes="In the arithmetic of the format. Infinities give NaN.",
    reference=lambda m, x: x / (1 + abs(x)),
    specials=[(0.0, 0.0), (-0.0, -0.0), (1.0, 0.5), (-3.0, -0.75)],
    interval=(-5.0, 5.0),
    ulp={"float16": 0.5, "bfloat16": 0.5, "float32": 1.0, "float64": 1.0},
    steepest=1.0,
    torch_modules=[TorchModule("Elliott")],
    sklearn_names=["elliott"],
    measured_in_full=True,
)
def elliott(x):
    y = x / (like(x, 1) + magnitude(x))
    return y if x == x else quiet(x)


@derivative(
    formula="elliott_backward(grad_output, output) = grad_output * (1 - |output|)**2",
    notes="In the arithmetic of the format.",
    reference=lambda m, g, y: g * (1 - abs(y)) * (1 - abs(y)),
    slope=lambda m, y: -2 * (1 - abs(y)) * (1 - 2 * (y < 0)),
    specials=[(2.0, 0.0, 2.0), (2.0, 0.5, 0.5), (2.0, 1.0, 0.0)],
    interval=(-1.0, 1.0),
    ulp={"float16": 1.0, "bfloat16": 1.0, "float32": 2.0, "float64": 2.0},
)
def elliott_backward(grad_output, output):
    rest = like(output, 1) - magnitude(output)
    slope = rest * rest if output == output else output
    return quiet(or_nan(grad_output * slope, grad_output))
'''

SOFTLOW = '''
"""An invented softmin and its derivative."""

from math import inf

from fastact._declarations.declare import row_activation, row_derivative
from fastact._declarations.records import TorchModule
from fastact._functions.softmax import Softmax
from fastact._kernels import exp_sums
from fastact._kernels.vocabulary import at_most


class _Softlow(Softmax):
    padding = inf

    def larger(a, b):
        return at_most(a, b)

    def prepare(largest):
        return exp_sums.prepare(-largest)

    def term(x, base, lowest, shift):
        return exp_sums.term(-x, base, lowest, shift)


def _definition(xp, x):
    terms = xp.exp(-x - xp.max(-x, axis=-1, keepdims=True))
    return terms / xp.sum(terms, axis=-1, keepdims=True)


softlow = row_activation(
    name="softlow",
    steps=_Softlow,
    summary="Softlow along the last axis, or along `axis`.",
    formula="softlow(x)[i] = exp(-x[i]) / sum(exp(-x))",
    notes="As softmax.",
    invalid="NaN or -inf anywhere in a row, or inf everywhere, gives NaN in all of it.",
    reference=_definition,
    specials=[([0.0], [1.0]), ([1.0, inf], [1.0, 0.0])],
    ulp={"float16": 0.51, "bfloat16": 0.51, "float32": 1.5, "float64": 1.5},
    torch_modules=[TorchModule("Softlow", lambda module: module.dim == -1, "be Softlow(dim=-1)")],
    sklearn_names=["softlow"],
)


@row_derivative(
    formula="softlow_backward(grad_output, output) = "
    "output * (sum(grad_output * output) - grad_output)",
    notes="As of softmax.",
    specials=[([1.0, 0.0], [0.5, 0.5], [-0.25, 0.25])],
)
def softlow_backward(xp, grad_output, output, axis):
    return output * (xp.sum(grad_output * output, axis=axis, keepdims=True) - grad_output)
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

# The ufuncs and their docstrings.
assert type(fa.elliott) is type(fa.elliott_backward) is np.ufunc
assert (abs(fa.elliott(x) - exact) <= np.spacing(abs(exact))).all()
assert fa.elliott(np.float16(1)).dtype == np.float16
documented = inspect.getdoc(fa.elliott)
assert "elliott(x) = x / (1 + |x|)" in documented and "elliott(-3.0) = -0.75" in documented
assert {{"elliott", "elliott_backward"}} <= {{*fa.__all__, *dir(fa)}}

# Numba, layers and their gradients.
assert numba.njit(lambda x: fa.elliott(x))(3.0) == 0.75
W, b = np.array([[1.0, -1.0], [0.5, 2.0]]), np.array([0.25, -0.5])
rows = x.reshape(3, 2)
y = fa.Dense(W, b, "elliott")(rows)
inner = rows @ W + b
np.testing.assert_allclose(y, inner / (1 + abs(inner)), rtol=1e-14)
grad_b = fa.dense_backward(np.ones_like(y), rows, W, y, fa.elliott)[2]
slopes = [[float(mpmath.diff(lambda v: v / (1 + abs(v)), v)) for v in row] for row in inner]
np.testing.assert_allclose(grad_b, np.sum(slopes, 0), rtol=1e-12)

# Names in other libraries.
from fastact._dense import from_sklearn, from_torch

assert "Elliott" in from_torch._SUPPORTED and from_sklearn._NAMES["elliott"] == "elliott"

# The command line.
from fastact.__main__ import main
from fastact._cli import plot, warmup

assert "elliott" in plot.drawable() and {{"elliott", "elliott_backward"}} <= {{*warmup.NAMES}}
assert main(["plot", "elliott", "-o", {picture!r}]) == 0
assert "elliott" in pathlib.Path({picture!r}).read_text(encoding="utf-8")
assert main(["warmup", "elliott", "--dtypes", "float32"]) == 0

# The benchmark and the stub.
from bench import measure, peers, problems, workloads
from tools import stub

found = [w for w in workloads.every(workloads.functions()) if w.function == "elliott"]
assert {{w.layout for w in found}} >= {{*peers.ARRAY_LAYOUTS, *peers.SCALAR_LAYOUTS}}
case = problems.problem(workloads.Workload("elliott", "float32", (64,)))
libraries, _ = peers.load([peers.OURS, "numpy"])
row = measure.measure(case, libraries, 1, with_ulp=True, with_bounds=False)
assert [cell.status for cell in row.cells.values()] == ["measured"] * 2
for name in ("elliott", "elliott_backward"):
    assert f"from fastact._functions.elliott import {{name}} as {{name}}" in stub.stub()
print("all of it")
"""


ROWS_APPEAR = """
import doctest
import pathlib

import numpy as np

import fastact as fa

assert pathlib.Path(fa.__file__).samefile({copy!r} + "/__init__.py")


def exact(x):
    terms = np.exp(x.min(-1, keepdims=True) - x)
    return terms / terms.sum(-1, keepdims=True)


# The function, its derivative, and their docstrings.
assert type(fa.softlow) is np.ufunc and fa.softlow.signature == "(n)->(n)"
rng = np.random.default_rng(0)
for length in (1, 7, 100, 129, 300, 5000):
    x = 4 * rng.standard_normal((70, length))
    for dtype, within in (("float64", 1e-12), ("float32", 1e-5), ("float16", 1e-2)):
        np.testing.assert_allclose(fa.softlow(x.astype(dtype)), exact(x.astype(dtype).astype("d")),
                                   rtol=within, atol=1e-7)
names = ("softlow", "softlow_backward")
assert {{*names}} <= {{*fa.__all__, *dir(fa)}}
for name in names:
    found = doctest.DocTestParser().get_doctest(getattr(fa, name).__doc__, {{}}, name, None, None)
    assert found.examples and not doctest.DocTestRunner(verbose=False).run(found).failed
assert "softlow([1.0, inf]) = [1.0, 0.0]" in fa.softlow.__doc__

# Layers, and gradients compared with differences.
x, W, b = rng.standard_normal((3, 2)), rng.standard_normal((2, 5)), rng.standard_normal(5)
y = fa.Dense(W, b, "softlow")(x)
np.testing.assert_allclose(y, exact(x @ W + b), rtol=1e-13)
g = rng.standard_normal(y.shape)
step = 1e-6
slopes = np.empty((3, 5))
for row, k in np.ndindex(3, 5):
    inner = np.stack([x @ W + b] * 2)
    inner[:, row, k] += [step, -step]
    above, below = (g * exact(inner)).sum((1, 2))
    slopes[row, k] = (above - below) / (2 * step)
np.testing.assert_allclose(fa.softlow_backward(g, y), slopes, atol=1e-8)
np.testing.assert_allclose(fa.softlow_backward(g.T, y.T, axis=0), slopes.T, atol=1e-8)
grad_b = fa.dense_backward(g, x, W, y, fa.softlow)[2]
np.testing.assert_allclose(grad_b, slopes.sum(0), atol=1e-8)

# Names in other libraries.
from fastact._dense import from_sklearn, from_torch

assert "Softlow" in from_torch._SUPPORTED and from_sklearn._NAMES["softlow"] == "softlow"

# The command line.
from fastact.__main__ import main
from fastact._cli import warmup

assert "softlow" in warmup.NAMES
assert main(["warmup", "softlow", "--dtypes", "float32"]) == 0

# The benchmark, the documents and the stub.
from bench import measure, peers, problems, readme, workloads
from tools import stub

found = [w for w in workloads.every(workloads.functions()) if w.function == "softlow"]
assert {{w.layout for w in found}} == {{peers.ROWS}}
case = problems.problem(workloads.Workload("softlow", "float32", (9, 7), peers.ROWS))
libraries, _ = peers.load([peers.OURS, "numpy"])
row = measure.measure(case, libraries, 1, with_ulp=True, with_bounds=False)
assert [cell.status for cell in row.cells.values()] == ["measured"] * 2
assert row.cells[peers.OURS].ulp <= 1.5
assert "softlow(x)[i] = " in readme.functions(None)
assert "softlow_backward(grad_output, output) = " in readme.derivatives(None)
for name in names:
    assert f"::: fastact.{{name}}" in readme.reference(None)
    assert f"from fastact._functions.softlow import {{name}} as {{name}}" in stub.stub()
print("all of it")
"""

IN_A_MODULE = """
import warnings

warnings.simplefilter("ignore")  # of future changes of the library
import numpy as np

import fastact as fa

x = np.random.default_rng(0).standard_normal((4, 3))
weight = np.random.default_rng(1).standard_normal((4, 3))
{imports}
for name in ("elliott", "softlow"):
    assert name in ours.__all__
    y = getattr(fa, name)(x)
    backward = getattr(fa, name + "_backward")
    reverse, forward = gradients(getattr(ours, name))
    np.testing.assert_allclose(reverse, backward(weight, y), rtol=1e-13)
    np.testing.assert_allclose(forward, backward(weight, y), rtol=1e-13)
print("all of it")
"""

GRADIENTS = {
    "autograd": """
from autograd import make_jvp, make_vjp
import fastact.autograd as ours


def gradients(function):
    return make_vjp(function, 0)(x)[0](weight), make_jvp(function, 0)(x)(weight)[1]
""",
    "torch": """
import torch
import fastact.torch as ours


def gradients(function):
    given, g = torch.from_numpy(x), torch.from_numpy(weight)
    reverse, = torch.func.vjp(function, given)[1](g)
    return reverse.numpy(), torch.func.jvp(function, (given,), (g,))[1].numpy()
""",
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the package with two more files, an activation and a function of rows."""
    package = tmp_path_factory.mktemp("copy") / "fastact"
    shutil.copytree(ROOT / "fastact", package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "_functions/elliott.py").write_text(ELLIOTT.lstrip(), encoding="utf-8")
    (package / "_functions/softlow.py").write_text(SOFTLOW.lstrip(), encoding="utf-8")
    return package


def path_of(package):
    """Environment variables for a process that imports the copy, and all else from here."""
    return {
        "PYTHONPATH": os.pathsep.join([str(package.parent), str(ROOT)]),
        "PYTHONSAFEPATH": "1",
    }


def test_a_new_activation_appears_everywhere(copy, tmp_path):
    code = APPEARS.format(copy=str(copy), picture=str(tmp_path / "a.svg"))
    assert run_python(code, **path_of(copy)).endswith("all of it\n")


def test_a_new_function_of_rows_appears_everywhere(copy):
    code = ROWS_APPEAR.format(copy=str(copy))
    assert run_python(code, **path_of(copy)).endswith("all of it\n")


@pytest.mark.integration
@pytest.mark.parametrize("library", GRADIENTS)
def test_new_ones_have_gradients_in_other_libraries(copy, library):
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    code = IN_A_MODULE.format(imports=GRADIENTS[library])
    assert run_python(code, **path_of(copy)) == "all of it\n"
