"""The command line: ``python -m fastact``."""

import argparse
import codecs
import contextlib
import errno
import io
import os
import sys
from collections.abc import Sequence
from typing import Any, TextIO

from fastact import __version__
from fastact._cli import Refused, cache, describe, info, plot, run, warmup

VERBS = (describe, run, plot, warmup, cache, info)
"""In the order in which the help lists them."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m fastact", description="Activation functions as genuine NumPy ufuncs."
    )
    parser.add_argument("--version", action="version", version=f"fastact {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB")
    for verb in VERBS:
        added = verbs.add_parser(
            verb.__name__.rpartition(".")[2],
            help=verb.SUMMARY[0].lower() + verb.SUMMARY[1:].rstrip("."),
            description=verb.SUMMARY,
        )
        verb.configure(added)
        added.set_defaults(run=verb.run, parser=added)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        The arguments of the command line; by default those of the process.

    Returns
    -------
    int
        The exit status. If arguments are wrong or the request cannot be carried out, `SystemExit`
        with status 2 is raised instead, as argparse does.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if "run" not in options:
        parser.print_help()
        return 0
    try:
        status: int = options.run(options)
    except Refused as reason:
        verb: argparse.ArgumentParser = options.parser
        verb.exit(2, f"{verb.prog}: error: {reason}\n")
    return status


class _Unwritten(Exception):
    """Writing to standard output failed. Not an `OSError`, since argparse ignores those."""


class _Output:
    """Standard output, or None if there is none; its failures are raised as `_Unwritten`."""

    def __init__(self, stream: Any):
        self._stream = stream

    @property
    def buffer(self) -> "_Output":
        """The stream of bytes, whose failures are raised in the same way."""
        return _Output(getattr(self._stream, "buffer", None))

    def write(self, text: Any) -> int:
        if self._stream is None:
            raise _Unwritten from OSError(errno.EBADF, os.strerror(errno.EBADF))
        try:
            return self._stream.write(text)  # type: ignore[no-any-return] # of a stream
        except OSError as reason:
            raise _Unwritten from reason

    def flush(self) -> None:
        try:
            if self._stream is not None:
                self._stream.flush()
        except OSError as reason:
            raise _Unwritten from reason

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _process() -> int:
    """Run `main` as the process, and report output that cannot be written."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # The names of files may not be valid text; in UTF-8, their original bytes can be printed.
        is_utf8 = codecs.lookup(sys.stdout.encoding).name == "utf-8"
        sys.stdout.reconfigure(errors="surrogateescape" if is_utf8 else "backslashreplace")
    output = _Output(sys.stdout)
    try:
        with contextlib.redirect_stdout(output):
            try:
                return main()
            finally:
                output.flush()  # at the end of the process, Python could only print a complaint
    except _Unwritten as failure:
        _abandon(sys.stdout)
        reason = failure.__cause__
        if not isinstance(reason, BrokenPipeError):  # the reader needs no more, as with `head`
            with contextlib.suppress(Exception):
                message = f"cannot write the output: {reason.strerror}"  # type: ignore[union-attr] # an OSError
                sys.stderr.write(f"python -m fastact: error: {message}\n")
        return 1
    finally:
        try:
            sys.stderr.flush()
        except Exception:
            _abandon(sys.stderr)


def _abandon(stream: TextIO | None) -> None:
    """Redirect what `stream` could not write to nowhere, so that Python does not try again."""
    with contextlib.suppress(Exception):
        place = stream.fileno()  # type: ignore[union-attr] # for None, the error is suppressed
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, place)
        os.close(nowhere)


if __name__ == "__main__":
    sys.exit(_process())
