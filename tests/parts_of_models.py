"""The parts of a model in extended precision, and how large their rounding errors may be."""

import numpy as np
import scipy.special

import fastact as fa
from fastact._dense.folding import Affine, Scaling

WIDE = np.longdouble
FUNCTIONS = {
    "identity": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "hard_tanh": lambda x: np.clip(x, -1, 1),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "softmax": lambda x: scipy.special.softmax(x, axis=-1),
    "prelu": lambda x, slope: np.where(x > 0, x, x * WIDE(slope)),
}
"""None is steeper than 1, and slopes of prelu have to be at most 1."""


def applied(function, x):
    name, *parameters = function if isinstance(function, tuple) else (function,)
    return FUNCTIONS[name](x, *parameters)


def evaluate(parts, x):
    """The result of the parts, one after another."""
    x = x.astype(WIDE)
    for part in parts:
        if isinstance(part, Affine):
            x = x @ part.W.astype(WIDE) + (0 if part.b is None else part.b.astype(WIDE))
        elif isinstance(part, Scaling):
            x = x * WIDE(part.scale) + WIDE(part.shift)
        else:
            x = applied(part.function, x)
    return x


def evaluate_layers(layers, x):
    """The same for layers, with their weights."""
    x = x.astype(WIDE)
    for layer in layers:
        if isinstance(layer, fa.Dense):
            x = x @ layer.W.astype(WIDE) + (0 if layer.b is None else layer.b.astype(WIDE))
            x = applied((layer.activation, *layer.parameters.values()), x)
        else:
            x = applied(layer.argument, x)
    return x


def magnitude(parts, x):
    """What the result of `parts` may change by at most, divided by the relative change of a term.

    A term is a product in one of the sums. The absolute values of all terms are added up, and no
    activation increases an error, but those of rows: an element of log_softmax changes at most by
    twice as much as the element of its input that changes most.
    """
    x = np.abs(x.astype(WIDE))
    for part in parts:
        if isinstance(part, Affine):
            x = x @ np.abs(part.W.astype(WIDE))
            x = x + (0 if part.b is None else np.abs(part.b.astype(WIDE)))
        elif isinstance(part, Scaling):
            x = x * np.abs(WIDE(part.scale)) + np.abs(WIDE(part.shift))
        elif part.function in ("sigmoid", "softmax", "log_softmax"):
            x = 2 * x.max(axis=-1, keepdims=True) + 2 + 0 * x
    return x


def operations(parts):
    """The number of rounding errors of each term, if every part is computed by itself."""
    lengths = (len(part.W) if isinstance(part, Affine) else 1 for part in parts)
    return sum(length + 3 for length in lengths)
