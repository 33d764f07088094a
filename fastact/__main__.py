"""The command line: ``python -m fastact``."""

import argparse
import sys
from collections.abc import Sequence

from . import __version__
from ._commands import Refused, info, plot

VERBS = (plot, info)
"""In the order of the help."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m fastact", description="Activation functions as genuine NumPy ufuncs."
    )
    parser.add_argument("--version", action="version", version=f"fastact {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB")
    for verb in VERBS:
        summary = verb.__doc__.partition("\n")[0].rstrip(".")
        added = verbs.add_parser(
            verb.__name__.rpartition(".")[2],
            help=summary[0].lower() + summary[1:],
            description=f"{summary}.",
        )
        verb.configure(added)
        added.set_defaults(run=verb.run, parser=added)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        Those of the process by default.

    Returns
    -------
    int
        Exit status. Where arguments are wrong or cannot be followed, `SystemExit` with status 2
        is raised instead, as argparse does.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if "run" not in options:
        parser.print_help()
        return 0
    try:
        return options.run(options)
    except Refused as reason:
        options.parser.exit(2, f"{options.parser.prog}: error: {reason}\n")


if __name__ == "__main__":
    sys.exit(main())
