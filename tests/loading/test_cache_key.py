"""The key of machine code holds everything that the code depends on."""

import ast
import dataclasses
import functools
import importlib
import json
import os
import shutil
import sys
import time
import types
from importlib.machinery import ModuleSpec
from pathlib import Path

import llvmlite.binding
import numpy as np
import pytest
from code_cache import (
    CODE,
    USE,
    one_warning,
    use,
)
from conftest import ROOT, run_python
from hypothesis import example, given
from hypothesis import strategies as st

import fastact
from fastact._compiler import host
from fastact._compiler.gemm.interface import Storage
from fastact._declarations.records import NORMALIZATIONS, element_wise, of_rows
from fastact._kernels.row_steps import counts, scheme_of
from fastact._loading import cache
from fastact._machine.formats import FLOATS
from fastact._machine.targets import BASELINES
from fastact._parallel import helpers
from fastact._runtime import engine


def other_targets():
    target = BASELINES["x86-64-v3"]
    other = {str: lambda v: v + "+x", int: lambda v: 2 * v, bool: lambda v: not v}
    for field in dataclasses.fields(target):
        value = getattr(target, field.name)
        yield dataclasses.replace(target, **{field.name: other[type(value)](value)})


CHANGES = [{"name": "another"}, {"options": "x"}, *({"target": t} for t in other_targets())]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_key_has_what_code_is_for(kept, change):
    kept.get()
    other = CODE[::-1]
    assert kept.get(other, **change) == (other, True)
    assert kept.get(**change) == (other, False)
    assert kept.get() == (CODE, False)


def test_key_has_versions(kept, monkeypatch, tmp_path):
    kept.get()
    numba_version = tmp_path / "_version.py"
    numba_version.write_text("version = '9.9.9'")
    for owner, name, value in [
        (np, "__version__", "9.9.9"),
        (llvmlite, "__version__", "9.9.9"),
        (llvmlite.binding, "llvm_version_info", (99, 9, 9)),
        (sys.implementation, "cache_tag", "cpython-99"),
        (cache, "_numba_version_file", lambda: str(numba_version)),
    ]:
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, value)
            assert kept.get() == (CODE, True)
            assert kept.get() == (CODE, False)
    assert kept.get() == (CODE, False)


def test_numba_version_file_tells_the_version():
    code = "import sys; from fastact._loading import cache; print(cache._numba_version_file())"
    code += "; assert 'numba' not in sys.modules"
    text = Path(run_python(code).strip()).read_text()
    import numba

    assert f'"{numba.__version__}"' in text


@pytest.mark.parametrize("variable", ["NUMBA_OPT", "NUMBA_BOUNDSCHECK", "NUMBA_CPU_FEATURES"])
def test_key_has_settings_of_numba(kept, monkeypatch, variable):
    kept.get()
    monkeypatch.setenv(variable, "1")
    assert kept.get() == (CODE, True)


def test_key_has_nothing_else(kept, monkeypatch, tmp_path):
    kept.get()
    for variable in ("NUMBA_NUM_THREADS", "NUMBA_THREADING_LAYER", "NUMBA_CACHE_DIR", "LANG"):
        monkeypatch.setenv(variable, "2")
    text = kept.source.read_text()
    kept.source.write_text(text)
    os.utime(kept.source, (1, 1))
    moved = tmp_path / "elsewhere" / kept.source.name
    moved.parent.mkdir()
    moved.write_text(text)
    (tmp_path / "unrelated.py").write_text("")
    assert kept.get() == (CODE, False)
    assert kept.get(sources=[str(moved)]) == (CODE, False)


@given(st.text(), st.text())
@example("", " ")
@example("coefficient = 1.5", "coefficient = 1.25")
def test_key_has_content_of_sources(damaged, first, second):
    damaged.reset()
    results = []
    for text in (first, second):
        damaged.source.write_text(text, encoding="utf-8", errors="surrogatepass", newline="")
        results.append(damaged.get(text.encode("utf-8", "surrogatepass")))
    expected = second.encode("utf-8", "surrogatepass")
    assert results[1] == (expected, first != second)


@functools.cache
def package_imports(module):
    """Return the files of the package that `module` imports, and its own, found in the source."""
    root = Path(fastact.__file__).parents[1]
    found, left = set(), [f"fastact.{module}"]
    while left:
        name = left.pop()
        path = root.joinpath(*name.split(".")).with_suffix(".py")
        if path in found or not path.exists():
            continue
        found.add(path)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                left += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return {str(path) for path in found}


def makers(*modules: str) -> set[str]:
    return set().union(*map(package_imports, modules))


FRONT = ("_compiler.pipeline", "_compiler.frontend", "_kernels.elementary", "_kernels.tables")


