"""The activation of a layer: a declared name, and the values of its parameters."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from fastact._declarations.declare import ufunc_of
from fastact._declarations.records import NORMALIZATIONS, activations
from fastact._runtime.operands import as_array, compute_dtype

if TYPE_CHECKING:
    from numpy.typing import NDArray

ActivationLike: TypeAlias = "str | np.ufunc | tuple[Any, ...] | None"

IDENTITY = "identity"

_SHOWN = 8  # values of a parameter in a repr


class Activated(NamedTuple):
    """An activation with values for its parameters; a function of one array.

    Attributes
    ----------
    name : str
        A declared name.
    parameters : tuple
        For each parameter a float, or a tuple with a float for each column. So it has a hash.
    """

    name: str
    parameters: tuple[float | tuple[float, ...], ...] = ()

    def arrays(self, dtype: np.dtype, columns: int) -> list[np.ndarray]:
        """The values as arrays of `dtype`, of shape () or (N,) for so many `columns`.

        Normalizations need (N,) for all parameters but the last.
        """
        found = [np.array(value, dtype) for value in self.parameters]
        if self.name not in NORMALIZATIONS:
            return found
        *rows, last = found
        return [*(np.broadcast_to(row, columns) for row in rows), last]

    def applied(self, x: np.ndarray, out: np.ndarray | None = None) -> NDArray[Any]:
        """The ufunc of `x` and the parameters, along the last axis if it is one of rows."""
        dtype = x.dtype if x.dtype.kind not in "biu" else compute_dtype(np.dtype(np.float64))
        return ufunc_of(self.name)(  # type: ignore[no-any-return] # a ufunc
            x, *self.arrays(dtype, x.shape[-1] if x.ndim else 1), out=out
        )

    def __call__(self, x: Any, *, out: np.ndarray | None = None) -> NDArray[Any]:
        """The same, of anything that is like an array."""
        return self.applied(as_array(self.name, "x", x), out)

    @property
    def argument(self) -> str | tuple[Any, ...]:
        """What layers accept for it."""
        return (self.name, *self.parameters) if self.parameters else self.name

    def named(self) -> dict[str, NDArray[Any] | float]:
        """The values by the names of the parameters; those for columns are a new array."""
        names = known()[self.name].parameters if self.parameters else ()
        return {
            name: np.array(value) if isinstance(value, tuple) else value
            for name, value in zip(names, self.parameters, strict=True)
        }

    def __str__(self) -> str:
        return self.name + (f"({', '.join(map(_shown, self.parameters))})" * bool(self.parameters))


def _shown(value: float | tuple[float, ...]) -> str:
    if isinstance(value, tuple) and len(value) > _SHOWN:
        return f"{len(value)} values"
    return str(list(value) if isinstance(value, tuple) else value)


def chosen(
    caller: str, activation: Any, columns: int | None = None, what: str = "activation must be"
) -> Activated | None:
    """The activation of a layer of so many `columns`, however it is given; None for identity.

    It is given by name or as the function. If it has parameters, it is a tuple of that and a value
    for each of them; alone, it has the declared defaults.
    """
    if isinstance(activation, Activated):
        activation = activation.argument
    given: tuple[Any, ...] = ()
    function = activation
    if isinstance(activation, tuple) and activation:
        function, *rest = activation
        given = tuple(rest)
    if not given and (function is None or (isinstance(function, str) and function == IDENTITY)):
        return None
    name = _name(function)
    if name is None:
        raise ValueError(
            f"{caller}: {what} one of {', '.join([IDENTITY, *known()])}, by name or as a function "
            f"of fastact, got {function!r}"
        )
    expected = list(getattr(known()[name], "parameters", ()))
    given = given or tuple(getattr(known()[name], "defaults", {}).values())
    if len(given) != len(expected):
        wanted = ", ".join([f"fa.{name}", *expected])
        raise ValueError(
            f"{caller}: {what} {f'({wanted})' if expected else wanted}, "
            f"got {name} with {len(given)} parameters"
        )
    values = [_value(caller, *pair, columns) for pair in zip(expected, given, strict=True)]
    if name in NORMALIZATIONS and isinstance(values[-1], tuple):
        raise ValueError(
            f"{caller}: {expected[-1]} must be a number, got an array of shape ({len(values[-1])},)"
        )
    return Activated(name, tuple(values))


def _name(function: Any) -> str | None:
    for name in known():
        if name == function if isinstance(function, str) else ufunc_of(name) is function:
            return name
    return None


@functools.cache
def known() -> dict[str, Any]:
    """The records of the activations that layers accept, by name."""
    return activations()


def _value(caller: str, name: str, given: Any, columns: int | None) -> float | tuple[float, ...]:
    array = as_array(caller, name, given)
    if array.dtype.kind not in "biuf" and "float" not in array.dtype.name:
        raise TypeError(f"{caller}: {name} must be real, got {array.dtype}")
    if array.ndim > 1 or (array.ndim and columns not in (None, len(array))):
        shape = "(N,)" if columns is None else f"({columns},), as many as the layer has columns"
        raise ValueError(
            f"{caller}: {name} must be a number or have shape {shape}, got shape {array.shape}"
        )
    found = array.astype(np.float64).tolist()
    return tuple(found) if array.ndim else found
