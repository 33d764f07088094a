"""The activation functions: for each its declaration, and below it the formula as code.

To add one, write its kernel here and declare it; ufunc, docstring, tests, benchmarks, tables
and types follow. Its derivative is declared below it, by a kernel ``NAME_backward``. A kernel is
written in the vocabulary of ``_kernels/vocabulary.py`` with the functions of
``_kernels/elementary.py``, without branches, since LLVM vectorises it only then.
"""

import math as _math

from fastact._declare import activation as _activation
from fastact._declare import derivative as _derivative
from fastact._declare import row_activation as _row_activation
from fastact._kernels import elementary as _e
from fastact._kernels import tables as _t
from fastact._kernels import vocabulary as _s

_inf = _math.inf
_nan = _math.nan

_SOURCES = """

The argument of exp is reduced as by W. J. Cody and W. Waite, "Software Manual for the
Elementary Functions" (1980); sums carry their rounding errors as by T. J. Dekker, "A
floating-point technique for extending the available precision" (1971)."""

_TABLES = """

On processors with AVX-512, float32 and the 16-bit formats are computed from tables in vector
registers instead, {},
where p is one of 32 polynomials around centres at which their first coefficients are nearly exact
(S. Gal, "An accurate elementary mathematical library for the IEEE floating point standard", ACM
TOMS 17, 1991)."""


def _sigmoid_by_tables(x):
    c = _s.pick(_e.EXP, x)
    limits = _s.pick(_e.RANGE, x)
    tables = _t.SIGMOID
    z = _s.number_at_least(-_s.magnitude(x), limits.lowest)
    total = _s.muladd(z, c.log2_e, tables.shift)
    row = _s.at_least(total, tables.last)
    # Exact but for the last product, which is 0 unless x is below all rows.
    beyond = total - row
    t = _s.muladd(beyond, -c.ln2_high, z) - _s.lookup(tables.pieces.centre, row)
    t = _s.muladd(beyond, -c.ln2_low, t)
    slope = _s.polynomial(t, tables.pieces.slope, row)
    y = _s.last_muladd(t, slope, _s.lookup(tables.pieces.value, row))
    y = y * (_s.pow2_of_sum(total) if x == x else x)  # exact, and a number before if x is NaN
    rest = _s.last_muladd(y, _s.like(x, -1), limits.upsplit)
    return (rest if x > _s.like(x, 0) else y) * limits.unsplit


@_activation(
    summary="Logistic sigmoid, element-wise.",
    formula="sigmoid(x) = 1 / (1 + exp(-x))",
    notes="""With e^-x = 2^n (1 + r + w), the quotient is a / (a + b (1 + r + w)) where
a = 2^-max(n, 0) and b = 2^min(n, 0): a denominator of four terms, summed with its rounding
error, one division, and one Newton step of the quotient by the residual."""
    + _SOURCES
    + _TABLES.format("as 2^n p(t) for negative x and as 1 - 2^n p(t) for positive x"),
    reference=lambda m, x: 1 / (1 + m.exp(-x)),
    specials=[(-_inf, 0.0), (_inf, 1.0), (0.0, 0.5)],
    interval=(-10.0, 10.0),
    ulp={"float16": 0.5, "bfloat16": 0.5, "float32": 0.88, "float64": 0.9},
)
@_s.with_tables(_sigmoid_by_tables)
def sigmoid(x):
    limits = _s.pick(_e.RANGE, x)
    zero = _s.like(x, 0)
    # Not negated: nothing from here on changes the sign of NaN.
    n, r, _ = _e.exp_reduced(zero - _s.at_least(_s.at_most(x, limits.enough), limits.lowest))
    # a, 2^split too large; 1 or 2^-|n|.
    scaled = _s.pow2(-_s.magnitude(n), limits.split)
    a = scaled if n > zero else limits.upsplit
    q, c = _e.logistic(n, r, scaled * -limits.unsplit)
    q = _s.last_muladd(q, c, q)
    return q * a * limits.unsplit


