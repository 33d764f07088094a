"""What layers and stacks have in common: attributes that stay, and copies of their class."""

from typing import Any


class Frozen:
    """Attributes are set once, all together, by ``_fix``; a subclass may add others.

    Copies and pickles are of the same class. They get the fixed attributes by the ``__init__`` of
    the class that fixes them, and all others as other objects do.
    """

    _fixed: frozenset[str] = frozenset()

    def _fix(self, **attributes: Any) -> None:
        for name in vars(self).keys() & attributes:
            raise AttributeError(
                f"{type(self).__name__}: {name} must be set once, by __init__, and was set before"
            )
        vars(self).update(attributes, _fixed=frozenset((*attributes, "_fixed")))

    def __setattr__(self, name: str, value: object) -> None:
        if name in self._fixed:
            raise AttributeError(
                f"{type(self).__name__}: {name} must stay what it is, got {value!r}; "
                f"a new {type(self).__name__} may have it"
            )
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        if name in self._fixed:
            raise AttributeError(f"{type(self).__name__}: {name} must stay, and cannot be deleted")
        super().__delattr__(name)

    def __getstate__(self) -> Any:
        """All but what is fixed: the names and values, or such a pair with those of slots."""
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
    """An object of `kind`, initialised as its `base` is: its own ``__init__`` may ask for more."""
    made = kind.__new__(kind)  # type: ignore[call-overload] # not that of `type`
    base.__init__(made, *arguments)  # type: ignore[misc] # `made` is of `base`
    return made
