"""The examples in docstrings are there, and show what happens."""

import doctest
import importlib.util
import sys

import pytest
from conftest import ROOT, run_python

import fastact as fa

FACES = sorted(path.stem for path in (ROOT / "fastact").glob("[!_]*.py"))

pytestmark = pytest.mark.skipif(sys.flags.optimize >= 2, reason="docstrings are stripped")


def documented():
    """Everything public of the package itself, methods included, by its name."""
    for name in fa.__all__:
        value = getattr(fa, name)
        yield name, value
        if isinstance(value, type):
            for method, function in vars(value).items():
                if not method.startswith("_") and isinstance(function, classmethod):
                    yield f"{name}.{method}", getattr(value, method)


DOCUMENTED = dict(documented())


def skip_without(examples):
    """Skip where an example imports what is not installed."""
    for example in examples:
        words = example.source.replace(",", " ").split()
        if words[0] in ("import", "from"):
            library = words[1].partition(".")[0]
            if importlib.util.find_spec(library) is None:
                pytest.skip(f"{library} is not installed")


@pytest.mark.parametrize("name", DOCUMENTED)
def test_examples(name):
    text = DOCUMENTED[name].__doc__
    found = doctest.DocTestParser().get_doctest(text, {}, name, None, None)
    assert found.examples, f"{name} has no example"
    skip_without(found.examples)
    report = []
    with fa.num_threads(fa.get_num_threads()):
        outcome = doctest.DocTestRunner(verbose=False).run(found, out=report.append)
    assert outcome.failed == 0, "".join(report)


# In a process of its own, as some change others for good.
IN_A_FACE = """
import doctest, importlib, warnings
warnings.simplefilter("ignore")
face = importlib.import_module({module!r})
texts = {{name: getattr(face, name).__doc__ for name in face.__all__}}
if {module!r} == "fastact.autograd":  # whose functions have the docstrings of ufuncs
    texts = {{face.__name__: face.__doc__}}
for name, text in texts.items():
    found = doctest.DocTestParser().get_doctest(text, {{}}, name, None, None)
    assert found.examples, name + " has no example"
    doctest.DocTestRunner(verbose=False).run(found)
"""


@pytest.mark.parametrize("face", FACES)
def test_examples_of(face):
    libraries = {"c": ["scipy"], "numba": ["numba", "scipy"]}
    for library in libraries.get(face, [face]):
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"{library} is not installed")
    assert run_python(IN_A_FACE.format(module=f"fastact.{face}"), PYTHONWARNINGS="ignore") == ""
