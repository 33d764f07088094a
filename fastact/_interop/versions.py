"""Warnings about untested versions of optional libraries, and refusals of unknown ones."""

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
            f"{_text(least)} to below {_text(below)}",
            stacklevel=3,
        )


def refuse_unless_known(
    library: str, version: str, first: tuple[int, int], last: tuple[int, int]
) -> None:
    """Raise RuntimeError unless `version` is from `first` to `last`, for ``patch()``."""
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is None or not first <= (int(found[1]), int(found[2])) <= last:
        raise RuntimeError(
            f"patch: {library} must be of version {_text(first)} to {_text(last)}, whose "
            f"internals are known, got {version}"
        )


def _text(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