@_derivative(
    formula="sigmoid_backward(grad_output, output) = grad_output * output * (1 - output)",
    notes="""Products and the difference carry their rounding errors, so that the result is rounded
once, and once more where it is subnormal. An infinite `grad_output` gives infinity, and NaN where
`output` is 0 or 1. An `output` outside of [0, 1] is none of sigmoid's; up to 300 in magnitude it is
as good as any, beyond that the result may overflow early.""",
    reference=lambda m, g, y: g * y * (1 - y),
    slope=lambda m, y: 1 - 2 * y,
    specials=[(2.0, 0.5, 0.5), (2.0, 0.0, 0.0), (2.0, 1.0, 0.0), (_inf, 0.5, _inf)],
    interval=(0.0, 1.0),
    ulp={"float16": 0.5, "bfloat16": 0.51, "float32": 0.76, "float64": 0.76},
)
def sigmoid_backward(grad_output, output):
    one = _s.like(output, 1)
    rest = one - output
    t, t_low = _e.product(output, rest, (one - rest) - output)
    up, down = _e.scales(grad_output)
    p, p_low = _e.product(grad_output * up, t, t_low)
    y = _s.last_muladd(p_low, _s.copysign(one, p), _s.magnitude(p))
    return _e.rounded(y, _s.or_nan(p, grad_output)) * down


def _tanh_by_tables(x):
    tables = _t.TANH
    a = _s.at_most(_s.magnitude(x), tables.enough)
    row = _s.muladd(a, tables.per_unit, tables.shift)
    t = a - _s.lookup(tables.pieces.centre, row)
    slope = _s.polynomial(t, tables.pieces.slope, row)
    base = a if row == tables.shift else _s.lookup(tables.pieces.value, row)
    return _s.copysign(_s.last_muladd(t, slope, base), x)


@_activation(
    summary="Hyperbolic tangent, element-wise.",
    formula="tanh(x) = (1 - exp(-2|x|)) / (1 + exp(-2|x|)), with the sign of x",
    notes="""With e^-2|x| = 2^n (1 + r + w), numerator and denominator are sums with their rounding
errors; one division, and one correction of the quotient by the residual."""
    + _SOURCES
    + _TABLES.format("as p(t) with the sign of x"),
    reference=lambda m, x: m.tanh(x),
    specials=[(-_inf, -1.0), (_inf, 1.0), (0.0, 0.0), (-0.0, -0.0)],
    interval=(-5.0, 5.0),
    ulp={"float16": 0.5, "bfloat16": 0.5, "float32": 0.76, "float64": 0.85},
)
@_s.with_tables(_tanh_by_tables)
def tanh(x):
    limits = _s.pick(_e.RANGE, x)
    one = _s.like(x, 1)
    two = _s.like(x, 2)
    c, r, r_low = _e.exp_scaled(-two * _s.at_most(_s.magnitude(x), limits.enough))
    w = _e.exp_tail(r, r_low)
    # The numerator p + p_low, from 1, -c, -c r and -c w; the denominator is 2 less it.
    p, p_low = _e.add_product(one, -c, one)
    p, rest = _e.add_product(p, -c, r)
    p_low = _s.muladd(-c, w, p_low + rest)
    p, p_low = _e.add_product(p, one, p_low)
    reciprocal = one / (two - p)
    q = p * reciprocal
    # p + p_low - q (2 - p - p_low), where p - 2 q is exact, since p/2 <= q <= p.
    residual = _s.fma(q, p, _s.muladd(-two, q, p)) + _s.muladd(q, p_low, p_low)
    return _s.copysign(_s.last_muladd(residual, reciprocal, q), x)


@_derivative(
    formula="tanh_backward(grad_output, output) = grad_output * (1 - output**2)",
    notes="""Products and the difference carry their rounding errors, so that the result is rounded
once, also where the square is nearly 1, and once more where it is subnormal. An infinite
`grad_output` gives infinity, and NaN where `output` is 1 or -1. An `output` outside of [-1, 1] is
none of tanh's; up to 300 in magnitude it is as good as any, beyond that the result may overflow
early.""",
    reference=lambda m, g, y: g * (1 - y * y),
    slope=lambda m, y: -2 * y,
    specials=[(2.0, 0.0, 2.0), (2.0, 0.5, 1.5), (2.0, 1.0, 0.0), (2.0, -1.0, 0.0)],
    interval=(-1.0, 1.0),
    ulp={"float16": 0.5, "bfloat16": 0.5, "float32": 0.76, "float64": 0.76},
)
def tanh_backward(grad_output, output):
    one = _s.like(output, 1)
    square = output * output
    d = one - square
    d_low = ((one - d) - square) - _s.fma(output, output, -square)
    up, down = _e.scales(grad_output)
    p, p_low = _e.product(grad_output * up, d, d_low)
    y = _s.last_muladd(p_low, _s.copysign(one, p), _s.magnitude(p))
    return _e.rounded(y, _s.or_nan(p, grad_output)) * down


