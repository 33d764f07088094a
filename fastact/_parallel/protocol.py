"""The protocol `Layer`, which the module of every threading layer follows."""

from typing import NamedTuple, Protocol


class Functions(NamedTuple):
    """The addresses of the functions of a layer that compiled loops call."""

    parallel_for: int
    """With the signature of ``parallel_for`` in Numba's threading layers."""
    get_mask: int = 0
    """Returns the number of threads that the layer keeps for the calling thread, and that
    ``parallel_for`` overwrites. The address is 0 if the layer keeps none."""
    set_mask: int = 0
    """Sets that number; 0 as `get_mask`."""


class Layer(Protocol):
    """A module of this package. ``layers.LAYERS`` lists all layers."""

    NAME: str
    """The value of the environment variable ``FASTACT_THREADING_LAYER`` that selects it."""
    SHARE: int
    """The work, in picoseconds, that each thread must get for the layer to pay off."""

    def foresee(self) -> None:
        """Raise what `begin` would raise; compile nothing and start no thread.

        Raises
        ------
        ImportError, OSError, AttributeError
            If something that the layer needs is missing; another layer is used then.
        """

    def begin(self) -> Functions:
        """Make the layer ready for calls; raise the same exceptions as `foresee`."""

    def after_fork(self) -> None:
        """Give up the threads, in a forked child of a process that has called `begin`."""
