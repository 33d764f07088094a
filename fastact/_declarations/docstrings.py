"""The docstrings of ufuncs, written from their declarations."""

from collections.abc import Mapping, Sequence
from math import ceil, isfinite
from typing import Any

from fastact._declarations.records import (
    WITHOUT_FMA,
    WITHOUT_FMA_BACKWARD,
    Activation,
    Derivative,
    Normalization,
    Objective,
    ReductionDerivative,
    RowActivation,
    RowDerivative,
    RowReduction,
    parameters_of,
)

_ENVIRONMENT = """No floating-point warning is raised. The result does not depend on the caller's
rounding mode and flush-to-zero setting, and the caller's status flags stay unchanged. Inputs of
several types are converted to their common type with one rounding, to nearest even. Some casts
are made by NumPy, as for any ufunc, with its warnings and in the caller's rounding mode: results
for an `out` of another type, inputs if `dtype` or `signature` is given, Python scalars beside
arrays narrower than float64, and the casts of reductions and ``at``."""


def docstring(declared: Activation) -> str:
    """The docstring of the ufunc, without the signature line that NumPy adds."""
    inputs = ", ".join(declared.inputs)
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
    if declared.nin == 1:
        measured = """measured over every input of the 16- and 32-bit formats; for float64, a bound
that holds for all sampled inputs"""
        if declared.ulp["float32"]:
            less = declared.ulp["float64"] < ceil(declared.ulp["float64"])
            measured += f""" (without fma, float32 and float64 may have up to {WITHOUT_FMA} ulp
more{f", but less than {ceil(declared.ulp['float64'])} in all" if less else ""})"""
    else:
        measured = "a bound that holds for all sampled inputs"
        if isinstance(declared, Derivative) and declared.ulp["float32"] > 0.5:
            measured += f""" (without fma, float32 and float64 may
have up to {WITHOUT_FMA_BACKWARD} ulp more)"""
    if isinstance(declared, Derivative):
        *others, last = declared.inputs[1:]
        given = f"`{last}` is the {last}"
        if others:
            given = f"the others are the {', '.join(others)} and {last}"
        operands = f"""
    `grad_output` is the gradient with respect to the output of {declared.activation}, and
    {given} of {declared.activation}."""
    elif declared.parameters:
        given = " and ".join(f"`{name}`" for name in declared.parameters)
        operands = f"""
    {given} may be one number, or an array that is broadcast with the others."""
        if declared.defaults:
            values = " and ".join(f"{value:g}" for value in declared.defaults.values())
            operands += f""" In a layer
    that is given none, {given} is {values}."""
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
{declared.notes}{_elsewhere(declared.elsewhere)}

Special values::

{specials}

{nan}

Largest error, {measured}::

{_accuracy(declared.ulp)}

{_ENVIRONMENT}

{_examples(declared)}"""


def row_docstring(declared: RowActivation | RowReduction) -> str:
    """The docstring of the ufunc of a function of rows."""
    specials = "\n".join(
        f"    {declared.name}({list(row)}) = {_shown(result)}" for row, result in declared.specials
    )
    shape, more, y = "the shape of `x`, and may be `x`", "", "ndarray\n    Has the shape of `x`."
    casts = ""
    if isinstance(declared, RowReduction):
        shape = "the shape of the result"
        more = """
keepdims : bool, optional
    If True, the axis is kept, with length 1. Default is False."""
        y = """ndarray or scalar
    Has the shape of `x` without the axis. A scalar if `x` has one axis."""
        casts = "\nInputs of other types are cast by NumPy."
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
    Array into which the result is written. It must have {shape}.
axis : int, optional
    The axis along which the rows lie. Default is the last axis.{more}
**kwargs
    Other arguments of generalized ufuncs: `axes`, `casting`, `order`, `dtype`, `subok`,
    `signature`.

Returns
-------
y : {y}

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
{declared.notes}{_elsewhere(declared.elsewhere)}

The result for a row depends on that row alone. It is the same to the last bit, whatever the
content, number and memory layout of the other rows.

Special values::

{specials}

{declared.invalid}

Largest error, a bound that holds for all sampled inputs::

{_accuracy(declared.ulp)}

{_ENVIRONMENT}
NumPy clears the status flags before it calls the loop of a generalized ufunc.{casts}

{_row_examples(declared)}"""


