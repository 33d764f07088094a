"""Files that appear at once: other processes find the old content or the new, and no part of it."""

import contextlib
import os
from collections.abc import Iterable

_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


def write(path: str, parts: "Iterable[bytes | memoryview]", mode: int, lasting: bool) -> None:
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
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
