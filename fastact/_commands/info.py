"""Print versions, machine and settings, for a bug report."""

import argparse
import platform

from .. import __version__


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""


def run(options: argparse.Namespace) -> int:
    """Print what there is to know."""
    print(f"fastact {__version__}, Python {platform.python_version()}")
    return 0
