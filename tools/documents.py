"""Write what follows from declarations and committed results: ``python -m tools.documents``.

This is the stubs for type checkers, the pictures of all curves and of the packages, and the figures
and lists in the documents.
"""

import sys
from pathlib import Path

from fastact import __main__ as command
from tools import packages, stub

ROOT = Path(__file__).parents[1]
PICTURE = "docs/activations.svg"


def main() -> int:
    """Write all of them."""
    for path, text in stub.STUBS.items():
        (ROOT / path).write_text(text(), encoding="utf-8")
    (ROOT / packages.PICTURE).write_text(packages.picture(), encoding="utf-8")
    status = command.main(["plot", "-o", str(ROOT / PICTURE)])
    from bench import readme  # needs more packages than the steps above

    return status or readme.main([])


if __name__ == "__main__":
    sys.exit(main())
