"""The base class of layers and stacks: fixed attributes, copies of the same class, and files."""

import os
from typing import Any


class Frozen:
    """An object with attributes that ``_fix`` sets once; subclasses may add other attributes.

    Copies and pickles have the same class. Their fixed attributes are set by the ``__init__`` of
    the class that fixes them, all others as usual.
    """

    _fixed: frozenset[str] = frozenset()

    def _fix(self, **attributes: Any) -> None:
        for name in vars(self).keys() & attributes:
            raise AttributeError(f"{type(self).__name__}: {name} can be set only once, by __init__")
        vars(self).update(attributes, _fixed=frozenset((*attributes, "_fixed")))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to a file, from which :func:`load` reads it.

        Parameters
        ----------
        path : str or os.PathLike
            A file there is replaced at once, and keeps its permissions: if the program or the
            system stops, it is either the old one or the new one. A device or a pipe is written
            to. The usual suffix is ".safetensors".

        Raises
        ------
        TypeError
            If the model or a layer of it is of a subclass, if `classes_` are neither numbers nor
            strings, and if `path` is not a path.
        ValueError
            If attributes were added to a layer, since they would be lost, and for a layer without
            outputs, or with neither inputs nor bias.
        OSError
            If the file cannot be written.

        Notes
        -----
        The file has the format of the package safetensors, with the layers as JSON in its metadata.
        All weights are stored as the layer uses them, also those of fewer bits. If a layer occurs
        twice in a stack, it is stored twice.
        """
        from fastact._dense import saved  # here, to keep the import of layers short

        saved.save(self, path)

    def __setattr__(self, name: str, value: object) -> None:
        if name in self._fixed:
            raise AttributeError(
                f"{type(self).__name__}: {name} cannot be changed, got {value!r}; "
                f"create a new {type(self).__name__} instead"
            )
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        if name in self._fixed:
            raise AttributeError(f"{type(self).__name__}: {name} cannot be deleted")
        super().__delattr__(name)

    def __getstate__(self) -> Any:
        """The attributes that are not fixed: a dict, or a pair of dicts if there are slots."""
        state: Any = super().__getstate__()
        slots = None
        if isinstance(state, tuple):
            state, slots = state
        own = {name: value for name, value in (state or {}).items() if name not in self._fixed}
        return (own, slots) if slots else own or None

    def __setstate__(self, state: Any) -> None:
        for part in state if isinstance(state, tuple) else (state,):
            for name, value in part.items():
                object.__setattr__(self, name, value)


def again(kind: type, base: type, *arguments: Any) -> Any:
    """An object of `kind`, initialised by its `base`; ``kind.__init__`` may need more arguments."""
    made = kind.__new__(kind)  # type: ignore[call-overload] # not the __new__ of `type`
    base.__init__(made, *arguments)  # type: ignore[misc] # `made` is a `base`
    return made
