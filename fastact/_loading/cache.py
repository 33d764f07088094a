"""Machine code kept on disk, so that a process compiles only what no process has compiled before.

An entry is one file. Its name contains the key: a hash of everything that the code depends on.
So an entry is never updated, only replaced by the same content or evicted, and a change of a
source, a library or the machine simply leads to another name. A file begins with a checksum over
key and code. The checksum detects damage; it is not a signature: anyone who can write an entry
can run code as the users who load it. So entries are loaded only if nobody else can write them.

A failure here costs time, never a result: the code is then compiled in memory, and one warning
per process says why. So `object_code` does everything except `build` through `_attempt`, which
catches every exception except those that end the program.
"""

import contextlib
import functools
import hashlib
import importlib.machinery
import importlib.util
import os
import re
import stat
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import llvmlite
import llvmlite.binding
import numpy as np

from fastact._loading import whole_file

if TYPE_CHECKING:
    from fastact._machine.targets import Target

LIMIT = 64 << 20
"""Maximum size in bytes; beyond it, the least recently used entries are removed. All code for
one machine and version takes about 7 megabytes."""

_HEADER = b"fastact machine code 1\n\0"
_CHECKSUM_BYTES = 32
_ENTRY = re.compile(r"(?P<name>[\w-]+)-[0-9a-f]{32}\.code")
_TEMPORARY = re.compile(_ENTRY.pattern + r"\.[0-9a-f]{16}\.tmp")
_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_DAY, _HOUR = 86400, 3600
_NOTHING = (None, b"", None)  # the result of `_find` where the cache is not used

trouble: str | None = None
"""The first reason why this process could not load or store code; None if there is none."""

_warnings_left = [1]  # the thread that empties it gives the only warning

compiled = 0
"""How often this process did not find code and compiled it."""

# Settings of Numba that do not affect the code.
_WITHOUT_EFFECT = ("NUMBA_NUM_THREADS", "NUMBA_THREADING_LAYER", "NUMBA_CACHE")


class Unusable(Exception):
    """The reason why code cannot be loaded or stored."""


class Entry(NamedTuple):
    """What is known of an entry without reading it."""

    name: str
    path: str
    size: int
    used: float  # seconds since the epoch, accurate to a day


def object_code(
    name: str,
    sources: Iterable[str],
    imported: int,
    target: "Target",
    options: str,
    build: Callable[[], bytes],
) -> bytes:
    """Return what `build` returns, or what it returned in an earlier process.

    Parameters
    ----------
    name : str
        A readable name of letters, digits, ``_`` and ``-``; part of the key.
    sources : iterable of str
        The paths of all files whose content affects the code.
    imported : int
        The time, in nanoseconds since the epoch, when the first of them was imported. If one
        was changed after that, this process may have imported its old or its new content.
    target : Target
        The machine that the code is for.
    options : str
        Everything else that `build` depends on.
    build : callable
        Makes the object code.
    """
    global compiled
    sources = list(sources)
    path, key, code = _attempt(_find, name, sources, imported, target, options) or _NOTHING
    if code is None:
        code = build()
        compiled += 1
        if path is not None:
            _attempt(_keep, path, key, code, sources, imported)
    warn_of_trouble()
    return code


def warn_of_trouble() -> None:
    """Warn, once per process, if code could not be loaded or stored; raise no exception."""
    if trouble is None:
        return
    try:
        _warnings_left.pop()
    except IndexError:
        return
    text = (
        f"fastact compiles in memory and keeps no machine code: {trouble} "
        "(FASTACT_CACHE_DIR sets the folder, FASTACT_CACHE=0 turns the cache off)"
    )
    try:
        warnings.warn(text, RuntimeWarning, stacklevel=2)
    except Exception:
        # A filter has made the warning an error, which would cost a result. Or warnings cannot be
        # shown, and then writing to stderr may fail, too.
        with contextlib.suppress(Exception):
            sys.stderr.write(f"RuntimeWarning: {text}\n")


def _attempt(step: Callable[..., Any], *arguments: Any) -> Any:
    """Return what `step` returns, or None if it fails; note the reason for `warn_of_trouble`."""
    global trouble
    try:
        return step(*arguments)
    except Exception as reason:  # of any kind: recursion, memory, errors of libraries
        if trouble is None:
            # As text: the exception would keep the variables of its callers alive.
            trouble = _told(reason)
        return None


def _told(reason: Exception) -> str:
    try:
        text = str(reason)
    except Exception:
        text = ""
    if text and isinstance(reason, (Unusable, OSError)):
        return text
    return f"{type(reason).__name__}: {text}" if text else type(reason).__name__


