"""Converted models of other libraries predict the same."""

import functools
import inspect
import pickle
import sys
import warnings

import ml_dtypes
import numpy as np
import pytest
from conftest import FLOATS, run_python
from parts_of_models import magnitude, operations
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import (
    ElasticNet,
    ElasticNetCV,
    Lasso,
    LassoCV,
    LinearRegression,
    LogisticRegression,
    LogisticRegressionCV,
    Perceptron,
    Ridge,
    RidgeClassifier,
    RidgeClassifierCV,
    RidgeCV,
    SGDClassifier,
    SGDRegressor,
)
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    MaxAbsScaler,
    MinMaxScaler,
    PolynomialFeatures,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import SVC, LinearSVC, LinearSVR

import fastact as fa
from fastact._declarations.records import ACTIVATIONS, activations
from fastact._dense import from_sklearn, from_torch

HIDDEN = ["identity", *(name for a in ACTIVATIONS.values() for name in a.sklearn_names)]
TORCH_MODULES = [module for a in activations().values() for module in a.torch_modules]


@functools.cache
def data(name):
    """Features of mean 0 and deviation 1, as all these estimators expect, and targets."""
    loads = {"diabetes": load_diabetes, "cancer": load_breast_cancer, "digits": load_digits}
    X, y = loads[name](return_X_y=True)
    X = StandardScaler().fit_transform(X)
    if name == "diabetes":
        y = (y - y.mean()) / y.std()
    return X, y


def fitted(estimator, X, y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(X, y)


def assert_close(actual, expected):
    """Equal up to the rounding errors of sums of some hundred terms in each layer."""
    assert actual.dtype == expected.dtype
    np.testing.assert_allclose(actual, expected, rtol=1e-11, atol=1e-13)


def labels(model, X):
    return model.classes_[model(X).argmax(axis=-1)]


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_linear_regression(fit_intercept):
    X, y = data("diabetes")
    estimator = LinearRegression(fit_intercept=fit_intercept).fit(X, y)
    model = fa.Sequential.from_sklearn(estimator)
    assert model.classes_ is None
    assert_close(model(X), estimator.predict(X)[:, np.newaxis])

    targets = np.stack([y, y**2, -y], axis=1)
    estimator = LinearRegression(fit_intercept=fit_intercept).fit(X, targets)
    assert_close(fa.Sequential.from_sklearn(estimator)(X), estimator.predict(X))


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("name", ["cancer", "digits"])
def test_logistic_regression(name, fit_intercept):
    X, y = data(name)
    y = np.array([f"kind {label}" for label in y])
    estimator = fitted(LogisticRegression(fit_intercept=fit_intercept, max_iter=30), X, y)
    model = fa.Sequential.from_sklearn(estimator)
    assert_close(model(X), estimator.predict_proba(X))
    np.testing.assert_array_equal(labels(model, X), estimator.predict(X))
    assert model[0].activation == {"cancer": "sigmoid", "digits": "softmax"}[name]


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("name", ["cancer", "digits"])
def test_perceptron(name, sparse):
    X, y = data(name)
    estimator = Perceptron(random_state=0, penalty="l1").fit(X, y)
    decision = estimator.decision_function(X)
    estimator = estimator.sparsify() if sparse else estimator
    model = fa.Sequential.from_sklearn(estimator)
    columns = np.stack([-decision, decision], axis=1) if decision.ndim == 1 else decision
    np.testing.assert_allclose(model(X), columns, rtol=1e-11, atol=1e-11)
    np.testing.assert_array_equal(labels(model, X), estimator.predict(X))


@pytest.mark.parametrize("activation", HIDDEN)
@pytest.mark.parametrize("name", ["cancer", "digits"])
def test_mlp_classifier(name, activation):
    X, y = data(name)
    estimator = MLPClassifier((40, 30), activation=activation, max_iter=4, random_state=0)
    fitted(estimator, X, y)
    model = fa.Sequential.from_sklearn(estimator)
    assert len(model) == (1 if activation == "identity" else 3)
    assert_close(model(X), estimator.predict_proba(X))
    np.testing.assert_array_equal(labels(model, X), estimator.predict(X))


def test_multilabel_mlp_classifier():
    X, y = data("digits")
    y = np.stack([y % 2 == 0, y > 4, y % 3 == 0], axis=1).astype(int)
    estimator = fitted(MLPClassifier((20,), max_iter=10, random_state=0), X, y)
    model = fa.Sequential.from_sklearn(estimator)
    assert_close(model(X), estimator.predict_proba(X))
    np.testing.assert_array_equal(model(X) > 0.5, estimator.predict(X))


@pytest.mark.parametrize("activation", HIDDEN)
@pytest.mark.parametrize("targets", [1, 2])
def test_mlp_regressor(targets, activation):
    X, y = data("diabetes")
    y = np.stack([y, y**2], axis=1) if targets == 2 else y
    estimator = MLPRegressor(hidden_layer_sizes=(30, 20), max_iter=5, random_state=0)
    fitted(estimator.set_params(activation=activation), X, y)
    model = fa.Sequential.from_sklearn(estimator)
    assert_close(model(X), estimator.predict(X).reshape(-1, targets))


def test_models_fitted_in_float32_stay_so():
    X, y = data("digits")
    estimator = fitted(MLPClassifier((20,), max_iter=3, random_state=0), X.astype(np.float32), y)
    model = fa.Sequential.from_sklearn(estimator)
    assert model.dtype == model(X.astype(np.float32)).dtype == np.float32
    assert_close(model(X), estimator.predict_proba(X))


def test_the_weights_are_copied_and_the_classes_are_kept():
    X, y = data("digits")
    estimator = fitted(LogisticRegression(max_iter=5), X, y)
    model = fa.Sequential.from_sklearn(estimator)
    expected = model(X)
    estimator.coef_[:] = 0
    estimator.classes_[:] = 0
    np.testing.assert_array_equal(model(X), expected)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).classes_, np.arange(10))


