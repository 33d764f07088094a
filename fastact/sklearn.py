"""Neural networks of scikit-learn that train and predict with the functions of this package.

Inside ``with fastact.sklearn.patched():``, or between :func:`patch` and :func:`unpatch`,
MLPClassifier, MLPRegressor and BernoulliRBM use ``fastact.sigmoid``, ``tanh``, ``relu``, their
derivatives and ``softmax``. This module is imported only when asked for, and needs scikit-learn.
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
from sklearn.neural_network import _base, _rbm  # noqa: E402 - the line above explains its absence

__all__ = ["patch", "patched", "unpatch"]

_FIRST, _LAST = (1, 5), (1, 9)
"""The versions of scikit-learn whose own tests pass with our functions in place."""


def _in_place(ufunc: np.ufunc) -> Callable[[np.ndarray], None]:
    def activate(X: np.ndarray) -> None:
        ufunc(X, out=X)

    return activate


def _derivative(ufunc: np.ufunc) -> Callable[[np.ndarray, np.ndarray], None]:
    def propagate(Z: np.ndarray, delta: np.ndarray) -> None:
        ufunc(delta, Z, out=delta)

    return propagate


# What is replaced: where, under which key, and what has to be there.
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
    """Let MLPClassifier, MLPRegressor and BernoulliRBM compute with this package.

    Their activations are replaced: logistic, tanh and relu with their derivatives, softmax for
    classes, and the logistic function that a BernoulliRBM samples with. Products of matrices
    stay with NumPy, and so do the identity, the exp of Poisson regression, losses and
    ``BernoulliRBM.score_samples``. Nothing of this package is kept in estimators, which are
    pickled as before. Results differ by rounding.

    The change is one for the whole process, all its threads included; other processes, such as
    those that joblib starts, have to do it themselves. Calls nest: it is in effect until
    :func:`unpatch` was called as often.

    Raises
    ------
    RuntimeError
        For a scikit-learn whose internals are not known to be as expected. Nothing is
        changed then.

    See Also
    --------
    patched : the same for a block of code.

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
    """Undo one :func:`patch`; after the last one, scikit-learn is as it was.

    Raises
    ------
    RuntimeError
        Without a call of :func:`patch` to undo.

    Examples
    --------
    >>> import fastact.sklearn
    >>> fastact.sklearn.patch()
    >>> fastact.sklearn.unpatch()
    """
    global _count
    with _lock:
        if not _count:
            raise RuntimeError("unpatch: patch() must have been called before, and was not")
        _count -= 1
        if not _count:
            for (place, key, _, _), original in zip(_HOOKS, _originals, strict=True):
                place[key] = original


@contextlib.contextmanager
def patched() -> Iterator[None]:
    """:func:`patch` for a ``with`` block, undone at its end, however that is reached.

    Also a decorator. Blocks may be nested, and be entered by several threads.

    Raises
    ------
    RuntimeError
        As by :func:`patch`.

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
    """RuntimeError unless scikit-learn is as we know it."""
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
