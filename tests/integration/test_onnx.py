"""Models that other libraries export to ONNX predict the same as in ONNX Runtime."""

import io
import warnings

import numpy as np
import pytest
import torch
from conftest import run_python
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import (
    LinearRegression,
    LogisticRegression,
    Perceptron,
    RidgeClassifier,
    SGDClassifier,
)
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler
from torch import nn

import fastact as fa
from fastact._declarations.records import activations

pytestmark = [
    pytest.mark.integration,
    # Both exporters of PyTorch use what Python and PyTorch deprecate.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

MODULES = {
    "CELU": nn.CELU(0.3),
    "ELU": nn.ELU(),
    "GELU": nn.GELU(),
    "GELU, tanh": nn.GELU(approximate="tanh"),
    "Hardsigmoid": nn.Hardsigmoid(),
    "Hardswish": nn.Hardswish(),
    "Hardtanh": nn.Hardtanh(),
    "Hardtanh, limits": nn.Hardtanh(-0.5, 2),
    "LayerNorm": nn.LayerNorm(8),
    "LeakyReLU": nn.LeakyReLU(0.2),
    "LogSigmoid": nn.LogSigmoid(),
    "LogSoftmax": nn.LogSoftmax(dim=-1),
    "Mish": nn.Mish(),
    "PReLU": nn.PReLU(8, 0.1),
    "ReLU": nn.ReLU(),
    "ReLU6": nn.ReLU6(),
    "SELU": nn.SELU(),
    "SiLU": nn.SiLU(),
    "Sigmoid": nn.Sigmoid(),
    "Softmax": nn.Softmax(dim=1),
    "Softmin": nn.Softmin(dim=1),
    "Softplus": nn.Softplus(),
    "Softsign": nn.Softsign(),
    "Tanh": nn.Tanh(),
    "Tanhshrink": nn.Tanhshrink(),
    "Flatten": nn.Flatten(),
    "Dropout": nn.Dropout(),
}
LATER = ("CELU", "LayerNorm")  # have operators of their own only since versions 12 and 17
REFUSED = ("RMSNorm",)  # is written as operators that are not converted


def in_runtime(model, x, output=-1):
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[output]


def exported(module, x, **options):
    """The content of a file of a module in evaluation mode."""
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module.eval(), (torch.from_numpy(x),), content, **options)
    return content.getvalue()


def network(kinds):
    """A layer before each module, and batch normalizations with statistics far from 0 and 1."""
    torch.manual_seed(0)
    norms = nn.BatchNorm1d(5), nn.BatchNorm1d(8)
    for norm in norms:
        norm.running_mean.normal_(0, 2)
        norm.running_var.uniform_(0.5, 3)
    layers = [part for kind in kinds for part in (nn.Linear(8, 8), kind)]
    return nn.Sequential(norms[0], nn.Linear(5, 8), norms[1], *layers, nn.Linear(8, 3))


def test_every_module_is_exported():
    known = {module.name for a in activations().values() for module in a.torch_modules}
    assert known - {*REFUSED} <= {name.partition(",")[0] for name in MODULES}


def test_normalizations_of_several_operators_are_refused():
    for module, options in (
        (nn.RMSNorm(8), {"dynamo": True, "opset_version": 20}),
        (nn.LayerNorm(8), {"dynamo": False, "opset_version": 9}),
    ):
        with pytest.raises(TypeError, match=r"from_onnx: node .*\(ReduceMean\) must have one of"):
            fa.Sequential.from_onnx(exported(network([module]), X, **options))


X = np.random.default_rng(0).normal(0, 2, (6, 5)).astype(np.float32)


@pytest.mark.parametrize("dynamo, version", [(0, 9), (0, 17), (0, 20), (1, 18), (1, 20)])
@pytest.mark.parametrize("part", range(5))
def test_exporters_of_pytorch(part, dynamo, version):
    """A few modules in each model, since exports take seconds."""
    kinds = [
        kind for name, kind in list(MODULES.items())[part::5] if name not in LATER or version > 9
    ]
    module = network(kinds).eval()
    model = exported(module, X, dynamo=bool(dynamo), opset_version=version)
    converted = fa.Sequential.from_onnx(model)
    original = fa.Sequential.from_torch(module)
    assert [layer.activation for layer in converted] == [layer.activation for layer in original]
    y, expected = converted(X), in_runtime(model, X)
    scale = abs(expected).max()
    np.testing.assert_allclose(y / scale, expected / scale, rtol=0, atol=4e-6)
    np.testing.assert_allclose(y / scale, original(X) / scale, rtol=0, atol=4e-6)