def test_key_has_every_source_that_makes_code(kept, monkeypatch):
    passed = {}

    def record(**arguments):
        passed.update(arguments)
        raise StopIteration

    monkeypatch.setattr(cache, "object_code", record)
    functions = str(Path(fastact.__file__).parent / "_functions")

    def check(make, *arguments, made_by, kernels=()):
        with pytest.raises(StopIteration):
            make(*arguments)
        assert makers(*made_by) <= set(passed["sources"])
        # No other function: editing one invalidates only its own code.
        assert {path for path in passed["sources"] if path.startswith(functions)} == {*kernels}

    single = type(np.dtype("f"))
    for declared in element_wise().values():
        kernels = [declared.kernel.__code__.co_filename]
        arguments = declared.kernel, declared.nin, single
        made_by = (*FRONT, "_compiler.loops.elementwise")
        check(engine.loop_address, *arguments, made_by=made_by, kernels=kernels)
        made_by = (*FRONT, "_compiler.c_function")
        check(engine.scalar_address, *arguments, made_by=made_by, kernels=kernels)
    for declared in of_rows().values():
        steps = [getattr(declared.steps, name) for name in counts(scheme_of(declared.steps))]
        kernels = {step.__code__.co_filename for step in steps}
        kernels = {path for path in kernels if path.startswith(functions)}
        assert kernels
        modules = {step.__module__.removeprefix("fastact.") for step in steps}
        shared = [module for module in modules if module.startswith("_kernels.")]
        made_by = (*FRONT, "_compiler.loops.rows", *shared)
        check(engine.rows_address, declared.steps, single, made_by=made_by, kernels=kernels)
    for declared in NORMALIZATIONS.values():
        made_by = (*FRONT, "_compiler.loops.normalization", "_kernels.normalization")
        check(engine.normalization_address, declared.steps, single, made_by=made_by)
    for stored in (None, Storage(FLOATS["float16"]), Storage(FLOATS["float32"], scaled=True)):
        check(
            engine.gemm_addresses, FLOATS["float32"], 4, stored, made_by=["_compiler.gemm.module"]
        )
    formats = FLOATS["float32"], FLOATS["float64"]
    convert = engine.convert_addresses.__wrapped__
    check(convert, *formats, made_by=["_compiler.loops.convert"])
    for mixed in (engine.mixed_address, engine.mixed_rows_address):
        types = (type(np.dtype("b")),)
        check(mixed, types, single, 0, made_by=["_compiler.loops.mixed"])
    check(engine.undisturbed_address, made_by=["_compiler.loops.undisturbed"])
    check(helpers.helper_addresses, made_by=["_compiler.threads.helpers"])


@pytest.mark.parametrize("variant", ["tables", "narrow"])
def test_key_has_the_source_of_a_variant(variant, kept, monkeypatch, tmp_path):
    """Also if it is in another file."""
    (tmp_path / f"{variant}.py").write_text(f"def {variant}(x):\n    return x\n")
    (tmp_path / "plain.py").write_text(
        f"from {variant} import {variant}\n"
        "from fastact._kernels.vocabulary import with_variants\n"
        f"@with_variants({variant}={variant})\n"
        "def plain(x):\n    return x\n"
    )
    monkeypatch.delitem(sys.modules, "plain", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    kernel = importlib.import_module("plain").plain
    passed = {}

    def record(**arguments):
        passed.update(arguments)
        raise StopIteration

    monkeypatch.setattr(cache, "object_code", record)
    with pytest.raises(StopIteration):
        engine.loop_address(kernel, 1, type(np.dtype("f")))
    assert {str(tmp_path / f"{variant}.py"), str(tmp_path / "plain.py")} <= set(passed["sources"])


def test_kernels_have_keys_of_their_own(monkeypatch):
    seen = set()

    def record(name, options, target, **_):
        assert (name, options, target) not in seen
        seen.add((name, options, target))
        raise StopIteration

    monkeypatch.setattr(cache, "object_code", record)
    targets = {host.host(), *BASELINES.values()}
    for declared in element_wise().values():
        for code in "efdbBhHiIqQ":
            for target in targets:
                with pytest.raises(StopIteration):
                    dtype = type(np.dtype(code))
                    engine.loop_address(declared.kernel, declared.nin, dtype, target)
    assert len(seen) == len(element_wise()) * 11 * len(targets)


def test_closures_are_not_kept(kept):
    """Two kernels with one source differ by a value that is not in the source."""
    addresses = [engine.loop_address(scaled(factor), 1, type(np.dtype("f"))) for factor in (2, 3)]
    assert addresses[0] != addresses[1]
    assert not kept.folder.exists()


def scaled(factor):
    return lambda x: x * np.float32(factor)


def test_code_of_a_machine_with_more_features_is_not_used(kept, monkeypatch):
    monkeypatch.delenv("FASTACT_CPU", raising=False)
    features = llvmlite.binding.get_host_cpu_features()
    more = type(features)(features | {"amx-of-another-machine": True})
    with monkeypatch.context() as patch:
        patch.setattr(llvmlite.binding, "get_host_cpu_features", lambda: more)
        there = host.host.__wrapped__()
    with monkeypatch.context() as patch:
        patch.setattr(llvmlite.binding, "get_host_cpu_name", lambda: "another")
        elsewhere = host.host.__wrapped__()
    assert kept.get(b"there", target=there) == (b"there", True)
    assert kept.get(b"elsewhere", target=elsewhere) == (b"elsewhere", True)
    assert kept.get(target=host.host.__wrapped__()) == (CODE, True)


def test_sources_that_were_changed_after_they_were_imported(kept):
    """The modules in memory may differ from the files from which the key is computed."""
    imported = time.time_ns()
    time.sleep(0.05)  # clocks of file systems are coarse
    kept.source.write_text("coefficient = 1.25\n")
    with one_warning(str(kept.source), "changed since"):
        assert kept.get(imported=imported) == (CODE, True)
    assert not list(kept.folder.glob("*"))


def test_sources_that_are_dated_in_the_future(kept, monkeypatch):
    """The clock is behind the date of a source; once it is right, the cache works."""
    past = kept.source.stat().st_ctime_ns - 1
    with monkeypatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: past)
        with one_warning(str(kept.source), "is the clock right?"):
            assert kept.get(imported=past) == (CODE, True)
    assert kept.get() == (CODE, True)
    assert kept.get() == (CODE, False)


