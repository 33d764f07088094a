"""Which versions of an optional library its module was tested with."""

import warnings


def warn_unless_tested(
    library: str, version: str, least: tuple[int, int], below: tuple[int, int]
) -> None:
    """Warn where `version` is not in the range from `least` to below `below`.

    Warns
    -----
    UserWarning
        With the range, as raised by the import of the module.
    """
    if not least <= tuple(map(int, version.split(".")[:2])) < below:
        warnings.warn(
            f"{library} {version} is outside the range that fastact was tested with, "
            f"{'.'.join(map(str, least))} to below {'.'.join(map(str, below))}",
            stacklevel=3,
        )