@_activation(
    summary="Rectified linear unit, element-wise.",
    formula="relu(x) = x if not x < 0 else 0",
    notes="The sign of zero is kept: relu(-0.0) is -0.0.",
    reference=lambda m, x: (x + abs(x)) / 2,
    specials=[(-_inf, 0.0), (_inf, _inf), (0.0, 0.0), (-0.0, -0.0)],
    interval=(-3.0, 3.0),
    ulp={"float16": 0.0, "bfloat16": 0.0, "float32": 0.0, "float64": 0.0},
    keeps_integers=True,
)
def relu(x):
    return _s.quiet(_s.at_least(x, _s.like(x, 0)))


@_derivative(
    formula="relu_backward(grad_output, output) = grad_output if output > 0 else 0",
    notes="""At 0 the derivative is taken to be 0. The input of relu gives the same as its output.
An infinite `grad_output` gives infinity or, where `output` is 0, 0.""",
    reference=lambda m, g, y: g * (y > 0),
    slope=lambda m, y: 0 * y,
    specials=[(2.0, 1.0, 2.0), (2.0, 0.0, 0.0), (-2.0, -0.0, 0.0), (_inf, 0.0, 0.0)],
    interval=(0.0, 3.0),
    ulp={"float16": 0.0, "bfloat16": 0.0, "float32": 0.0, "float64": 0.0},
)
def relu_backward(grad_output, output):
    zero = _s.like(output, 0)
    passed = grad_output if output > zero else zero
    passed = passed if output == output else output
    return _s.quiet(_s.or_nan(passed, grad_output))


@_activation(
    summary="Unit step, element-wise.",
    formula="step(x) = 1 if x >= 0 else 0",
    notes="The same as ``numpy.heaviside(x, 1)``.",
    reference=lambda m, x: (x >= 0) + 0 * x,
    specials=[(-_inf, 0.0), (_inf, 1.0), (0.0, 1.0), (-0.0, 1.0)],
    interval=(-3.0, 3.0),
    ulp={"float16": 0.0, "bfloat16": 0.0, "float32": 0.0, "float64": 0.0},
)
def step(x):
    zero = _s.like(x, 0)
    jump = _s.like(x, 1) if x >= zero else zero
    return jump if x == x else _s.quiet(x)


@_derivative(
    formula="step_backward(grad_output, input) = 0",
    notes="""The derivative is taken to be 0 at 0 too, so only NaN gives anything else. The output
of step gives the same as its input, and infinities what other numbers give.""",
    reference=lambda m, g, x: 0 * g * x,
    slope=lambda m, x: 0 * x,
    of_output=lambda m, y: 0 * y,
    specials=[(2.0, 1.0, 0.0), (-2.0, 0.0, 0.0), (-2.0, -1.0, 0.0), (_inf, _inf, 0.0)],
    interval=(-3.0, 3.0),
    ulp={"float16": 0.0, "bfloat16": 0.0, "float32": 0.0, "float64": 0.0},
)
def step_backward(grad_output, input):
    zero = _s.like(input, 0)
    kept = zero if input == input else input
    return _s.quiet(_s.or_nan(kept, grad_output))


