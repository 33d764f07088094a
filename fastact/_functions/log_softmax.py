"""The logarithm of softmax and its derivative."""

from math import inf, nan

from fastact._declarations.declare import row_activation, row_derivative
from fastact._declarations.records import KerasFunction, OnnxOperator, TorchModule
from fastact._declarations.sources import EXP_AND_SUMS
from fastact._kernels import log_sums
from fastact._kernels.elementary import two_sum
from fastact._kernels.row_steps import LOGARITHMS
from fastact._kernels.vocabulary import like, number_at_least, number_at_most


class _LogSoftmax:
    """The steps of log_softmax, in the order of ``_kernels/row_steps.py``."""

    scheme = LOGARITHMS
    larger, prepare, term = log_sums.larger, log_sums.prepare, log_sums.term
    start, add, collect, merge = log_sums.start, log_sums.add, log_sums.collect, log_sums.merge
    finish = log_sums.finish

    def result(x, high, low):
        # One NaN, whatever was in the row: the lower of this limit and the result is the limit if
        # either is NaN.
        limit = like(x, 0) if low == low else like(x, nan)
        total, rest = two_sum(x, -high)
        # Where the difference is infinite, its error is NaN.
        rest = number_at_least(rest, like(x, -1e30))
        return number_at_most(total + (rest - low), limit)


def _definition(xp, x):
    below = x - xp.max(x, axis=-1, keepdims=True)
    # Without the largest elements, of which there are `ties` more than one.
    rest = xp.sum(xp.exp(below) * (below < 0), axis=-1, keepdims=True)
    ties = xp.sum(1.0 * (below == 0), axis=-1, keepdims=True) - 1
    return below - xp.log1p(rest + ties)


log_softmax = row_activation(
    name="log_softmax",
    steps=_LogSoftmax,
    summary="Logarithm of softmax along the last axis, or along `axis`.",
    formula="log_softmax(x)[i] = x[i] - log(sum(exp(x)))",
    notes="""The logarithm is m + log(1 + R), where m is the largest element and R the sum of the
other e^(x - m). R is computed without the largest term, so that the result for a dominant element,
about -R, is as accurate as the others. It is no less accurate where m is large."""
    + EXP_AND_SUMS,
    invalid="If a row contains NaN or +inf, or nothing but -inf, the result is a row of NaN.",
    reference=_definition,
    specials=[
        ([0.0], [0.0]),
        ([1.0, -inf], [0.0, -inf]),
        ([0.0, -1e9], [0.0, -1e9]),
    ],
    ulp={"float16": 0.51, "bfloat16": 0.51, "float32": 1.0, "float64": 1.0},
    torch_modules=[
        TorchModule(
            "LogSoftmax",
            lambda module: module.dim in (-1, 1),
            "have dim=-1 or dim=1, the last axis of rows",
        )
    ],
    elsewhere={
        "PyTorch": "log_softmax: the axis must be given",
        "JAX": "nn.log_softmax",
        "Keras": "log_softmax",
        "ONNX": "LogSoftmax: up to version 12, over all axes from `axis` on",
        "SciPy": "special.log_softmax: over all axes by default",
    },
    keras_functions=[KerasFunction("nn.log_softmax")],
    onnx_operators=[OnnxOperator("LogSoftmax")],
    onnx_formulas=[lambda m, x: m.log(m.softmax(x))],
)


@row_derivative(
    formula="log_softmax_backward(grad_output, output) = "
    "grad_output - exp(output) * sum(grad_output)",
    notes="""The error is a few eps times ``abs(grad_output) + exp(output) *
sum(abs(grad_output))``, and grows with the logarithm of the length of a row.""",
    specials=[
        ([2.0], [0.0], [0.0]),
        ([1.0, 2.0], [0.0, -inf], [-2.0, 2.0]),
    ],
    tangent=lambda xp, tangent, output, axis: (
        tangent - xp.sum(tangent * xp.exp(output), axis=axis, keepdims=True)
    ),
)
def log_softmax_backward(xp, grad_output, output, axis):
    total = xp.sum(grad_output, axis=axis, keepdims=True)
    return grad_output - xp.exp(output) * total