def normalization_docstring(declared: Normalization) -> str:
    """The docstring of the ufunc of a function that normalises rows."""
    name, columns = declared.name, ", ".join(declared.columns)
    specials = "\n".join(
        f"    {name}({', '.join(map(str, operands))}) = {_shown(result)}"
        for *operands, result in declared.specials
    )
    numbers = ["np.ones(n)", "np.zeros(n)"][: len(declared.columns)]
    without = " and ".join(
        f"``{number}`` for `{column}`"
        for number, column in zip(numbers, declared.columns, strict=True)
    )
    (*operands, result), *_ = declared.specials
    arguments = ", ".join(map(_written_row, operands))
    axes = ", ".join(["0"] * (1 + len(declared.columns)))
    given = ", ".join(["x", *declared.columns, "1e-5"])
    made = ", ".join(["np.ones(2)", "np.zeros(2)"][: len(declared.columns)])
    return f"""{declared.summary}

{declared.formula}

Parameters
----------
x : array_like, shape (..., n)
    float16, float32, float64 and (with ml_dtypes) bfloat16 keep their type.
{columns} : array_like, shape (n,) or (..., n)
    A number for each element of a row. Axes before the last one are broadcast with those of `x`,
    so that rows can have their own. {without.capitalize()} leaves a function without it.
eps : array_like
    Is added to the mean square: one number, or one for each row. PyTorch's LayerNorm has 1e-5 by
    default, its RMSNorm ``np.finfo(x.dtype).eps``. It is converted to the common type: 1e-5 is
    1.0014e-05 in float16.
out : ndarray, None, or tuple of ndarray and None, optional
    Array into which the result is written. It must have the shape of the result, and may be one
    of the inputs.
axis : int, optional
    The axis along which the rows lie in all operands. Default is the last axis.
axes : list of tuple of int, optional
    The same for each operand: ``axes=[1, {axes[3:]}, (), 1]`` for the axis 1 of `x`.
**kwargs
    Other arguments of generalized ufuncs: `casting`, `order`, `dtype`, `subok`, `signature`.

Returns
-------
y : ndarray
    Has the shape of the broadcast operands, and their common type by NumPy's rules. If that is
    an integer type or bool, it is float64. Inputs of other types are cast by NumPy.

Raises
------
TypeError
    For complex, longdouble, string, datetime and object inputs, and without one of the operands:
    a ufunc has no default values.
ValueError
    For operands of different lengths, an `x` or {" or ".join(declared.columns)} without an axis,
    masked arrays with masked elements, and a pandas Series, Index or DataFrame of a nullable type
    with missing values. Hidden elements are not detected where they are not for
    :data:`fastact.softmax`.

Notes
-----
{declared.notes}{_elsewhere(declared.elsewhere)}

The result for a row depends on the operands for that row alone. It is the same to the last bit,
whatever the content, number and memory layout of the other rows. There is no derivative yet.

Special values::

{specials}

{declared.invalid}

Largest error, a bound that holds for all sampled inputs::

{_accuracy(declared.ulp)}

{_ENVIRONMENT}
NumPy clears the status flags before it calls the loop of a generalized ufunc.

{_EXAMPLES}
>>> fa.{name}({arguments}).tolist()
{_shown(result)}
>>> x, {columns} = np.ones((2, 3), np.float32), {made}
>>> fa.{name}({given}, axis=0).shape
(2, 3)"""


def row_gradient_docstring(declared: RowDerivative | ReductionDerivative) -> str:
    """The docstring of the derivative of a function of rows."""
    activation = declared.activation
    gradient = f"The gradient with respect to the output of {activation}."
    saved = f"output : array_like\n    The output of {activation}, with the shape of `grad_output`."
    shapes, result_has = "of different shapes", "the common type of the operands"
    g, row, result = declared.specials[0]
    if isinstance(declared, ReductionDerivative):
        gradient = f"""The gradient with respect to the output of {activation}. It has the shape of
    `input` without the axis, or with length 1 along it."""
        saved = f"input : array_like\n    The input of {activation}."
        shapes, result_has = "whose shapes do not match", "the shape of `input` and the common type"
    given = ", ".join(_written_row(operand) for operand in (g, row))
    return f"""Gradient with respect to the input of {activation}.

``{declared.formula}``

Parameters
----------
grad_output : array_like
    {gradient}
{saved}
axis : int, optional
    The axis along which {activation} was computed. Default is the last axis.

Returns
-------
ndarray
    Has {result_has}, as for :func:`fastact.dense`:
    float16 (or bfloat16), float32 or float64. The 16-bit formats are computed in float32 and
    rounded once. If all operands are integers or bool, it is float64.

Raises
------
ValueError
    For operands without an axis or {shapes}, and masked arrays with masked
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
    # Parameters are numbers here.
    parameters = parameters_of(declared)
    names = [name for name in declared.inputs if name not in parameters]
    operands = [*names, *(_written(values[0]) for values in parameters.values())]
    first = declared.results[0]
    low, high = declared.interval
    return f"""{_EXAMPLES}
>>> fa.{declared.name}({given})
{shown}
>>> {" = ".join(names)} = np.linspace({low}, {high}, 5, dtype=np.float32)
>>> {", ".join(declared.results)} = fa.{declared.name}({", ".join(operands)})
>>> {first}.dtype, {first}.shape
(dtype('float32'), (5,))"""


def _shown(result: Any) -> str:
    """The result for a row: a row, or a number."""
    return str(list(result) if isinstance(result, Sequence) else result)


def _row_examples(declared: RowActivation | RowReduction) -> str:
    """Examples: the first of the longest special rows, and `axis`."""
    row, result = max(declared.specials, key=lambda special: len(special[0]))
    return f"""{_EXAMPLES}
>>> fa.{declared.name}([{", ".join(map(_written, row))}]).tolist()
{_shown(result)}
>>> x = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
>>> np.allclose(fa.{declared.name}(x, axis=0), fa.{declared.name}(x.T).T)
True"""


def _written_row(values: float | Sequence[float]) -> str:
    """A row, or a number, as Python source."""
    return (
        f"[{', '.join(map(_written, values))}]"
        if isinstance(values, Sequence)
        else _written(values)
    )


def _written(value: float) -> str:
    """A number as Python source."""
    return repr(value) if isfinite(value) else f"{'-' if value < 0 else ''}np.{abs(value)}"


def _elsewhere(names: Mapping[str, str]) -> str:
    """A paragraph with the names in other libraries, if there are any."""
    if not names:
        return ""
    listed = "\n".join(f"    {library:8} {name}" for library, name in names.items())
    return f"\n\nIn other libraries::\n\n{listed}"


def _accuracy(ulp: dict[str, float]) -> str:
    return "\n".join(f"    {name:8} {bound:4} ulp" for name, bound in ulp.items())
