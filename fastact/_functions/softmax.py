"""Softmax and its derivative: the steps of a function of whole rows, and a rule for gradients."""

from math import inf, nan

from fastact._declarations.declare import row_activation, row_derivative
from fastact._declarations.records import KerasFunction, OnnxOperator, TorchModule
from fastact._declarations.sources import EXP_AND_SUMS
from fastact._kernels import exp_sums
from fastact._kernels.vocabulary import (
    at_least,
    fma,
    like,
    muladd,
    number_at_least,
    with_variants,
)


def _finish_by_tables(high, low):
    one = like(high, 1)
    total = high + low
    low = low - (total - high)
    q = one / total
    # T. J. Dekker's split: s has 8 bits, so that its product with 16 bits of q is exact.
    split = q * like(q, 257)
    q_high = split - (split - q)
    return q_high, (q - q_high) + q * muladd(-q, low, fma(-q, total, one))


def _result_by_tables(s, t, q, q_low):
    # s q is exact, unless it is subnormal: then the result is rounded twice, to within 1 ulp.
    limit = like(q, 0) if q == q else like(q, nan)
    return number_at_least(muladd(s, muladd(q + q_low, t, q_low), s * q), limit)


class Softmax:
    """The steps of softmax, in the order of ``_kernels/row_steps.py``."""

    prepare, term = exp_sums.prepare, exp_sums.term
    start, add, collect, merge = exp_sums.start, exp_sums.add, exp_sums.collect, exp_sums.merge

    def larger(a, b):
        return at_least(a, b)

    @with_variants(tables=_finish_by_tables)
    def finish(high, low):
        one = like(high, 1)
        total = high + low
        low = low - (total - high)
        q = one / total
        return q, q * muladd(-q, low, fma(-q, total, one))

    @with_variants(tables=_result_by_tables)
    def result(s, t, q, q_low):
        # One NaN, whatever was in the row: the larger of this limit and the result is the limit if
        # either is NaN.
        limit = like(q, 0) if q == q else like(q, nan)
        # The rounding error of q t would add 1/4 ulp to those of t, of the sum and of the result:
        # 1.64 ulp were seen.
        high = muladd(q, t, q)
        low = fma(q, t, q - high)
        return number_at_least(s * (high + muladd(q_low, t, low + q_low)), limit)


def _definition(xp, x):
    terms = xp.exp(x - xp.max(x, axis=-1, keepdims=True))
    return terms / xp.sum(terms, axis=-1, keepdims=True)


_TORCH = TorchModule(
    "Softmax",
    lambda module: module.dim in (-1, 1),
    "have dim=-1 or dim=1, the last axis of rows",
)

softmax = row_activation(
    name="softmax",
    steps=Softmax,
    summary="Softmax along the last axis, or along `axis`: exponentials divided by their sum.",
    formula="softmax(x)[i] = exp(x[i]) / sum(exp(x))",
    notes="""The largest element is subtracted only where it is so large that all relevant
differences are exact (Sterbenz's lemma). Otherwise the exponent of 2 accounts for it, as in
M. Dukhan and A. Ablavatski, "Two-pass softmax algorithm" (2020). So the only rounding before
the last one is in e^r - 1. The sum and its reciprocal carry their rounding errors."""
    + EXP_AND_SUMS,
    invalid="If a row contains NaN or +inf, or nothing but -inf, the result is a row of NaN.",
    reference=_definition,
    specials=[
        ([0.0], [1.0]),
        ([0.0, 0.0], [0.5, 0.5]),
        ([1.0, -inf], [1.0, 0.0]),
        ([0.0, -1e9], [1.0, 0.0]),
    ],
    elsewhere={
        "PyTorch": "softmax: the axis must be given",
        "JAX": "nn.softmax",
        "Keras": "softmax",
        "ONNX": "Softmax: up to version 12, over all axes from `axis` on",
        "SciPy": "special.softmax: over all axes by default",
    },
    ulp={"float16": 0.51, "bfloat16": 0.51, "float32": 1.5, "float64": 1.5},
    torch_modules=[_TORCH],
    sklearn_names=["softmax"],
    keras_functions=[KerasFunction("nn.softmax")],
    onnx_operators=[OnnxOperator("Softmax")],
)


@row_derivative(
    formula="softmax_backward(grad_output, output) = "
    "output * (grad_output - sum(grad_output * output))",
    notes="""The error is a few eps times
``output * (abs(grad_output) + sum(abs(grad_output * output)))``, and grows with the logarithm of
the length of a row. Where the difference cancels, few correct digits remain.""",
    specials=[
        ([1.0, 0.0], [0.5, 0.5], [0.25, -0.25]),
        ([2.0], [1.0], [0.0]),
        ([1.0, 2.0], [1.0, 0.0], [0.0, 0.0]),
    ],
)
def softmax_backward(xp, grad_output, output, axis):
    total = xp.sum(grad_output * output, axis=axis, keepdims=True)
    return (grad_output - total) * output
