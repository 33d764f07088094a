"""Optional libraries, which are imported on request."""

import importlib
from types import ModuleType


def require(module: str, extra: str) -> ModuleType:
    """Import `module`, which the `extra` of this package installs.

    Raises
    ------
    ImportError
        If it is not installed. The message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != module.partition(".")[0]:
            raise  # it is installed, but one of its dependencies is not
        raise ImportError(
            f'{error.name} is not installed; pip install "fastact[{extra}]" installs it'
        ) from error
