"""NumPy: formulas in steps that write to `out`, with temporary arrays only where needed."""

import functools
import math

import numpy as np

from bench.references import FOR_ARRAYS
from fastact._declarations.records import ACTIVATIONS, along_rows

from .base import Library, into


def _sigmoid(inputs, out):
    (x,) = inputs

    def call():
        np.negative(x, out=out)
        np.exp(out, out=out)
        np.add(out, 1, out=out)
        np.divide(1, out, out=out)

    return call


def _stable(limit, join):
    """`join` of `limit`(x, 0) and log1p(exp(-|x|)): np.logaddexp is several times slower."""

    def factory(inputs, out):
        (x,) = inputs
        limited = np.zeros_like(x)

        def call():
            limit(x, 0, out=limited)
            np.abs(x, out=out)
            np.negative(out, out=out)
            np.exp(out, out=out)
            np.log1p(out, out=out)
            join(limited, out, out=out)

        return call

    return factory


def _leaky_relu(inputs, out):
    (x,) = inputs
    small = np.empty_like(x)

    def call():
        np.multiply(x, 0.01, out=small)
        np.maximum(x, small, out=out)

    return call


def _hard_sigmoid(inputs, out):
    (x,) = inputs

    def call():
        np.add(x, 3, out=out)
        np.clip(out, 0, 6, out=out)
        np.divide(out, 6, out=out)

    return call


def _hard_swish(inputs, out):
    (x,) = inputs
    factor = np.empty_like(x)
    finish = _hard_sigmoid(inputs, factor)

    def call():
        finish()
        np.multiply(x, factor, out=out)

    return call


def _relu2(inputs, out):
    (x,) = inputs

    def call():
        np.maximum(x, 0, out=out)
        np.multiply(out, out, out=out)

    return call


def _reglu(inputs, out):
    a, b = inputs

    def call():
        np.maximum(a, 0, out=out)
        np.multiply(out, b, out=out)

    return call


def _softsign(inputs, out):
    (x,) = inputs
    above = np.empty_like(x)

    def call():
        np.abs(x, out=above)
        np.add(above, 1, out=above)
        np.divide(x, above, out=out)

    return call


def _gated(rate):
    """x / (1 + exp(-rate x)) in steps."""

    def factory(inputs, out):
        (x,) = inputs

        def call():
            np.multiply(x, -rate, out=out)
            np.exp(out, out=out)
            np.add(out, 1, out=out)
            np.divide(x, out, out=out)

        return call

    return factory


def _glu(inputs, out):
    a, b = inputs
    sigmoid = _sigmoid([b], out)

    def call():
        sigmoid()
        np.multiply(a, out, out=out)

    return call


def _swiglu(inputs, out):
    a, b = inputs
    silu = _gated(1)([a], out)

    def call():
        silu()
        np.multiply(out, b, out=out)

    return call


def _gelu_tanh(inputs, out):
    (x,) = inputs
    half = np.empty_like(x)

    def call():
        np.multiply(x, x, out=out)
        np.multiply(out, 0.044715, out=out)
        np.add(out, 1, out=out)
        np.multiply(out, x, out=out)
        np.multiply(out, math.sqrt(2 / math.pi), out=out)
        np.tanh(out, out=out)
        np.add(out, 1, out=out)
        np.multiply(x, 0.5, out=half)
        np.multiply(out, half, out=out)

    return call


def _mish(inputs, out):
    (x,) = inputs
    softplus = _stable(np.maximum, np.add)(inputs, out)

    def call():
        softplus()
        np.tanh(out, out=out)
        np.multiply(x, out, out=out)

    return call


def _tanhshrink(inputs, out):
    (x,) = inputs

    def call():
        np.tanh(x, out=out)
        np.subtract(x, out, out=out)

    return call


def _elu(inputs, out):
    (x,) = inputs

    def call():
        np.minimum(x, 0, out=out)
        np.expm1(out, out=out)
        np.copyto(out, x, where=x > 0)

    return call


def _celu(inputs, out):
    x, alpha = inputs

    def call():
        np.minimum(x, 0, out=out)
        np.divide(out, alpha, out=out)
        np.expm1(out, out=out)
        np.multiply(out, alpha, out=out)
        np.copyto(out, x, where=x > 0)

    return call


def _squareplus(inputs, out):
    x, b = inputs

    def call():
        np.multiply(x, x, out=out)
        np.add(out, b, out=out)
        np.sqrt(out, out=out)
        np.add(x, out, out=out)
        np.multiply(out, 0.5, out=out)

    return call


def _softmax(inputs, out):
    (x,) = inputs
    column = np.empty_like(x[:, :1])

    def call():
        np.max(x, axis=1, keepdims=True, out=column)
        np.subtract(x, column, out=out)
        np.exp(out, out=out)
        np.sum(out, axis=1, keepdims=True, out=column)
        np.divide(out, column, out=out)

    return call


def _softmin(inputs, out):
    (x,) = inputs
    column = np.empty_like(x[:, :1])

    def call():
        np.min(x, axis=1, keepdims=True, out=column)
        np.subtract(column, x, out=out)
        np.exp(out, out=out)
        np.sum(out, axis=1, keepdims=True, out=column)
        np.divide(out, column, out=out)

    return call


def _logsumexp(inputs, out):
    (x,) = inputs
    column, terms = np.empty_like(x[:, :1]), np.empty_like(x)

    def call():
        np.max(x, axis=1, keepdims=True, out=column)
        np.subtract(x, column, out=terms)
        np.exp(terms, out=terms)
        np.sum(terms, axis=1, out=out)
        np.log(out, out=out)
        np.add(out, column[:, 0], out=out)

    return call