def _find(
    name: str, sources: Iterable[str], imported: int, target: "Target", options: str
) -> tuple[str | None, bytes, bytes | None]:
    """The path of the entry (None: store nothing), its key, and its code (None: not stored)."""
    if not enabled():
        return _NOTHING
    paths = {*sources, _numba_version_file()}
    key = _key(name, [_content(path, imported) for path in paths], target, options)
    path = os.path.join(_open_folder(), f"{name}-{key.hex()}.code")
    return path, key, _read(path, key)


def _keep(path: str, key: bytes, code: bytes, sources: Iterable[str], imported: int) -> None:
    for source in (*sources, _numba_version_file()):
        # If it has changed since `_find` read it, `build` may have imported the new content.
        _check_age(source, os.stat(source), imported)
    place = os.path.dirname(path)
    if not os.access(place, os.R_OK):
        raise Unusable(f"{place} cannot be listed, so its size cannot be limited")
    _write(path, key, code)
    _evict(place)


def enabled() -> bool:
    """Whether the environment variable ``FASTACT_CACHE`` allows the cache to be used."""
    value = os.environ.get("FASTACT_CACHE", "").strip() or "1"
    if value not in ("0", "1"):
        raise Unusable(f"FASTACT_CACHE must be 0 or 1, got {value!r}")
    return value == "1"


def folder() -> str:
    """The folder of the entries: ``FASTACT_CACHE_DIR``, or the platform's folder for caches.

    Raises
    ------
    Unusable
        If it is in a folder that is not known, for example in the home of a user who has none.
    """
    chosen = os.environ.get("FASTACT_CACHE_DIR", "")
    if not chosen.strip():
        return _platform_folder()
    path = os.path.expanduser(chosen)
    if not _home_is_known(chosen, path):
        raise Unusable(f"{chosen} is in a home folder that is not known")
    try:
        return os.path.abspath(path)
    except OSError as reason:
        raise Unusable(f"{path} is relative to the current folder, which is gone") from reason


def _home_is_known(path: str, expanded: str) -> bool:
    if os.name == "posix" and path.partition("/")[0] == "~":
        return os.path.isabs(os.environ.get("HOME", expanded))  # an empty HOME would be the root
    return not expanded.startswith("~")


def _platform_folder() -> str:
    try:
        import platformdirs  # takes 3 ms, so only where it is needed

        path = os.path.expanduser(platformdirs.user_cache_dir("fastact", appauthor=False))
    except Exception as reason:  # without a home folder, releases raise different exceptions
        raise Unusable(f"the platform's folder for caches is not known: {reason}") from reason
    if not os.path.isabs(path):  # others raise nothing
        raise Unusable(f"the platform's folder for caches is not known: it would be {path!r}")
    return path


def state() -> dict[str, Any]:
    """Where the cache is, what it contains, and whether it can be used; this changes nothing."""
    place, use = "none", "yes"
    kept: list[Entry] = []
    try:
        place = folder()
        parent = _missing_from(place)
        kept = entries()
        if not enabled():
            use = "no: FASTACT_CACHE is 0"
        elif parent is None:
            _check_owner(place, os.stat(place))
            if not os.access(place, os.R_OK | os.W_OK | os.X_OK):
                use = "for loading only"
        elif not os.access(parent, os.W_OK | os.X_OK):
            use = f"no: it cannot be made in {parent}"
    except Exception as reason:
        use = f"no: {_told(reason)}"
    return {
        "folder": place,
        "in use": use,
        "entries": len(kept),
        "bytes": sum(entry.size for entry in kept),
        "at most": LIMIT,
    }


def entries() -> list[Entry]:
    """All entries, the most recently used first."""
    found = [entry for entry in _scan(folder()) if entry.path.endswith(".code")]
    return sorted(found, key=lambda entry: entry.used, reverse=True)


def clear() -> int:
    """Remove every entry, and nothing else; return how many there were."""
    count = 0
    for entry in _scan(folder()):
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            os.unlink(entry.path)
            count += 1
    return count


def _numba_version_file() -> str:
    # Importing Numba would take 400 ms, and importlib.metadata 20 ms.
    try:
        spec = importlib.util.find_spec("numba")
    except ValueError:  # sys.modules has something without a spec under that name
        spec = importlib.machinery.PathFinder.find_spec("numba")
    if spec is None or spec.origin is None:
        raise Unusable("Numba is not found")
    return os.path.join(os.path.dirname(spec.origin), "_version.py")


def _key(name: str, contents: Iterable[str], target: "Target", options: str) -> bytes:
    numba_settings = {
        variable: value
        for variable, value in sorted(os.environ.items())
        if variable.startswith("NUMBA_") and not variable.startswith(_WITHOUT_EFFECT)
    }
    parts = (
        sys.implementation.cache_tag,  # Numba compiles bytecode
        np.__version__,
        llvmlite.__version__,
        llvmlite.binding.llvm_version_info,
        sorted(contents),
        numba_settings,
        name,
        target,
        options,
    )
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).digest()