def test_sources_that_are_changed_while_compiling(kept):
    imported = time.time_ns()
    kept.source.write_text("coefficient = 1.5\n")

    def build():
        time.sleep(0.05)
        kept.source.write_text("coefficient = 1.25\n")
        return CODE

    imported = time.time_ns() + 40_000_000
    time.sleep(0.05)
    with one_warning(str(kept.source), "changed since"):
        assert cache.object_code(**kept.arguments | {"imported": imported}, build=build) == CODE
        cache.warn_of_trouble()
    assert not list(kept.folder.glob("*.code"))


EDITED = """
import sys, warnings
import numpy as np, fastact
print(fastact.__file__, float(fastact.{name}(np.float32(0.5))), "numba" in sys.modules)
"""


@pytest.mark.parametrize(
    ("name", "module", "coefficient"),
    [
        ("softplus", "_kernels/elementary", "0.16666512191295624"),
        pytest.param(
            *("tanh", "_kernels/tables", "0.51901007"),
            marks=pytest.mark.skipif(
                not host.host().lookup, reason="no kernel by tables on this machine"
            ),
        ),
    ],
)
def test_editing_a_coefficient_has_effect(tmp_path, name, module, coefficient):
    """End to end, in a copy of the package. Editing files that make no code has no effect."""
    shutil.copytree(ROOT / "fastact", tmp_path / "fastact")

    def run():
        code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})" + EDITED.format(name=name)
        place = str(tmp_path / "cache")
        file, value, compiled = run_python(code, FASTACT_CACHE_DIR=place).split()
        assert file == str(tmp_path / "fastact" / "__init__.py")
        return float(value), compiled == "True"

    value, compiled = run()
    assert compiled
    for other in (
        "_runtime/ufunc.py",
        "_functions/relu.py",
        "_runtime/engine.py",
        "_declarations/declare.py",
        "__init__.py",
        "_loading/cache.py",
    ):
        path = tmp_path / "fastact" / other
        path.write_text(path.read_text() + "\n# a remark\n")
    assert run() == (value, False)
    path = tmp_path / "fastact" / f"{module}.py"
    text = path.read_text()
    assert coefficient in text
    path.write_text(text.replace(coefficient, coefficient[:3] + "7" + coefficient[4:]))
    edited, compiled = run()
    assert compiled
    assert edited != value
    path.write_text(text)
    assert run() == (value, False)


IN_ITS_PLACE = """
import sys, types
module = sys.modules["numba"] = types.ModuleType("numba")
"""


@pytest.mark.parametrize("change", ["", "del module.__spec__"])
def test_something_without_a_spec_in_place_of_numba(change):
    """The cache is used nevertheless."""
    use()
    done = use(code=f"{IN_ITS_PLACE}{change}\n{USE}")
    assert json.loads(done.stdout) == [[[0, 2], [0, 1]], []]


def module_with(spec):
    module = types.ModuleType("numba")
    module.__spec__ = spec
    return module


@pytest.mark.parametrize(
    ("module", "word"),
    [
        (None, "Numba is not found"),
        (module_with(ModuleSpec("numba", None)), "Numba is not found"),
        (module_with(ModuleSpec("numba", None, origin="/dev/null")), "_version.py"),
        (module_with(7), "AttributeError"),
    ],
)
def test_numba_that_is_not_found(kept, monkeypatch, module, word):
    monkeypatch.setitem(sys.modules, "numba", module)
    with one_warning(word):
        assert kept.get() == (CODE, True)
