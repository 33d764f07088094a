"""logistic_grad_hess as the objective of XGBoost and LightGBM, compared with their own."""

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, make_classification

import fastact

pytestmark = pytest.mark.integration

ROUNDS = 50


def data(name):
    if name == "breast cancer":
        return load_breast_cancer(return_X_y=True)
    return make_classification(3000, 12, n_informative=6, flip_y=0.1, random_state=0)


def objective(scores, dataset):
    return fastact.logistic_grad_hess(scores, dataset.get_label())


each_data = pytest.mark.parametrize("name", ["breast cancer", "synthetic"])


@each_data
def test_xgboost(name):
    xgboost = pytest.importorskip("xgboost", reason="the extra integration installs xgboost")
    X, y = data(name)
    table = xgboost.DMatrix(X, y)
    options = {"max_depth": 4, "eta": 0.3, "nthread": 1}
    theirs = xgboost.train(
        options | {"objective": "binary:logistic", "base_score": 0.5}, table, ROUNDS
    )
    ours = xgboost.train(options | {"base_score": 0.0}, table, ROUNDS, obj=objective)
    expected = theirs.predict(table)
    found = fastact.sigmoid(ours.predict(table, output_margin=True))
    # All is float32: trees differ where the last bit of a gradient decides between two splits.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert ((found > 0.5) == y).mean() > 0.9


@each_data
def test_lightgbm(name):
    lightgbm = pytest.importorskip("lightgbm", reason="the extra integration installs lightgbm")
    X, y = data(name)
    options = {
        "verbosity": -1,
        "num_threads": 1,
        "deterministic": True,
        "boost_from_average": False,
    }
    theirs = lightgbm.train(options | {"objective": "binary"}, lightgbm.Dataset(X, y), ROUNDS)
    ours = lightgbm.train(options | {"objective": objective}, lightgbm.Dataset(X, y), ROUNDS)
    expected = theirs.predict(X)
    found = fastact.sigmoid(ours.predict(X))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert ((found > 0.5) == y).mean() > 0.9


def test_the_interfaces_for_scikit_learn():
    xgboost = pytest.importorskip("xgboost", reason="the extra integration installs xgboost")
    lightgbm = pytest.importorskip("lightgbm", reason="the extra integration installs lightgbm")
    X, y = data("breast cancer")

    def labels_first(labels, scores):
        return fastact.logistic_grad_hess(scores, labels)

    for model, raw in (
        (xgboost.XGBClassifier(n_estimators=20, objective=labels_first), {"output_margin": True}),
        (
            lightgbm.LGBMClassifier(n_estimators=20, objective=labels_first, verbosity=-1),
            {"raw_score": True},
        ),
    ):
        scores = model.fit(X, y).predict(X, **raw)
        assert ((scores > 0) == y).mean() > 0.95


def test_labels_between_0_and_1():
    """Training converges to soft labels, as far as further splits reduce the loss."""
    xgboost = pytest.importorskip("xgboost", reason="the extra integration installs xgboost")
    X, soft = np.arange(40.0)[:, None] % 4, np.array([0.1, 0.3, 0.8, 0.95] * 10)
    table = xgboost.DMatrix(X, soft)
    model = xgboost.train(
        {"base_score": 0.0, "lambda": 0.0, "min_child_weight": 0.0}, table, 60, obj=objective
    )
    found = fastact.sigmoid(model.predict(table, output_margin=True))
    np.testing.assert_allclose(found, soft, atol=1e-3)


def test_bench(capsys):
    from bench import boosting

    boosting.main(["--rows", "200", "--repetitions", "1"])
    printed = capsys.readouterr().out
    for what in ("objective, 200 float32", "XGBoost", "LightGBM", "NumPy / fastact"):
        assert what in printed
    score, label = np.linspace(-5, 5, 50), np.arange(50) % 2
    for one, other in zip(
        boosting.formula(score, label), fastact.logistic_grad_hess(score, label), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-12)
    with pytest.raises(SystemExit):
        boosting.main(["--rows", "0"])
