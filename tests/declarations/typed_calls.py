"""Calls as users write them, with the expected types; for type checkers, never run."""

from pathlib import Path
from typing import Any, TypeAlias, assert_type

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

import fastact as fa

Half: TypeAlias = NDArray[np.float16]
Single: TypeAlias = NDArray[np.float32]
Double: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]


def floats_keep_their_type(half: Half, single: Single, double: Double) -> None:
    assert_type(fa.sigmoid(half), Half)
    assert_type(fa.relu(single), Single)
    assert_type(fa.tanh(double), Double)
    assert_type(fa.step(np.float32(1)), np.float32)
    assert_type(fa.softplus(np.float16(1)), np.float16)
    assert_type(fa.softplus(1.5), np.float64)
    assert_type(fa.sigmoid(single, out=None), Single)


def an_output_is_what_comes_back(single: Single, double: Double, integers: Integers) -> None:
    assert_type(fa.sigmoid(single, out=single), Single)
    assert_type(fa.tanh(integers, out=(double,)), Double)
    assert_type(fa.tanh(integers, double), Double)
    assert_type(fa.relu(single, out=double, where=single > 0), Double)
    assert_type(fa.relu(integers, out=integers), Integers)
    assert_type(fa.heaviside(single, single, out=double), Double)


def two_inputs(single: Single, double: Double) -> None:
    assert_type(fa.heaviside(single, single), Single)
    assert_type(fa.heaviside(single, 0.5), Single)
    assert_type(fa.heaviside(double, 1), Double)
    assert_type(fa.heaviside(np.float32(1), 0.5), np.float32)
    assert_type(fa.heaviside(0.0, 0.5), np.float64)


def whole_rows(half: Half, single: Single, double: Double) -> None:
    assert_type(fa.softmax(half), Half)
    assert_type(fa.softmax(single, axis=0), Single)
    assert_type(fa.softmax(single, out=double), Double)
    assert_type(fa.softmax(double, double, axis=0), Double)
    fa.softmax([0.0, 1.0], dtype=np.float32)


def derivatives(single: Single, double: Double) -> None:
    assert_type(fa.sigmoid_backward(single, single), Single)
    assert_type(fa.softplus_backward(double, double, out=double), Double)
    assert_type(fa.tanh_backward(1.0, 0.5), np.float64)
    assert_type(fa.softmax_backward(single, single, axis=0), NDArray[Any])
    assert_type(fa.logsumexp_backward(single, single, axis=0), NDArray[Any])
    gradients = fa.dense_backward(single, single, single, single, fa.relu)
    assert_type(gradients, tuple[NDArray[Any], ...])
    assert_type(fa.prelu_backward(single, single, 0.5), tuple[Any, ...])
    fa.relu_backward.outer(double, double)


def objectives(single: Single, double: Double) -> None:
    assert_type(fa.logistic_grad_hess(single, single), tuple[Single, Single])
    assert_type(fa.logistic_grad_hess(double, 1), tuple[Double, Double])
    assert_type(fa.logistic_grad_hess(single, single, out=(double, double)), tuple[Double, Double])


def dense_layers(single: Single, double: Double) -> None:
    assert_type(fa.dense(single, single), NDArray[Any])
    assert_type(fa.dense([1.0, 2.0], [[1.0], [2.0]], [0.5], "relu", out=double), NDArray[Any])
    layer = fa.Dense(double, None, fa.softmax)
    assert_type(layer(single, out=single), NDArray[Any])
    assert_type(layer.in_features, int)
    assert_type(layer.b, NDArray[Any] | None)
    model = fa.Sequential([layer, "tanh", fa.sigmoid, None, fa.Sequential([layer])])
    assert_type(model, fa.Sequential)
    assert_type(model([[1.0, 2.0]]), NDArray[Any])
    assert_type(model.out_features, int)
    assert_type(model.dtype, np.dtype[Any])
    assert_type(model[:2], fa.Sequential)
    assert not isinstance(model[0], str)
    assert_type(len(model) + len(list(model)), int)
    model.save("model.safetensors")
    assert_type(fa.load(Path("model.safetensors")), fa.Dense | fa.Gated | fa.Sequential)
    assert_type(fa.Sequential.from_keras(object()), fa.Sequential)
    assert_type(fa.Sequential.from_sklearn(object()), fa.Sequential)
    assert_type(fa.Sequential.from_torch(object()), fa.Sequential)
    assert_type(fa.Sequential.from_onnx(b"", "y"), fa.Sequential)


def others_are_accepted(single: Single, double: Double, integers: Integers) -> None:
    fa.sigmoid([1.0, 2.0])
    fa.relu(integers)
    fa.sigmoid(double, dtype=np.float32)
    fa.sigmoid(single, dtype=ml_dtypes.bfloat16)
    fa.tanh(double, casting="unsafe", order="F", subok=False)
    fa.heaviside(single, double)
    fa.heaviside(0.5, single)
    fa.heaviside(integers, [0.5])


def they_are_ufuncs(double: Double) -> None:
    functions: dict[str, np.ufunc] = {"sigmoid": fa.sigmoid, "heaviside": fa.heaviside}
    result: Any = functions["sigmoid"](double)
    assert_type(fa.sigmoid.nin, int)
    fa.relu.at(result, [0, 1])
    fa.heaviside.outer(double, double)
    fa.heaviside.reduce(double)


def what_is_refused() -> None:
    """Each ignored error must occur: an unused ignore is an error itself."""
    fa.heaviside(1.0)  # type: ignore[call-overload]
    fa.sigmoid()  # type: ignore[call-overload]
    fa.step_backward(1.0)  # type: ignore[call-overload]
    fa.absent(1.0)  # type: ignore[attr-defined]
    fa.Dense(1.0, activation=2)  # type: ignore[arg-type]
    fa.Sequential(["relu", 3])  # type: ignore[list-item]
