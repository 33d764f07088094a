"""Warnings about untested versions of optional libraries."""

import re
import warnings


def warn_unless_tested(
    library: str, version: str, least: tuple[int, int], below: tuple[int, int]
) -> None:
    """Warn unless `version` is at least `least` and below `below`, or if it cannot be parsed.

    Warns
    -----
    UserWarning
        The message states the range. The warning points to the import of the module.
    """
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is None or not least <= (int(found[1]), int(found[2])) < below:
        warnings.warn(
            f"{library} {version} is outside the range that fastact was tested with, "
            f"{'.'.join(map(str, least))} to below {'.'.join(map(str, below))}",
            stacklevel=3,
        )
