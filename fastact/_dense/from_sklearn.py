"""Conversion of fitted scikit-learn estimators to layers.

Estimators are recognised by the name of their class, so that scikit-learn is not imported.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastact._declarations.records import ACTIVATIONS, activations, unary_derivatives
from fastact._dense.activated import Activated
from fastact._dense.folding import (
    Activation,
    Affine,
    Part,
    Scaling,
    clip,
    fold,
    standardization,
)
from fastact._dense.layers import Dense

_NAMES = (
    {"identity": "identity"}
    | {theirs: name for name, a in activations().items() for theirs in a.sklearn_names}
    # Those that fastact.sklearn adds.
    | {name: name for name in unary_derivatives() if not ACTIVATIONS[name].sklearn_names}
)


def stack(estimator: Any) -> tuple[list[Dense | Activated], np.ndarray | None]:
    """The layers of `estimator`, and its classes."""
    parts, classes = _converted(estimator, "estimator", "")
    return fold("from_sklearn", parts), classes


def _converted(estimator: Any, name: str, path: str) -> tuple[list[Part], np.ndarray | None]:
    """The parts of `estimator`, which error messages call `name`, and its classes."""
    kind = type(estimator)
    # Subclasses are refused, since they may predict in other ways.
    known = kind.__module__.partition(".")[0] == "sklearn"
    if known and kind.__name__ == "Pipeline":
        return _pipeline(estimator, path)
    if not known or kind.__name__ not in _KINDS:
        raise TypeError(
            f"from_sklearn: {name} must be a Pipeline, {', '.join(_KINDS)} of scikit-learn, got "
            f"{kind.__module__}.{kind.__name__}"
        )
    convert, attribute = _KINDS[kind.__name__]
    if not hasattr(estimator, attribute):
        raise ValueError(
            f"from_sklearn: {name} must be fitted, got {estimator!r} without {attribute}"
        )
    parts, classes = convert(_Fitted(estimator, name)), getattr(estimator, "classes_", None)
    if classes is not None and len(classes) == 1:
        # An MLPClassifier fitted to a single class has two columns, and predicts it for both.
        classes = np.repeat(classes, parts[-2].W.shape[1])  # type: ignore[union-attr] # an Affine
    return parts, classes


class _Fitted(NamedTuple):
    """An estimator, and what error messages call it."""

    estimator: Any
    name: str


def _pipeline(pipeline: Any, path: str) -> tuple[list[Part], np.ndarray | None]:
    parts: list[Part] = []
    classes = None
    for name, step in pipeline.steps:
        if step is None or (isinstance(step, str) and step == "passthrough"):
            continue
        name = path + name  # as scikit-learn names the parameters of nested steps
        found, classes = _converted(step, f"step {name!r}", f"{name}__")
        parts += found
    return parts, classes


def _standard(fitted: _Fitted) -> list[Part]:
    scaler, name = fitted
    mean = scaler.mean_ if scaler.with_mean else None
    return [standardization(name, mean, scaler.scale_ if scaler.with_std else None)]


def _robust(fitted: _Fitted) -> list[Part]:
    scaler, name = fitted
    center = scaler.center_ if scaler.with_centering else None
    return [standardization(name, center, scaler.scale_ if scaler.with_scaling else None)]


def _min_max(fitted: _Fitted) -> list[Part]:
    scaler, name = fitted
    limits = clip(name, *scaler.feature_range) if scaler.clip else []
    return [Scaling(name, scaler.scale_, scaler.min_), *limits]


def _max_abs(fitted: _Fitted) -> list[Part]:
    scaler, name = fitted
    limits = clip(name, -1, 1) if getattr(scaler, "clip", False) else []  # since scikit-learn 1.9
    return [standardization(name, None, scaler.scale_), *limits]


def _principal(fitted: _Fitted) -> list[Part]:
    pca, name = fitted
    parts: list[Part] = [standardization(name, pca.mean_, None), Affine(name, pca.components_.T)]
    if pca.whiten:
        deviation = np.sqrt(pca.explained_variance_)
        # The smallest divisor is that of scikit-learn.
        least = np.finfo(deviation.dtype).eps
        parts.append(standardization(name, None, np.maximum(deviation, least)))
    return parts


def _affine(fitted: _Fitted) -> list[Part]:
    """The decision function or prediction of a linear model."""
    coef = fitted.estimator.coef_
    W = np.atleast_2d(coef.toarray() if hasattr(coef, "toarray") else coef).T  # of sparsify()
    # The intercept is a number if none was fitted.
    b = np.zeros(W.shape[1], W.dtype) + fitted.estimator.intercept_
    return _output(fitted, W, b)


def _logistic(fitted: _Fitted) -> list[Part]:
    estimator, name = fitted
    scheme = getattr(estimator, "multi_class", "auto")  # removed in scikit-learn 1.8
    binary = len(estimator.classes_) == 2
    one_vs_rest = scheme == "ovr" or estimator.solver == "liblinear"
    if (one_vs_rest and not binary) or (scheme == "multinomial" and binary):
        raise ValueError(
            f"from_sklearn: {name} must be binary or multinomial, got {estimator!r} "
            f"of {len(estimator.classes_)} classes"
        )
    return [*_affine(fitted), Activation(name, "sigmoid" if binary else "softmax")]


def _descent(fitted: _Fitted) -> list[Part]:
    estimator, name = fitted
    if estimator.loss != "log_loss":
        return _affine(fitted)
    if len(estimator.classes_) > 2:
        raise ValueError(
            f"from_sklearn: {name} must be binary if its loss is log_loss, since no layer divides "
            f"by the sum of sigmoids, got {estimator!r} of {len(estimator.classes_)} classes"
        )
    return [*_affine(fitted), Activation(name, "sigmoid")]


def _network(fitted: _Fitted) -> list[Part]:
    estimator, name = fitted
    inner = _named(fitted, "activation")
    outer = _named(fitted, "out_activation_")
    *hidden, last = zip(estimator.coefs_, estimator.intercepts_, strict=True)
    parts: list[Part] = []
    for W, b in hidden:
        parts += [Affine(name, W, b), Activation(name, inner)]
    return [*parts, *_output(fitted, *last), Activation(name, outer)]


def _named(fitted: _Fitted, attribute: str) -> str:
    found = getattr(fitted.estimator, attribute)
    if found not in _NAMES:
        raise ValueError(
            f"from_sklearn: {attribute} of {fitted.name} must be one of {', '.join(_NAMES)}, got "
            f"{found!r}"
        )
    return _NAMES[found]


def _output(fitted: _Fitted, W: np.ndarray, b: np.ndarray) -> list[Part]:
    """The last layer, with a column for each class, even if two classes share one column of W."""
    if W.shape[1] == 1 and hasattr(fitted.estimator, "classes_"):
        W, b = np.hstack([-W, W]), np.concatenate([-b, b])
    return [Affine(fitted.name, W, b)]


_REGRESSORS = (
    "LinearRegression",
    "Ridge",
    "RidgeCV",
    "Lasso",
    "LassoCV",
    "ElasticNet",
    "ElasticNetCV",
    "SGDRegressor",
    "LinearSVR",
)
_KINDS: dict[str, tuple[Callable[[_Fitted], list[Part]], str]] = {
    **{name: (_affine, "coef_") for name in _REGRESSORS},
    "LogisticRegression": (_logistic, "coef_"),
    "LogisticRegressionCV": (_logistic, "coef_"),
    "SGDClassifier": (_descent, "coef_"),
    **{
        name: (_affine, "coef_")
        for name in ("Perceptron", "RidgeClassifier", "RidgeClassifierCV", "LinearSVC")
    },
    "MLPClassifier": (_network, "coefs_"),
    "MLPRegressor": (_network, "coefs_"),
    "StandardScaler": (_standard, "scale_"),
    "MinMaxScaler": (_min_max, "scale_"),
    "MaxAbsScaler": (_max_abs, "scale_"),
    "RobustScaler": (_robust, "scale_"),
    "PCA": (_principal, "components_"),
}
"""By class name: the function that converts an estimator, and an attribute of fitted ones."""
