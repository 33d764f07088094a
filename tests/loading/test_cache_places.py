"""Folders that do not exist or cannot be written to, each in a process with a real kernel."""

import errno
import json
import os
import resource
import shutil
import subprocess
import sys

import pytest
from code_cache import CODE, USE, assert_works_uncached, one_warning, posix, use
from conftest import ROOT, run_python

from fastact.__main__ import main
from fastact._loading import cache


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
    """As in a container that runs with a user number that has no entry in the password database."""
    place = {"FASTACT_CACHE_DIR": None, "XDG_CACHE_HOME": None, "HOME": home}
    done = use(code=NO_PASSWD + USE, cwd=tmp_path, **place)
    assert_works_uncached(done, "the platform's folder for caches is not known")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", ["~/.cache/fastact", ".cache/fastact", ""])
def test_platform_whose_folder_is_not_known(monkeypatch, path):
    """Some releases of platformdirs return such a path instead of raising an exception."""
    monkeypatch.delenv("FASTACT_CACHE_DIR")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda *_, **__: path)
    with pytest.raises(cache.Unusable, match="platform's folder"):
        cache.folder()


@posix
def test_home_that_is_read_only(tmp_path):
    done = use(
        *mounted(tmp_path, "ro"), FASTACT_CACHE_DIR=None, XDG_CACHE_HOME=None, HOME=str(tmp_path)
    )
    assert_works_uncached(done, "Read-only file system", str(tmp_path))


GONE = """
import os, tempfile
import numpy  # cannot be imported there in Python 3.13.0
os.chdir(tempfile.mkdtemp())
os.rmdir(os.getcwd())
"""


@posix
def test_current_folder_that_is_gone(tmp_path):
    use()  # fills the cache
    assert json.loads(use(code=GONE + USE).stdout) == [[[0, 2], [0, 1]], []]
    code = (
        GONE
        + "from fastact._loading import cache\n"
        + "try: cache.folder()\nexcept cache.Unusable as reason: print(reason)"
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
        assert cache.state()["in use"].startswith(f"no: {link} is a link")
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
    """Also where this would be an error; what Numba reads when it is imported does not count."""
    before = f"import os, numba; os.environ['FASTACT_CACHE_DIR'] = {str(tmp_path)!r}" * compiles
    code = ENCODINGS.format(before=before)
    run_python("import numpy as np, fastact; fastact.relu(np.float32(1))")
    done = subprocess.run(
        [sys.executable, "-X", "warn_default_encoding", "-c", code], capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("0.0 True\n", "")


def without_privileges():
    """Return a command that removes the privilege of root to write everywhere; [] for others."""
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
    (tmp_path / "cache").chmod(0o500)  # exists, but cannot be written to
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
    """Return a command that mounts a file system at `tmp_path` for one process only."""
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
    """The file system has one page, for the folder, and none for a file."""
    prefix = mounted(tmp_path, "nr_blocks=1,mode=755")
    done = use(*prefix, FASTACT_CACHE_DIR=str(tmp_path))
    assert_works_uncached(done, "No space left on device")


@posix
def test_disk_that_is_full_in_the_middle_of_a_file(kept):
    """The limit on the size of files of a process has the same effect."""
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
    """They may be caused by an exceeded quota or a server that is gone, for example."""
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


@posix
def test_folder_that_cannot_be_listed(tmp_path):
    """Nothing is stored there, since the folder could grow without limit."""
    prefix = without_privileges()
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o300)
    done = use(*prefix, FASTACT_CACHE_DIR=str(tmp_path / "cache"))
    assert_works_uncached(done, "cannot be listed")
    (tmp_path / "cache").chmod(0o700)
    assert not list((tmp_path / "cache").iterdir())