@_activation(
    summary="Smooth rectifier, element-wise.",
    formula="softplus(x) = log(1 + exp(x))",
    notes="""max(x, 0) + log(1 + t) with t = e^-|x|; where t > 1/2 the logarithm is
log(2) + log(1 + (t - 1)/2), so that its polynomial covers [-1/4, 1/2] only. There is no
threshold above which the result is x early."""
    + _SOURCES,
    reference=lambda m, x: (x + abs(x)) / 2 + m.log1p(m.exp(-abs(x))),
    specials=[(-_inf, 0.0), (_inf, _inf)],
    interval=(-10.0, 10.0),
    ulp={"float16": 0.5, "bfloat16": 0.5, "float32": 0.93, "float64": 0.9},
)
def softplus(x):
    limits = _s.pick(_e.RANGE, x)
    log = _s.pick(_e.LOG, x)
    one = _s.like(x, 1)
    half = _s.like(x, 0.5)
    zero = _s.like(x, 0)
    # -|x|, no lower than `lowest` for negative x and than -`enough` for positive x, since
    # only negative x may be scaled.
    floor = _s.at_least(_s.at_most(x, -limits.enough), limits.lowest)
    n, r, r_low = _e.exp_reduced(_s.at_least(-_s.magnitude(x), floor))
    w = _e.exp_tail(r, r_low)
    c = _s.pow2(_s.at_least(n, -limits.split), 0)
    scale = _s.pow2(_s.at_most(n, -limits.split), limits.split)
    t, t_low = _e.add_product(c, c, r)
    t_low = _s.muladd(c, w, t_low)
    upper = t > half
    f = _s.muladd(half, t, -half) if upper else t
    f_low = half * t_low if upper else t_low
    f, f_low = _e.add_product(f, one, f_low)
    f_low = _e.log1p_rest(f, f_low)
    base, base_low = _e.add_product(log.ln2_high if upper else zero, one, _s.at_least(x, zero))
    base_low += log.ln2_low if upper else zero
    y, y_low = _e.add_product(base, one, f)
    y = _s.last_muladd(y_low + (base_low + f_low), one, y)
    # No y is below x. Where x is NaN, or +inf, whose sums above are NaN, this is x.
    return _s.at_least(x, y) * scale


@_derivative(
    formula="softplus_backward(grad_output, input) = grad_output / (1 + exp(-input))",
    notes="""The sigmoid of `input`, with its rounding error, times `grad_output`; powers of 2 come
last, so that the result is right also where the sigmoid alone would be 0. (In float64 it is 0
where `input` is below -1418.5.) An infinite `grad_output` gives infinity, and NaN where `input`
is below that, or in the other formats below -192.5."""
    + _SOURCES,
    reference=lambda m, g, x: g / (1 + m.exp(-x)),
    slope=lambda m, x: (1 - m.tanh(x / 2) ** 2) / 4,
    of_output=lambda m, y: -m.expm1(-y),
    specials=[(2.0, 0.0, 1.0), (2.0, _inf, 2.0), (2.0, -_inf, 0.0), (_inf, 0.0, _inf)],
    interval=(-10.0, 10.0),
    ulp={"float16": 0.51, "bfloat16": 0.51, "float32": 0.9, "float64": 0.9},
)
def softplus_backward(grad_output, input):
    limits = _s.pick(_e.RANGE, input)
    lowest = _s.pick(_e.LOWEST_SLOPE, input)
    shift = _s.pick(_e.EXP, input).shift
    one = _s.like(input, 1)
    zero = _s.like(input, 0)
    # Not negated, as in sigmoid.
    n, r, _ = _e.exp_reduced(zero - _s.at_least(_s.at_most(input, limits.enough), lowest))
    q, c = _e.logistic(n, r, -_s.pow2(-_s.at_most(_s.magnitude(n), limits.split), 0))
    # Half of the product, as q may be above 1, and scaled: nothing is subnormal before the end.
    q = _s.like(q, 0.5) * q
    up, down = _e.scales(grad_output)
    p, p_low = _e.product(grad_output * up, q, q * c)
    y = _s.last_muladd(p_low, _s.copysign(one, p), _s.magnitude(p))
    # Twice 2^-n, by three factors that are normal numbers.
    n = _s.at_least(n, zero) - one
    third = _s.muladd(n, _s.like(n, 1 / 3), shift) - shift
    s = _s.pow2(-third, 0)
    t = _s.pow2(third + third - n, 0)
    t = t if input >= lowest else zero
    y = _e.rounded(y, _s.or_nan(p, grad_output))
    return y * _s.at_least(down, one) * s * s * t * _s.at_most(down, one)