LOADS = {"iris": load_iris, "wine": load_wine, "digits": load_digits, "diabetes": load_diabetes}
RNG = np.random.default_rng(0)
RANDOM = RNG.normal(size=(90, 7)) * 3.0 ** np.arange(-3, 4) + [0, 1, 0, -50, 9, 0, 200]


@functools.cache
def raw(name):
    """Features and targets as they are, with means far from 0."""
    if name == "random":
        return RANDOM, (RANDOM[:, 0] > 0.01).astype(int)
    return LOADS[name](return_X_y=True)


def of_targets(predict, X):
    """A column for each target or class, as in the model."""
    y = predict(X)
    return y[:, np.newaxis] if y.ndim == 1 else y


def decision(estimator):
    """The decision function, with two columns for two classes."""

    def columns(X):
        d = estimator.decision_function(X)
        return np.stack([-d, d], axis=1) if d.ndim == 1 else d

    return columns


def assert_as_fitted(estimator, predict, X, y):
    """Equal within a bound, for an estimator fitted in float64 and in float32.

    Both have an error of half an eps for each operation with a term at most. float32 is compared
    with the prediction of scikit-learn for the same numbers in float64.
    """
    models = []
    for dtype in (np.float32, np.float64):
        X = X.astype(dtype)
        fitted(estimator, X, y.astype(dtype) if y.dtype == np.float64 else y)
        model = fa.Sequential.from_sklearn(estimator)
        of = model.dtype
        assert of == type_of_weights(estimator)
        x = np.concatenate([X, dtype(1.5) * X])  # also outside the range of the training data
        expected = of_targets(predict(estimator), x.astype(np.float64))
        parts, _ = from_sklearn._converted(estimator, "estimator", "")
        bound = operations(parts) * np.finfo(of).eps * magnitude(parts, x)
        found = model(x)
        assert found.shape == expected.shape and found.dtype == of
        assert (abs(found - expected) <= bound).all()
        models.append(model)
    if model.classes_ is not None and y.ndim == 1:
        np.testing.assert_array_equal(labels(model, X), estimator.predict(X))
    return models


def type_of_weights(estimator):
    """Some estimators compute in float64 always, and some have intercepts in float64."""
    last = estimator[-1] if isinstance(estimator, Pipeline) else estimator
    if hasattr(last, "coefs_"):
        return last.coefs_[0].dtype
    return np.result_type(last.coef_, last.intercept_)


PROBABILITY = lambda estimator: estimator.predict_proba  # noqa: E731
PREDICTION = lambda estimator: estimator.predict  # noqa: E731


