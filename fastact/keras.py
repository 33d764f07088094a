"""Keras 3: a patch that makes its NumPy backend compute activations with fastact.

Inside ``with fastact.keras.patched():``, or between :func:`patch` and :func:`unpatch`,
``keras.activations``, ``keras.ops``, layers and models compute with ``fastact.sigmoid``, ``gelu``,
``softmax`` and others. ``import fastact`` does not import this module, which needs Keras, with
``KERAS_BACKEND=numpy`` in the environment before Keras is imported.
"""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from fastact._declarations.records import ACTIVATIONS, ROW_ACTIVATIONS, RowActivation
from fastact._functions import UFUNCS
from fastact._interop.extras import require
from fastact._interop.patches import Hook, Patch
from fastact._machine.formats import FLOATS

keras = require("keras", "keras")
if keras.config.backend() != "numpy":
    raise ImportError(
        "fastact.keras: the backend of Keras must be 'numpy' (KERAS_BACKEND=numpy in the "
        f"environment before Keras is imported), got {keras.config.backend()!r}"
    )
from keras.src.activations.activations import Mish  # noqa: E402 - lines above report what is amiss
from keras.src.backend.numpy import convert_to_tensor, nn  # noqa: E402
from keras.src.backend.numpy import numpy as _numpy  # noqa: E402

__all__ = ["patch", "patched", "unpatch"]

_FIRST, _LAST = (3, 12), (3, 15)
"""The first and the last version of Keras whose tests pass with our functions in place."""

_FLOATS = frozenset(FLOATS)

_Ours = tuple[np.ufunc, Callable[..., tuple[float, ...] | None]]
"""A function, and its parameters for the arguments of Keras' function: None if it is another."""

_PLACES = {"nn": nn, "numpy": _numpy, "Mish": Mish}


def _operand(original: Callable[..., Any]) -> Callable[[Any], Any]:
    """A function that makes an array of what `original` accepts, as `original` does.

    Some functions of Keras convert to its tensors, of which float64 is none, and others compute
    with any array. Arrays that need no conversion are not copied.
    """
    to_tensors = "convert_to_tensor" in original.__code__.co_names
    kept = _FLOATS - {"float64"} if to_tensors else _FLOATS

    def operand(x: Any) -> Any:
        if type(x) is np.ndarray and x.dtype.name in kept:
            return x
        return convert_to_tensor(x) if to_tensors else np.asarray(x)

    return operand


def _element_wise(original: Callable[..., Any], ours: Sequence[_Ours]) -> Callable[..., Any]:
    """What replaces a function that may compute several activations."""
    operand = _operand(original)

    @functools.wraps(original)
    def computed(x: Any, *arguments: Any, **named: Any) -> Any:
        array = operand(x)
        if array.dtype.name in _FLOATS:
            for ufunc, parameters_of in ours:
                parameters = parameters_of(*arguments, **named)
                if parameters is not None:
                    return ufunc(array, *(np.asarray(p, array.dtype) for p in parameters))
        return original(x, *arguments, **named)

    return computed


def _of_halves(original: Callable[..., Any], ours: Sequence[_Ours]) -> Callable[..., Any]:
    """What replaces a function of the two halves of an array."""
    ((ufunc, _),) = ours
    operand = _operand(original)

    @functools.wraps(original)
    def computed(x: Any, axis: int = -1) -> Any:
        array = operand(x)
        if array.dtype.name not in _FLOATS or array.shape[axis] % 2:
            return original(x, axis=axis)
        return ufunc(*np.split(array, 2, axis))

    return computed


