"""Converted models of other libraries predict the same, in float64."""

import functools
import inspect
import pickle
import warnings

import numpy as np
import pytest
from conftest import run_python
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LinearRegression, LogisticRegression, Perceptron, Ridge
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import StandardScaler

import fastact as fa
from fastact._declarations.records import ACTIVATIONS, activations

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
    assert len(model) == 3
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


@pytest.mark.parametrize(
    "estimator, error, message",
    [
        (LinearRegression, ValueError, r"must be fitted, got LinearRegression\(\) without coef_"),
        (MLPClassifier, ValueError, r"must be fitted, got MLPClassifier\(\) without coefs_"),
        (Ridge, TypeError, "estimator must be a LinearRegression, .*MLPRegressor.* got .*Ridge"),
        (Impostor, TypeError, "estimator must be .* got .*Impostor"),
        (Namesake, TypeError, r"estimator must be .* got .*test_models\.LinearRegression"),
        (object, TypeError, "estimator must be .* got builtins.object"),
        (poisson, ValueError, "out_activation_ must be one of .* got 'exp'"),
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
    activation = kind(dim=-1) if "dim" in inspect.signature(kind).parameters else kind()
    module = nn.Sequential(nn.Linear(9, 20), activation, nn.Linear(20, 4, bias=False))
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
    assert len(assert_as_in_torch(torch, module, 6)) == 7


def test_torch_keeps_its_type_and_weights(torch):
    module = torch.nn.Sequential(torch.nn.Linear(3, 2))
    model = fa.Sequential.from_torch(module)
    assert model.dtype == np.float32
    before = model(np.ones(3, np.float32))
    with torch.no_grad():
        module[0].weight.zero_()
    np.testing.assert_array_equal(model(np.ones(3, np.float32)), before)


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

    class Hiding(torch.Tensor):
        pass

    for module, error, message in [
        (nn.GELU(), TypeError, r"module\[1\] must be one of .*Softplus.* got torch.*\.GELU"),
        (nn.Sequential(nn.Flatten()), TypeError, r"module\[1\]\[0\] must be .*Flatten"),
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
        (nn.Softmax(dim=1), ValueError, r"module\[1\] must be Softmax\(dim=-1\).*dim=1"),
        (nn.Linear(2, 2).bfloat16(), TypeError, r"module\[1\]\.(bias|weight) must be .*bfloat16"),
        (nn.Linear(3, 2), ValueError, "layer 1 must have 2 input features"),
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


def test_neither_library_is_imported():
    run_python("""
import sys
import numpy as np
import fastact as fa
fa.Sequential([fa.Dense(np.ones((2, 2)))])(np.ones(2))
for convert in (fa.Sequential.from_sklearn, fa.Sequential.from_torch):
    try:
        convert(object())
    except TypeError:
        pass
assert not {"sklearn", "torch"} & set(sys.modules)
""")
