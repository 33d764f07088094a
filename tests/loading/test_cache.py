"""Machine code on disk: found again, never wrong, and a loss of time at worst."""

import ast
import contextlib
import dataclasses
import errno
import importlib
import json
import os
import pickle
import resource
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
import types
import warnings
import weakref
from importlib.machinery import ModuleSpec
from pathlib import Path

import llvmlite.binding
import numpy as np
import pytest
from conftest import ROOT, run_python
from hypothesis import example, given
from hypothesis import strategies as st

import fastact
from fastact.__main__ import main
from fastact._cli import warmup
from fastact._compiler import frontend
from fastact._compiler import host as _host
from fastact._compiler.gemm.interface import lanes_for
from fastact._declarations.records import ACTIVATIONS, OBJECTIVES, ROW_ACTIVATIONS, element_wise
from fastact._loading import cache as _cache
from fastact._loading import loader
from fastact._machine.formats import FLOATS
from fastact._machine.targets import KNOWN
from fastact._parallel import helpers
from fastact._runtime import engine

CODE = bytes(range(256)) * 8
posix = pytest.mark.skipif(os.name != "posix", reason="owners and modes are those of POSIX")


class Kept:
    """A cache of its own, and code that is not for running, with a count of how often made."""

    def __init__(self, folder, source):
        self.folder, self.source, self.built = folder, source, 0
        self.arguments = {
            "name": "some-thing",
            "sources": [str(source)],
            "imported": time.time_ns() + 10**12,
            "target": KNOWN["x86-64-v3"],
            "options": "",
        }

    def get(self, code=CODE, **changes):
        """The code, and whether it had to be made."""
        _cache._content.cache_clear()  # what a new process does not remember
        before = self.built

        def build():
            self.built += 1
            return code

        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FASTACT_CACHE_DIR", str(self.folder))
            code = _cache.object_code(**self.arguments | changes, build=build)
        _cache.warn_of_trouble()
        return code, self.built > before

    def entry(self):
        (path,) = self.folder.glob("*.code")
        return path

    def reset(self):
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture
def kept(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTACT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(_cache, "trouble", None)
    monkeypatch.setattr(_cache, "_warnings_left", [1])
    source = tmp_path / "source.py"
    source.write_text("coefficient = 1.5\n")
    return Kept(tmp_path / "cache", source)


@pytest.fixture(scope="session")
def damaged(tmp_path_factory):
    """As `kept`, for hypothesis."""
    place = tmp_path_factory.mktemp("damaged")
    source = place / "source.py"
    source.write_text("")
    return Kept(place / "cache", source)


@contextlib.contextmanager
def one_warning(*words):
    """However many reasons there are, one warning is given, of the first."""
    with pytest.warns(RuntimeWarning) as caught:
        yield
    assert len(caught) == 1
    for word in words:
        assert word in str(caught[0].message)


# Found again.


def test_made_once(kept):
    assert kept.get() == (CODE, True)
    assert kept.get() == (CODE, False)
    assert [entry.name for entry in _cache.entries()] == ["some-thing"]


def test_others_may_read_but_not_write(kept):
    old = os.umask(0)
    try:
        kept.get()
    finally:
        os.umask(old)
    assert stat.S_IMODE(kept.folder.stat().st_mode) == 0o755
    assert stat.S_IMODE(kept.entry().stat().st_mode) == 0o644


USE_ALL = """
import json, sys
import ml_dtypes, numpy as np, fastact
from fastact._declarations.records import OBJECTIVES, ROW_ACTIVATIONS, element_wise

results = {}
for name, declared in {**element_wise(), **ROW_ACTIVATIONS, **OBJECTIVES}.items():
    codes = "efd" + "bBhHiIlLqQ" * getattr(declared, "keeps_integers", False)
    function = getattr(fastact, name)
    for dtype in [*map(np.dtype, codes), np.dtype(ml_dtypes.bfloat16)]:
        x = [np.arange(100).astype(dtype)[::-1]] * function.nin
        results[f"{name} {dtype.char}"] = np.stack([function(*x)]).tobytes().hex()
for dtype in "fd":
    for columns in range(1, 17):
        layer = fastact.Dense(np.ones((3, columns), dtype), activation="tanh")
        results[f"Dense {dtype} {columns}"] = layer(np.ones(3, dtype)).tobytes().hex()
print(json.dumps([sorted({"numba", "llvmlite"} & set(sys.modules)), results]))
"""


USE_SEVERAL_TYPES = """
import json
import numpy as np, fastact
from fastact._runtime import engine
from fastact._machine.formats import CONVERSIONS, FLOATS

x, i = np.ones(3, "f"), np.arange(3)
used = [fastact.sigmoid(i), fastact.heaviside(x, i), fastact.logistic_grad_hess(x, i)[0]]
used += [fastact.softmax(i), fastact.softmax_backward(x, i)]
floats = FLOATS.values()
for pair in CONVERSIONS:
    if pair[1] in floats and (pair[0] != pair[1] or pair[1].bits > 16):
        used.append(engine.convert_addresses(*pair))
print(json.dumps([str(one) for one in used]))
"""


def test_warm_process_imports_no_numba():
    """Whatever functions and dtypes it uses."""
    run_python(USE_ALL)
    imported, results = json.loads(run_python(USE_ALL))
    assert imported == ["llvmlite"]
    assert len(results) >= 4 * len(element_wise())
    for name, declared in element_wise().items():
        x = [np.arange(100, dtype="f")[::-1]] * declared.nin
        assert getattr(fastact, name)(*x).tobytes().hex() == results[f"{name} f"]


def test_import_is_light():
    heavy = [
        "numba",
        "llvmlite",
        "platformdirs",
        "hashlib",
        "fastact._loading.cache",
        "fastact._compiler.pipeline",
    ]
    code = """
import json, sys, numpy
had = set(sys.modules)
import fastact
print(json.dumps(sorted(set(sys.modules) - had)))
"""
    new = json.loads(run_python(code))
    assert not {*heavy} & {*new}
    # NumPy brings the rest.
    others = {name for name in new if not name.startswith("fastact")}
    assert others <= {"atexit", "copy", "dataclasses"}
    own = {name for name in {*new} - others if not name.startswith("fastact._functions.")}
    assert len(own) <= 32, own


def test_switched_off(kept, monkeypatch):
    kept.get()
    monkeypatch.setenv("FASTACT_CACHE", "0")
    assert kept.get() == (CODE, True)
    kept.reset()
    assert kept.get() == (CODE, True)
    assert not kept.folder.exists()
    monkeypatch.setenv("FASTACT_CACHE", "off")
    with one_warning("FASTACT_CACHE must be 0 or 1, got 'off'"):
        assert kept.get() == (CODE, True)
    assert not kept.folder.exists()
    monkeypatch.setenv("FASTACT_CACHE", "")  # as if unset
    assert kept.get() == (CODE, True)
    assert kept.get() == (CODE, False)


@posix
def test_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("FASTACT_CACHE_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    if sys.platform == "linux":
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        assert _cache.folder() == str(tmp_path / ".cache" / "fastact")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        assert _cache.folder() == str(tmp_path / "xdg" / "fastact")
    monkeypatch.setenv("FASTACT_CACHE_DIR", "~/mine")
    assert _cache.folder() == str(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FASTACT_CACHE_DIR", "here")
    assert _cache.folder() == str(tmp_path / "here")
    for unset in ("", " "):
        monkeypatch.setenv("FASTACT_CACHE_DIR", unset)
        if sys.platform == "linux":
            assert _cache.folder() == str(tmp_path / "xdg" / "fastact")
    monkeypatch.setenv("FASTACT_CACHE_DIR", "~no-such-user/cache")
    with pytest.raises(_cache.Unusable, match="~no-such-user/cache"):
        _cache.folder()
    for home in ("", "rel", "."):  # not the root, and not the current folder
        monkeypatch.setenv("HOME", home)
        for place in ("~/mine", "~"):
            monkeypatch.setenv("FASTACT_CACHE_DIR", place)
            with pytest.raises(_cache.Unusable, match=f"^{place} is in a home folder"):
                _cache.folder()
        monkeypatch.setenv("FASTACT_CACHE_DIR", "~root/mine")
        assert os.path.isabs(_cache.folder())


# The key.


def other_targets():
    target = KNOWN["x86-64-v3"]
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
        (_cache, "_numba_version_file", lambda: str(numba_version)),
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


def package_imports(module):
    """The files of the package that `module` imports, itself included, read from the source."""
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

    monkeypatch.setattr(_cache, "object_code", record)
    functions = str(Path(fastact.__file__).parent / "_functions")

    def check(make, *arguments, made_by, kernels=()):
        with pytest.raises(StopIteration):
            make(*arguments)
        assert makers(*made_by) <= set(passed["sources"])
        # No other function: to edit it throws away its own code only.
        assert {path for path in passed["sources"] if path.startswith(functions)} == {*kernels}

    single = type(np.dtype("f"))
    for declared in element_wise().values():
        kernels = [declared.kernel.__code__.co_filename]
        arguments = declared.kernel, declared.nin, single
        made_by = (*FRONT, "_compiler.loops.elementwise")
        check(engine.loop_address, *arguments, made_by=made_by, kernels=kernels)
        made_by = (*FRONT, "_compiler.c_function")
        check(engine.scalar_address, *arguments, made_by=made_by, kernels=kernels)
    for declared in ROW_ACTIVATIONS.values():
        kernels = [declared.steps.larger.__code__.co_filename]
        made_by = (*FRONT, "_compiler.loops.rows")
        check(engine.rows_address, declared.steps, single, made_by=made_by, kernels=kernels)
    check(engine.gemm_addresses, FLOATS["float32"], 4, made_by=["_compiler.gemm.module"])
    formats = FLOATS["float32"], FLOATS["float64"]
    convert = engine.convert_addresses.__wrapped__
    check(convert, *formats, made_by=["_compiler.loops.convert"])
    for mixed in (engine.mixed_address, engine.mixed_rows_address):
        types = (type(np.dtype("b")),)
        check(mixed, types, single, 0, made_by=["_compiler.loops.mixed"])
    check(engine.undisturbed_address, made_by=["_compiler.loops.undisturbed"])
    check(helpers.helper_addresses, made_by=["_compiler.threads.helpers"])


def test_key_has_the_source_of_a_kernel_by_tables(kept, monkeypatch, tmp_path):
    """Also where that is in another file."""
    (tmp_path / "by_tables.py").write_text("def by_tables(x):\n    return x\n")
    (tmp_path / "plain.py").write_text(
        "from by_tables import by_tables\n"
        "from fastact._kernels.vocabulary import with_tables\n"
        "@with_tables(by_tables)\n"
        "def plain(x):\n    return x\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    kernel = importlib.import_module("plain").plain
    passed = {}

    def record(**arguments):
        passed.update(arguments)
        raise StopIteration

    monkeypatch.setattr(_cache, "object_code", record)
    with pytest.raises(StopIteration):
        engine.loop_address(kernel, 1, type(np.dtype("f")))
    assert {str(tmp_path / "by_tables.py"), str(tmp_path / "plain.py")} <= set(passed["sources"])


def test_kernels_have_keys_of_their_own(monkeypatch):
    seen = set()

    def record(name, options, target, **_):
        assert (name, options, target) not in seen
        seen.add((name, options, target))
        raise StopIteration

    monkeypatch.setattr(_cache, "object_code", record)
    targets = {_host.host(), *KNOWN.values()}
    for declared in element_wise().values():
        for code in "efdbBhHiIqQ":
            for target in targets:
                with pytest.raises(StopIteration):
                    dtype = type(np.dtype(code))
                    engine.loop_address(declared.kernel, declared.nin, dtype, target)
    assert len(seen) == len(element_wise()) * 11 * len(targets)


def test_closures_are_not_kept(kept):
    """Two kernels of one source, which differ by a value that is in none."""
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
        there = _host.host.__wrapped__()
    with monkeypatch.context() as patch:
        patch.setattr(llvmlite.binding, "get_host_cpu_name", lambda: "another")
        elsewhere = _host.host.__wrapped__()
    assert kept.get(b"there", target=there) == (b"there", True)
    assert kept.get(b"elsewhere", target=elsewhere) == (b"elsewhere", True)
    assert kept.get(target=_host.host.__wrapped__()) == (CODE, True)


def test_sources_that_were_changed_after_they_were_imported(kept):
    """The modules in memory may be other than the files that the key is made of."""
    imported = time.time_ns()
    time.sleep(0.05)  # clocks of file systems are coarse
    kept.source.write_text("coefficient = 1.25\n")
    with one_warning(str(kept.source), "changed since"):
        assert kept.get(imported=imported) == (CODE, True)
    assert not list(kept.folder.glob("*"))


def test_sources_that_are_dated_in_the_future(kept, monkeypatch):
    """As seen by a clock that is behind, though not behind what was installed just now."""
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
        assert _cache.object_code(**kept.arguments | {"imported": imported}, build=build) == CODE
        _cache.warn_of_trouble()
    assert not list(kept.folder.glob("*.code"))


EDITED = """
import sys, warnings
import numpy as np, fastact
print(fastact.__file__, float(fastact.{name}(np.float32(0.5))), "numba" in sys.modules)
"""


@pytest.mark.parametrize(
    ("name", "module", "coefficient"),
    [
        ("softplus", "_kernels/elementary", "0.1666666716337204"),
        pytest.param(
            *("tanh", "_kernels/tables", "0.51901007"),
            marks=pytest.mark.skipif(
                not _host.host().lookup, reason="no kernel by tables on this machine"
            ),
        ),
    ],
)
def test_editing_a_coefficient_has_effect(tmp_path, name, module, coefficient):
    """End to end, in a copy of the package; editing what makes no code has none."""
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


# Where Numba is.


IN_ITS_PLACE = """
import sys, types
module = sys.modules["numba"] = types.ModuleType("numba")
"""


@pytest.mark.parametrize("change", ["", "del module.__spec__"])
def test_something_without_a_spec_in_place_of_numba(change):
    """What has been compiled is found all the same."""
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


# Damage.


def foreign():
    elf = b"\x7fELF" + bytes(60)
    return [b"", b"\0", elf, pickle.dumps(CODE), CODE, _cache._HEADER, _cache._HEADER + CODE]


def assert_mended(kept, content):
    kept.entry().write_bytes(content)
    assert kept.get() == (CODE, True)
    assert kept.get() == (CODE, False)


@given(st.data())
def test_flipped_bits_are_found(damaged, data):
    damaged.reset()
    damaged.get()
    content = bytearray(damaged.entry().read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= data.draw(st.integers(1, 255))
    assert_mended(damaged, content)


@given(st.data())
def test_truncation_is_found(damaged, data):
    damaged.reset()
    damaged.get()
    content = damaged.entry().read_bytes()
    assert_mended(damaged, content[: data.draw(st.integers(0, len(content) - 1))])
    assert_mended(damaged, content + data.draw(st.binary(min_size=1, max_size=9)))


@pytest.mark.parametrize("content", foreign(), ids=lambda content: repr(content[:12]))
def test_foreign_content_is_found(kept, content):
    kept.get()
    assert_mended(kept, content)


def test_code_under_the_name_of_another(kept):
    """As after a mix-up of files; each is whole."""
    kept.get(b"another", name="another")
    content = kept.entry().read_bytes()
    kept.entry().unlink()
    kept.get()
    assert_mended(kept, content)


@posix
@pytest.mark.parametrize("what", ["link", "pipe", "dangling", "socket"])
def test_other_kinds_of_files(kept, what, tmp_path):
    kept.get()
    path = kept.entry()
    path.rename(tmp_path / "moved")
    if what == "link":
        path.symlink_to(tmp_path / "moved")
    elif what == "dangling":
        path.symlink_to(tmp_path / "nothing")
    elif what == "pipe":
        os.mkfifo(path)
    else:
        os.mknod(path, stat.S_IFSOCK | 0o600)
    assert kept.get() == (CODE, True)
    assert kept.get() == (CODE, False)
    assert path.is_file() and not path.is_symlink()
    assert not (tmp_path / "nothing").exists()


@posix
def test_folder_in_place_of_an_entry(kept):
    kept.get()
    path = kept.entry()
    path.unlink()
    path.mkdir()
    with one_warning(path.name):
        assert kept.get() == (CODE, True)
        assert kept.get() == (CODE, True)
    assert not list(kept.folder.glob("*.tmp"))


def test_entry_of_absurd_size(kept):
    """There is no memory for it; and the others are not evicted to make room for it."""
    kept.get(name="another")
    kept.get()
    (path,) = kept.folder.glob("some-thing-*")
    os.truncate(path, 1 << 42)  # it takes no space on the disk
    assert kept.get() == (CODE, True)
    assert kept.get() == (CODE, False)
    os.truncate(path, 1 << 42)
    kept.get(name="third")
    assert {entry.name for entry in _cache.entries()} == {"another", "third"}
    assert _cache.trouble is None


# Whose it is.


@posix
@pytest.mark.parametrize("mode", [0o020, 0o002, 0o022])
@pytest.mark.parametrize("what", ["folder", "entry"])
def test_what_others_can_write_is_not_loaded(kept, what, mode):
    kept.get(b"evil")
    path = kept.folder if what == "folder" else kept.entry()
    path.chmod(path.stat().st_mode | mode)
    with one_warning(str(path), "written to by others"):
        assert kept.get() == (CODE, True)
        assert kept.get() == (CODE, True)
    path.chmod(path.stat().st_mode & ~mode)
    assert kept.get() == (b"evil", False)


@posix
@pytest.mark.parametrize("what", ["folder", "entry"])
def test_what_belongs_to_others_is_not_loaded(kept, what, monkeypatch):
    kept.get(b"evil")
    path = kept.folder if what == "folder" else kept.entry()
    owner = os.geteuid()
    if owner == 0:
        os.chown(path, 12345, -1)
    else:  # who may not give files away becomes someone else; then the folder is first
        path = kept.folder
        monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with one_warning(str(path), "belongs to user"):
        assert kept.get() == (CODE, True)
        assert kept.get() == (CODE, True)
    if owner == 0:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)  # root's files serve everyone
    else:
        monkeypatch.undo()
        monkeypatch.setenv("FASTACT_CACHE_DIR", str(kept.folder))
    assert kept.get() == (b"evil", False)


def test_warning_as_an_error(kept, capsys):
    """NumPy calls from where no exception can pass; the function works all the same."""
    kept.folder.write_text("a file where the folder should be")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kept.get() == (CODE, True)
        assert kept.get() == (CODE, True)
    assert capsys.readouterr().err.count("compiles in memory") == 1


UNSHOWN = """
import io, sys, warnings
warnings.simplefilter({action!r})
closed = io.StringIO()
closed.close()
class Full(io.StringIO):
    def write(self, text):
        raise OSError(28, "No space left on device")
sys.stderr = {stream}
import numpy as np, fastact
print(fastact.relu(np.float32(2)), fastact.step(np.float32(2)))
from fastact._loading import cache as _cache
print(_cache.trouble)
sys.stderr = None  # as Python writes to it at the end
"""


@pytest.mark.parametrize("action", ["error", "always"])
@pytest.mark.parametrize("stream", ["None", "closed", "Full()", "7"])
def test_warning_that_cannot_be_shown(action, stream):
    code = UNSHOWN.format(action=action, stream=stream)
    expected = "2.0 1.0\n/dev/null is not a folder\n"
    assert run_python(code, FASTACT_CACHE_DIR="/dev/null/cache") == expected


def test_warning_that_somebody_else_fails_to_show(kept, monkeypatch, capsys):
    def show(*arguments, **keywords):
        raise RuntimeError("out of order")

    kept.folder.write_text("a file where the folder should be")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        monkeypatch.setattr(warnings, "showwarning", show)
        assert kept.get() == (CODE, True)
        assert kept.get() == (CODE, True)
    assert capsys.readouterr().err.count("compiles in memory") == 1


# Whatever else goes wrong.


class Mute(Exception):
    def __str__(self):
        raise self


STEPS = ("enabled", "folder", "_numba_version_file", "_content", "_key", "_open_folder", "_read")
STEPS += ("_write", "_evict", "_check_age", "_check_owner", "_scan", "_checksum")


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("error", [RuntimeError("why"), MemoryError(), ValueError("null"), Mute()])
def test_any_exception_costs_time_only(kept, monkeypatch, step, error):
    def fail(*_, **__):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(_cache, step, fail)
        if step == "_content":
            fail.cache_clear = lambda: None
        with one_warning(f"no machine code: {type(error).__name__}"):
            assert kept.get() == (CODE, True)
            kept.get()
    assert kept.get()[0] == CODE
    assert kept.get() == (CODE, False)


@pytest.mark.parametrize("step", ["_read", "_write"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_program_does(kept, monkeypatch, step, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(_cache, step, fail)
    with pytest.raises(error):
        kept.get()
    assert _cache.trouble is None


def test_threads_in_trouble_warn_once(kept, monkeypatch):
    """As loops are made in several threads."""
    kept.folder.write_text("a file where the folder should be")
    with one_warning("is not a folder"):
        in_four_threads(lambda: [kept.get() for _ in range(9)])


def test_trouble_keeps_nothing_alive(kept, monkeypatch):
    class Large:
        pass

    def fail(*_):
        local = Large()
        seen.append(weakref.ref(local))
        raise RuntimeError

    seen = []
    monkeypatch.setattr(_cache, "_read", fail)
    with one_warning("RuntimeError"):
        kept.get()
    assert seen[0]() is None


# Where nothing can be written. Each in a process of its own, with a real kernel.

USE = """
import json, sys, warnings
import numpy as np
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import fastact
    y = fastact.relu(np.float32([-1, 2])), fastact.step(np.float32([-1, 2]))
print(json.dumps([np.array(y).tolist(), [str(w.message) for w in caught]]))
"""


def use(*prefix, code=USE, cwd=None, **environment):
    """What `code` prints, started by the command `prefix`; an error where that fails."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    return subprocess.run(
        [*prefix, sys.executable, "-c", code],
        cwd=cwd,
        env={k: v for k, v in environment.items() if v is not None},
        capture_output=True,
        text=True,
        timeout=300,
    )


def assert_works_uncached(done, *words):
    assert done.returncode == 0 and done.stderr == "", done.stderr
    result, caught = json.loads(done.stdout)
    assert result == [[0, 2], [0, 1]]
    assert len(caught) == 1
    for word in words:
        assert word in caught[0]


def test_no_home():
    place = {"FASTACT_CACHE_DIR": None, "XDG_CACHE_HOME": None, "HOME": "/dev/null"}
    assert_works_uncached(use(**place), "/dev/null")


NO_PASSWD = """
import pwd

def getpwuid(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")

pwd.getpwuid = getpwuid
"""


@posix
@pytest.mark.parametrize("home", [None, "", "rel"])
def test_user_without_home(tmp_path, home):
    """As in a container that runs under the number of a user whom nobody has entered."""
    place = {"FASTACT_CACHE_DIR": None, "XDG_CACHE_HOME": None, "HOME": home}
    done = use(code=NO_PASSWD + USE, cwd=tmp_path, **place)
    assert_works_uncached(done, "the platform's folder for caches is not known")
    assert not list(tmp_path.iterdir())


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
    assert _cache.state()["in use"].startswith("no: the platform's folder for caches")


@pytest.mark.parametrize("path", ["~/.cache/fastact", ".cache/fastact", ""])
def test_platform_whose_folder_is_not_known(monkeypatch, path):
    """As releases of platformdirs give it that raise no exception then."""
    monkeypatch.delenv("FASTACT_CACHE_DIR")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda *_, **__: path)
    with pytest.raises(_cache.Unusable, match="platform's folder"):
        _cache.folder()


@posix
def test_home_that_is_read_only(tmp_path):
    done = use(
        *mounted(tmp_path, "ro"), FASTACT_CACHE_DIR=None, XDG_CACHE_HOME=None, HOME=str(tmp_path)
    )
    assert_works_uncached(done, "Read-only file system", str(tmp_path))


GONE = """
import os, tempfile
import numpy  # which cannot be imported there under Python 3.13.0
os.chdir(tempfile.mkdtemp())
os.rmdir(os.getcwd())
"""


@posix
def test_current_folder_that_is_gone(tmp_path):
    use()  # so that there is something to find
    assert json.loads(use(code=GONE + USE).stdout) == [[[0, 2], [0, 1]], []]
    code = (
        GONE
        + "from fastact._loading import cache as _cache\n"
        + "try: _cache.folder()\nexcept _cache.Unusable as reason: print(reason)"
    )
    for place in ("here", "./here", "../here"):
        expected = f"{place} is relative to the current folder, which is gone\n"
        assert run_python(code, FASTACT_CACHE_DIR=place) == expected


@posix
@pytest.mark.parametrize("depth", ["", "fastact", "a/b"])
def test_dangling_link_in_place_of_the_folder(kept, tmp_path, depth):
    link, there = tmp_path / "link", tmp_path / "there"
    link.symlink_to(there)
    kept.folder = link / depth
    with one_warning(f"{link} is a link to {there}, which does not exist"):
        assert kept.get() == (CODE, True)
    assert not there.exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTACT_CACHE_DIR", str(kept.folder))
        assert _cache.state()["in use"].startswith(f"no: {link} is a link")
        assert main(["cache"]) == main(["cache", "path"]) == main(["cache", "clear"]) == 0
    there.mkdir(mode=0o755)
    assert kept.get() == (CODE, True)
    assert kept.get() == (CODE, False)


ENCODINGS = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import warnings, numpy as np, fastact
warnings.simplefilter("ignore")
{{before}}
warnings.simplefilter("error")
print(fastact.relu(np.float32(-1)), fastact.get_num_threads() > 0)
"""


@pytest.mark.parametrize("compiles", [False, True])
def test_no_text_is_read_without_its_encoding(tmp_path, compiles):
    """Also where it is an error to do so; of Numba, it is not asked."""
    before = f"import os, numba; os.environ['FASTACT_CACHE_DIR'] = {str(tmp_path)!r}" * compiles
    code = ENCODINGS.format(before=before)
    run_python("import numpy as np, fastact; fastact.relu(np.float32(1))")
    done = subprocess.run(
        [sys.executable, "-X", "warn_default_encoding", "-c", code], capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("0.0 True\n", "")


def without_privileges():
    """A command that takes from root what lets it write everywhere; nothing for others."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("root may write everywhere, and there is no setpriv to change that")
    return ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]


@posix
def test_no_permission(tmp_path):
    prefix = without_privileges()
    (tmp_path / "home").mkdir(0o500)
    place = str(tmp_path / "home" / "cache")
    assert_works_uncached(use(*prefix, FASTACT_CACHE_DIR=place), "Permission", place)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o500)  # there, but not to be written to
    place = str(tmp_path / "cache")
    assert_works_uncached(use(*prefix, FASTACT_CACHE_DIR=place), "Permission", place)


@posix
def test_entries_in_a_folder_that_is_not_writable(tmp_path):
    prefix = without_privileges()
    place = str(tmp_path / "cache")
    use(FASTACT_CACHE_DIR=place)
    os.chmod(place, 0o500)
    os.utime(next((tmp_path / "cache").glob("relu*")), (1, 1))
    done = use(*prefix, FASTACT_CACHE_DIR=place)
    assert json.loads(done.stdout) == [[[0, 2], [0, 1]], []]


def mounted(tmp_path, options):
    """A command that mounts a file system at `tmp_path`, for the process that follows only."""
    place = str(tmp_path)
    mount = f'mount -t tmpfs -o {options} tmpfs "{place}" && exec "$@"'
    prefix = ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]
    try:
        subprocess.run([*prefix, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as reason:
        pytest.skip(f"no file systems can be mounted here: {reason}")
    return prefix


def test_read_only_file_system(tmp_path):
    done = use(*mounted(tmp_path, "ro"), FASTACT_CACHE_DIR=str(tmp_path / "cache"))
    assert_works_uncached(done, "Read-only file system")


def test_full_disk(tmp_path):
    """One page for the folder, none for a file."""
    prefix = mounted(tmp_path, "nr_blocks=1,mode=755")
    done = use(*prefix, FASTACT_CACHE_DIR=str(tmp_path))
    assert_works_uncached(done, "No space left on device")


@posix
def test_disk_that_is_full_in_the_middle_of_a_file(kept):
    """By the limit of a process on the size of its files."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with one_warning("File too large"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        try:
            assert kept.get() == (CODE, True)
            assert kept.get() == (CODE, True)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(kept.folder.iterdir())
    assert kept.get() == (CODE, True)
    assert kept.get() == (CODE, False)


@pytest.mark.parametrize("call", ["open", "replace", "access", "makedirs", "stat", "fstat"])
@pytest.mark.parametrize("number", ["EDQUOT", "EIO", "ESTALE", "ENOSYS"])
def test_errors_of_the_system(kept, monkeypatch, call, number):
    """As of a quota that is exceeded, or a server that is gone."""
    code = getattr(errno, number)
    original = getattr(os, call)

    def fail(path, *arguments, **keywords):
        if call == "fstat" or str(path).startswith(str(kept.folder)):
            raise OSError(code, os.strerror(code))
        return original(path, *arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with one_warning(os.strerror(code)):
            assert kept.get() == (CODE, True)
    assert not kept.folder.exists() or not list(kept.folder.iterdir())
    assert kept.get() == (CODE, True)
    assert kept.get() == (CODE, False)


# Several at once, and the end in the middle.

KILLED = """
import os, signal, sys
from fastact._loading import cache as _cache
from fastact._machine.targets import KNOWN

LINES = {_cache._write.__code__, _cache._evict.__code__}

def kill_at(line):
    left = line
    def trace(frame, event, argument):
        nonlocal left
        if frame.f_code not in LINES:
            return None
        if event == "line":
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
        return trace
    sys.settrace(trace)

def store():
    _cache.object_code("thing", [_cache.__file__], 2**63, KNOWN["aarch64"], "", lambda: b"c" * 9999)

for line in range(99):
    child = os.fork()
    if child == 0:
        kill_at(line)
        store()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print(os.WTERMSIG(status), flush=True)
    made = 0
    def build():
        global made
        made += 1
        return b"c" * 9999
    code = _cache.object_code("thing", [_cache.__file__], 2**63, KNOWN["aarch64"], "", build)
    assert code == b"c" * 9999
    _cache.object_code("thing", [_cache.__file__], 2**63, KNOWN["aarch64"], "", build)
    assert made <= 1
    if status == 0:
        break
    for entry in _cache.entries():
        os.unlink(entry.path)
"""


@posix
def test_killed_before_any_line_while_writing(kept):
    """The next one works, whatever was left behind."""
    kept.folder.mkdir()
    signals = run_python(KILLED).split()
    assert signals[-1] == "0"
    assert len(signals) > 12
    assert set(signals[:-1]) == {str(signal.SIGKILL.value)}
    left = list(kept.folder.glob("*.tmp"))
    assert left  # some were killed in the middle
    for path in left:
        os.utime(path, (1, 1))
    kept.get()
    assert not list(kept.folder.glob("*.tmp"))


SIXTEEN = """
import os, sys, warnings
import numpy as np
import fastact

# Numba once for all, as its import takes longer than what is to be tested.
os.environ["FASTACT_CACHE"] = "0"
fastact.heaviside(np.float32(1), np.float32(1))
os.environ["FASTACT_CACHE"] = "1"

x = np.linspace(-9, 9, 50, dtype=np.float32)
read, write = os.pipe()
children = []
for k in range(16):
    child = os.fork()
    if child == 0:
        os.close(write)
        os.read(read, 1)  # until all are there
        try:
            for function in [fastact.relu, fastact.step][:: 1 if k % 2 else -1]:
                y = {"relu": np.maximum(x, 0), "step": x >= 0}[function.__name__]
                np.testing.assert_array_equal(function(x), y)
        except BaseException as error:
            sys.stderr.write(repr(error))
            os._exit(1)
        os._exit(0)
    children.append(child)
os.close(read)
os.close(write)
print([os.waitpid(child, 0)[1] for child in children])
"""


@posix
def test_sixteen_processes_start_cold(kept):
    assert run_python(SIXTEEN) == f"{[0] * 16}\n"
    names = sorted(path.name.split("-")[0] for path in kept.folder.iterdir())
    assert names == ["relu", "step"]
    code = "import sys, numpy as np, fastact as f; f.relu(np.float32(f.step(np.float32(1))))"
    assert "numba" not in run_python(f"{code}; print(*sys.modules)").split()


@pytest.mark.exhaustive
def test_sixteen_whole_processes_start_cold(kept):
    # Some of everything: every function in one dtype took them 200 s on two cores.
    some = USE_ALL
    for all_of_them, instead in {
        '"efd" + "bBhHiIlLqQ" * getattr(declared, "keeps_integers", False)': '"f"',
        "in {**element_wise(), **ROW_ACTIVATIONS, **OBJECTIVES}.items()": (
            "in [*element_wise().items()][::3] + [*ROW_ACTIVATIONS.items(), *OBJECTIVES.items()]"
        ),
        "range(1, 17)": "(16,)",
    }.items():
        assert all_of_them in some
        some = some.replace(all_of_them, instead)
    children = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", some],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        for _ in range(16)
    ]
    ends = [child.communicate(timeout=900) for child in children]
    assert {errors for _, errors in ends} == {""}
    assert len({json.dumps(json.loads(output)[1]) for output, _ in ends}) == 1
    assert not list(kept.folder.glob("*.tmp"))


CROWD = """
import sys, time
from fastact._loading import cache as _cache
from fastact._machine.targets import KNOWN

_cache.LIMIT = 30_000
end = time.monotonic() + 2
turn = built = 0
while time.monotonic() < end:
    turn += 1
    name = f"thing{turn % 7}"
    def build():
        global built
        built += 1
        return name.encode() * 1000
    code = _cache.object_code(name, [_cache.__file__], 2**63, KNOWN["aarch64"], "", build)
    assert code == name.encode() * 1000
assert _cache.trouble is None, _cache.trouble
print(turn, built)
"""


def test_crowd_writes_reads_and_evicts(kept):
    """Processes that replace and remove what the others are reading."""
    children = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", CROWD],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        for _ in range(4)
    ]
    for child in children:
        output, errors = child.communicate(timeout=60)
        assert child.returncode == 0 and errors == "", errors
        turns, built = map(int, output.split())
        assert 0 < built < turns
    assert not list(kept.folder.glob("*.tmp"))


@pytest.fixture
def made(monkeypatch):
    """A list that gets longer with every kernel that is compiled."""
    made, compile_kernel = [], frontend.scalar_ir
    monkeypatch.setattr(frontend, "scalar_ir", lambda *a: made.append(a) or compile_kernel(*a))
    return made


def in_four_threads(work):
    start = threading.Barrier(4)

    def at_once():
        start.wait()
        work()

    threads = [threading.Thread(target=at_once) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_threads_compile_once(monkeypatch, fresh, made):
    monkeypatch.setenv("FASTACT_CACHE", "0")
    monkeypatch.setattr(engine, "loop_address", engine.loop_address.__wrapped__)
    function = fresh(ACTIVATIONS["relu"])
    in_four_threads(lambda: function(np.ones(3, np.float32)))
    assert len(made) == 1


def test_threads_that_ask_for_one_entry_compile_once(kept, made):
    kernel = ACTIVATIONS["relu"].kernel
    in_four_threads(lambda: engine.loop_address(kernel, 1, type(np.dtype("f"))))
    assert len(made) == 1
    assert kept.entry().name.startswith("relu-float32-")


# Bounded.


def test_entries_used_longest_ago_go(kept, monkeypatch):
    day = 86400
    for k in range(6):
        kept.get(name=f"thing{k}")
        path = next(kept.folder.glob(f"thing{k}-*"))
        os.utime(path, (time.time() - (10 - k) * day,) * 2)
    size = path.stat().st_size
    assert kept.get(name="thing0") == (CODE, False)  # used now
    (kept.folder / "foreign.txt").write_text("x" * 100_000)
    temporary = [path.with_name(f"{path.name}.{k:016x}.tmp") for k in range(2)]
    for file in temporary:
        file.write_bytes(b"")
    os.utime(temporary[0], (1, 1))
    monkeypatch.setattr(_cache, "LIMIT", 3 * size + 100)
    kept.get(name="thing6")
    assert {entry.name for entry in _cache.entries()} == {"thing0", "thing5", "thing6"}
    assert (kept.folder / "foreign.txt").exists()
    assert [file.exists() for file in temporary] == [False, True]


def test_entries_of_a_clock_that_was_wrong(kept, monkeypatch):
    """What is dated in the future was not used last; it is dated anew when it is used."""
    for name in ("future", "present", "used"):
        kept.get(name=name)
    for name in ("future", "used"):
        os.utime(next(kept.folder.glob(f"{name}-*")), (2**32, 2**32))
    assert kept.get(name="used") == (CODE, False)
    path = next(kept.folder.glob("used-*"))
    assert abs(path.stat().st_mtime - time.time()) < 1000
    temporary = path.with_name(f"{path.name}.{0:016x}.tmp")
    temporary.write_bytes(b"")
    os.utime(temporary, (2**32, 2**32))
    monkeypatch.setattr(_cache, "LIMIT", 3 * path.stat().st_size)
    kept.get(name="new")
    assert {entry.name for entry in _cache.entries()} == {"present", "used", "new"}
    assert not temporary.exists()


def test_folders_with_names_of_entries(kept):
    """They are not ours, and in nobody's way but that of this entry."""
    kept.get()
    folders = [kept.folder / f"thing-{k:032x}.code" for k in range(3)]
    for place in folders:
        place.mkdir()
    assert kept.get(name="another") == (CODE, True)
    assert _cache.trouble is None
    assert {entry.name for entry in _cache.entries()} == {"some-thing", "another"}
    assert _cache.clear() == 2
    assert sorted(kept.folder.iterdir()) == folders


def test_entries_that_vanish(kept, monkeypatch):
    """As others remove them between the look at the folder and at each file."""
    kept.get()
    kept.get(name="another")
    entries = list(_cache._scan(str(kept.folder)))
    shutil.rmtree(kept.folder)
    monkeypatch.setattr(_cache, "_scan", lambda place: iter(entries))
    assert _cache.clear() == 0
    monkeypatch.setattr(_cache, "LIMIT", 0)
    _cache._evict(str(kept.folder))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere, names have to be text")
def test_names_that_are_no_text(kept):
    kept.folder = Path(os.fsdecode(os.fsencode(kept.folder) + b"\xff"))
    kept.get()
    open(os.fsencode(kept.folder) + b"/\xfe-" + b"0" * 32 + b".code", "w").close()
    assert kept.get(name="another") == (CODE, True)
    assert kept.get() == (CODE, False)
    assert _cache.trouble is None
    for encoding, printed in (("utf-8", b"\xff"), ("ascii", b"\\udcff")):
        command = [sys.executable, "-m", "fastact", "cache"]
        environment = {"FASTACT_CACHE_DIR": str(kept.folder), "PYTHONIOENCODING": encoding}
        for more in (["path"], ["info"], ["clear"]):
            done = subprocess.run(
                command + more,
                env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
                capture_output=True,
            )
            assert done.returncode == 0 and done.stderr == b""
            assert printed in done.stdout


@posix
def test_folder_that_cannot_be_listed(tmp_path):
    """Nothing is kept there, as it might become larger and larger."""
    prefix = without_privileges()
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o300)
    done = use(*prefix, FASTACT_CACHE_DIR=str(tmp_path / "cache"))
    assert_works_uncached(done, "cannot be listed")
    (tmp_path / "cache").chmod(0o700)
    assert not list((tmp_path / "cache").iterdir())


def test_all_code_is_far_below_the_limit():
    run_python(USE_ALL)
    assert 0 < sum(entry.size for entry in _cache.entries()) < _cache.LIMIT / 10


# The commands.


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
    assert command(*warm).startswith("10 ready, 10 of them compiled in ")
    names = {entry.name for entry in _cache.entries()}
    loops = {"relu-float32", "relu-int8", "heaviside-float32", "heaviside-float64"}
    conversions = {"convert-int8-float32", "convert-int8-float64", "convert-float32-float64"}
    assert names == loops | conversions | {"helpers", "mixed-1-1", "mixed-2-1"}
    assert command(*warm).startswith("10 ready, 0 of them compiled in ")
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
    assert run_python(code).startswith("4 ready, 0 of them compiled in ")
    assert len(_cache.entries()) == 5


def test_warmup_knows_everything():
    run_python(USE_ALL)
    count = sum(4 + 8 * declared.keeps_integers for declared in element_wise().values())
    count += 4 * len([*ROW_ACTIVATIONS, *OBJECTIVES])
    host = _host.host()
    for form in (FLOATS["float32"], FLOATS["float64"]):
        count += len({lanes_for(columns, form, host) for columns in range(1, 17)})
    run_python("from fastact._parallel import helpers; helpers.helper_addresses()")
    count += 1
    used = json.loads(run_python(USE_SEVERAL_TYPES))
    count += len(used)
    assert command("warmup").startswith(f"{count} ready, 0 of them compiled in ")


def test_warmup_refuses(kept, capsys, monkeypatch):
    error = refused(capsys, "warmup", "relu", "swish", "gelu2")
    assert "'swish', 'gelu2'" in error
    for name in element_wise():
        assert name in error
    error = refused(capsys, "warmup", "--dtypes", "complex64")
    assert "'complex64'" in error and "bfloat16" in error and "int8" in error
    monkeypatch.setenv("FASTACT_CACHE", "0")
    assert "FASTACT_CACHE" in refused(capsys, "warmup")


@pytest.mark.parametrize("error", [ValueError, RuntimeError])
def test_warmup_for_no_machine(kept, capsys, monkeypatch, error):
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


def test_state(kept, monkeypatch):
    assert _cache.state()["in use"] == "yes"
    assert not kept.folder.exists()
    kept.get()
    assert _cache.state()["in use"] == "yes"
    kept.folder.chmod(0o777)
    assert "written to by others" in _cache.state()["in use"]
    kept.folder.chmod(0o755)
    monkeypatch.setenv("FASTACT_CACHE_DIR", "/dev/null/cache")
    assert _cache.state()["in use"] == "no: /dev/null is not a folder"
    monkeypatch.setenv("FASTACT_CACHE_DIR", str(kept.folder / "a" / "b"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode: path != str(kept.folder))
        assert _cache.state()["in use"] == f"no: it cannot be made in {kept.folder}"
    monkeypatch.setenv("FASTACT_CACHE", "0")
    assert _cache.state()["in use"] == "no: FASTACT_CACHE is 0"
