"""Print versions, machine and settings, for a bug report."""

import argparse
import json

from fastact._runtime import configuration

SUMMARY = "Print versions, machine and settings, for a bug report."


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def run(options: argparse.Namespace) -> int:
    """Print the report."""
    report = configuration.collect()
    print(json.dumps(report, indent=1) if options.json else configuration.as_text(report))
    return 0
