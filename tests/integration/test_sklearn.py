"""Estimators of scikit-learn with our functions, and unchanged afterwards.

scikit-learn's own tests pass with the patch in 1.5.2, 1.6.1, 1.7.2, 1.8.0, 1.9.0 and 1.9.1.
"""

import concurrent.futures
import os
import pickle
import re
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import sklearn
from conftest import ROOT, run_python
from sklearn.datasets import load_diabetes, load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import BernoulliRBM, MLPClassifier, MLPRegressor, _base, _rbm

import fastact as fa
import fastact.sklearn
from bench import sklearn_training

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
    }


@pytest.fixture(autouse=True)
def untouched():
    before = functions()
    yield
    assert functions() == before


def test_its_own_tests_pass(tmp_path):
    """They run without our settings of pytest, and with a plugin that counts calls."""
    modules = [f"sklearn.neural_network.tests.{name}" for name in OWN_TESTS]
    options = ["-c", os.devnull, f"--rootdir={tmp_path}", "-p", "no:cacheprovider", "-q"]
    path = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-p", "sklearn_patched", "--pyargs", *modules],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= 80
    counts = dict(re.findall(r"^calls of (.*): (\d+)$", done.stdout, re.MULTILINE))
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
    check = fastact.sklearn._check

    def slow_check():
        time.sleep(1e-3)  # other threads enter meanwhile
        check()

    monkeypatch.setattr(fastact.sklearn, "_check", slow_check)

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
