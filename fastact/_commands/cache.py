"""Show or empty the cache of machine code."""

import argparse

from . import Refused


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "action",
        nargs="?",
        choices=("info", "clear", "path"),
        default="info",
        help="what is in it (the default), remove all entries, or print the folder alone",
    )


def run(options: argparse.Namespace) -> int:
    """Do what was asked for."""
    from .. import _cache

    try:
        if options.action == "info":
            for name, value in _cache.state().items():
                print(f"{name:8} {value}")
        elif options.action == "path":
            print(_cache.folder())
        else:
            print(f"{_cache.clear()} files removed from {_cache.folder()}")
    except (_cache.Unusable, OSError) as reason:
        raise Refused(str(reason)) from reason
    return 0
