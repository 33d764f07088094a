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
        "silu": "x / (1 + exp(-x))",
        "gelu_tanh": "0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)))",
        "log_sigmoid": "(x - abs(x)) / 2 - log1p(exp(-abs(x)))",
        "mish": "x * tanh((x + abs(x)) / 2 + log1p(exp(-abs(x))))",
        "quick_gelu": "x / (1 + exp(-1.702 * x))",
        "tanhshrink": "x - tanh(x)",
        "sigmoid": "1 / (1 + exp(-x))",
        "tanh": "tanh(x)",
        "relu": "maximum(x, 0)",
        "step": "x >= 0",
        "softplus": "(x + abs(x)) / 2 + log1p(exp(-abs(x)))",
        "heaviside": "where(x1 == 0, x2, x1 > 0)",
        "leaky_relu": "maximum(x, x / 100)",
        "relu6": "minimum(maximum(x, 0), 6)",
        "hard_swish": "x * minimum(maximum(x + 3, 0), 6) / 6",
        "hard_sigmoid": "minimum(maximum(x + 3, 0), 6) / 6",
        "hard_tanh": "minimum(maximum(x, -1), 1)",
        "relu2": "maximum(x, 0) ** 2",
        "softsign": "x / (1 + abs(x))",
        "reglu": "maximum(x1, 0) * x2",
        "swish": "x1 / (1 + exp(-x2 * x1))",
        "glu": "x1 / (1 + exp(-x2))",
        "swiglu": "x1 / (1 + exp(-x1)) * x2",
        "elu": "where(x > 0, x, expm1(x))",
        "selu": "1.0507009873554805 * where(x > 0, x, 1.6732632423543772 * expm1(x))",
        "celu": "where(x1 > 0, x1, x2 * expm1(x1 / x2))",
        "squareplus": "0.5 * (x1 + sqrt(x1 * x1 + x2))",
        "expm1": "expm1(x)",
        "log1p": "log1p(x)",
        "log1mexp": "where(x > -0.6931471805599453, log(-expm1(x)), log1p(-exp(x)))",
        "logit": "log(x / (1 - x))",
    }
    arrays = {name: expression(formula) for name, formula in formulas.items()}
    return Library(numexpr.__version__, arrays)
