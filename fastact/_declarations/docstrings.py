"""The numpydoc texts of ufuncs, from what is known of them."""

from math import isfinite

from fastact._declarations.records import (
    Activation,
    Derivative,
    Objective,
    RowActivation,
    RowDerivative,
)

_ENVIRONMENT = """No floating-point warning is raised, and the caller's rounding mode, flush-to-zero
and status flags neither change the result nor are changed. Inputs of several types are
converted to their common type with one rounding, to nearest even. What NumPy casts itself is
cast as for any ufunc, with its warnings and in the caller's rounding mode: results for an
`out` of another type, inputs where a `dtype` or `signature` is asked for, Python's numbers
beside arrays of less than float64, and what reductions and ``at`` cast."""


def docstring(declared: Activation) -> str:
    """The numpydoc text of the ufunc, below the signature line that NumPy adds."""
    inputs = ", ".join(declared.parameters)
    integers = "keep their type" if declared.keeps_integers else "give float64"
    specials = "\n".join(
        f"    {declared.name}({', '.join(map(str, row[: declared.nin]))}) = "
        f"{', '.join(map(str, row[declared.nin :]))}"
        for row in declared.specials
    )
    operands = ""
    nan = """NaN in gives that NaN, quiet, with its sign and as much of its payload as the format
    holds; of two, the first."""
    if isinstance(declared, Objective):
        nan = "A result that is NaN is ``numpy.nan``, whatever came in."
    if not isinstance(declared, Derivative | Objective):
        measured = """measured over every input of the 16- and 32-bit formats; for float64 a bound
that millions of samples stay below"""
    else:
        measured = "as a bound that samples stay below"
    if isinstance(declared, Derivative):
        operands = f"""
    `grad_output` is the gradient with respect to the output of {declared.activation}, and
    `{declared.saved}` the {declared.saved} of {declared.activation}."""
    return f"""{declared.summary}

{declared.formula}

Parameters
----------
{inputs} : array_like
    float16, float32, float64 or (with ml_dtypes) bfloat16 keep their type; integers
    {integers}; bool gives float64. Inputs of several types are promoted as NumPy does; float16
    and bfloat16 together, and other types of ml_dtypes (int4, float8), are computed in the first
    of float16, float32 and float64 that they cast to safely.{operands}
out : ndarray, None, or tuple of ndarray and None, optional
    Where to put the result; its shape must be that of the broadcast inputs. It may be an
    input.
where : array_like, optional
    Where to compute; elsewhere `out` stays as it is.
**kwargs
    As for any ufunc: `casting`, `order`, `dtype`, `subok`, `signature`.

Returns
-------
{", ".join(declared.results)} : ndarray or scalar
    Of the shape of the broadcast inputs.

Raises
------
TypeError
    For complex, longdouble, string, datetime and object inputs.

Notes
-----
{declared.notes}

Special values::

{specials}
    {nan}

Largest error, {measured}::

{_accuracy(declared.ulp)}

{_ENVIRONMENT}

{_examples(declared)}"""


def row_docstring(declared: RowActivation) -> str:
    """The same for a function of rows."""
    specials = "\n".join(
        f"    {declared.name}({list(row)}) = {list(result)}" for row, result in declared.specials
    )
    return f"""{declared.summary}

{declared.formula}

Parameters
----------
x : array_like
    float16, float32, float64 or (with ml_dtypes) bfloat16 keep their type; integers and bool
    give float64; other types of ml_dtypes (int4, float8) are computed in the first of float16,
    float32 and float64 that they cast to safely. At least one axis.
out : ndarray, None, or tuple of ndarray and None, optional
    Where to put the result; its shape must be that of `x`. It may be `x`.
axis : int, optional
    The axis along which the rows lie; the last by default.
**kwargs
    As for any generalized ufunc: `axes`, `casting`, `order`, `dtype`, `subok`, `signature`.

Returns
-------
y : ndarray
    Of the shape of `x`.

Raises
------
TypeError
    For complex, longdouble, string, datetime and object inputs.
ValueError
    For inputs without an axis, and where values are hidden: in masked arrays with masked
    elements (unless `out` is a plain ndarray, which NumPy does not tell them of), and in a
    Series, Index or DataFrame of pandas of a nullable type with missing values (with a NumPy
    whose ufuncs have a ``__dict__``; pandas' bare arrays, as ``pd.array`` makes them, come
    through in any case).

Notes
-----
{declared.notes}

A row's result depends on that row alone: it is the same to the last bit whatever the other rows
are, however many, and wherever they lie in memory.

Special values::

{specials}
    {declared.invalid}

Largest error, as a bound that samples stay below::

{_accuracy(declared.ulp)}

{_ENVIRONMENT} And NumPy lowers the status flags before the loop
of a generalized ufunc.

{_row_examples(declared)}"""