def _log_softmax(inputs, out):
    (x,) = inputs
    column, terms = np.empty_like(x[:, :1]), np.empty_like(x)

    def call():
        np.max(x, axis=1, keepdims=True, out=column)
        np.subtract(x, column, out=out)
        np.exp(out, out=terms)
        np.sum(terms, axis=1, keepdims=True, out=column)
        np.log(column, out=column)
        np.subtract(out, column, out=out)

    return call


def _layer_norm(inputs, out):
    x, weight, bias, eps = inputs
    deviation, square = (np.empty(x.shape, _temporary(out)) for _ in range(2))
    column = np.empty_like(deviation[:, :1])

    def call():
        np.mean(x, axis=1, keepdims=True, out=column)
        np.subtract(x, column, out=deviation)
        np.multiply(deviation, deviation, out=square)
        _divide(deviation, square, column, eps)
        np.multiply(deviation, weight, out=deviation)
        np.add(deviation, bias, out=out, casting="same_kind")

    return call


def _rms_norm(inputs, out):
    x, weight, eps = inputs
    square, quotient = (np.empty(x.shape, _temporary(out)) for _ in range(2))
    column = np.empty_like(square[:, :1])

    def call():
        quotient[...] = x
        np.multiply(quotient, quotient, out=square)
        _divide(quotient, square, column, eps)
        np.multiply(quotient, weight, out=out, casting="same_kind")

    return call


def _temporary(out):
    """The type of intermediate results: squares of float16 would lose too many digits."""
    return np.float32 if out.dtype == np.float16 else out.dtype


def _divide(x, square, column, eps):
    """Divide `x` by the root of the mean of `square` and `eps`, in place."""
    np.mean(square, axis=1, keepdims=True, out=column)
    np.add(column, eps, out=column)
    np.sqrt(column, out=column)
    np.divide(x, column, out=x)


def _formula(declared):
    """The declared formula as it stands, for activations that have no entry below."""

    def factory(inputs, out):
        def call():
            out[...] = declared.reference(FOR_ARRAYS, *inputs)

        return call

    return factory


def _dense(finish):
    def factory(inputs, out):
        x, weights, bias = inputs

        def call():
            np.matmul(x, weights, out=out)
            np.add(out, bias, out=out)
            finish()

        finish = finish_on(out)
        return call

    finish_on = finish
    return factory


def load(threads: int) -> Library:
    """`threads` is unused: BLAS read their number from the environment when NumPy was imported."""
    known = {**ACTIVATIONS, **along_rows()}
    arrays = {name: _formula(declared) for name, declared in known.items()} | {
        "sigmoid": _sigmoid,
        "tanh": into(np.tanh),
        "relu": into(np.maximum, 0),
        # Loses NaN, but np.heaviside(x, 1) is many times slower.
        "step": into(np.greater_equal, 0),
        "softplus": _stable(np.maximum, np.add),
        "heaviside": into(np.heaviside),
        "leaky_relu": _leaky_relu,
        "relu6": into(np.clip, 0, 6),
        "hard_swish": _hard_swish,
        "hard_sigmoid": _hard_sigmoid,
        "hard_tanh": into(np.clip, -1, 1),
        "relu2": _relu2,
        "reglu": _reglu,
        "glu": _glu,
        "swiglu": _swiglu,
        "softsign": _softsign,
        "elu": _elu,
        "celu": _celu,
        "squareplus": _squareplus,
        "expm1": into(np.expm1),
        "log1p": into(np.log1p),
        "logaddexp": into(np.logaddexp),
        "softmax": _softmax,
        "softmin": _softmin,
        "logsumexp": _logsumexp,
        "log_softmax": _log_softmax,
        "layer_norm": _layer_norm,
        "rms_norm": _rms_norm,
        "silu": _gated(1),
        "quick_gelu": _gated(1.702),
        "gelu_tanh": _gelu_tanh,
        "log_sigmoid": _stable(np.minimum, np.subtract),
        "mish": _mish,
        "tanhshrink": _tanhshrink,
    }
    scalars = {
        name: functools.partial(activation.reference, FOR_ARRAYS)
        for name, activation in ACTIVATIONS.items()
    } | {
        "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
        "tanh": np.tanh,
        "relu": lambda x: np.maximum(x, 0),
        "step": lambda x: np.heaviside(x, 1),
        "softplus": lambda x: np.maximum(x, 0) + np.log1p(np.exp(-abs(x))),
        "heaviside": np.heaviside,
        "leaky_relu": lambda x: np.maximum(x, 0.01 * x),
        "relu6": lambda x: np.clip(x, 0, 6),
        "hard_swish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
        "hard_sigmoid": lambda x: np.clip(x + 3, 0, 6) / 6,
        "hard_tanh": lambda x: np.clip(x, -1, 1),
        "relu2": lambda x: np.maximum(x, 0) ** 2,
        "reglu": lambda a, b: np.maximum(a, 0) * b,
        "softsign": lambda x: x / (1 + abs(x)),
        "tanhshrink": lambda x: x - np.tanh(x),
        "log_sigmoid": lambda x: np.minimum(x, 0) - np.log1p(np.exp(-abs(x))),
    }
    dense = {
        "relu": _dense(lambda out: functools.partial(np.maximum, out, 0, out=out)),
        "sigmoid": _dense(lambda out: _sigmoid([out], out)),
    }
    return Library(np.__version__, arrays, scalars, dense)
