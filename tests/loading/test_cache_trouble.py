"""Damaged files, foreign files and errors have no worse effect than another compilation."""

import os
import pickle
import stat
import warnings
import weakref

import pytest
from code_cache import CODE, in_four_threads, one_warning, posix
from conftest import run_python
from hypothesis import given
from hypothesis import strategies as st

from fastact._loading import cache


def foreign():
    elf = b"\x7fELF" + bytes(60)
    return [b"", b"\0", elf, pickle.dumps(CODE), CODE, cache._HEADER, cache._HEADER + CODE]


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
    """The files of two entries may have been exchanged, each of them undamaged."""
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
    """It does not fit in memory, and other entries are not evicted to make room for it."""
    kept.get(name="another")
    kept.get()
    (path,) = kept.folder.glob("some-thing-*")
    os.truncate(path, 1 << 42)  # takes no space on the disk
    assert kept.get() == (CODE, True)
    assert kept.get() == (CODE, False)
    os.truncate(path, 1 << 42)
    kept.get(name="third")
    assert {entry.name for entry in cache.entries()} == {"another", "third"}
    assert cache.trouble is None


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
    else:
        # Only root may give files away, so pretend to be another user. The folder is checked first.
        path = kept.folder
        monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with one_warning(str(path), "belongs to user"):
        assert kept.get() == (CODE, True)
        assert kept.get() == (CODE, True)
    if owner == 0:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)  # files of root are loaded by everyone
    else:
        monkeypatch.undo()
        monkeypatch.setenv("FASTACT_CACHE_DIR", str(kept.folder))
    assert kept.get() == (b"evil", False)


def test_warning_as_an_error(kept, capsys):
    """NumPy cannot pass an exception on at this point; the function works nevertheless."""
    kept.folder.write_text("a file where the folder should be")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kept.get() == (CODE, True)
        assert kept.get() == (CODE, True)
    assert capsys.readouterr().err.count("compiles in memory") == 1


UNSHOWN = """
import io, sys, warnings
import numpy as np, fastact
from fastact._loading import cache
closed = io.StringIO()
closed.close()
class Full(io.StringIO):
    def write(self, text):
        raise OSError(28, "No space left on device")
cases = [(action, stream) for action in ("error", "always") for stream in (None, closed, Full(), 7)]
for (action, stream), code in zip(cases, "efdbhiBH", strict=True):
    cache.trouble, cache._warnings_left[:] = None, [1]  # as in a new process
    warnings.simplefilter(action)
    sys.stderr = stream
    x = np.dtype(code).type(2)
    print(fastact.relu(x) == 2, fastact.step(x) == 1, cache.trouble)
sys.stderr = None  # because Python writes to it at exit
"""


def test_warnings_that_cannot_be_shown():
    expected = "True True /dev/null is not a folder\n"
    assert run_python(UNSHOWN, FASTACT_CACHE_DIR="/dev/null/cache") == expected * 8


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
        patch.setattr(cache, step, fail)
        if step == "_content":
            fail.cache_clear = lambda: None
        with one_warning(f"no machine code: {type(error).__name__}"):
            assert kept.get() == (CODE, True)
            kept.get()
    assert kept.get()[0] == CODE
    assert kept.get() == (CODE, False)


@pytest.mark.parametrize("step", ["_read", "_write"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_exits_and_interrupts_are_raised(kept, monkeypatch, step, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(cache, step, fail)
    with pytest.raises(error):
        kept.get()
    assert cache.trouble is None


def test_threads_in_trouble_warn_once(kept, monkeypatch):
    """Several threads may make loops at once."""
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
    monkeypatch.setattr(cache, "_read", fail)
    with one_warning("RuntimeError"):
        kept.get()
    assert seen[0]() is None
