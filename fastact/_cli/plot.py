"""Draw graphs of activations, with derivatives and asymptotes, into a file.

``_curve.py`` finds what to draw from the values of the ufuncs. Of the declarations, only formula,
interval and the argument of the derivative are used. ``_figure.py`` draws it, and is the only
module that imports matplotlib.
"""

import argparse
from pathlib import Path
from typing import Any

from fastact._cli import Refused
from fastact._cli._curve import Curve, trace
from fastact._cli._files import write
from fastact._declarations.records import ACTIVATIONS, DERIVATIVES
from fastact._functions import UFUNCS

SUMMARY = "Draw graphs of activations, with derivatives and asymptotes, into a file."

SUFFIXES = (".pdf", ".png", ".svg")


def drawable() -> list[str]:
    """The names of the activations whose graph is a curve: element-wise, with one input."""
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
        help=f"the file to write; its suffix must be one of {', '.join(SUFFIXES)}",
    )


def run(options: argparse.Namespace) -> int:
    """Draw the functions into the file."""
    known = drawable()
    names = options.functions or known
    unknown = [name for name in names if name not in known]
    if unknown:
        raise Refused(
            f"FUNCTION must be an activation of one number, any of {', '.join(known)}; got "
            f"{', '.join(map(repr, unknown))}"
        )
    suffix = options.output.suffix.lower()
    if suffix not in SUFFIXES:
        raise Refused(f"FILE must end in one of {', '.join(SUFFIXES)}, got '{options.output}'")
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
    """What to draw of an activation."""
    function = UFUNCS[name]

    def derivative(x: Any) -> Any:
        declared = DERIVATIVES[name]
        saved = x if declared.saved == "input" else function(x)
        return UFUNCS[declared.name](1.0, saved)

    known = derivative if name in DERIVATIVES else None
    return trace(function, *ACTIVATIONS[name].interval, known)
