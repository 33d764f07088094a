"""Estimators of scikit-learn with our functions, and unchanged afterwards.

scikit-learn's own tests pass with the patch in 1.5.2, 1.6.1, 1.7.2, 1.8.0, 1.9.0 and 1.9.1.
"""

import concurrent.futures
import pickle
import re
import time
import warnings

import numpy as np
import own_tests
import pytest
import sklearn
from conftest import run_python
from sklearn.datasets import load_diabetes, load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import BernoulliRBM, MLPClassifier, MLPRegressor, _base, _rbm
from sklearn.neural_network._multilayer_perceptron import BaseMultilayerPerceptron
from sklearn.utils._param_validation import InvalidParameterError

import fastact as fa
import fastact.sklearn
from bench import sklearn_training
from fastact._declarations.records import ACTIVATIONS, unary_derivatives

pytestmark = pytest.mark.integration

OWN_TESTS = ["test_mlp", "test_rbm", "test_base"]
REPLACED = {
    "fastact.sklearn logistic.activate",
    "fastact.sklearn tanh.activate",
    "fastact.sklearn relu.activate",
    "fastact.sklearn softmax.activate",
    "fastact.sklearn logistic.propagate",
    "fastact.sklearn tanh.propagate",
    "fastact.sklearn relu.propagate",
    "fastact.sigmoid",
}


def functions():
    """Return all functions that the patch may replace."""
    return {
        **_base.ACTIVATIONS,
        **{f"{name} derivative": f for name, f in _base.DERIVATIVES.items()},
        "expit": _rbm.expit,
        "_backprop": BaseMultilayerPerceptron._backprop,
        "options": options(),
    }


def options():
    """Return what the parameter "activation" may be."""
    return MLPRegressor._parameter_constraints["activation"][0].options


ADDED = [name for name in unary_derivatives() if not ACTIVATIONS[name].sklearn_names]


@pytest.fixture(autouse=True)
def untouched():
    before = functions()
    yield
    assert functions() == before


def test_its_own_tests_pass(tmp_path):
    modules = [f"sklearn.neural_network.tests.{name}" for name in OWN_TESTS]
    passed, counts = own_tests.run("sklearn_patched", modules, tmp_path)
    assert passed >= 80
    assert counts.keys() >= REPLACED
    # The patch does not replace these.
    assert {name.split()[1] for name in counts.keys() - REPLACED if name[:6] != "fastact"} <= {
        "identity.inplace_identity",
        "identity.inplace_identity_derivative",
        "exp.inplace_exp",
    }


def fitted(estimator, X, y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(X, y)


@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 1e-4), (np.float64, 1e-11)])
@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
def test_training_with_the_patch_gives_the_same_model(activation, dtype, tolerance):
    """Start and batches are the same; results differ by rounding errors of two passes."""

    def results():
        X, y = load_digits(return_X_y=True)
        options = {"activation": activation, "max_iter": 2, "random_state": 0}
        X = (X / 16).astype(dtype)
        classifier = fitted(MLPClassifier((30, 20), **options), X, y)
        binary = fitted(MLPClassifier((9,), **options), X, y > 4)
        X_diabetes, y_diabetes = load_diabetes(return_X_y=True)
        X_diabetes, y_diabetes = (10 * X_diabetes).astype(dtype), y_diabetes / 100
        regressor = fitted(
            MLPRegressor(hidden_layer_sizes=(30,), **options), X_diabetes, y_diabetes
        )
        return [
            classifier.predict_proba(X),
            binary.predict_proba(X),
            regressor.predict(X_diabetes),
        ]

    expected = results()
    with fastact.sklearn.patched():
        actual = results()
    for a, b in zip(actual, expected, strict=True):
        assert a.dtype == b.dtype == dtype
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def test_a_boltzmann_machine_with_the_patch_gives_the_same_samples():
    """Samples are the same unless a random number lies between two roundings of a probability."""
    X = load_digits().data / 16

    def result():
        rbm = BernoulliRBM(20, n_iter=2, random_state=0).fit(X)
        return rbm.transform(X), rbm.gibbs(X[:5] > 0.5)

    expected = result()
    with fastact.sklearn.patched():
        actual = result()
        assert _rbm.expit is fa.sigmoid
    np.testing.assert_allclose(actual[0], expected[0], rtol=1e-10)
    np.testing.assert_array_equal(actual[1], expected[1])


def test_estimators_compute_with_our_functions():
    """Results have the bits of our functions, which no other library's functions return."""
    X = load_digits().data[:200] / 16
    mlp = fitted(MLPClassifier((50,), activation="logistic", max_iter=1), X, np.arange(200) % 3)
    mlp.coefs_ = [20 * W for W in mlp.coefs_]
    hidden = fa.sigmoid(X @ mlp.coefs_[0] + mlp.intercepts_[0])
    expected = fa.softmax(hidden @ mlp.coefs_[1] + mlp.intercepts_[1])
    assert (mlp.predict_proba(X) != expected).any()
    with fastact.sklearn.patched():
        np.testing.assert_array_equal(mlp.predict_proba(X), expected)


