"""Which versions of an optional library its module was tested with."""

import re
import warnings


def warn_unless_tested(
    library: str, version: str, least: tuple[int, int], below: tuple[int, int]
) -> None:
    """Warn where `version` is not in the range from `least` to below `below`, or tells nothing.

    Warns
    -----
    UserWarning
        With the range, as raised by the import of the module.
    """
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is None or not least <= (int(found[1]), int(found[2])) < below:
        warnings.warn(
            f"{library} {version} is outside the range that fastact was tested with, "
            f"{'.'.join(map(str, least))} to below {'.'.join(map(str, below))}",
            stacklevel=3,
        )
