"""numexpr: formulas compiled for its virtual machine, which works in blocks."""

import functools

from .base import Library


def load(threads: int) -> Library:
    import numexpr

    numexpr.set_num_threads(threads)

    def expression(formula: str):
        def factory(inputs, out):
            names = ["x"] if len(inputs) == 1 else ["x1", "x2"]
            arrays = dict(zip(names, inputs, strict=True))
            numexpr.evaluate(formula, local_dict=arrays, global_dict={}, out=out)
            # Repeats the latest expression, which is this one: no two are prepared at a time.
            return functools.partial(numexpr.re_evaluate, local_dict=arrays)

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
