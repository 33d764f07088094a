"""The description of a library that is compared."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

Call = Callable[[], object]
Factory = Callable[[Sequence[np.ndarray], np.ndarray], Call]
"""``factory(inputs, out)`` returns the call to time, after all possible preparation."""

ARRAY_LAYOUTS = ("contiguous", "in place", "strided", "unaligned", "transposed")
ROWS = "rows"
"""A matrix, each row of which is an input of a function of rows."""
SCALAR_LAYOUTS = ("NumPy scalar", "Python float")


class Unsupported(Exception):
    """The library has the function, but not for this dtype or layout."""


class Library(NamedTuple):
    """An imported library, with its functions by name of the activation.

    Attributes
    ----------
    version : str
    arrays : dict
        A :data:`Factory` for arrays.
    scalars : dict
        A function of scalars that returns one.
    dense : dict
        A :data:`Factory` of ``activation(x @ W + b)`` for the inputs x, W and b.
    """

    version: str
    arrays: dict[str, Factory] = {}  # noqa: RUF012 - nobody writes to it
    scalars: dict[str, Callable] = {}  # noqa: RUF012
    dense: dict[str, Factory] = {}  # noqa: RUF012


@dataclass(frozen=True)
class Peer:
    """A library that may be installed.

    Attributes
    ----------
    load : callable
        ``load(threads)`` imports the library and tells it how many threads to use. It raises
        ImportError if the library is missing.
    package : str
        The name for ``pip install``.
    layouts : sequence of str
        The layouts of arrays and scalars that it accepts without a conversion.
    writes : bool
        Whether calls write to `out`, unless they return a NumPy array.
    """

    load: Callable[[int], Library]
    package: str
    layouts: Sequence[str] = field(default=(*ARRAY_LAYOUTS, ROWS, *SCALAR_LAYOUTS))
    writes: bool = True

    def result(self, returned: object, out: np.ndarray | None) -> np.ndarray:
        """The result of a call that returned `returned`, as an array."""
        if out is None or not self.writes or isinstance(returned, np.ndarray):
            return np.asarray(returned)
        return out


def into(function: Callable, *constants: object, convert: Callable = np.asarray) -> Factory:
    """Return the factory of ``function(*inputs, *constants, out=out)``.

    Its calls are partial objects, since a lambda would add a Python frame to every timed call.
    """

    def factory(inputs, out):
        arrays = map(convert, inputs)
        return functools.partial(function, *arrays, *constants, out=convert(out))

    return factory
