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

    def product_of(function):
        """x times a function of x."""

        def factory(inputs, out):
            (x,) = inputs

            def call():
                function(x, out=out)
                np.multiply(x, out, out=out)

            return call

        return factory

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
        "log_sigmoid": into(special.log_expit),
        "silu": product_of(special.expit),
        "gelu": product_of(special.ndtr),
        "erf": into(special.erf),
        "erfc": into(special.erfc),
        "ndtr": into(special.ndtr),
        "log_ndtr": into(special.log_ndtr),
        "expm1": into(special.expm1),
        "log1p": into(special.log1p),
        "logit": into(special.logit),
        "xlogy": into(special.xlogy),
        "softmax": lambda inputs, out: functools.partial(special.softmax, inputs[0], axis=1),
        "logsumexp": lambda inputs, out: functools.partial(special.logsumexp, inputs[0], axis=1),
        "log_softmax": lambda inputs, out: functools.partial(
            special.log_softmax, inputs[0], axis=1
        ),
    }
    scalars = {"sigmoid": special.expit, "softplus": lambda x: -special.log_expit(-x)} | {
        "log_sigmoid": special.log_expit,
        "silu": lambda x: x * special.expit(x),
        "gelu": lambda x: x * special.ndtr(x),
    }
    return Library(scipy.__version__, arrays, scalars, {"sigmoid": dense})