@pytest.mark.parametrize(
    "transformers, shapes",
    [
        ([StandardScaler()], 1),
        ([StandardScaler(with_mean=False)], 1),
        ([StandardScaler(with_std=False)], 1),
        ([StandardScaler(with_mean=False, with_std=False)], 1),
        ([MinMaxScaler((-1, 3))], 1),
        ([MinMaxScaler(clip=True)], 2),
        ([MaxAbsScaler()], 1),
        ([RobustScaler()], 1),
        ([RobustScaler(with_centering=False, unit_variance=True)], 1),
        ([RobustScaler(with_scaling=False)], 1),
        ([PCA(3)], 1),
        ([PCA(3, whiten=True)], 1),
        ([StandardScaler(), PCA(3, whiten=True), "passthrough", MinMaxScaler(), None], 1),
        ([make_pipeline(StandardScaler(), PCA(3)), StandardScaler()], 1),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["iris", "wine", "random"])
def test_pipelines(name, transformers, shapes):
    X, y = raw(name)
    estimator = make_pipeline(*transformers, LogisticRegression(max_iter=20))
    for model in assert_as_fitted(estimator, PROBABILITY, X, y):
        assert len(model) == shapes


def test_a_pipeline_of_digits():
    """Some pixels are always 0, which scalers do not divide by."""
    X, y = raw("digits")
    network = MLPClassifier((20,), max_iter=3, random_state=0)
    for scaler in (StandardScaler(), MinMaxScaler(), RobustScaler(), MaxAbsScaler()):
        (_, model) = assert_as_fitted(make_pipeline(scaler, network), PROBABILITY, X, y)
        assert [layer.in_features for layer in model] == [64, 20]


def test_pipelines_that_end_in_a_transformer():
    X, _ = raw("wine")
    for steps in ([PCA(2)], [StandardScaler(), PCA(2)], [MinMaxScaler()], [PCA(2), "passthrough"]):
        estimator = make_pipeline(*steps)
        expected = estimator.fit(X).transform(X)
        model = fa.Sequential.from_sklearn(estimator)
        assert model.classes_ is None and len(model) == 1
        np.testing.assert_allclose(model(X), expected, rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize(
    "estimator",
    [
        LinearRegression(),
        Ridge(),
        RidgeCV(),
        Lasso(),
        LassoCV(cv=3, eps=0.1),
        ElasticNet(fit_intercept=False),
        ElasticNetCV(cv=3, eps=0.1),
        SGDRegressor(random_state=0),
        LinearSVR(random_state=0),
    ],
    ids=str,
)
def test_regressors(estimator):
    X, y = raw("diabetes")
    assert_as_fitted(make_pipeline(StandardScaler(), estimator), PREDICTION, X, y)
    if type(estimator) in (LinearRegression, Ridge, Lasso, ElasticNet):
        assert_as_fitted(estimator, PREDICTION, X, np.stack([y, -y], axis=1))


@pytest.mark.parametrize(
    "estimator, predict",
    [
        (RidgeClassifier(), decision),
        (RidgeClassifierCV(), decision),
        (LinearSVC(random_state=0), decision),
        (Perceptron(random_state=0), decision),
        (SGDClassifier(random_state=0), decision),
        (SGDClassifier(loss="modified_huber", random_state=0), decision),
        (LogisticRegression(max_iter=20), PROBABILITY),
        (LogisticRegressionCV(Cs=2, cv=2, max_iter=9), PROBABILITY),
        (MLPClassifier((5,), max_iter=9, random_state=0), PROBABILITY),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),  # without addresses
)
@pytest.mark.filterwarnings("ignore::FutureWarning")  # LogisticRegressionCV will have new defaults
def test_classifiers(estimator, predict):
    for name in ("iris", "wine", "random"):
        X, y = raw(name)
        pipeline = make_pipeline(StandardScaler(), estimator)
        (_, model) = assert_as_fitted(pipeline, lambda p: predict(p), X, y)
        np.testing.assert_array_equal(model.classes_, np.unique(y))


def test_classifiers_of_two_classes_by_descent():
    X, y = raw("random")
    estimator = make_pipeline(RobustScaler(), SGDClassifier(loss="log_loss", random_state=0))
    assert_as_fitted(estimator, PROBABILITY, X, y)


def test_several_labels():
    X, y = raw("digits")
    y = np.stack([y % 2 == 0, y > 4, y % 3 == 0], axis=1).astype(int)
    estimator = make_pipeline(StandardScaler(), RidgeClassifier())
    (_, model) = assert_as_fitted(estimator, decision, X, y)
    np.testing.assert_array_equal(model(X) > 0, estimator.predict(X))
    estimator = make_pipeline(StandardScaler(), MLPClassifier((9,), max_iter=3, random_state=0))
    (_, model) = assert_as_fitted(estimator, PROBABILITY, X, y)
    np.testing.assert_array_equal(model(X) > 0.5, estimator.predict(X))


class Impostor(LogisticRegression):
    """A subclass, which may predict something else."""


class Namesake:
    """Not a class of scikit-learn."""

    coef_ = np.ones((1, 2))


Namesake.__name__ = "LinearRegression"


def poisson():
    X, y = data("digits")
    return fitted(MLPRegressor(hidden_layer_sizes=3, loss="poisson", max_iter=1), X, y)


def one_vs_rest():
    X, y = data("digits")
    estimator = fitted(LogisticRegression(max_iter=1), X, y)
    estimator.solver = "liblinear"  # which newer versions refuse to fit to three classes
    return estimator


def unknown_step():
    X, y = data("diabetes")
    inner = Pipeline([("scale", StandardScaler()), ("poly", PolynomialFeatures())])
    return Pipeline([("inner", inner), ("last", Ridge())]).fit(X, y)


def sigmoids():
    X, y = data("digits")
    return fitted(make_pipeline(StandardScaler(), SGDClassifier(loss="log_loss", max_iter=2)), X, y)


@pytest.mark.parametrize(
    "estimator, error, message",
    [
        (LinearRegression, ValueError, r"must be fitted, got LinearRegression\(\) without coef_"),
        (MLPClassifier, ValueError, r"must be fitted, got MLPClassifier\(\) without coefs_"),
        (SVC, TypeError, "estimator must be a Pipeline, LinearRegression, .*PCA of .* got .*SVC"),
        (
            lambda: make_pipeline(StandardScaler(), Ridge()),
            ValueError,
            "step 'standardscaler' must be",
        ),
        (unknown_step, TypeError, "step 'inner__poly' must be a .* got .*PolynomialFeatures"),
        (sigmoids, ValueError, "step 'sgdclassifier' must be binary if its loss .* of 10 classes"),
        (Impostor, TypeError, "estimator must be .* got .*Impostor"),
        (Namesake, TypeError, r"estimator must be .* got .*test_models\.LinearRegression"),
        (object, TypeError, "estimator must be .* got builtins.object"),
        (poisson, ValueError, "out_activation_ of estimator must be one of .* got 'exp'"),
        (one_vs_rest, ValueError, "must be binary or multinomial, got .*liblinear.* of 10 classes"),
    ],
)
def test_estimators_that_are_refused(estimator, error, message):
    with pytest.raises(error, match=message):
        fa.Sequential.from_sklearn(estimator())


@pytest.mark.parametrize("targets", [np.full(40, 7), np.full(40, "only")])
def test_a_classifier_of_a_single_class(targets):
    """predict_proba has two columns, and predict returns the same class for both."""
    X = data("cancer")[0][:40]
    estimator = fitted(MLPClassifier((3,), max_iter=5, random_state=0), X, targets)
    model = fa.Sequential.from_sklearn(estimator)
    assert model.classes_.tolist() == [estimator.classes_[0]] * 2
    assert_close(model(X), estimator.predict_proba(X))
    np.testing.assert_array_equal(labels(model, X), estimator.predict(X))


def test_classes_that_partial_fit_has_not_met():
    X, estimator = data("cancer")[0][:40], MLPClassifier((3,), random_state=0)
    estimator.partial_fit(X, np.full(40, 7), classes=[5, 7])
    model = fa.Sequential.from_sklearn(estimator)
    assert model.classes_.tolist() == [5, 7]
    assert_close(model(X), estimator.predict_proba(X))


@pytest.mark.parametrize("estimator", [LogisticRegression(), Perceptron()])
def test_no_other_classifier_is_fitted_to_a_single_class(estimator):
    with pytest.raises(ValueError, match=r"class"):
        estimator.fit(data("cancer")[0][:40], np.full(40, 7))


@pytest.fixture(scope="module")
def torch():
    reason = "torch is not installed; it is in the extra 'peers'"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch may warn while it is imported
        return pytest.importorskip("torch", reason=reason)


def assert_as_in_torch(torch, module, inputs, tolerance=1e-12):
    module = module.double().eval()
    model = fa.Sequential.from_torch(module)
    for shape in [(inputs,), (1, inputs), (50, inputs), (2, 3, inputs)]:
        x = np.random.default_rng(0).normal(0, 3, shape)
        expected = module(torch.from_numpy(x)).detach().numpy()
        np.testing.assert_allclose(model(x), expected, rtol=tolerance, atol=1e-13)
    return model


@pytest.mark.parametrize("declared", TORCH_MODULES, ids=lambda declared: declared.name)
def test_torch_activations(torch, declared):
    nn = torch.nn
    torch.manual_seed(0)
    kind = getattr(nn, declared.name)
    expected = inspect.signature(kind).parameters
    activation = (
        kind(dim=-1) if "dim" in expected else kind(*[20] * ("normalized_shape" in expected))
    )
    module = nn.Sequential(nn.Linear(9, 20), activation, nn.Linear(20, 4, bias=False))
    if declared.name == "CELU":
        activation.alpha = 0.3
    # torch's softplus is off by 2e-9 above its threshold of 20.
    tolerance = 3e-9 if declared.name == "Softplus" else 1e-12
    assert_as_in_torch(torch, module, 9, tolerance)


def test_torch_layers_without_activation(torch):
    nn = torch.nn
    torch.manual_seed(0)
    assert_as_in_torch(torch, nn.Sequential(nn.Linear(9, 20), nn.Identity(), nn.Linear(20, 4)), 9)
    assert_as_in_torch(torch, nn.Linear(9, 5), 9)


def test_torch_stacks_of_stacks(torch):
    nn = torch.nn
    torch.manual_seed(0)
    shared = nn.ReLU(inplace=True)
    inner = nn.Sequential(shared, nn.Linear(8, 7), nn.Dropout(0.5), shared)
    module = nn.Sequential(nn.Tanh(), nn.Linear(6, 8), inner, nn.Linear(7, 3), nn.Softmax(dim=-1))
    assert len(assert_as_in_torch(torch, module, 6)) == 4


def batch_norm(torch, columns, **options):
    """A module with the statistics of a training, far from 0 and 1."""
    module = torch.nn.BatchNorm1d(columns, **options)
    module.running_mean.normal_(3, 5)
    module.running_var.uniform_(0.01, 9)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    return module


@pytest.fixture
def stacks(torch):
    """Modules by name, each with the number of layers of the model."""
    nn = torch.nn
    torch.manual_seed(0)
    linear, norm = nn.Linear, functools.partial(batch_norm, torch)
    return {
        "before": (nn.Sequential(norm(9), linear(9, 4)), 1),
        "after": (nn.Sequential(linear(9, 4), norm(4), nn.ReLU()), 1),
        "both": (nn.Sequential(norm(9), linear(9, 4, bias=False), norm(4), nn.Tanh()), 1),
        "not affine": (nn.Sequential(linear(9, 5), norm(5, affine=False), nn.Sigmoid()), 1),
        "epsilon": (nn.Sequential(linear(9, 5), norm(5, eps=0.5)), 1),
        "no layer before": (nn.Sequential(linear(9, 5), nn.ReLU(), norm(5), nn.Tanh()), 2),
        "first": (nn.Sequential(norm(9), nn.ReLU(), linear(9, 5)), 2),
        "next layer": (nn.Sequential(linear(9, 5), nn.ReLU(), norm(5), linear(5, 7)), 2),
        "nested": (
            nn.Sequential(nn.Sequential(linear(9, 5)), nn.Sequential(norm(5)), nn.ReLU()),
            1,
        ),
        "flattened": (nn.Sequential(nn.Flatten(), linear(9, 5), nn.Dropout(), norm(5)), 1),
        "slopes": (nn.Sequential(linear(9, 5), nn.PReLU(5, 0.1), linear(5, 7), nn.PReLU()), 2),
        "slope": (nn.Sequential(linear(9, 5), nn.LeakyReLU(0.2), linear(5, 7)), 2),
        "along 1": (nn.Sequential(linear(9, 5), nn.Softmax(dim=1)), 1),
        "logarithm along 1": (nn.Sequential(linear(9, 5), nn.LogSoftmax(dim=1)), 1),
        "clipped": (nn.Sequential(linear(9, 5), nn.Hardtanh(-0.5, 2), linear(5, 3)), 2),
        "clipped last": (nn.Sequential(linear(9, 5), nn.Hardtanh(0, 1)), 2),
        "clipped at 6": (nn.Sequential(linear(9, 5), nn.Hardtanh(0, 6)), 1),
    }


def test_scalings_after_a_normalization_are_part_of_it(torch):
    nn = torch.nn
    torch.manual_seed(0)
    norm = functools.partial(batch_norm, torch, 9)
    layer, root = nn.LayerNorm(9), nn.RMSNorm(9, eps=1e-5)
    for module in (layer, root):
        nn.init.normal_(module.weight)
    nn.init.normal_(layer.bias)
    plain = nn.LayerNorm(9, elementwise_affine=False)
    last = nn.Linear(9, 4)
    for modules, dense in {
        (layer, norm(), nn.ReLU(), last): 1,
        (plain, norm(), norm(), nn.Tanh(), last): 1,
        (layer, norm(), last): 1,  # the next layer takes it, as after any activation
        (nn.Linear(9, 9), layer, norm(), nn.ReLU()): 1,
        (root, norm(), nn.ReLU(), last): 2,  # which has no bias: a diagonal matrix
        (layer, norm()): 1,  # or there would be no layer
    }.items():
        module = nn.Sequential(*modules).double().eval()
        x = torch.randn(50, 9).double() * 3
        model = fa.Sequential.from_torch(module)
        expected = module(x).detach().numpy()
        np.testing.assert_allclose(model(x.numpy()), expected, rtol=1e-11, atol=1e-12)
        assert sum(isinstance(part, fa.Dense) for part in model) == dense


def test_a_scaled_normalization_is_rounded_once(torch):
    nn = torch.nn
    torch.manual_seed(0)
    layer, norm = nn.LayerNorm(9), batch_norm(torch, 9)
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    module = nn.Sequential(layer, norm, nn.ReLU(), nn.Linear(9, 4)).eval()
    folded = fa.Sequential.from_torch(module).layers[0]
    layer, norm = (
        {key: value.double().numpy(force=True) for key, value in module.state_dict().items()}
        for module in (layer, norm)
    )
    scale = norm["weight"] / np.sqrt(norm["running_var"] + 1e-5)
    bias = (layer["bias"] - norm["running_mean"]) * scale + norm["bias"]
    found = folded.named()
    np.testing.assert_allclose(found["weight"], layer["weight"] * scale, rtol=1e-14)
    np.testing.assert_allclose(found["bias"], bias, rtol=1e-13, atol=1e-14)


def test_torch_flattening_anywhere_leaves_rows_of_two_axes(torch):
    nn = torch.nn
    first, second = nn.Linear(4, 4), nn.Linear(4, 2)
    x = torch.randn(5, 4)
    for module in (
        nn.Sequential(first, nn.Flatten(), second),
        nn.Sequential(nn.Sequential(first, nn.ReLU()), nn.Sequential(nn.Flatten())),
        nn.Sequential(nn.Flatten(), first, nn.Flatten(), second),
        nn.Sequential(nn.ReLU(), nn.Flatten(), first),
    ):
        expected = module(x).detach().numpy()
        model = fa.Sequential.from_torch(module)
        np.testing.assert_allclose(model(x.numpy()), expected, rtol=1e-5, atol=1e-6)


def test_torch_rows(torch, stacks):
    for name, (module, layers) in stacks.items():
        module = module.double().eval()
        for slope in (m.weight for m in module if isinstance(m, torch.nn.PReLU)):
            torch.nn.init.normal_(slope)
        model = fa.Sequential.from_torch(module)
        x = torch.randn(50, 9).double() * 3
        expected = module(x).detach().numpy()
        np.testing.assert_allclose(model(x.numpy()), expected, rtol=1e-11, atol=1e-12, err_msg=name)
        assert len(model) == layers, name


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_torch_types(torch, dtype, stacks):
    """Errors are those of weights and results that are rounded once for each layer."""
    eps = float(ml_dtypes.finfo(dtype).eps)
    for name, (module, _) in stacks.items():
        module = module.to(getattr(torch, dtype.name)).eval()
        model = fa.Sequential.from_torch(module)
        assert model.dtype == dtype, name
        x = np.random.default_rng(0).normal(0, 3, (50, 9)).astype(dtype)
        expected = module.double()(torch.from_numpy(x.astype(float))).detach().numpy()
        parts = from_torch._parts(module, "module")
        # With 16 bits, sums are in float32, and weights and results are rounded.
        steps = operations(parts) if eps < 1e-5 else 2 * len(model) + 1
        bound = steps * eps * magnitude(parts, x)
        assert (abs(model(x).astype(float) - expected) <= bound).all(), name


def test_torch_bfloat16_without_ml_dtypes(torch, monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(ImportError, match=r"module\.weight must be .*without ml_dtypes.*bfloat16"):
        fa.Sequential.from_torch(torch.nn.Linear(2, 2).bfloat16())


def test_torch_batch_normalization_that_was_trained(torch):
    """The statistics of some batches, and gradients through them."""
    nn = torch.nn
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(9, 30), nn.BatchNorm1d(30), nn.ReLU(), nn.Linear(30, 3))
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    for _ in range(20):
        optimizer.zero_grad()
        module(torch.randn(64, 9) + 2).square().mean().backward()
        optimizer.step()
    with pytest.raises(ValueError, match=r"module\[1\] must be in evaluation mode"):
        fa.Sequential.from_torch(module)
    model = fa.Sequential.from_torch(module.eval())
    assert [layer.activation for layer in model] == ["relu", "identity"]
    x = torch.randn(100, 9)
    np.testing.assert_allclose(model(x.numpy()), module(x).detach(), rtol=1e-4, atol=1e-5)


def test_torch_keeps_its_type_and_weights(torch):
    module = torch.nn.Sequential(torch.nn.Linear(3, 2))
    model = fa.Sequential.from_torch(module)
    assert model.dtype == np.float32
    before = model(np.ones(3, np.float32))
    with torch.no_grad():
        module[0].weight.zero_()
    np.testing.assert_array_equal(model(np.ones(3, np.float32)), before)


@pytest.mark.filterwarnings("ignore:Complex modules are a new feature:UserWarning")
def test_torch_modules_that_are_refused(torch):
    nn = torch.nn

    class Impostor(nn.Linear):
        pass

    def changed(**attributes):
        linear = nn.Linear(2, 2)
        for name, value in attributes.items():
            setattr(linear, name, value)
        return linear

    def hooked(register, **keywords):
        linear = nn.Linear(2, 2)
        getattr(linear, register)(lambda *_: None, **keywords)
        return linear

    plain = nn.Linear(2, 2)
    tenfold = nn.Sequential(plain)
    tenfold.forward = lambda x: 10 * plain(x)
    sparse = nn.Parameter(torch.ones(2, 2).to_sparse())
    halves = torch.ones(2, 2, dtype=torch.complex64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that it will remove these tensors
        small = torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.qint8)
    frozen = {"requires_grad": False}
    negative = nn.BatchNorm1d(2).eval()
    negative.running_var[1] = -1

    class Hiding(torch.Tensor):
        pass

    for module, error, message in [
        (
            nn.Hardshrink(),
            TypeError,
            r"module\[1\] must be one of .*Softplus.* got torch.*\.Hardshrink",
        ),
        (
            nn.Sequential(nn.Unflatten(1, (1, 2))),
            TypeError,
            r"module\[1\]\[0\] must be .*Unflatten",
        ),
        (nn.GLU(), TypeError, r"module\[1\] must be one of .* got torch.*\.GLU"),
        (nn.GroupNorm(1, 2), TypeError, r"module\[1\] must be one of .* got torch.*\.GroupNorm"),
        (nn.LayerNorm((1, 2)), ValueError, r"module\[1\] must have a normalized_shape of one axis"),
        (nn.ELU(alpha=0.5), ValueError, r"module\[1\] must have alpha=1, got ELU\(alpha=0.5"),
        (nn.Flatten(0), ValueError, r"module\[1\] must have start_dim=1 and .*start_dim=0"),
        (nn.Flatten(1, 2), ValueError, r"module\[1\] must have start_dim=1 and .*end_dim=2"),
        (nn.BatchNorm1d(2), ValueError, r"module\[1\] must be in evaluation mode.*call eval"),
        (
            nn.BatchNorm1d(2, track_running_stats=False).eval(),
            ValueError,
            r"module\[1\] must have running statistics.*track_running_stats=False",
        ),
        (nn.BatchNorm1d(2, device="meta").eval(), ValueError, "running_mean must have values"),
        (nn.BatchNorm1d(3).eval(), ValueError, r"module\[1\] must have 2 input features .* got 3"),
        (negative, ValueError, r"module\[1\] must multiply by finite numbers .* column 1$"),
        (nn.BatchNorm2d(2).eval(), TypeError, r"module\[1\] must be one of .*BatchNorm2d"),
        (nn.PReLU(3), ValueError, r"module\[1\]: slope must be .*\(2,\), .* got shape \(3,\)"),
        (nn.PReLU(1).to(torch.complex64), TypeError, r"module\[1\]\.weight must be of .*complex64"),
        (Impostor(2, 2), TypeError, r"module\[1\] must be .*Impostor"),
        (nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)), TypeError, "Parametrized"),
        *(
            (hooked(register, **keywords), ValueError, r"module\[1\] must have no hooks")
            for register in ("register_forward_hook", "register_forward_pre_hook")
            for keywords in ({}, {"with_kwargs": True}, {"prepend": True})
        ),
        (tenfold, ValueError, r"module\[1\] must have the methods of Seq.*got a replaced forward"),
        (changed(forward=lambda x: x), ValueError, r"module\[1\] must have the methods of Linear"),
        (changed(_call_impl=lambda x: x), ValueError, "of Linear, got a replaced _call_impl"),
        (nn.LazyLinear(2), TypeError, r"module\[1\] must be one of .*LazyLinear"),
        (nn.Linear(2, 2, device="meta"), ValueError, r"module\[1\]\..* must have values.* meta"),
        (changed(weight=sparse), ValueError, r"module\[1\]\.weight must be dense, .*sparse_coo"),
        (changed(weight=nn.Parameter(halves.conj())), TypeError, "weight must be of .*complex64"),
        (changed(weight=nn.Parameter(small, **frozen)), TypeError, "weight must be of .*qint8"),
        (changed(weight=None), TypeError, r"module\[1\]\.weight must be a plain .*NoneType"),
        (
            changed(bias=nn.Parameter(torch.ones(2).as_subclass(Hiding), **frozen)),
            TypeError,
            r"module\[1\]\.bias must be a plain tensor or parameter, got .*Hiding",
        ),
        (nn.Dropout(), ValueError, r"module\[1\] must be in evaluation mode"),
        (nn.Softplus(beta=2), ValueError, r"module\[1\] must have beta=1.*got Softplus\(beta=2"),
        (nn.Softplus(threshold=3), ValueError, r"module\[1\] must have .*threshold=3"),
        (nn.CELU(alpha=-1.0), ValueError, r"module\[1\] must have a positive alpha, got CELU"),
        (nn.Softmax(dim=0), ValueError, r"module\[1\] must have dim=-1 or dim=1.*dim=0"),
        (
            nn.Linear(3, 2),
            ValueError,
            r"^from_torch: module\[1\] must have 2 input features to match module\[0\], got 3",
        ),
    ]:
        with pytest.raises(error, match=message):
            fa.Sequential.from_torch(nn.Sequential(nn.Linear(2, 2), module))
    with pytest.raises(TypeError, match=r"module must be one of .* got builtins\.list"):
        fa.Sequential.from_torch([])


