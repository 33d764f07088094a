"""NumPy: formulas in steps that write to `out`, with temporary arrays only where needed."""

import functools

import numpy as np

from fastact._declarations.records import ACTIVATIONS, ROW_ACTIVATIONS

from .base import Library, into


def _sigmoid(inputs, out):
    (x,) = inputs

    def call():
        np.negative(x, out=out)
        np.exp(out, out=out)
        np.add(out, 1, out=out)
        np.divide(1, out, out=out)

    return call


def _softplus(inputs, out):
    """The stable formula in steps: np.logaddexp(x, 0) is several times slower."""
    (x,) = inputs
    positive = np.zeros_like(x)

    def call():
        np.maximum(x, 0, out=positive)
        np.abs(x, out=out)
        np.negative(out, out=out)
        np.exp(out, out=out)
        np.log1p(out, out=out)
        np.add(out, positive, out=out)

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


def _formula(declared):
    """The declared formula as it stands, for activations that have no entry below."""

    def factory(inputs, out):
        def call():
            out[...] = declared.reference(np, *inputs)

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
    known = {**ACTIVATIONS, **ROW_ACTIVATIONS}
    arrays = {name: _formula(declared) for name, declared in known.items()} | {
        "sigmoid": _sigmoid,
        "tanh": into(np.tanh),
        "relu": into(np.maximum, 0),
        # Loses NaN, but np.heaviside(x, 1) is many times slower.
        "step": into(np.greater_equal, 0),
        "softplus": _softplus,
        "heaviside": into(np.heaviside),
        "softmax": _softmax,
    }
    scalars = {
        name: functools.partial(activation.reference, np)
        for name, activation in ACTIVATIONS.items()
    } | {
        "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
        "tanh": np.tanh,
        "relu": lambda x: np.maximum(x, 0),
        "step": lambda x: np.heaviside(x, 1),
        "softplus": lambda x: np.maximum(x, 0) + np.log1p(np.exp(-abs(x))),
        "heaviside": np.heaviside,
    }
    dense = {
        "relu": _dense(lambda out: functools.partial(np.maximum, out, 0, out=out)),
        "sigmoid": _dense(lambda out: _sigmoid([out], out)),
    }
    return Library(np.__version__, arrays, scalars, dense)