LOADS = {"iris": load_iris, "cancer": load_breast_cancer, "diabetes": load_diabetes}
PIPELINES = [
    ("iris", StandardScaler(), MLPClassifier((5, 4), max_iter=9, random_state=0)),
    ("cancer", StandardScaler(), MLPClassifier((5,), max_iter=9, random_state=0)),
    ("diabetes", StandardScaler(), MLPRegressor(hidden_layer_sizes=5, max_iter=9, random_state=0)),
    ("iris", StandardScaler(), LogisticRegression()),
    ("cancer", MaxAbsScaler(), LogisticRegression()),
    ("iris", MinMaxScaler(clip=True), LogisticRegression()),
    ("diabetes", MinMaxScaler(), LinearRegression()),
    ("diabetes", RobustScaler(), LinearRegression()),
    ("cancer", StandardScaler(), Perceptron()),
    ("cancer", StandardScaler(), RidgeClassifier()),
    ("cancer", StandardScaler(), SGDClassifier(loss="log_loss", random_state=0)),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("data, scaler, estimator", PIPELINES, ids=str)
def test_pipelines_of_scikit_learn(data, scaler, estimator, dtype):
    """With lists of dicts as probabilities where the converter writes them by default."""
    import onnxruntime
    from skl2onnx import to_onnx

    X, y = LOADS[data](return_X_y=True)
    pipeline = make_pipeline(scaler, estimator)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        pipeline.fit(X, y)
    X = X.astype(dtype)
    if isinstance(estimator, RidgeClassifier) and dtype == np.float64:
        pytest.skip("the converter refuses it in float64")
    model = to_onnx(pipeline, X[:1]).SerializeToString()
    converted = fa.Sequential.from_onnx(model)
    assert converted.dtype == (dtype if "Linear" not in str(model) else np.float32)
    try:
        expected = in_runtime(model, X)
    except onnxruntime.capi.onnxruntime_pybind11_state.InvalidGraph:
        expected = None  # the runtime has no dicts of float64
    if isinstance(expected, list):
        expected = np.array([list(row.values()) for row in expected])
    if expected is not None:
        scale = abs(expected).max()
        found = converted(X).reshape(expected.shape) / scale
        np.testing.assert_allclose(found, expected / scale, rtol=0, atol=2e-5)
    if converted.classes_ is not None:
        # A rounding error decides where two are equal.
        labels = converted.classes_[converted(X).argmax(axis=1)]
        assert (labels == pipeline.predict(X)).mean() > 0.99


KERAS = """
import contextlib, io, warnings
warnings.simplefilter("ignore")
import keras
import numpy as np
import onnxruntime
import fastact as fa
names = ["gelu", "silu", "leaky_relu", "elu", "hard_sigmoid", "softplus", "mish", "tanh", "relu6"]
layers = [keras.layers.Dense(8, name) for name in names]
layers.insert(3, keras.layers.BatchNormalization())
model = keras.Sequential([keras.layers.Input((5,)), *layers, keras.layers.Dense(3, "softmax")])
x = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
model(x)
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    model.export({path!r}, format="onnx", verbose=False)
session = onnxruntime.InferenceSession({path!r})
(expected,) = session.run(None, {{session.get_inputs()[0].name: x}})
converted = fa.Sequential.from_onnx({path!r})
np.testing.assert_allclose(converted(x), expected, rtol=0, atol=1e-6)
print(*(layer.activation for layer in converted))
"""


def test_exporter_of_keras(tmp_path):
    """It uses that of PyTorch, in a process whose backend of Keras is PyTorch."""
    code = KERAS.format(path=str(tmp_path / "model.onnx"))
    printed = run_python(code, KERAS_BACKEND="torch", PYTHONWARNINGS="ignore")
    names = printed.splitlines()[-1].split()
    assert [name.replace("prelu", "leaky_relu") for name in names] == [
        *("gelu", "silu", "leaky_relu", "elu", "hard_sigmoid", "softplus", "mish", "tanh"),
        *("relu6", "softmax"),
    ]