@pytest.mark.parametrize("register", ["forward_hook", "forward_pre_hook"])
def test_torch_hooks_for_all_modules_are_refused(torch, register):
    module = torch.nn.Sequential(torch.nn.Linear(2, 2))
    handle = getattr(torch.nn.modules.module, f"register_module_{register}")(lambda *_: None)
    try:
        with pytest.raises(ValueError, match=rf"module must have no hooks, .*_global_{register}s"):
            fa.Sequential.from_torch(module)
    finally:
        handle.remove()
    fa.Sequential.from_torch(module)


def test_torch_methods_of_a_class_that_were_replaced(torch, monkeypatch):
    monkeypatch.setattr(torch.nn.Tanh, "forward", lambda self, x: 10 * x)
    with pytest.raises(ValueError, match=r"module\[1\] must have the methods of Tanh"):
        fa.Sequential.from_torch(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Tanh()))


def test_torch_weights_that_are_views(torch):
    """Views with a flag for negation, with any strides, and zeros without memory."""
    turned = torch.randn(3, 3, dtype=torch.complex128).conj().imag
    assert turned.is_neg()
    module = torch.nn.Linear(3, 3).double()
    for weight in (turned, turned[::2].T @ turned[::2], torch.randn(9, 3).double()[::3]):
        module.weight = torch.nn.Parameter(weight)
        module.bias = torch.nn.Parameter(torch.randn(3, dtype=torch.complex128).conj().imag)
        assert_as_in_torch(torch, module, 3)
    module.weight = torch.nn.Parameter(torch._efficientzerotensor((3, 3)), requires_grad=False)
    model = fa.Sequential.from_torch(module.requires_grad_(False))
    assert not model[0].W.any()


def test_no_library_is_imported():
    run_python("""
import sys
import numpy as np
import fastact as fa
fa.Sequential([fa.Dense(np.ones((2, 2)))])(np.ones(2))
of = fa.Sequential
for convert in (of.from_keras, of.from_sklearn, of.from_torch):
    try:
        convert(object())
    except TypeError:
        pass
assert not {"keras", "sklearn", "torch"} & set(sys.modules)
""")
