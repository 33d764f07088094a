"""The cache finds machine code on disk, and its size is limited."""

import contextlib
import json
import os
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from code_cache import CODE, USE_ALL, one_warning, posix
from conftest import ROOT, run_python
from kinds import TYPICAL

import fastact
from fastact._loading import cache


def test_made_once(kept):
    assert kept.get() == (CODE, True)
    assert kept.get() == (CODE, False)
    assert [entry.name for entry in cache.entries()] == ["some-thing"]


def test_others_may_read_but_not_write(kept):
    old = os.umask(0)
    try:
        kept.get()
    finally:
        os.umask(old)
    assert stat.S_IMODE(kept.folder.stat().st_mode) == 0o755
    assert stat.S_IMODE(kept.entry().stat().st_mode) == 0o644


def test_warm_process_imports_no_numba():
    """Whatever functions and dtypes it uses."""
    run_python(USE_ALL)
    imported, results = json.loads(run_python(USE_ALL))
    assert imported == ["llvmlite"]
    assert len(results) >= 4 * len(TYPICAL)
    for name, declared in TYPICAL.items():
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
    # NumPy has imported all others.
    others = {name for name in new if not name.startswith("fastact")}
    assert others <= {"atexit"}
    # The more functions there are, the more modules they and their kernels are in.
    functions = ("fastact._functions.", "fastact._kernels.")
    own = {name for name in {*new} - others if not name.startswith(functions)}
    assert len(own) <= 29, own


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
def test_choice_of_the_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("FASTACT_CACHE_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    if sys.platform == "linux":
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        assert cache.folder() == str(tmp_path / ".cache" / "fastact")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        assert cache.folder() == str(tmp_path / "xdg" / "fastact")
    monkeypatch.setenv("FASTACT_CACHE_DIR", "~/mine")
    assert cache.folder() == str(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FASTACT_CACHE_DIR", "here")
    assert cache.folder() == str(tmp_path / "here")
    for unset in ("", " "):
        monkeypatch.setenv("FASTACT_CACHE_DIR", unset)
        if sys.platform == "linux":
            assert cache.folder() == str(tmp_path / "xdg" / "fastact")
    monkeypatch.setenv("FASTACT_CACHE_DIR", "~no-such-user/cache")
    with pytest.raises(cache.Unusable, match="~no-such-user/cache"):
        cache.folder()
    for home in ("", "rel", "."):  # neither the root nor the current folder is used
        monkeypatch.setenv("HOME", home)
        for place in ("~/mine", "~"):
            monkeypatch.setenv("FASTACT_CACHE_DIR", place)
            with pytest.raises(cache.Unusable, match=f"^{place} is in a home folder"):
                cache.folder()
        monkeypatch.setenv("FASTACT_CACHE_DIR", "~root/mine")
        assert os.path.isabs(cache.folder())


def test_least_recently_used_entries_are_removed(kept, monkeypatch):
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
    monkeypatch.setattr(cache, "LIMIT", 3 * size + 100)
    kept.get(name="thing6")
    assert {entry.name for entry in cache.entries()} == {"thing0", "thing5", "thing6"}
    assert (kept.folder / "foreign.txt").exists()
    assert [file.exists() for file in temporary] == [False, True]


def test_entries_of_a_clock_that_was_wrong(kept, monkeypatch):
    """An entry dated in the future does not count as used last; its next use corrects the date."""
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
    monkeypatch.setattr(cache, "LIMIT", 3 * path.stat().st_size)
    kept.get(name="new")
    assert {entry.name for entry in cache.entries()} == {"present", "used", "new"}
    assert not temporary.exists()


def test_folders_with_names_of_entries(kept):
    """They are left alone, and the cache works for all other entries."""
    kept.get()
    folders = [kept.folder / f"thing-{k:032x}.code" for k in range(3)]
    for place in folders:
        place.mkdir()
    assert kept.get(name="another") == (CODE, True)
    assert cache.trouble is None
    assert {entry.name for entry in cache.entries()} == {"some-thing", "another"}
    assert cache.clear() == 2
    assert sorted(kept.folder.iterdir()) == folders


def test_entries_that_vanish(kept, monkeypatch):
    """Other processes may remove entries after the folder has been listed."""
    kept.get()
    kept.get(name="another")
    entries = list(cache._scan(str(kept.folder)))
    shutil.rmtree(kept.folder)
    monkeypatch.setattr(cache, "_scan", lambda place: iter(entries))
    assert cache.clear() == 0
    monkeypatch.setattr(cache, "LIMIT", 0)
    cache._evict(str(kept.folder))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere, names have to be text")
def test_names_that_are_no_text(kept):
    kept.folder = Path(os.fsdecode(os.fsencode(kept.folder) + b"\xff"))
    kept.get()
    open(os.fsencode(kept.folder) + b"/\xfe-" + b"0" * 32 + b".code", "w").close()
    assert kept.get(name="another") == (CODE, True)
    assert kept.get() == (CODE, False)
    assert cache.trouble is None
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


def test_all_code_is_far_below_the_limit(tmp_path, monkeypatch):
    """Of the code that other tests made, for other targets too, only what is used counts."""
    folder = tmp_path / "cache"
    with contextlib.suppress(FileNotFoundError):
        ignored = shutil.ignore_patterns("*.tmp")
        shutil.copytree(os.environ["FASTACT_CACHE_DIR"], folder, ignore=ignored)
    monkeypatch.setenv("FASTACT_CACHE_DIR", str(folder))
    for path in folder.glob("*.code"):
        os.utime(path, (1, 1))
    run_python(USE_ALL)
    used = [entry.size for entry in cache.entries() if entry.used > 1]
    assert len(used) >= 4 * len(TYPICAL)
    assert sum(used) < cache.LIMIT / 10
