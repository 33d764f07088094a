"""The libraries that are compared, each with its fastest idiomatic code for the functions.

To add a library, write a module with its `load` and enter it in :data:`PEERS`. To add a function
to a library, enter it under its name in the module of the library.
"""

from collections.abc import Sequence

from . import jax, numexpr, numpy, onnxruntime, ours, scipy, sklearn, torch
from .base import ARRAY_LAYOUTS, ROWS, SCALAR_LAYOUTS, Library, Peer

OURS = "fastact"
OURS_UNPACKED = "fastact (unpacked)"
OURS_FAST = "fastact.fast"
OWN = (OURS, OURS_UNPACKED, OURS_FAST)
CONTIGUOUS = ("contiguous", ROWS)

PEERS: dict[str, Peer] = {
    OURS: Peer(ours.load, "fastact"),
    OURS_UNPACKED: Peer(ours.load_unpacked, "fastact"),
    OURS_FAST: Peer(ours.load_fast, "fastact"),
    "numpy": Peer(numpy.load, "numpy"),
    "scipy": Peer(scipy.load, "scipy"),
    "torch": Peer(torch.load, "torch", (*ARRAY_LAYOUTS, ROWS)),
    "onnxruntime": Peer(onnxruntime.load, "onnxruntime", (*CONTIGUOUS, "in place")),
    # JAX's arrays are contiguous, begin on cache lines, and cannot be written to.
    "jax": Peer(jax.load, "jax", (*CONTIGUOUS, *SCALAR_LAYOUTS), writes=False),
    "numexpr": Peer(numexpr.load, "numexpr", ARRAY_LAYOUTS),
    "scikit-learn": Peer(sklearn.load, "scikit-learn", CONTIGUOUS, writes=False),
}
"""All libraries by name."""


def others() -> list[str]:
    """The names of the libraries that are not this package."""
    return [name for name in PEERS if name not in OWN]


def load(names: Sequence[str], threads: int = 1) -> tuple[dict[str, Library], dict[str, str]]:
    """Import libraries.

    Parameters
    ----------
    names : sequence of str
        Keys of :data:`PEERS`.
    threads : int
        How many threads each of them may use.

    Returns
    -------
    libraries : dict
        The :class:`Library` of each that is installed.
    missing : dict
        The reason why each of the others could not be imported.
    """
    libraries, missing = {}, {}
    for name in names:
        try:
            libraries[name] = PEERS[name].load(threads)
        except (ImportError, OSError) as error:  # OSError: a shared library is missing
            missing[name] = str(error)
    return libraries, missing
