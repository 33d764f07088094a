"""Functions of other libraries that ours replace for a while, in the whole process."""

import threading
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

from fastact._interop.versions import refuse_unless_known


class Hook(NamedTuple):
    """What is replaced.

    Attributes
    ----------
    place : dict, module, class or object
    key : str
        The key of the dict, or the name of the attribute, which is the place's own.
    expected : object
        What must be there: the name of a function, a value, or None for nothing.
    ours : object
        What replaces it.
    """

    place: Any
    key: str
    expected: Any
    ours: Any

    @property
    def found(self) -> Any:
        """What is there; None for nothing."""
        there: Mapping[str, Any] = self.place if isinstance(self.place, dict) else vars(self.place)
        return there.get(self.key)

    def put(self, value: Any) -> None:
        """Put `value` there, or nothing for None."""
        if not isinstance(self.place, dict):
            setattr(self.place, self.key, value)
        elif value is None:
            del self.place[self.key]
        else:
            self.place[self.key] = value


class Patch:
    """Replaces functions of a library, and restores them.

    Parameters
    ----------
    library : str
        Its name, for messages.
    module : module
        It has the version of the library.
    first, last : tuple of int
        The first and the last version whose internals are known.
    hooks : sequence of Hook
    """

    def __init__(
        self,
        library: str,
        module: ModuleType,
        first: tuple[int, int],
        last: tuple[int, int],
        hooks: Sequence[Hook],
    ) -> None:
        self._library = library
        self._module = module
        self._versions = first, last
        self._hooks = hooks
        self._lock = threading.Lock()
        self._count = 0  # calls of patch() that unpatch() has not undone
        self._originals: list[Any] = []

    def patch(self) -> None:
        """Replace everything, unless that is done.

        Raises
        ------
        RuntimeError
            If the version or the internals of the library are not as expected. Nothing is changed
            then.
        """
        with self._lock:
            if not self._count:
                self.check()
                self._originals = [hook.found for hook in self._hooks]
                for hook in self._hooks:
                    hook.put(hook.ours)
            self._count += 1

    def unpatch(self) -> None:
        """Undo one call of :meth:`patch`; undoing the last one restores everything.

        Raises
        ------
        RuntimeError
            If there is no call of :meth:`patch` to undo.
        """
        with self._lock:
            if not self._count:
                raise RuntimeError("unpatch: there must be a call of patch() to undo, got none")
            self._count -= 1
            if not self._count:
                for hook, original in zip(self._hooks, self._originals, strict=True):
                    hook.put(original)

    def check(self) -> None:
        """Raise RuntimeError unless the version and the internals are as expected."""
        refuse_unless_known(self._library, self._module.__version__, *self._versions)
        for hook in self._hooks:
            found, expected = hook.found, hook.expected
            if getattr(found, "__name__", found) != expected:
                own = f"its own function {expected}" if isinstance(expected, str) else expected
                raise RuntimeError(
                    f"patch: {self._library} must have {own or 'nothing'} for {hook.key!r}, "
                    f"got {found!r}"
                )
