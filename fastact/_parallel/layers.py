"""The threading layers, and which of them the environment asks for.

A layer is imported only when it is needed, since that takes longer than the rest of this package.
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
"""Also used instead of a layer that is not available."""

LEAST_SHARE = 5_000_000
"""The smallest ``SHARE`` of all layers, known without importing any of them."""


def chosen(environment: Mapping[str, str]) -> str:
    """The name of the layer that the environment asks for.

    Raises
    ------
    ValueError
        If there is no layer of that name.
    """
    name = environment.get(VARIABLE, "").strip() or DEFAULT
    if name not in LAYERS:
        raise ValueError(f"{VARIABLE} must be one of {', '.join(LAYERS)}, got {name!r}")
    return name
