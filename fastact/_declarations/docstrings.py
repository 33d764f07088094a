"""The docstrings of ufuncs, written from their declarations."""

from math import isfinite

from fastact._declarations.records import (
    Activation,
    Derivative,
    Objective,
    RowActivation,
    RowDerivative,
)

_ENVIRONMENT = """No floating-point warning is raised. The result does not depend on the caller's
rounding mode and flush-to-zero setting, and the caller's status flags stay unchanged. Inputs of
several types are converted to their common type with one rounding, to nearest even. Some casts
are made by NumPy, as for any ufunc, with its warnings and in the caller's rounding mode: results
for an `out` of another type, inputs if `dtype` or `signature` is given, Python scalars beside
arrays narrower than float64, and the casts of reductions and ``at``."""


def docstring(declared: Activation) -> str:
    """The docstring of the ufunc, without the signature line that NumPy adds."""
    inputs = ", ".join(declared.parameters)
    integers = "Integers and bool are converted to float64."
    if declared.keeps_integers:
        integers = "Integers keep their type, too; bool is converted to float64."
    specials = "\n".join(
        f"    {declared.name}({', '.join(map(str, row[: declared.nin]))}) = "
        f"{', '.join(map(str, row[declared.nin :]))}"
        for row in declared.specials
    )
    operands = ""
    nan = """If an input is NaN, the result is that NaN made quiet, with its sign and as much of its
payload as the format holds. If several inputs are NaN, the first one counts."""
    if isinstance(declared, Objective):
        nan = "A NaN result is always ``numpy.nan``, whatever NaN the inputs contain."
    if not isinstance(declared, Derivative | Objective):
        measured = """measured over every input of the 16- and 32-bit formats; for float64, a bound
that holds for millions of sampled inputs"""
    else:
        measured = "a bound that holds for all sampled inputs"
    if isinstance(declared, Derivative):
        operands = f"""
    `grad_output` is the gradient with respect to the output of {declared.activation}, and
    `{declared.saved}` is the {declared.saved} of {declared.activation}."""
    return f"""{declared.summary}

{declared.formula}

Parameters
----------
{inputs} : array_like
    float16, float32, float64 and (with ml_dtypes) bfloat16 keep their type.
    {integers}
    Inputs of several types are promoted by NumPy's rules. float16 together with bfloat16, and
    other types of ml_dtypes (int4, float8), are computed in the first of float16, float32 and
    float64 to which all inputs can be cast safely.{operands}
out : ndarray, None, or tuple of ndarray and None, optional
    Array into which the result is written. It must have the shape of the broadcast inputs,
    and may be one of the inputs.
where : array_like, optional
    The result is computed where this is True. Elsewhere, `out` keeps its values.
**kwargs
    Other arguments of ufuncs: `casting`, `order`, `dtype`, `subok`, `signature`.

Returns
-------
{", ".join(declared.results)} : ndarray or scalar
    Has the shape of the broadcast inputs. A scalar if all inputs are scalars.

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
    """The docstring of the ufunc of a function of rows."""
    specials = "\n".join(
        f"    {declared.name}({list(row)}) = {list(result)}" for row, result in declared.specials
    )
    return f"""{declared.summary}

{declared.formula}

Parameters
----------
x : array_like
    Must have at least one axis. float16, float32, float64 and (with ml_dtypes) bfloat16 keep
    their type. Integers and bool are converted to float64. Other types of ml_dtypes (int4,
    float8) are computed in the first of float16, float32 and float64 to which they can be cast
    safely.
out : ndarray, None, or tuple of ndarray and None, optional
    Array into which the result is written. It must have the shape of `x`, and may be `x`.
axis : int, optional
    The axis along which the rows lie. Default is the last axis.
**kwargs
    Other arguments of generalized ufuncs: `axes`, `casting`, `order`, `dtype`, `subok`,
    `signature`.

Returns
-------
y : ndarray
    Has the shape of `x`.

Raises
------
TypeError
    For complex, longdouble, string, datetime and object inputs.
ValueError
    For inputs without an axis, masked arrays with masked elements, and a pandas Series, Index
    or DataFrame of a nullable type with missing values. Masked elements are not detected if
    `out` is a plain ndarray, since NumPy does not pass the call on to the masked array then.
    Missing values are not detected in bare pandas arrays, as made by ``pd.array``, nor with
    versions of NumPy whose ufuncs have no ``__dict__``.

Notes
-----
{declared.notes}

The result for a row depends on that row alone. It is the same to the last bit, whatever the
content, number and memory layout of the other rows.

Special values::

{specials}

{declared.invalid}

Largest error, a bound that holds for all sampled inputs::

{_accuracy(declared.ulp)}

{_ENVIRONMENT}
NumPy clears the status flags before it calls the loop of a generalized ufunc.

{_row_examples(declared)}"""


def row_gradient_docstring(declared: RowDerivative) -> str:
    """The docstring of the derivative of a function of rows."""
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
    The output of {activation}, with the shape of `grad_output`.
axis : int, optional
    The axis along which {activation} was computed. Default is the last axis.

Returns
-------
ndarray
    Has the common type of the operands, as for :func:`fastact.dense`: float16 (or bfloat16),
    float32 or float64. The 16-bit formats are computed in float32 and rounded once. If all
    operands are integers or bool, it is float64.

Raises
------
ValueError
    For operands without an axis or of different shapes, and masked arrays with masked
    elements.
TypeError
    For complex, longdouble, string, datetime and object operands.
AxisError
    If `axis` is out of bounds.

Notes
-----
NumPy computes the result in several passes. Nevertheless, no floating-point warning is raised,
the result does not depend on the caller's rounding mode and flush-to-zero setting, and the
caller's status flags stay unchanged. {declared.notes}

Examples
--------
>>> import fastact as fa
>>> fa.{declared.name}({given}).tolist()
{list(result)}"""


_EXAMPLES = """Examples
--------
>>> import numpy as np, fastact as fa"""


def _examples(declared: Activation) -> str:
    """Examples: a special value, finite if there is one, and an array over the interval."""
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
    """Examples: the first of the longest special rows, and `axis`."""
    row, result = max(declared.specials, key=lambda special: len(special[0]))
    return f"""{_EXAMPLES}
>>> fa.{declared.name}([{", ".join(map(_written, row))}]).tolist()
{list(result)}
>>> x = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
>>> np.allclose(fa.{declared.name}(x, axis=0), fa.{declared.name}(x.T).T)
True"""


def _written(value: float) -> str:
    """A number as Python source."""
    return repr(value) if isfinite(value) else f"{'-' if value < 0 else ''}np.{abs(value)}"


def _accuracy(ulp: dict[str, float]) -> str:
    return "\n".join(f"    {name:8} {bound:4} ulp" for name, bound in ulp.items())