def _of_rows(original: Callable[..., Any], ours: Sequence[_Ours]) -> Callable[..., Any]:
    """What replaces a function along an axis, or several, or all of them for None."""
    ((ufunc, _),) = ours
    operand = _operand(original)

    @functools.wraps(original)
    def computed(x: Any, axis: int | Sequence[int] | None = -1) -> Any:
        array = operand(x)
        if array.dtype.name not in _FLOATS or not array.ndim:
            return original(x, axis=axis)
        if axis is not None and not isinstance(axis, Sequence):
            return ufunc(array, axis=axis)
        axes = range(array.ndim) if axis is None else axis
        last = range(-len(axes), 0)
        moved = np.moveaxis(array, axes, last)
        kept = moved.shape[: moved.ndim - len(axes)]
        rows = moved.reshape(*kept, math.prod(moved.shape[len(kept) :]))
        return np.moveaxis(ufunc(rows).reshape(moved.shape), last, axes)

    return computed


def _hooks() -> Iterator[Hook]:
    found: dict[str, tuple[Callable[..., Any], list[_Ours]]] = {}
    for name, declared in (ACTIVATIONS | ROW_ACTIVATIONS).items():
        if isinstance(declared, RowActivation):
            make = _of_rows
        elif declared.nin - len(declared.parameters) == 2:
            make = _of_halves
        else:
            make = _element_wise
        for function in declared.keras_functions:
            ours = found.setdefault(function.name, (make, []))[1]
            ours.append((UFUNCS[name], function.operands))
    for name, (make, ours) in found.items():
        place, _, key = name.partition(".")
        there = vars(_PLACES[place]).get(key)
        if there is None:
            yield Hook(_PLACES[place], key, key, None)  # patch() refuses this version
            continue
        replacement = make(getattr(_PLACES[place], key), ours)
        static = isinstance(there, staticmethod)
        yield Hook(_PLACES[place], key, key, staticmethod(replacement) if static else replacement)


_patch = Patch("Keras", keras, _FIRST, _LAST, list(_hooks()))


def patch() -> None:
    """Make the NumPy backend of Keras compute activations with this package.

    This replaces the activations that this package has, too: relu, gelu, softmax and others, which
    the page "Use it from ..." of the documentation lists. It replaces them in ``keras.activations``
    and ``keras.ops`` and in all layers and losses, but leaky_relu only with a slope of at most 1,
    and elu only with ``alpha=1``. Results have the types that those of Keras have: in functions
    where Keras converts float64 to float32, it is converted. Integers, bool and complex numbers are
    left to Keras, and so are the other activations. Models store nothing of this package.

    The change affects the whole process with all its threads, but no other processes. Calls nest:
    the change stays in effect until :func:`unpatch` has been called as often.

    Raises
    ------
    RuntimeError
        If the version or the internals of Keras are not as expected. Nothing is changed then.

    See Also
    --------
    patched : Patch for a block of code.

    Notes
    -----
    ``python -m bench.keras`` measures errors and times before and after. Without the patch, gelu
    and silu lose all digits of their results for large negative inputs and tanh_shrink does near 0,
    and hard_silu(-inf) and softsign(inf) are NaN.

    Examples
    --------
    >>> import keras, fastact.keras
    >>> with fastact.keras.patched():
    ...     y = keras.activations.gelu([-12.0])
    >>> bool(y[0] < 0)
    True
    """
    _patch.patch()


def unpatch() -> None:
    """Undo one call of :func:`patch`; undoing the last one restores Keras.

    Raises
    ------
    RuntimeError
        If there is no call of :func:`patch` to undo.

    Examples
    --------
    >>> import fastact.keras
    >>> fastact.keras.patch()
    >>> fastact.keras.unpatch()
    """
    _patch.unpatch()


@contextlib.contextmanager
def patched() -> Iterator[None]:
    """Call :func:`patch` for a ``with`` block, and :func:`unpatch` at its end in any case.

    It also works as a decorator. Blocks may be nested, and several threads may enter them.

    Raises
    ------
    RuntimeError
        As for :func:`patch`.

    Examples
    --------
    >>> import fastact.keras
    >>> @fastact.keras.patched()
    ... def predicted(model, x):
    ...     return model.predict(x)
    """
    patch()
    try:
        yield
    finally:
        unpatch()
