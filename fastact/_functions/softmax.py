"""Softmax and its derivative: the steps of a function of whole rows, and a rule for gradients."""

from math import inf, nan

from fastact._declarations.declare import row_activation, row_derivative
from fastact._declarations.records import TorchModule
from fastact._declarations.sources import EXP_AND_SUMS
from fastact._kernels.elementary import EXP, SHARES, expm1_reduced, two_sum
from fastact._kernels.vocabulary import at_least, fma, like, magnitude, muladd, pick, pow2_of_sum


class _Softmax:
    """The steps of softmax, in the order of ``_kernels/row_steps.py``.

    A term e^(x - max) is s (1 + t), where s is a power of two and t is from `expm1_reduced`.
    """

    def larger(a, b):
        return at_least(a, b)

    def prepare(largest):
        limits = pick(SHARES, largest)
        exp = pick(EXP, largest)
        base = like(largest, 0) if magnitude(largest) < limits.exact else largest
        n = muladd(largest - base, exp.log2_e, exp.shift) - exp.shift  # type: ignore[operator] # a scalar
        return base, (n - limits.zero) * exp.ln2_high, exp.shift + (limits.zero - n)

    def term(x, base, lowest, shift):
        x = at_least(x - base, lowest)
        total = muladd(x, pick(EXP, x).log2_e, shift)
        return pow2_of_sum(total), expm1_reduced(total - shift, x)

    def start(largest):
        return pick(SHARES, largest).above, like(largest, 0)

    def add(s, t, high, low):
        # Both sums are exact, since `high` starts above every term; so is s * t.
        total = muladd(s, t, high + s)
        return total, low + muladd(s, t, s - (total - high))

    def collect(sum_high, sum_low, high, low):
        high, rest = two_sum(sum_high, high - pick(SHARES, high).above)
        low = sum_low + low + rest
        total = high + low
        return total, low - (total - high)

    def merge(high, low, other, other_low):
        total, rest = two_sum(high, other)
        return total, low + other_low + rest

    def finish(high, low):
        one = like(high, 1)
        total = high + low
        low = low - (total - high)
        q = one / total
        return q, q * muladd(-q, low, fma(-q, total, one))

    def result(s, t, q, q_low):
        y = s * (q + muladd(q, t, muladd(q_low, t, q_low)))
        return y if y == y else like(y, nan)  # one NaN, whatever was in the row


def _definition(xp, x):
    terms = xp.exp(x - xp.max(x, axis=-1, keepdims=True))
    return terms / xp.sum(terms, axis=-1, keepdims=True)


_TORCH = TorchModule(
    "Softmax",
    lambda module: module.dim == -1,
    "be Softmax(dim=-1), along the last axis of every input",
)

softmax = row_activation(
    name="softmax",
    steps=_Softmax,
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
    ulp={"float16": 0.51, "bfloat16": 0.51, "float32": 1.5, "float64": 1.5},
    torch_modules=[_TORCH],
    sklearn_names=["softmax"],
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
