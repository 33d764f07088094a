"""What a threading layer is: a module that fits the protocol `Layer`."""

from typing import NamedTuple, Protocol


class Functions(NamedTuple):
    """The addresses of what compiled loops call of a layer."""

    parallel_for: int
    """Of the signature of ``parallel_for`` in numba's threading layers."""
    get_mask: int = 0
    """The number of threads that the layer keeps for the calling thread, and ``parallel_for``
    overwrites; 0 where it keeps none."""
    set_mask: int = 0


class Layer(Protocol):
    """A module of this package. ``layers.LAYERS`` lists all of them."""

    NAME: str
    """As in the environment variable ``FASTACT_THREADING_LAYER``."""
    SHARE: int
    """The work, in picoseconds, that a thread has to be given for the layer to pay."""

    def foresee(self) -> None:
        """Raise what `begin` would raise; compile nothing and start no thread.

        Raises
        ------
        ImportError, OSError, AttributeError
            Where something is missing that the layer needs; another one is used then.
        """

    def begin(self) -> Functions:
        """Make the layer ready for calls; raises as `foresee`."""

    def after_fork(self) -> None:
        """In a forked child of a process that has called `begin`: its threads are gone."""
