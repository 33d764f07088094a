"""Libraries that are needed by some who use this package, and imported when they are asked for."""

import importlib
from types import ModuleType


def require(module: str, extra: str) -> ModuleType:
    """Import `module`, which the `extra` of this package installs.

    Raises
    ------
    ImportError
        Where it is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != module.partition(".")[0]:
            raise  # it is there, and lacks something of its own
        raise ImportError(
            f'{error.name} is not installed; pip install "fastact[{extra}]" installs it'
        ) from error
