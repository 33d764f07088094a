"""scikit-learn: a patch that makes its neural networks train and predict with fastact.

Inside ``with fastact.sklearn.patched():``, or between :func:`patch` and :func:`unpatch`,
MLPClassifier, MLPRegressor and BernoulliRBM use ``fastact.sigmoid``, ``tanh``, ``relu``, their
derivatives and ``softmax``. ``import fastact`` does not import this module, which needs
scikit-learn.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

import numpy as np

from fastact._functions.relu import relu, relu_backward
from fastact._functions.sigmoid import sigmoid, sigmoid_backward
from fastact._functions.softmax import softmax
from fastact._functions.tanh import tanh, tanh_backward
from fastact._interop.extras import require

sklearn = require("sklearn", "sklearn")
from sklearn.neural_network import _base, _rbm  # noqa: E402 - the line above reports its absence

__all__ = ["patch", "patched", "unpatch"]

_FIRST, _LAST = (1, 5), (1, 9)
"""The first and the last version of scikit-learn whose tests pass with our functions in place."""


def _in_place(ufunc: np.ufunc) -> Callable[[np.ndarray], None]:
    def activate(X: np.ndarray) -> None:
        ufunc(X, out=X)

    return activate


def _derivative(ufunc: np.ufunc) -> Callable[[np.ndarray, np.ndarray], None]:
    def propagate(Z: np.ndarray, delta: np.ndarray) -> None:
        ufunc(delta, Z, out=delta)

    return propagate


# What is replaced: the dict, the key, the name of the function that must be there, and ours.
_Hook = tuple[MutableMapping[str, Any], str, str, Any]
_HOOKS: list[_Hook] = [
    (_base.ACTIVATIONS, "logistic", "inplace_logistic", _in_place(sigmoid)),
    (_base.ACTIVATIONS, "tanh", "inplace_tanh", _in_place(tanh)),
    (_base.ACTIVATIONS, "relu", "inplace_relu", _in_place(relu)),
    (_base.ACTIVATIONS, "softmax", "inplace_softmax", _in_place(softmax)),
    *(
        (_base.DERIVATIVES, key, f"inplace_{key}_derivative", _derivative(ufunc))
        for key, ufunc in [
            ("logistic", sigmoid_backward),
            ("tanh", tanh_backward),
            ("relu", relu_backward),
        ]
    ),
    (vars(_rbm), "expit", "expit", sigmoid),
]

_lock = threading.Lock()
_count = 0  # calls of patch() that unpatch() has not undone
_originals: list[Any] = []


def patch() -> None:
    """Make MLPClassifier, MLPRegressor and BernoulliRBM compute with this package.

    This replaces their activations: logistic, tanh and relu with their derivatives, the softmax of
    classifiers, and the logistic function with which a BernoulliRBM samples. Matrix products, the
    identity, the exp of Poisson regression, losses and ``BernoulliRBM.score_samples`` are not
    replaced. Estimators store nothing of this package, and are pickled as before. Results differ
    by rounding errors.

    The change affects the whole process with all its threads, but no other processes: workers that
    joblib starts have to call :func:`patch` themselves. Calls nest: the change stays in effect
    until :func:`unpatch` has been called as often.

    Raises
    ------
    RuntimeError
        If the version or the internals of scikit-learn are not as expected. Nothing is changed
        then.

    See Also
    --------
    patched : Patch for a block of code.

    Examples
    --------
    >>> import fastact.sklearn
    >>> from sklearn.neural_network import MLPClassifier
    >>> with fastact.sklearn.patched():
    ...     mlp = MLPClassifier(max_iter=500).fit([[0.0], [1.0]], [0, 1])
    """
    global _count
    with _lock:
        if not _count:
            _check()
            _originals[:] = [place[key] for place, key, _, _ in _HOOKS]
            for place, key, _, ours in _HOOKS:
                place[key] = ours
        _count += 1


def unpatch() -> None:
    """Undo one call of :func:`patch`; undoing the last one restores scikit-learn.

    Raises
    ------
    RuntimeError
        If there is no call of :func:`patch` to undo.

    Examples
    --------
    >>> import fastact.sklearn
    >>> fastact.sklearn.patch()
    >>> fastact.sklearn.unpatch()
    """
    global _count
    with _lock:
        if not _count:
            raise RuntimeError("unpatch: there must be a call of patch() to undo, got none")
        _count -= 1
        if not _count:
            for (place, key, _, _), original in zip(_HOOKS, _originals, strict=True):
                place[key] = original


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
    >>> import fastact.sklearn
    >>> from sklearn.neural_network import MLPRegressor
    >>> @fastact.sklearn.patched()
    ... def fitted(X, y):
    ...     return MLPRegressor(max_iter=5000).fit(X, y)
    """
    patch()
    try:
        yield
    finally:
        unpatch()


def _check() -> None:
    """Raise RuntimeError unless the version and the internals of scikit-learn are as expected."""
    version = tuple(int(part) for part in sklearn.__version__.split(".")[:2])
    if not _FIRST <= version <= _LAST:
        raise RuntimeError(
            f"patch: scikit-learn must be of version {_text(_FIRST)} to {_text(_LAST)}, whose "
            f"internals are known, got {sklearn.__version__}"
        )
    for place, key, expected, _ in _HOOKS:
        found = getattr(place.get(key), "__name__", None)
        if found != expected:
            raise RuntimeError(
                f"patch: scikit-learn must have its own function {expected} for {key!r}, "
                f"got {place.get(key)!r}"
            )


def _text(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