@functools.cache
def _content(path: str, imported: int) -> str:
    """The name of a file and a hash of its content."""
    with open(path, "rb") as stream:
        _check_age(path, os.fstat(stream.fileno()), imported)
        return f"{os.path.basename(path)} {hashlib.blake2b(stream.read()).hexdigest()}"


def _check_age(path: str, status: os.stat_result, imported: int) -> None:
    # The time of the last change of the inode: installers may set old times of modification.
    if status.st_ctime_ns > max(imported, time.time_ns()):
        raise Unusable(f"{path} is dated in the future (is the clock right?)")
    if status.st_ctime_ns > imported:
        raise Unusable(f"{path} has been changed since it was imported")


def _checksum(key: bytes, code: bytes) -> bytes:
    return hashlib.blake2b(key + code, digest_size=_CHECKSUM_BYTES).digest()


def _open_folder() -> str:
    place = folder()
    if _missing_from(place) is not None:
        # Others may read it: one user may fill the cache of an image or a cluster for all.
        os.makedirs(place, 0o755, exist_ok=True)
    _check_owner(place, os.stat(place))
    return place


def _missing_from(place: str) -> str | None:
    """None if the folder exists, else the nearest one above it that does.

    Raises
    ------
    Unusable
        If something that is not a folder is in the way.
    """
    if os.path.isdir(place):
        return None
    while not os.path.exists(place):
        if os.path.islink(place):
            raise Unusable(f"{place} is a link to {os.readlink(place)}, which does not exist")
        above = os.path.dirname(place)
        if above == place:  # a drive that does not exist
            break
        place = above
    if not os.path.isdir(place):
        raise Unusable(f"{place} is not a folder")
    return place


def _check_owner(path: str, status: os.stat_result) -> None:
    """Refuse what someone else could have written.

    The folders above are not checked: someone who may rename this one cannot replace it by a
    folder that belongs to the user.
    """
    if not hasattr(os, "geteuid"):  # on Windows, where the folder is in the user's profile
        return
    if status.st_uid not in (0, os.geteuid()):
        raise Unusable(f"{path} belongs to user {status.st_uid}, not to {os.geteuid()} or root")
    if status.st_mode & 0o022:
        raise Unusable(f"{path} can be written to by others (chmod go-w prevents that)")


def _read(path: str, key: bytes) -> bytes | None:
    """The code of the entry at `path`; None if there is none or it is damaged."""
    try:
        descriptor = os.open(path, os.O_RDONLY | _FLAGS | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        return None
    with open(descriptor, "rb") as stream:
        _check_owner(path, status)
        if status.st_size > LIMIT:  # damaged, and maybe larger than the memory
            return None
        content = stream.read(status.st_size)
    code = content[len(_HEADER) + _CHECKSUM_BYTES :]
    if content != _HEADER + _checksum(key, code) + code:
        return None
    if abs(time.time() - status.st_mtime) > _DAY:  # abs, since the clock may have been wrong
        with contextlib.suppress(OSError):  # it belongs to someone else, or is read-only
            os.utime(path)
    return code


def _write(path: str, key: bytes, code: bytes) -> None:
    whole_file.write(path, [_HEADER + _checksum(key, code) + code], 0o644, lasting=False)


def _scan(place: str) -> Iterator[Entry]:
    """Entries and temporary files; other files in the folder are not ours."""
    try:
        with os.scandir(place) as files:
            found = list(files)
    except FileNotFoundError:
        return
    for file in found:
        match = _ENTRY.fullmatch(file.name) or _TEMPORARY.fullmatch(file.name)
        if match:
            try:
                status = file.stat(follow_symlinks=False)
            except OSError:  # another process has removed it
                continue
            if not stat.S_ISDIR(status.st_mode):
                yield Entry(match["name"], file.path, status.st_size, status.st_mtime)


def _evict(place: str) -> None:
    now = time.time()

    def age(entry: Entry) -> float:
        return abs(now - entry.used)  # abs, since the clock may have been wrong

    # An entry larger than the limit is damaged, and would displace all others.
    found = sorted(_scan(place), key=lambda e: (e.size > LIMIT, age(e)), reverse=True)
    total = sum(entry.size for entry in found)
    for entry in found:
        # A temporary file belongs to a process that is writing it or was killed.
        temporary = entry.path.endswith(".tmp")
        if age(entry) > _HOUR if temporary else total > LIMIT:
            with contextlib.suppress(OSError):  # another process was faster
                os.unlink(entry.path)
            total -= entry.size
