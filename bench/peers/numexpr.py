"""numexpr: formulas compiled for its virtual machine, which works in blocks."""

import functools

import numpy as np

from .base import Library


def load(threads: int) -> Library:
    import numexpr

    numexpr.set_num_threads(threads)

    def expression(formula: str):
        def factory(inputs, out):
            names = ["x"] if len(inputs) == 1 else ["x1", "x2"]
            # `evaluate` would look up the expression and its operands in each call. It chooses
            # the same types; numexpr's names for double and float are np.double and float.
            kind = np.double if inputs[0].itemsize > 4 else float
            compiled = numexpr.NumExpr(formula, [(name, kind) for name in names])
            options = dict(casting="same_kind", ex_uses_vml=numexpr.use_vml)
            return functools.partial(compiled, *inputs, out=out, **options)

        return factory

    formulas = {
        "sigmoid": "1 / (1 + exp(-x))",
        "tanh": "tanh(x)",
        "relu": "maximum(x, 0)",
        "step": "x >= 0",
        "softplus": "(x + abs(x)) / 2 + log1p(exp(-abs(x)))",
        "heaviside": "where(x1 == 0, x2, x1 > 0)",
    }
    arrays = {name: expression(formula) for name, formula in formulas.items()}
    return Library(numexpr.__version__, arrays)
