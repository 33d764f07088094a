"""Softmin, which is softmax of -x, and its derivative."""

from math import inf

from fastact._declarations.declare import row_activation, row_derivative
from fastact._declarations.records import TorchModule
from fastact._declarations.sources import EXP_AND_SUMS
from fastact._functions.softmax import Softmax
from fastact._kernels import exp_sums
from fastact._kernels.vocabulary import at_most, with_variants


def _prepare_by_tables(smallest):
    base, lowest, shift = exp_sums.prepare_by_tables(-smallest)
    return -base, lowest, shift


def _term_by_tables(x, base, lowest, shift):
    return exp_sums.power_by_tables(base - x, lowest, shift)


class _Softmin(Softmax):
    """The steps of softmin: those of softmax, but elements are subtracted from the base."""

    padding = inf

    def larger(a, b):
        return at_most(a, b)

    @with_variants(tables=_prepare_by_tables)
    def prepare(smallest):
        base, lowest, shift = exp_sums.prepare(-smallest)  # type: ignore[operator] # a scalar
        return -base, lowest, shift

    @with_variants(tables=_term_by_tables)
    def term(x, base, lowest, shift):
        return exp_sums.power(base - x, lowest, shift)


def _definition(xp, x):
    terms = xp.exp(-x - xp.max(-x, axis=-1, keepdims=True))
    return terms / xp.sum(terms, axis=-1, keepdims=True)


softmin = row_activation(
    name="softmin",
    steps=_Softmin,
    summary="Softmin along the last axis, or along `axis`: softmax of -x.",
    formula="softmin(x)[i] = exp(-x[i]) / sum(exp(-x))",
    notes="""Computed like softmax, with the same bits, but without an array of negated elements."""
    + EXP_AND_SUMS,
    invalid="If a row contains NaN or -inf, or nothing but inf, the result is a row of NaN.",
    reference=_definition,
    specials=[
        ([0.0], [1.0]),
        ([0.0, 0.0], [0.5, 0.5]),
        ([1.0, inf], [1.0, 0.0]),
        ([0.0, 1e9], [1.0, 0.0]),
    ],
    elsewhere={
        "PyTorch": "nn.functional.softmin: the axis must be given",
    },
    ulp={"float16": 0.51, "bfloat16": 0.51, "float32": 1.5, "float64": 1.5},
    torch_modules=[
        TorchModule(
            "Softmin",
            lambda module: module.dim in (-1, 1),
            "have dim=-1 or dim=1, the last axis of rows",
        )
    ],
    onnx_formulas=[lambda m, x: m.softmax(-x)],
)


@row_derivative(
    formula="softmin_backward(grad_output, output) = "
    "output * (sum(grad_output * output) - grad_output)",
    notes="""The error is a few eps times
``output * (abs(grad_output) + sum(abs(grad_output * output)))``, and grows with the logarithm of
the length of a row. Where the difference cancels, few correct digits remain.""",
    specials=[
        ([1.0, 0.0], [0.5, 0.5], [-0.25, 0.25]),
        ([2.0], [1.0], [0.0]),
        ([1.0, 2.0], [1.0, 0.0], [0.0, -0.0]),
    ],
)
def softmin_backward(xp, grad_output, output, axis):
    total = xp.sum(grad_output * output, axis=axis, keepdims=True)
    return (total - grad_output) * output
