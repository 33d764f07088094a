"""Write a report of results: JSON, Markdown and pictures in one folder.

python -m bench.report RESULTS.json --output DIRECTORY
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fastact._machine import cpu

from . import pictures, results, tables


def origin(found: results.Results) -> str:
    """Return the machine, the versions and the command of the results in one line."""
    machine = found.machine
    level = machine.get("level", cpu.NATIVE)
    versions = {"Python": machine.get("python", "?"), **found.versions}
    parts = [
        machine.get("cpu", "?"),
        *([f"{cpu.VARIABLE}={level}"] if level != cpu.NATIVE else []),
        *(f"{name}={value}" for name, value in machine.get("limits", {}).items()),
        f"{machine.get('cores', '?')} cores",
        f"commit {machine.get('commit') or 'unknown'}",
        *(f"{name} {version}" for name, version in versions.items()),
        *(f"{name} missing" for name in found.missing),
    ]
    incomplete = " Incomplete: the run was interrupted." * found.incomplete
    return f"{', '.join(parts)}: `{found.command}`.{incomplete}"


def markdown(found: results.Results, drawn: Sequence[str] = ()) -> str:
    """Return the report in GitHub's Markdown.

    Parameters
    ----------
    found : Results
    drawn : sequence of str
        File names of pictures to show.

    Returns
    -------
    str
        The text of a file.
    """
    parts = ["# Benchmark", origin(found)]
    parts += [f"![{pictures.PICTURES[Path(name).stem].title}]({name})" for name in drawn]
    for title, table, told in tables.sections(found, "github"):
        parts += [f"## {title}", told, table]
    unsupported = [
        f"- {name}: {note} ({len(rows)}, for example {tables.describe(rows[0])})"
        for (name, note), rows in found.unsupported().items()
    ]
    missing = [f"- {name} is missing: {reason}" for name, reason in found.missing.items()]
    failures = [f"- {failure}" for failure in found.failures()]
    for title, lines in (
        ("Missing libraries", missing),
        ("Workloads that a library with the function does not support", unsupported),
        ("Failures", failures),
    ):
        if lines:
            parts += [f"## {title}", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def write(found: results.Results, directory: Path, formats: Sequence[str] = ("svg", "png")) -> None:
    """Write ``results.json``, ``report.md`` and the pictures into `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "results.json").write_text(results.to_json(found), encoding="utf-8")
    drawn = pictures.draw_all(found, directory, formats)
    text = markdown(found, [f"{name}.{formats[0]}" for name in drawn])
    (directory / "report.md").write_text(text, encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report of a result file, without measuring."""
    parser = argparse.ArgumentParser("python -m bench.report", description=__doc__)
    parser.add_argument("results", type=Path, help="a result file")
    parser.add_argument("--output", type=Path, required=True, metavar="DIRECTORY",
                        help="folder of the report")  # fmt: skip
    parser.add_argument("--formats", nargs="+", choices=["svg", "png", "pdf"],
                        default=["svg", "png"])  # fmt: skip
    options = parser.parse_args(arguments)
    try:
        found = results.read(options.results)
    except results.BadFile as error:
        print(error, file=sys.stderr)
        return 2
    write(found, options.output, options.formats)
    return 0


if __name__ == "__main__":
    sys.exit(main())