def is_patched():
    return _rbm.expit is fa.sigmoid and _base.ACTIVATIONS["relu"].__module__ == "fastact.sklearn"


def test_blocks_nest_and_end_with_exceptions():
    with pytest.raises(KeyError), fastact.sklearn.patched():
        with fastact.sklearn.patched():
            assert is_patched()
        assert is_patched()
        raise KeyError
    assert not is_patched()

    @fastact.sklearn.patched()
    def decorated():
        return is_patched()

    assert decorated() and decorated() and not is_patched()


def test_patch_and_unpatch_are_counted():
    fastact.sklearn.patch()
    with fastact.sklearn.patched():
        pass
    assert is_patched()
    fastact.sklearn.unpatch()
    assert not is_patched()
    with pytest.raises(RuntimeError, match=r"unpatch: there must be a call of patch\(\) to undo"):
        fastact.sklearn.unpatch()
    with fastact.sklearn.patched():
        assert is_patched()


def test_threads_may_enter_and_leave_at_any_time(monkeypatch):
    check = fastact.sklearn._patch.check

    def slow_check():
        time.sleep(1e-3)  # other threads enter meanwhile
        check()

    monkeypatch.setattr(fastact.sklearn._patch, "check", slow_check)

    def work(seed):
        rng = np.random.default_rng(seed)
        for _ in range(50):
            with fastact.sklearn.patched():
                time.sleep(rng.uniform(0, 1e-4))
                if not is_patched():
                    return False
        return True

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


@pytest.mark.parametrize("version", ["1.4.2", "1.10.0", "1.10.dev0", "2.5.0"])
def test_other_versions_are_refused(version, monkeypatch):
    monkeypatch.setattr(sklearn, "__version__", version)
    message = rf"scikit-learn must be of version 1\.5 to 1\.9, .*got {re.escape(version)}"
    with pytest.raises(RuntimeError, match=message), fastact.sklearn.patched():
        pass
    monkeypatch.undo()
    with fastact.sklearn.patched():  # the refused attempt was not counted
        assert is_patched()


def test_functions_that_someone_else_replaced_are_left_alone(monkeypatch):
    def mine(X):
        pass

    monkeypatch.setitem(_base.DERIVATIVES, "gelu", mine)
    with pytest.raises(RuntimeError, match=r"must have nothing for 'gelu', got .*mine"):
        fastact.sklearn.patch()
    monkeypatch.undo()
    constraint = MLPRegressor._parameter_constraints["activation"][0]
    with monkeypatch.context() as patch:
        patch.setattr(constraint, "options", {"mine"})
        with pytest.raises(RuntimeError, match=r"must have {.*} for 'options', got {'mine'}"):
            fastact.sklearn.patch()
    for table, key in [(_base.ACTIVATIONS, "tanh"), (vars(_rbm), "expit")]:
        with monkeypatch.context() as patch:
            patch.setitem(table, key, mine)
            with pytest.raises(RuntimeError, match=rf"its own function .* for '{key}', got .*mine"):
                fastact.sklearn.patch()
            assert table[key] is mine and not is_patched()
            patch.delitem(table, key)
            with pytest.raises(RuntimeError, match=rf"its own function .* for '{key}', got None"):
                fastact.sklearn.patch()


def test_pickled_estimators_do_not_refer_to_fastact():
    X = load_digits().data[:50]
    with fastact.sklearn.patched():
        stored = pickle.dumps(fitted(MLPClassifier((5,), max_iter=1), X, np.arange(50) % 2))
    assert b"fastact" not in stored


def numerical_gradient(function, at):
    """Fourth-order differences, of all parameters one by one."""
    h = 1e-4
    steps = h * np.eye(at.size)
    return np.array(
        [
            (
                8 * (function(at + e) - function(at - e))
                - function(at + 2 * e)
                + function(at - 2 * e)
            )
            / (12 * h)
            for e in steps
        ]
    )


