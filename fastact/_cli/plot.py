"""Draw graphs of activations, with derivatives and asymptotes, into a file.

What is to be drawn is found by ``_curve.py`` from the values of the ufuncs themselves; of the
declarations, only formula, interval and what a derivative is a function of are used. ``_figure.py``
draws it with matplotlib, which is imported there alone.
"""

import argparse
import os
from pathlib import Path
from typing import Any

from fastact._cli import Refused
from fastact._cli._curve import Curve, trace
from fastact._declarations.records import ACTIVATIONS, DERIVATIVES
from fastact._functions import UFUNCS

SUMMARY = "Draw graphs of activations, with derivatives and asymptotes, into a file."

SUFFIXES = (".pdf", ".png", ".svg")


def drawable() -> list[str]:
    """The names of the activations whose graph is a curve: of one number, element-wise."""
    return [
        name
        for name, declared in ACTIVATIONS.items()
        if declared.nin == 1 and UFUNCS[name].signature is None  # no core axes
    ]


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "functions",
        nargs="*",
        metavar="FUNCTION",
        help=f"any of {', '.join(drawable())}; by default all of them",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=Path,
        required=True,
        help=f"the file to draw to, its suffix one of {', '.join(SUFFIXES)}",
    )


def run(options: argparse.Namespace) -> int:
    """Draw the functions into the file."""
    known = drawable()
    names = options.functions or known
    unknown = [name for name in names if name not in known]
    if unknown:
        raise Refused(
            f"no graph of {', '.join(map(repr, unknown))}: FUNCTION is an activation of one "
            f"number, any of {', '.join(known)}"
        )
    suffix = options.output.suffix.lower()
    if suffix not in SUFFIXES:
        raise Refused(
            f"FILE must end in one of {', '.join(SUFFIXES)}, which '{options.output}' does not"
        )
    try:
        from fastact._cli import _figure
    except ImportError as reason:
        raise Refused(
            f"drawing needs matplotlib, which the extra 'plot' installs ({reason})"
        ) from None
    panels = {ACTIVATIONS[name].formula: curve(name) for name in names}
    write(options.output, _figure.rendered(panels, suffix[1:]))
    return 0


def curve(name: str) -> Curve:
    """What there is to draw of an activation."""
    function = UFUNCS[name]

    def derivative(x: Any) -> Any:
        declared = DERIVATIVES[name]
        saved = x if declared.saved == "input" else function(x)
        return UFUNCS[declared.name](1.0, saved)

    known = derivative if name in DERIVATIVES else None
    return trace(function, *ACTIVATIONS[name].interval, known)


def write(path: Path, content: bytes) -> None:
    """Replace the file at `path` all at once, so that what was there survives a failure."""
    try:
        place = Path(os.path.realpath(path))
        partial = place.with_name(f".{place.name}.{os.getpid()}")
        try:
            partial.write_bytes(content)
            partial.replace(place)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as reason:
        raise Refused(f"cannot write '{path}': {reason.strerror}") from None
