"""Layers accept the DataFrames that scikit-learn accepts; missing values become NaN."""

import warnings

import numpy as np
import pandas as pd
import pytest
from conftest import assert_same, run_python
from sklearn.linear_model import LogisticRegression

import fastact as fa

pytestmark = pytest.mark.integration

W = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
CALLS = {
    "dense": lambda x: fa.dense(x, W, None, "tanh"),
    "Dense": lambda x: fa.Dense(W, None, "tanh")(x),
    "Sequential": lambda x: fa.Sequential([fa.Dense(W), "tanh"])(x),
}
NUMBERS = {
    "bool and float64": {"a": [True, False], "b": [0.5, -1.0]},
    "bool and float32": {"a": [True, False], "b": np.array([0.5, -1.0], "f")},
    "bool and int8": {"a": [True, False], "b": np.array([3, -1], "b")},
    "int64 and float32": {"a": [2, 3], "b": np.array([0.5, -1.0], "f")},
    "Float64 and int64": {"a": pd.array([0.5, 2.0], "Float64"), "b": [2, 3]},
    "Float32 and Int8": {"a": pd.array([0.5, 2.0], "Float32"), "b": pd.array([2, 3], "Int8")},
    "boolean and Int16": {"a": pd.array([True, False], "boolean"), "b": pd.array([2, 3], "Int16")},
    "sparse bool and float": {"a": pd.arrays.SparseArray([True, False]), "b": [0.5, -1.0]},
    "float64 alone": {"a": [0.25, 3.0], "b": [0.5, -1.0]},
    "Float64 alone": {"a": pd.array([0.5, 2.0], "Float64"), "b": pd.array([1.0, 2.0], "Float64")},
    "numbers as categories": {"a": pd.Categorical([1, 2]), "b": [0.5, -1.0]},
}

each = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@each
@pytest.mark.parametrize("columns", NUMBERS.values(), ids=NUMBERS)
def test_columns_of_several_types(call, columns):
    frame = pd.DataFrame(columns)
    expected = np.stack([frame[name].to_numpy(dtype=np.float64) for name in "ab"], axis=1)
    plain = [np.asarray(frame[name]).dtype for name in "ab"]
    common = np.result_type(*plain)
    y = call(frame)
    assert_same(y, call(expected.astype(common)))
    out = np.empty_like(y)
    assert_same(call(frame), fa.tanh(fa.dense(expected.astype(common), W), out=out))


def test_a_model_fitted_to_dummies():
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"colour": rng.choice(list("rgb"), 60), "size": rng.normal(size=60)})
    for sparse in (False, True):
        X = pd.get_dummies(frame, sparse=sparse)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "pandas.DataFrame with sparse columns found")
            estimator = LogisticRegression().fit(X, frame["size"] > 0.1)
            expected = estimator.predict_proba(X)
        model = fa.Sequential.from_sklearn(estimator)
        np.testing.assert_allclose(model(X), expected, rtol=1e-11, atol=1e-13)
        assert_same(model(X), model(X.to_numpy(np.float64)))


MISSING = {
    "Float64": pd.DataFrame({"a": pd.array([0.5, None], "Float64"), "b": [1.0, 2.0]}),
    "Float64 alone": pd.DataFrame({"a": [0.5, None], "b": [1.0, 2.0]}).astype("Float64"),
    "Int64": pd.DataFrame({"a": pd.array([1, None], "Int64"), "b": [True, False]}),
    "boolean": pd.DataFrame({"a": pd.array([True, None], "boolean"), "b": [1, 2]}),
    "boolean alone": pd.DataFrame({"a": [True, None], "b": [True, False]}).astype("boolean"),
    "float64": pd.DataFrame({"a": [0.5, None], "b": [True, False]}),
}


