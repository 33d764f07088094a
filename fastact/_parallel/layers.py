"""The threading layers: which there are, and which is asked for.

A layer is imported when it is looked at: that takes longer than the rest of this package.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastact._parallel.protocol import Layer

VARIABLE = "FASTACT_THREADING_LAYER"


def _own() -> "Layer":
    from fastact._parallel import helpers

    return helpers


def _tbb() -> "Layer":
    from fastact._parallel import tbb

    return tbb


LAYERS: dict[str, Callable[[], "Layer"]] = {"fastact": _own, "tbb": _tbb}
"""Every layer by its name."""

DEFAULT = "fastact"
"""Also used in place of one that is not there."""

LEAST_SHARE = 5_000_000
"""The least ``SHARE`` of all layers, which none of them has to be imported for."""


def chosen(environment: Mapping[str, str]) -> str:
    """The name of the layer that is asked for.

    Raises
    ------
    ValueError
        Where there is none of that name.
    """
    name = environment.get(VARIABLE, "").strip() or DEFAULT
    if name not in LAYERS:
        raise ValueError(f"{VARIABLE} must be one of {', '.join(LAYERS)}, got {name!r}")
    return name
