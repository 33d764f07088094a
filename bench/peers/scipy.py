"""SciPy: the functions of scipy.special."""

import functools

import numpy as np

from .base import Library, into


def load(threads: int) -> Library:
    import scipy
    from scipy import special

    def softplus(inputs, out):
        (x,) = inputs

        def call():
            np.negative(x, out=out)
            special.log_expit(out, out=out)
            np.negative(out, out=out)

        return call

    def dense(inputs, out):
        x, weights, bias = inputs

        def call():
            np.matmul(x, weights, out=out)
            np.add(out, bias, out=out)
            special.expit(out, out=out)

        return call

    arrays = {
        "sigmoid": into(special.expit),
        "softplus": softplus,
        "softmax": lambda inputs, out: functools.partial(special.softmax, inputs[0], axis=1),
    }
    scalars = {"sigmoid": special.expit, "softplus": lambda x: -special.log_expit(-x)}
    return Library(scipy.__version__, arrays, scalars, {"sigmoid": dense})
