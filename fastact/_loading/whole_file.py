"""Files that appear at once: other processes find the old content or the new, and no part of it."""

import contextlib
import os
import stat
from collections.abc import Iterable

_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


def put(path: str, parts: "Iterable[bytes | memoryview]", lasting: bool) -> None:
    """Put these parts in the place that a user has named.

    A file there is replaced at once, by one with the same permissions; if `path` is a link, it is
    the file that the link refers to. A device or a pipe is not replaced: the parts are written to
    it. An OSError names `path`. The other arguments are those of :func:`write`.
    """
    try:
        mode = _mode(path)
        if mode is not None and not stat.S_ISREG(mode):
            with open(path, "wb") as stream:
                stream.writelines(parts)
            return
        known = None if mode is None else stat.S_IMODE(mode)
        write(os.path.realpath(path), parts, 0o666, lasting, known)
    except OSError as reason:
        if reason.errno is None:
            raise
        raise OSError(reason.errno, reason.strerror, path) from reason


def _mode(path: str) -> int | None:
    """The type and permissions of what is at `path`, None if nothing is."""
    try:
        return os.stat(path or os.curdir).st_mode  # an empty path is no new file
    except FileNotFoundError:
        return None


def write(
    path: str,
    parts: "Iterable[bytes | memoryview]",
    mode: int,
    lasting: bool,
    exact_mode: int | None = None,
) -> None:
    """Put a file with these parts at `path`; a process that is killed leaves a temporary file.

    Parameters
    ----------
    path : str
        A link there is replaced, not followed.
    parts : iterable of bytes-like
        Made one after another, so that they need not be in memory together.
    mode : int
        The permissions, from which the umask of the process is taken away.
    lasting : bool
        Whether to wait until the file is on the disk, so that it is whole after a power failure.
    exact_mode : int, optional
        Permissions that the file has in the end, whatever the umask is.
    """
    temporary = f"{path}.{os.urandom(8).hex()}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, mode)
    try:
        with open(descriptor, "wb") as stream:
            for part in parts:
                stream.write(part)
                del part  # before the next one is made
            if lasting:
                stream.flush()
                os.fsync(descriptor)
        if exact_mode is not None:
            os.chmod(temporary, exact_mode)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