def row_gradient_docstring(declared: RowDerivative) -> str:
    """The same for the derivative of a function of rows."""
    activation = declared.activation
    g, y, result = declared.specials[0]
    given = ", ".join(f"[{', '.join(map(_written, row))}]" for row in (g, y))
    return f"""Gradient with respect to the input of {activation}.

``{declared.formula}``

Parameters
----------
grad_output : array_like
    The gradient with respect to the output of {activation}.
output : array_like
    The output of {activation}; of the shape of `grad_output`.
axis : int, optional
    The axis that {activation} was taken along; the last by default.

Returns
-------
ndarray
    Of the common type of the operands, as of :func:`fastact.dense`: float16 (or bfloat16),
    float32 or float64. The 16-bit formats are computed in float32 and rounded once; integers
    and bool give float64.

Raises
------
ValueError
    For operands without an axis or of different shapes, and masked arrays with masked
    elements.
TypeError
    For complex, longdouble, string, datetime and object operands.
AxisError
    For an `axis` that they do not have.

Notes
-----
In NumPy's arithmetic, by several passes; yet no floating-point warning is raised, and the
caller's rounding mode, flush-to-zero and status flags neither change the result nor are
changed. {declared.notes}

Examples
--------
>>> import fastact as fa
>>> fa.{declared.name}({given}).tolist()
{list(result)}"""


_EXAMPLES = """Examples
--------
>>> import numpy as np, fastact as fa"""


def _examples(declared: Activation) -> str:
    """A special value, finite if there is one, and an array over the interval."""
    rows = declared.specials
    row = next((row for row in rows if all(map(isfinite, row))), rows[0])
    given = ", ".join(map(_written, row[: declared.nin]))
    shown = ", ".join(f"np.float64({value!r})" for value in row[declared.nin :])
    if len(declared.results) > 1:
        shown = f"({shown})"
    names, first = declared.parameters, declared.results[0]
    low, high = declared.interval
    return f"""{_EXAMPLES}
>>> fa.{declared.name}({given})
{shown}
>>> {" = ".join(names)} = np.linspace({low}, {high}, 5, dtype=np.float32)
>>> {", ".join(declared.results)} = fa.{declared.name}({", ".join(names)})
>>> {first}.dtype, {first}.shape
(dtype('float32'), (5,))"""


def _row_examples(declared: RowActivation) -> str:
    """The longest of the special rows, the first of those, and an axis."""
    row, result = max(declared.specials, key=lambda special: len(special[0]))
    return f"""{_EXAMPLES}
>>> fa.{declared.name}([{", ".join(map(_written, row))}]).tolist()
{list(result)}
>>> x = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
>>> np.allclose(fa.{declared.name}(x, axis=0), fa.{declared.name}(x.T).T)
True"""


def _written(value: float) -> str:
    """A number in Python's code."""
    return repr(value) if isfinite(value) else f"{'-' if value < 0 else ''}np.{abs(value)}"


def _accuracy(ulp: dict[str, float]) -> str:
    return "\n".join(f"    {name:8} {bound:4} ulp" for name, bound in ulp.items())