@pytest.mark.parametrize("activation", ADDED)
def test_gradients_with_further_activations(activation):
    """Analytical gradients of a network with two hidden layers, beside numerical ones."""
    rng = np.random.default_rng(1)
    X, y = rng.normal(size=(6, 3)), rng.normal(size=(6, 1))
    mlp = MLPRegressor(hidden_layer_sizes=(4, 3), max_iter=1, solver="lbfgs")
    fitted(mlp, X, y.ravel())
    mlp.set_params(activation=activation)
    shapes = [a.shape for a in mlp.coefs_ + mlp.intercepts_]
    if activation in ("log1p", "logit", "log1mexp"):  # all sums are between 0 and 1, or -1 and 0
        sign = -1 if activation == "log1mexp" else 1
        X = sign * rng.uniform(0, 1, X.shape)
        arrays = [
            rng.uniform(0, 0.1, shape) if len(shape) == 2 else sign * rng.uniform(0.4, 0.5, shape)
            for shape in shapes
        ]
    else:
        arrays = [rng.normal(0, 0.7, shape) for shape in shapes]
    start = np.hstack([a.ravel() for a in arrays])
    more = () if tuple(map(int, sklearn.__version__.split(".")[:2])) < (1, 7) else (None,)

    def loss_and_gradient(parameters):
        lists = [[None] * (mlp.n_layers_ - 1) for _ in range(4)]
        return mlp._loss_grad_lbfgs(parameters, X, y, *more, [X, *lists[0]], *lists[1:])

    with fastact.sklearn.patched():
        actual = loss_and_gradient(start)[1]
        expected = numerical_gradient(lambda parameters: loss_and_gradient(parameters)[0], start)
    hidden_weights = np.abs(actual[: 3 * 4])
    assert (hidden_weights > 1e-3).any() or activation == "step"
    np.testing.assert_allclose(actual, expected, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("activation", ["gelu", "silu", "mish", "softplus", "leaky_relu", "selu"])
def test_networks_with_further_activations_learn(activation, dtype):
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(dtype)
    with fastact.sklearn.patched():
        options = {"max_iter": 20, "learning_rate_init": 0.01, "random_state": 0}
        mlp = fitted(MLPClassifier((30,), activation=activation, **options), X, y)
        assert mlp.score(X, y) > 0.98
        expected = mlp.predict_proba(X)
        stored = pickle.dumps(mlp)
        assert expected.dtype == dtype and b"fastact" not in stored
        np.testing.assert_array_equal(pickle.loads(stored).predict_proba(X), expected)
    np.testing.assert_allclose(fa.Sequential.from_sklearn(mlp)(X), expected, atol=1e-5)


def test_further_activations_compute_with_our_functions():
    """Results have the bits of our function, for all solvers and for the search of parameters."""
    X = load_diabetes().data[:60]
    with fastact.sklearn.patched():
        for solver in ("lbfgs", "sgd", "adam"):
            mlp = MLPRegressor(
                hidden_layer_sizes=(5,), activation="gelu", solver=solver, max_iter=3
            )
            fitted(mlp, X, X[:, 0])
            hidden = fa.gelu(X @ mlp.coefs_[0] + mlp.intercepts_[0])
            expected = hidden @ mlp.coefs_[1] + mlp.intercepts_[1]
            np.testing.assert_array_equal(mlp.predict(X), expected.ravel())
        grid = {"activation": ["relu", "gelu", "silu"]}
        search = GridSearchCV(
            MLPRegressor(hidden_layer_sizes=(5,), max_iter=2, early_stopping=True), grid, cv=2
        )
        assert np.isfinite(fitted(search, X, X[:, 0]).cv_results_["mean_test_score"]).all()
    assert fastact.sklearn._training.inputs is None


def test_predictions_save_nothing(monkeypatch):
    X = load_diabetes().data[:60]
    with fastact.sklearn.patched():
        mlp = fitted(
            MLPRegressor(hidden_layer_sizes=(5,), activation="gelu", max_iter=3), X, X[:, 0]
        )
        mlp.predict(X)
        assert fastact.sklearn._training.inputs is None
        with pytest.raises(RuntimeError, match="gelu_backward: the input must have been saved"):
            _base.DERIVATIVES["gelu"](X, X)
        # An exception in training leaves nothing behind.
        with monkeypatch.context() as patch, pytest.raises(TypeError):
            patch.setitem(_base.DERIVATIVES, "gelu", None)
            mlp.fit(X, X[:, 0])
        assert fastact.sklearn._training.inputs is None


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_several_threads_train_networks_with_further_activations():
    X = load_diabetes().data[:100]

    def result(seed):
        mlp = MLPRegressor(
            hidden_layer_sizes=(20, 10), activation="gelu", max_iter=20, random_state=seed
        )
        return mlp.fit(X, X[:, 0]).predict(X)

    with fastact.sklearn.patched():
        expected = [result(seed) for seed in range(4)]
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            np.testing.assert_array_equal(list(pool.map(result, range(4))), expected)


def test_outside_of_the_patch_further_activations_are_refused_by_scikit_learn():
    X = load_diabetes().data[:60]
    mlp = MLPRegressor(hidden_layer_sizes=(5,), activation="silu", max_iter=3)
    with fastact.sklearn.patched():
        fitted(mlp, X, X[:, 0])
        assert options() == {*ADDED, "identity", "logistic", "tanh", "relu"}
        with pytest.raises(InvalidParameterError, match="'activation' parameter of MLPRegressor"):
            MLPRegressor(activation="none").fit(X, X[:, 0])
    with pytest.raises(KeyError, match="silu"):
        mlp.predict(X)
    with pytest.raises(InvalidParameterError, match="'activation' parameter of MLPRegressor"):
        mlp.fit(X, X[:, 0])


def test_without_the_library_the_extra_is_named():
    code = """if True:
    import sys
    sys.modules["sklearn"] = None
    try:
        import fastact.sklearn
    except ImportError as error:
        print(error)
    """
    assert 'pip install "fastact[sklearn]"' in run_python(code)


def test_the_benchmark_runs(capsys):
    sklearn_training.main(["--passes", "1", "--repetitions", "1"])
    lines = capsys.readouterr().out.splitlines()
    for kind in ("training", "prediction"):
        assert sum(f" {kind} " in line for line in lines) == 14
