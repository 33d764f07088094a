"""scikit-learn: a patch that makes its neural networks train and predict with fastact.

Inside ``with fastact.sklearn.patched():``, or between :func:`patch` and :func:`unpatch`,
MLPClassifier, MLPRegressor and BernoulliRBM use ``fastact.sigmoid``, ``tanh``, ``relu``, their
derivatives and ``softmax``, and MLPClassifier and MLPRegressor accept further activations, such as
``activation="gelu"``. ``import fastact`` does not import this module, which needs scikit-learn.
"""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fastact._declarations.records import ACTIVATIONS, Derivative, unary_derivatives
from fastact._functions import UFUNCS
from fastact._functions.sigmoid import sigmoid
from fastact._functions.softmax import softmax
from fastact._interop.extras import require
from fastact._interop.patches import Hook, Patch

sklearn = require("sklearn", "sklearn")
from sklearn.neural_network import _base, _rbm  # noqa: E402 - line above reports its absence
from sklearn.neural_network._multilayer_perceptron import BaseMultilayerPerceptron  # noqa: E402

__all__ = ["patch", "patched", "unpatch"]

_FIRST, _LAST = (1, 5), (1, 9)
"""The first and the last version of scikit-learn whose tests pass with our functions in place."""


class _Training(threading.local):
    """What the backpropagation that runs in a thread has saved.

    Attributes
    ----------
    inputs : dict, optional
        By the identity of each layer's array, this array and a copy from before the activation.
        The array is kept so that no other has its identity meanwhile. None outside of training:
        predictions save nothing.
    """

    inputs: dict[int, tuple[np.ndarray, np.ndarray]] | None = None


_training = _Training()


def _saving(backprop: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(backprop)
    def saving(*args: Any, **kwargs: Any) -> Any:
        _training.inputs = {}
        try:
            return backprop(*args, **kwargs)
        finally:
            _training.inputs = None

    return saving


def _in_place(ufunc: np.ufunc) -> Callable[[np.ndarray], None]:
    def activate(X: np.ndarray) -> None:
        ufunc(X, out=X)

    return activate


def _in_place_saving_input(ufunc: np.ufunc) -> Callable[[np.ndarray], None]:
    def activate(X: np.ndarray) -> None:
        if _training.inputs is not None:
            _training.inputs[id(X)] = X, X.copy()
        ufunc(X, out=X)

    return activate


def _derivative(ufunc: np.ufunc) -> Callable[[np.ndarray, np.ndarray], None]:
    def propagate(Z: np.ndarray, delta: np.ndarray) -> None:
        ufunc(delta, Z, out=delta)

    return propagate


def _derivative_of_input(ufunc: np.ufunc) -> Callable[[np.ndarray, np.ndarray], None]:
    # scikit-learn has overwritten the input with the output `Z`.
    def propagate(Z: np.ndarray, delta: np.ndarray) -> None:
        if _training.inputs is None or id(Z) not in _training.inputs:
            raise RuntimeError(
                f"{ufunc.__name__}: the input must have been saved by the forward pass, got an "
                "array from outside of BaseMultilayerPerceptron._backprop"
            )
        ufunc(delta, _training.inputs[id(Z)][1], out=delta)

    return propagate


def _hooks_of(declared: Derivative) -> Iterator[Hook]:
    """Those of an activation and its derivative, by its name in scikit-learn or else by ours."""
    names = ACTIVATIONS[declared.activation].sklearn_names
    of_output = declared.saved == "output"
    activate = (_in_place if of_output else _in_place_saving_input)(UFUNCS[declared.activation])
    propagate = (_derivative if of_output else _derivative_of_input)(UFUNCS[declared.name])
    for key in names or [declared.activation]:
        own = f"inplace_{key}" if names else None
        yield Hook(_base.ACTIVATIONS, key, own, activate)
        yield Hook(_base.DERIVATIVES, key, own and f"{own}_derivative", propagate)


_NAMED = {"identity", "logistic", "tanh", "relu"}
"""The activations that scikit-learn has for hidden layers."""

_HOOKS: list[Hook] = [
    *(hook for declared in unary_derivatives().values() for hook in _hooks_of(declared)),
    Hook(_base.ACTIVATIONS, "softmax", "inplace_softmax", _in_place(softmax)),
    Hook(_rbm, "expit", "expit", sigmoid),
    Hook(
        BaseMultilayerPerceptron,
        "_backprop",
        "_backprop",
        _saving(BaseMultilayerPerceptron._backprop),
    ),
]
# One object checks the parameter "activation" of all estimators, those of subclasses among them.
_HOOKS.append(
    Hook(
        BaseMultilayerPerceptron._parameter_constraints["activation"][0],
        "options",
        _NAMED,
        _NAMED | {key for place, key, *_ in _HOOKS if place is _base.DERIVATIVES},
    )
)

_patch = Patch("scikit-learn", sklearn, _FIRST, _LAST, _HOOKS)


def patch() -> None:
    """Make MLPClassifier, MLPRegressor and BernoulliRBM compute with this package.

    This replaces their activations: logistic, tanh and relu with their derivatives, the softmax of
    classifiers, and the logistic function with which a BernoulliRBM samples. Matrix products, the
    identity, the exp of Poisson regression, losses and ``BernoulliRBM.score_samples`` are not
    replaced. Estimators store nothing of this package, and are pickled as before. Results differ
    by rounding errors.

    The hidden layers of MLPClassifier and MLPRegressor may have any other activation of one input
    and with a derivative, too, by its name in this package: ``activation="gelu"``, "silu", "mish",
    "leaky_relu", "elu", "selu", "softplus" and others. Their weights start as those of relu do.
    Such estimators can be pickled, and :meth:`fastact.Sequential.from_sklearn` converts them, but
    they train and predict only while the change is in effect.

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
    >>> from sklearn.neural_network import MLPClassifier, MLPRegressor
    >>> with fastact.sklearn.patched():
    ...     mlp = MLPClassifier(max_iter=500).fit([[0.0], [1.0]], [0, 1])
    ...     mlp = MLPRegressor(activation="gelu", max_iter=5000).fit([[0.0], [1.0]], [0, 1])
    """
    _patch.patch()


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