@each
@pytest.mark.parametrize("frame", MISSING.values(), ids=MISSING)
def test_missing_values_become_nan(call, frame):
    y = call(frame)
    assert np.isnan(y[1]).all()
    assert_same(y[:1], call(frame.iloc[:1].astype(np.float64)).astype(y.dtype))
    for column in (frame["a"], frame["a"].array):
        row = fa.dense(column, W)
        assert np.isnan(row).all()


def test_values_hidden_by_a_mask_are_not_used():
    series = pd.Series([0.5, 2.0], dtype="Float64").mask([False, True])
    assert np.isnan(fa.dense(series, W)).all()
    assert np.isnan(fa.softmax_backward(series, series)).all()
    filled = fa.softmax(series.to_numpy(na_value=-np.inf))  # as the documentation recommends
    assert filled.tolist() == [1.0, 0.0]


SHOWN = pd.Series([1.0, 2.0, 3.0], index=list("pqr"), dtype="Float64")
HIDING = SHOWN.mask(SHOWN > 2)  # the 3 is still in memory
HIDERS = {
    "Series": HIDING,
    "Int64": pd.Series([1, 2, None], dtype="Int64"),
    "Float32": HIDING.astype("Float32"),
    "boolean": pd.Series([True, False, None], dtype="boolean"),
    "Index": pd.Index(HIDING),
    "DataFrame": pd.DataFrame({"a": SHOWN, "b": HIDING}),
}


@pytest.mark.skipif(
    not hasattr(np.exp, "__dict__"), reason="needs a newer NumPy, whose ufuncs have __dict__"
)
@pytest.mark.parametrize("hiding", HIDERS.values(), ids=HIDERS)
def test_softmax_refuses_missing_values(hiding):
    with pytest.raises(ValueError, match=r"^softmax: x must have no missing values, got 1 of 3; x"):
        fa.softmax(hiding)
    if hiding.ndim == 1:
        with pytest.raises(ValueError, match=r"^softmax: x must have no missing values"):
            fa.softmax(hiding, axis=0)


def test_softmax_of_nullable_series_without_missing_values():
    y = fa.softmax(SHOWN)
    assert y.dtype == "Float64" and y.index.equals(SHOWN.index)
    assert_same(y.to_numpy(np.float64), fa.softmax(SHOWN.to_numpy(np.float64)))
    assert fa.softmax(pd.Series([1.0, np.nan])).isna().all()  # no value is hidden
    groups = SHOWN.groupby([0, 1, 0]).transform(fa.softmax)
    assert groups["q"] == 1 and abs(groups["p"] + groups["r"] - 1) < 1e-15


@each
@pytest.mark.parametrize(
    "column",
    [
        ["1", "2"],
        pd.Series([1.0, 2.0], dtype=object),
        pd.to_datetime(["2020-01-01", "2021-01-01"]),
        pd.to_timedelta([1, 2], "s"),
        [1j, 2.0],
        pd.interval_range(0, 2),
        pd.Categorical(["p", "q"]),
    ],
    ids=["str", "object", "datetime", "timedelta", "complex", "interval", "categories"],
)
def test_other_columns_are_refused(call, column):
    with pytest.raises(TypeError, match=r"x must be an array of float16, .*, got dtype"):
        call(pd.DataFrame({"a": column, "b": [True, False]}))


def test_softmax_of_frames_wants_an_axis():
    """Without an axis, pandas passes its blocks, in which each column is a row."""
    values = np.arange(6.0).reshape(3, 2) ** 2
    frame = pd.DataFrame(values, columns=list("ab"))
    for axis in (-1, 0, 1):
        assert_same(fa.softmax(frame, axis=axis).to_numpy(), fa.softmax(values, axis=axis))
    assert_same(fa.softmax(frame).to_numpy(), fa.softmax(values, axis=0))


def test_pandas_is_not_imported():
    run_python("""
import sys
import numpy as np
import fastact as fa
try:
    fa.dense(np.array([1.0, 2.0], object), np.ones((2, 2)))
except TypeError:
    pass
assert "pandas" not in sys.modules
""")
