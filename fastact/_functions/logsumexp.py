"""The logarithm of the sum of exponentials, and its derivative."""

from math import inf, nan

import numpy as np

from fastact._declarations.declare import reduction_derivative, row_reduction
from fastact._declarations.sources import EXP_AND_SUMS
from fastact._functions.softmax import softmax
from fastact._kernels import log_sums
from fastact._kernels.row_steps import TOTALS
from fastact._kernels.vocabulary import like, magnitude


class _LogSumExp:
    """The steps of logsumexp, in the order of ``_kernels/row_steps.py``."""

    scheme = TOTALS
    larger, prepare, term = log_sums.larger, log_sums.prepare, log_sums.term
    start, add, collect, merge = log_sums.start, log_sums.add, log_sums.collect, log_sums.merge

    def finish(total, rest, largest, second):
        high, low = log_sums.finish(total, rest, largest, second)
        finite = magnitude(largest) < like(largest, inf)
        # The total is finite unless there is NaN.
        high = high if finite else largest
        return high, low if finite else total - total  # type: ignore[operator] # a scalar

    def result(high, low):
        y = high + low
        return y if y == y else like(y, nan)


def _definition(xp, x):
    largest = xp.max(x, axis=-1, keepdims=True)
    below = x - largest
    # Without the largest elements, of which there are `ties` more than one.
    rest = xp.sum(xp.exp(below) * (below < 0), axis=-1)
    ties = xp.sum(1.0 * (below == 0), axis=-1) - 1
    return largest[..., 0] + xp.log1p(rest + ties)


logsumexp = row_reduction(
    name="logsumexp",
    steps=_LogSumExp,
    summary="Logarithm of the sum of exponentials along the last axis, or along `axis`.",
    formula="logsumexp(x) = log(sum(exp(x)))",
    notes="""The result is m + log(1 + R), where m is the largest element and R the sum of the other
e^(x - m). R is computed without the largest term, and both parts of the result with their rounding
errors. Where the two cancel, the error can be larger than the bound below, but is at most 2^-24
times |m| (float64: 2^-53).

One axis is reduced. Several are one after a reshape: ``logsumexp(x, axis=(0, 1))`` is
``logsumexp(x.reshape(-1, *x.shape[2:]), axis=0)``."""
    + EXP_AND_SUMS,
    invalid="""If a row contains NaN, the result is NaN. Otherwise it is inf if a row contains inf,
and -inf if it contains nothing but -inf, or nothing.""",
    reference=_definition,
    specials=[
        ([1.5], 1.5),
        ([0.0, -inf], 0.0),
        ([0.0, -1e9], 0.0),
        ([-inf, -inf], -inf),
        ([inf, 1.0], inf),
    ],
    ulp={"float16": 0.51, "bfloat16": 0.51, "float32": 1.0, "float64": 1.0},
    elsewhere={
        "PyTorch": "logsumexp: the axis must be given",
        "JAX": "nn.logsumexp: over all axes by default",
        "Keras": "ops.logsumexp: over all axes by default",
        "ONNX": "ReduceLogSumExp: over all axes by default",
        "SciPy": "special.logsumexp: over all axes by default",
        "NumPy": "logaddexp.reduce: along the first axis by default",
    },
)


def _softmax(xp, input, axis):
    if isinstance(input, np.ndarray):
        return softmax(input, axis=axis)
    # An object that records operations, to differentiate them again.
    terms = xp.exp(input - xp.max(input, axis=axis, keepdims=True))
    return terms / xp.sum(terms, axis=axis, keepdims=True)


@reduction_derivative(
    formula="logsumexp_backward(grad_output, input) = grad_output * softmax(input)",
    notes="""The softmax is that of this package. So the error is at most 2.1 ulp in float32 and
float64, and 0.51 in the 16-bit formats, unless the softmax is subnormal. If a row contains NaN or
+inf, or nothing but -inf, the result is a row of NaN, as for softmax.""",
    specials=[
        (2.0, [0.0, 0.0], [1.0, 1.0]),
        (3.0, [1.5], [3.0]),
        (-2.0, [1.0, -inf], [-2.0, -0.0]),
        (0.0, [1.0, 1.0], [0.0, 0.0]),
        (1.0, [inf, 1.0], [nan, nan]),
        (1.0, [-inf, -inf], [nan, nan]),
        (1.0, [nan, 1.0], [nan, nan]),
        (nan, [1.0, -inf], [nan, nan]),
        (inf, [1.0, -inf], [inf, nan]),
    ],
    tangent=lambda xp, tangent, input, axis: xp.sum(
        tangent * _softmax(xp, input, axis), axis=axis, keepdims=True
    ),
)
def logsumexp_backward(xp, grad_output, input, axis):
    return grad_output * _softmax(xp, input, axis)