@_activation(
    summary="Heaviside step function with a given value at zero, element-wise.",
    formula="heaviside(x1, x2) = 0 if x1 < 0, x2 if x1 == 0, 1 if x1 > 0",
    notes="""The same as ``numpy.heaviside``: x2 counts only where x1 is 0. It has no `backward`
function, as there are two inputs to differentiate by; that of step is its derivative by x1.""",
    reference=lambda m, x1, x2: (x1 > 0) + (x1 == 0) * x2 + 0 * x1,
    specials=[(-1.0, 0.5, 0.0), (0.0, 0.5, 0.5), (-0.0, 0.5, 0.5), (1.0, 0.5, 1.0)],
    interval=(-3.0, 3.0),
    ulp={"float16": 0.0, "bfloat16": 0.0, "float32": 0.0, "float64": 0.0},
)
def heaviside(x1, x2):
    zero = _s.like(x1, 0)
    jump = _s.like(x1, 1) if x1 > zero else zero
    jump = x2 if x1 == zero else jump
    return _s.quiet(jump if x1 == x1 else x1)


class _Softmax:
    """The steps of softmax, in the order of ``_kernels/row_steps.py``.

    A term e^(x - max) is s (1 + t), with a power of two s and t of `_e.expm1_reduced`.
    """

    def larger(a, b):
        return _s.at_least(a, b)

    def prepare(largest):
        limits = _s.pick(_e.SHARES, largest)
        exp = _s.pick(_e.EXP, largest)
        base = _s.like(largest, 0) if _s.magnitude(largest) < limits.exact else largest
        n = _s.muladd(largest - base, exp.log2_e, exp.shift) - exp.shift
        return base, (n - limits.zero) * exp.ln2_high, exp.shift + (limits.zero - n)

    def term(x, base, lowest, shift):
        x = _s.at_least(x - base, lowest)
        total = _s.muladd(x, _s.pick(_e.EXP, x).log2_e, shift)
        return _s.pow2_of_sum(total), _e.expm1_reduced(total - shift, x)

    def start(largest):
        return _s.pick(_e.SHARES, largest).above, _s.like(largest, 0)

    def add(s, t, high, low):
        # Both exact, as `high` starts above every term; so is s * t.
        total = _s.muladd(s, t, high + s)
        return total, low + _s.muladd(s, t, s - (total - high))

    def collect(sum_high, sum_low, high, low):
        high, rest = _e.add(sum_high, high - _s.pick(_e.SHARES, high).above)
        low = sum_low + low + rest
        total = high + low
        return total, low - (total - high)

    def merge(high, low, other, other_low):
        total, rest = _e.add(high, other)
        return total, low + other_low + rest

    def finish(high, low):
        one = _s.like(high, 1)
        total = high + low
        low = low - (total - high)
        q = one / total
        return q, q * _s.muladd(-q, low, _s.fma(-q, total, one))

    def result(s, t, q, q_low):
        y = s * (q + _s.muladd(q, t, _s.muladd(q_low, t, q_low)))
        return y if y == y else _s.like(y, _nan)  # one NaN, whatever was in the row


softmax = _row_activation(
    name="softmax",
    steps=_Softmax,
    summary="Softmax along the last axis, or along `axis`: exponentials as shares of their sum.",
    formula="softmax(x)[i] = exp(x[i]) / sum(exp(x))",
    notes="""The largest element is subtracted only where it is large enough for all
differences that count to be exact (Sterbenz's lemma); else it is left to the exponent of 2, as
by M. Dukhan and A. Ablavatski, "Two-pass softmax algorithm" (2020). So the only rounding before
the last is that of e^r - 1. The sum carries its rounding errors, as does its reciprocal."""
    + _SOURCES,
    reference=lambda m, x: [m.exp(v - max(x)) / m.fsum([m.exp(u - max(x)) for u in x]) for v in x],
    specials=[
        ([0.0], [1.0]),
        ([0.0, 0.0], [0.5, 0.5]),
        ([1.0, -_inf], [1.0, 0.0]),
        ([0.0, -1e9], [1.0, 0.0]),
    ],
    ulp={"float16": 0.51, "bfloat16": 0.51, "float32": 1.5, "float64": 1.5},
)
