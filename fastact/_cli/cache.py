"""Show or empty the cache of machine code."""

import argparse

from fastact._cli import Refused

SUMMARY = "Show or empty the cache of machine code."


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "action",
        nargs="?",
        choices=("info", "clear", "path"),
        default="info",
        help="show what is in it (the default), remove all entries, or print only the folder",
    )


def run(options: argparse.Namespace) -> int:
    """Carry out the action."""
    from fastact._loading import cache

    try:
        place = cache.folder()
        if options.action == "info":
            lines = [f"{name:8} {value}" for name, value in cache.state().items()]
        elif options.action == "path":
            lines = [place]
        else:
            lines = [f"{cache.clear()} files removed from {place}"]
    except (cache.Unusable, OSError) as reason:
        raise Refused(str(reason)) from reason
    print(*lines, sep="\n")
    return 0
