"""How an activation is declared: one record that everything else reads."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastact import _masked
from fastact._runtime import engine
from fastact._runtime import ufunc as _ufunc

if TYPE_CHECKING:
    from fastact._typing import BinaryDeclarator, Declarator, ObjectiveDeclarator, RowUfunc


# Each method that dataclasses generate adds to the import of the package.
@dataclass(frozen=True, eq=False, repr=False)
class Activation:
    """What is known of an activation function.

    Attributes
    ----------
    kernel : callable
        The scalar function, in the vocabulary of ``_kernels``; its name is the activation's.
    summary, formula : str
        The first line of the docstring, and the definition.
    notes : str
        The algorithm and where it is from.
    reference : callable
        ``reference(m, *x)``: the definition in terms of a module `m` that has ``exp``,
        ``log1p`` and ``tanh`` in higher precision (mpmath's ``mp``, or gmpy2).
    specials : sequence of tuple
        Inputs followed by the exact result.
    interval : tuple of float
        Where the function is worth a plot or a benchmark.
    ulp : dict
        Largest error in ulp by format name: as measured over all inputs, rounded up, or, for
        float64, a bound that samples stay below. 0.5 means correctly rounded, 0 exact.
    keeps_integers : bool
        Whether integers give integers; else they give float64.
    """

    kernel: Callable[..., Any]
    summary: str
    formula: str
    notes: str
    reference: Callable[..., Any]
    specials: Sequence[tuple[float, ...]]
    interval: tuple[float, float]
    ulp: dict[str, float]
    keeps_integers: bool = False

    @property
    def name(self) -> str:
        return self.kernel.__name__

    @property
    def parameters(self) -> list[str]:
        """The names of the inputs."""
        code = self.kernel.__code__
        return list(code.co_varnames[: code.co_argcount])

    @property
    def nin(self) -> int:
        return len(self.parameters)

    @property
    def results(self) -> list[str]:
        """The names of the outputs."""
        return ["y"]


ACTIVATIONS: dict[str, Activation] = {}
"""Every declared activation by name: the only list of them."""


def activation(**fields: Any) -> "Declarator":
    """Declare the decorated kernel an activation; it becomes the ufunc of that name.

    Parameters
    ----------
    **fields
        The attributes of :class:`Activation` but `kernel`.
    """

    def declare(kernel: Callable[..., Any]) -> np.ufunc:
        declared = Activation(kernel, **fields)
        ACTIVATIONS[declared.name] = declared
        return _ufunc_of(declared)

    return declare  # type: ignore[return-value]


_SUFFIX = "_backward"


@dataclass(frozen=True, eq=False, repr=False)
class Derivative(Activation):
    """What is known of the function that takes a gradient back through an activation.

    Its kernel ``NAME_backward(grad_output, saved)`` gives the gradient with regard to the input
    of the activation ``NAME`` from that with regard to its output. The name of the second
    parameter, "output" or "input", tells what of the activation is to be saved for it.

    Attributes
    ----------
    interval : tuple of float
        As of :class:`Activation`, of `saved`.
    ulp : dict
        A bound in ulp that samples stay below, by format name, with regard to the exact result
        for operands as they are, rounded before or not.
    slope : callable
        ``slope(m, saved)``: by how much the derivative of the activation changes with `saved`.
    of_output : callable, optional
        ``of_output(m, output)``: the derivative in terms of the output, if that is not `saved`.
        An activation whose output does not tell has no gradient as part of a layer.
    """

    slope: Callable[..., Any] = None  # type: ignore[assignment] # those before have defaults
    of_output: Callable[..., Any] | None = None

    @property
    def activation(self) -> str:
        """The name of the activation."""
        return self.name.removesuffix(_SUFFIX)

    @property
    def saved(self) -> str:
        return self.parameters[1]


DERIVATIVES: dict[str, Derivative] = {}
"""Every declared derivative by the name of its activation."""


def element_wise() -> dict[str, Activation]:
    """Activations and derivatives by the names of their ufuncs."""
    return ACTIVATIONS | {declared.name: declared for declared in DERIVATIVES.values()}


def derivative(**fields: Any) -> "BinaryDeclarator":
    """Declare the decorated kernel the derivative of the activation that it is named after.

    Parameters
    ----------
    **fields
        The attributes of :class:`Derivative` but `kernel` and `summary`.
    """

    def declare(kernel: Callable[..., Any]) -> np.ufunc:
        name = kernel.__name__.removesuffix(_SUFFIX)
        summary = f"Gradient with regard to the input of {name}, element-wise."
        declared = Derivative(kernel, summary, **fields)
        if declared.saved not in ("input", "output") or (
            declared.saved == "output" and declared.of_output is not None
        ):
            raise ValueError(
                f"{kernel.__name__}: the second parameter must be called input, with of_output if "
                f"the output tells the derivative, or output, got {declared.saved!r}"
            )
        DERIVATIVES[name] = declared
        return _ufunc_of(declared)

    return declare  # type: ignore[return-value]


def _ufunc_of(declared: Activation) -> np.ufunc:
    return _ufunc.create(
        name=declared.name,
        nin=declared.nin,
        doc=docstring(declared),
        types="bBhHiIlLqQ" * declared.keeps_integers + "efd",
        choose=functools.partial(engine.choose_dtype, keeps_integers=declared.keeps_integers),
        make_loop=functools.partial(
            engine.loop_address, declared.kernel, declared.nin, nout=len(declared.results)
        ),
        make_mixed=functools.partial(engine.mixed_address, nout=len(declared.results)),
        nout=len(declared.results),
    )


class Objective(Activation):
    """What is known of a loss that gradient boosting minimises.

    Its kernel ``NAME(score, label)`` gives the first and the second derivative of the loss by the
    score, and its reference and specials both of them.
    """

    @property
    def results(self) -> list[str]:
        return ["grad", "hess"]


OBJECTIVES: dict[str, Objective] = {}
"""Every declared objective by name."""


def objective(**fields: Any) -> "ObjectiveDeclarator":
    """Declare the decorated kernel an objective; it becomes the ufunc of that name.

    Parameters
    ----------
    **fields
        The attributes of :class:`Activation` but `kernel`.
    """

    def declare(kernel: Callable[..., Any]) -> np.ufunc:
        declared = Objective(kernel, **fields)
        OBJECTIVES[declared.name] = declared
        return _ufunc_of(declared)

    return declare  # type: ignore[return-value]


@dataclass(frozen=True, eq=False, repr=False)
class RowActivation:
    """What is known of an activation function of whole rows, a generalized ufunc "(n)->(n)".

    Attributes
    ----------
    name : str
    steps : type
        A class whose functions are the steps of ``_kernels/row_steps.py``, in the vocabulary of
        ``_kernels/vocabulary.py``.
    summary, formula, notes : str
        As of :class:`Activation`.
    reference : callable
        ``reference(m, row)``: the results for a list of numbers of the module `m`.
    specials : sequence of tuple
        Rows and their results.
    ulp : dict
        A bound in ulp that samples stay below, by format name.
    """

    name: str
    steps: type
    summary: str
    formula: str
    notes: str
    reference: Callable[..., Any]
    specials: Sequence[tuple[Sequence[float], Sequence[float]]]
    ulp: dict[str, float]


ROW_ACTIVATIONS: dict[str, RowActivation] = {}
"""Every declared activation of whole rows by name."""


def row_activation(**fields: Any) -> "RowUfunc":
    """Declare an activation of whole rows; the result is its ufunc.

    Parameters
    ----------
    **fields
        The attributes of :class:`RowActivation`.
    """
    declared = RowActivation(**fields)
    ROW_ACTIVATIONS[declared.name] = declared
    ufunc = _ufunc.create(
        name=declared.name,
        nin=1,
        doc=row_docstring(declared),
        types="efd",
        choose=functools.partial(engine.choose_dtype, keeps_integers=False),
        make_loop=functools.partial(engine.rows_address, declared.steps),
        make_mixed=engine.mixed_rows_address,
        signature="(n)->(n)",
    )
    _masked.refuse(ufunc)
    return ufunc  # type: ignore[return-value]


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
    `grad_output` is the gradient with regard to the output of {declared.activation}, and
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

{_ENVIRONMENT}"""


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
    The axis along which results add up to 1; the last by default.
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
    NaN or +inf anywhere in a row, or -inf everywhere, gives NaN in all of it.

Largest error, as a bound that samples stay below::

{_accuracy(declared.ulp)}

{_ENVIRONMENT} And NumPy lowers the status flags before the loop
of a generalized ufunc."""


def _accuracy(ulp: dict[str, float]) -> str:
    return "\n".join(f"    {name:8} {bound:4} ulp" for name, bound in ulp.items())
