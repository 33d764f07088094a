"""Conversion of fitted scikit-learn estimators to layers.

Estimators are recognised by the name of their class, so that scikit-learn is not imported.
"""

from typing import Any

import numpy as np

from fastact._declarations.records import activations
from fastact._dense.layers import Dense

_NAMES = {"identity": "identity"} | {
    theirs: name for name, declared in activations().items() for theirs in declared.sklearn_names
}


def stack(estimator: Any) -> tuple[list[Dense], np.ndarray | None]:
    """The layers of `estimator`, and its classes."""
    kind = type(estimator)
    # Subclasses are refused, since they may predict in other ways.
    if kind.__module__.partition(".")[0] != "sklearn" or kind.__name__ not in _KINDS:
        raise TypeError(
            f"from_sklearn: estimator must be a {', '.join(_KINDS)} of scikit-learn, got "
            f"{kind.__module__}.{kind.__name__}"
        )
    convert, attribute = _KINDS[kind.__name__]
    if not hasattr(estimator, attribute):
        raise ValueError(
            f"from_sklearn: estimator must be fitted, got {estimator!r} without {attribute}"
        )
    layers, classes = convert(estimator), getattr(estimator, "classes_", None)
    if classes is not None and len(classes) == 1:
        # An MLPClassifier fitted to a single class has two columns, and predicts it for both.
        classes = np.repeat(classes, layers[-1].out_features)
    return layers, classes


def _affine(estimator: Any, activation: str = "identity") -> list[Dense]:
    coef = estimator.coef_
    W = np.atleast_2d(coef.toarray() if hasattr(coef, "toarray") else coef).T  # of sparsify()
    b = np.zeros(W.shape[1], W.dtype) + estimator.intercept_  # a number if no intercept was fitted
    return [_output_layer(estimator, W, b, activation)]


def _logistic_regression(estimator: Any) -> list[Dense]:
    scheme = getattr(estimator, "multi_class", "auto")  # removed in scikit-learn 1.8
    binary = len(estimator.classes_) == 2
    one_vs_rest = scheme == "ovr" or estimator.solver == "liblinear"
    if (one_vs_rest and not binary) or (scheme == "multinomial" and binary):
        raise ValueError(
            f"from_sklearn: LogisticRegression must be binary or multinomial, got {estimator!r} "
            f"of {len(estimator.classes_)} classes"
        )
    return _affine(estimator, "sigmoid" if binary else "softmax")


def _layers(estimator: Any) -> list[Dense]:
    inner = _named(estimator.activation, "activation")
    outer = _named(estimator.out_activation_, "out_activation_")
    *hidden, last = zip(estimator.coefs_, estimator.intercepts_, strict=True)
    return [Dense(W, b, inner) for W, b in hidden] + [_output_layer(estimator, *last, outer)]


def _named(name: str, attribute: str) -> str:
    if name not in _NAMES:
        raise ValueError(
            f"from_sklearn: {attribute} must be one of {', '.join(_NAMES)}, got {name!r}"
        )
    return _NAMES[name]


def _output_layer(estimator: Any, W: np.ndarray, b: np.ndarray, activation: str) -> Dense:
    """The last layer, with a column for each class, even if two classes share one column of W."""
    if W.shape[1] == 1 and hasattr(estimator, "classes_"):
        W, b = np.hstack([-W, W]), np.concatenate([-b, b])
    return Dense(W, b, activation)


_KINDS = {
    "LinearRegression": (_affine, "coef_"),
    "LogisticRegression": (_logistic_regression, "coef_"),
    "Perceptron": (_affine, "coef_"),
    "MLPClassifier": (_layers, "coefs_"),
    "MLPRegressor": (_layers, "coefs_"),
}
"""By class name: the function that converts an estimator, and an attribute of fitted ones."""
