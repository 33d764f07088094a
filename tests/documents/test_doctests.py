"""Docstrings have examples, and these show the actual results."""

import doctest
import importlib.util
import sys

import pytest
from conftest import ROOT, run_python

import fastact as fa

MODULES = sorted(path.stem for path in (ROOT / "fastact").glob("[!_]*.py"))

pytestmark = pytest.mark.skipif(sys.flags.optimize >= 2, reason="docstrings are stripped")


def documented():
    """Names and values of everything public in the package itself, including class methods."""
    for name in fa.__all__:
        value = getattr(fa, name)
        yield name, value
        if isinstance(value, type):
            for method, function in vars(value).items():
                if not method.startswith("_") and isinstance(function, classmethod):
                    yield f"{name}.{method}", getattr(value, method)


DOCUMENTED = dict(documented())


def skip_without(examples):
    """Skip the test if an example imports a library that is not installed."""
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


# In a separate process, since some modules change other libraries permanently.
EXAMPLES_OF_A_MODULE = """
import doctest, importlib, warnings
warnings.simplefilter("ignore")
module = importlib.import_module({module!r})
texts = {{name: getattr(module, name).__doc__ for name in module.__all__}}
if {module!r} == "fastact.autograd":  # its functions have the docstrings of ufuncs
    texts = {{module.__name__: module.__doc__}}
for name, text in texts.items():
    found = doctest.DocTestParser().get_doctest(text, {{}}, name, None, None)
    assert found.examples, name + " has no example"
    doctest.DocTestRunner(verbose=False).run(found)
"""


@pytest.mark.parametrize("module", MODULES)
def test_examples_of(module):
    libraries = {"c": ["scipy"], "fast": [], "numba": ["numba", "scipy"]}
    for library in libraries.get(module, [module]):
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"{library} is not installed")
    code = EXAMPLES_OF_A_MODULE.format(module=f"fastact.{module}")
    assert run_python(code, PYTHONWARNINGS="ignore") == ""
