"""Functions that declare activations: each stores a record and makes the ufunc."""

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastact._declarations import hidden, row_gradients
from fastact._declarations.docstrings import (
    docstring,
    normalization_docstring,
    row_docstring,
    row_gradient_docstring,
)
from fastact._declarations.records import (
    ACTIVATIONS,
    DERIVATIVES,
    FAST,
    NORMALIZATIONS,
    OBJECTIVES,
    REDUCTION_DERIVATIVES,
    ROW_ACTIVATIONS,
    ROW_DERIVATIVES,
    ROW_REDUCTIONS,
    SUFFIX,
    Activation,
    Derivative,
    Normalization,
    Objective,
    ReductionDerivative,
    RowActivation,
    RowDerivative,
    RowReduction,
    fast_of,
    inputs_of,
)
from fastact._runtime import engine, ufunc

if TYPE_CHECKING:
    from fastact._declarations.typing import (
        Declarator,
        DerivativeDeclarator,
        NormalizationUfunc,
        ObjectiveDeclarator,
        ReductionGradientDeclarator,
        RowGradientDeclarator,
        RowReductionUfunc,
        RowUfunc,
    )

UFUNCS: dict[str, np.ufunc] = {}
"""All declared ufuncs by name, without the fast tier."""

ROW_GRADIENTS: dict[str, Callable[..., Any]] = {}
"""The public functions of all declared derivatives of functions of rows, by name."""


def activation(**fields: Any) -> "Declarator":
    """Declare an activation; the decorated kernel becomes the ufunc of the same name.

    Parameters
    ----------
    **fields
        The attributes of :class:`Activation` except `kernel`.
    """

    def declare(kernel: Callable[..., Any]) -> np.ufunc:
        declared = Activation(kernel, **fields)
        ACTIVATIONS[declared.name] = declared
        if (fast := fast_of(declared)) is not None:
            FAST[fast.name] = fast
        return _ufunc_of(declared)

    return declare  # type: ignore[return-value] # typing.pyi declares the type


def ufunc_of(name: str) -> np.ufunc:
    """The ufunc of any declared `name`, also of the fast tier, whose ufuncs are made here."""
    return _fast(name) if name in FAST else UFUNCS[name]


@functools.cache
def _fast(name: str) -> np.ufunc:
    declared = FAST[name]
    return _make(declared, declared.of, "fastact.fast")


def derivative(**fields: Any) -> "DerivativeDeclarator":
    """Declare the derivative of the activation ``NAME``, by a kernel ``NAME_backward``.

    Parameters
    ----------
    **fields
        The attributes of :class:`Derivative` except `kernel` and `summary`.
    """

    def declare(kernel: Callable[..., Any]) -> np.ufunc:
        name = kernel.__name__.removesuffix(SUFFIX)
        inputs = "inputs" if len(inputs_of(ACTIVATIONS[name])) > 1 else "input"
        summary = f"Gradient with respect to the {inputs} of {name}, element-wise."
        declared = Derivative(kernel, summary, **fields)
        _check_derivative(declared)
        DERIVATIVES[name] = declared
        return _ufunc_of(declared)

    return declare  # type: ignore[return-value] # typing.pyi declares the type


def _check_derivative(declared: Derivative) -> None:
    """Raise ValueError unless the inputs of the kernel are those that a derivative has."""
    activation = ACTIVATIONS[declared.activation]
    of_activation = inputs_of(activation)
    first, *given = declared.inputs
    saved = [name for name in given if name not in activation.parameters]
    known = ["output", *(name for name in of_activation if name not in activation.parameters)]
    in_order = [name for name in (*known, *activation.parameters) if name in given]
    complete = first == "grad_output" and saved and given == in_order
    if not complete or given[len(saved) :] != list(activation.parameters):
        raise ValueError(
            f"{declared.name}: inputs must be grad_output, then one or more of {', '.join(known)}, "
            f"then all of {list(activation.parameters)}, got {', '.join(declared.inputs)}"
        )
    if declared.of_output is not None and given != ["input"]:
        raise ValueError(
            f"{declared.name}: of_output is for derivatives of (grad_output, input), got "
            f"({', '.join(declared.inputs)})"
        )


def objective(**fields: Any) -> "ObjectiveDeclarator":
    """Declare an objective; the decorated kernel becomes the ufunc of the same name.

    Parameters
    ----------
    **fields
        The attributes of :class:`Objective` except `kernel`.
    """

    def declare(kernel: Callable[..., Any]) -> np.ufunc:
        declared = Objective(kernel, **fields)
        OBJECTIVES[declared.name] = declared
        return _ufunc_of(declared)

    return declare  # type: ignore[return-value] # typing.pyi declares the type


def row_activation(**fields: Any) -> "RowUfunc":
    """Declare an activation of whole rows and return its ufunc.

    Parameters
    ----------
    **fields
        The attributes of :class:`RowActivation`.
    """
    declared = RowActivation(**fields)
    ROW_ACTIVATIONS[declared.name] = declared
    return _of_rows(  # type: ignore[return-value] # typing.pyi declares the type
        declared, "(n)->(n)", row_docstring(declared), make_mixed=engine.mixed_rows_address
    )


def row_reduction(**fields: Any) -> "RowReductionUfunc":
    """Declare a function of whole rows with one result, and return its ufunc.

    Parameters
    ----------
    **fields
        The attributes of :class:`RowReduction`.
    """
    declared = RowReduction(**fields)
    ROW_REDUCTIONS[declared.name] = declared
    return _of_rows(declared, "(n)->()", row_docstring(declared))  # type: ignore[return-value] # as above


def normalization(**fields: Any) -> "NormalizationUfunc":
    """Declare a function that normalises rows, and return its ufunc.

    Parameters
    ----------
    **fields
        The attributes of :class:`Normalization`.
    """
    declared = Normalization(**fields)
    NORMALIZATIONS[declared.name] = declared
    return _of_rows(  # type: ignore[return-value] # as above
        declared,
        declared.signature,
        normalization_docstring(declared),
        engine.normalization_address,
        inputs=["x", *declared.parameters],
    )


def _of_rows(
    declared: RowActivation | RowReduction | Normalization,
    signature: str,
    doc: str,
    address: Callable[..., int] = engine.rows_address,
    make_mixed: ufunc.MakeMixed | None = None,
    inputs: Sequence[str] = ("x",),
) -> np.ufunc:
    made = ufunc.create(
        name=declared.name,
        nin=len(inputs),
        doc=doc,
        types="efd",
        choose=functools.partial(engine.choose_dtype, keeps_integers=False),
        make_loop=functools.partial(address, declared.steps),
        make_mixed=make_mixed,
        signature=signature,
    )
    hidden.refuse(made, inputs)
    UFUNCS[declared.name] = made
    return made


def row_derivative(**fields: Any) -> "RowGradientDeclarator":
    """Declare the derivative of the row activation ``NAME``, by a rule ``NAME_backward``.

    The rule becomes the public function ``NAME_backward(grad_output, output, axis=-1)``.

    Parameters
    ----------
    **fields
        The attributes of :class:`RowDerivative` except `rule`.
    """

    def declare(rule: Callable[..., Any]) -> Callable[..., Any]:
        declared = RowDerivative(rule, **fields)
        ROW_DERIVATIVES[declared.activation] = declared
        return _public(declared, row_gradients.of_output(declared))

    return declare


def reduction_derivative(**fields: Any) -> "ReductionGradientDeclarator":
    """Declare the derivative of the reduction of rows ``NAME``, by a rule ``NAME_backward``.

    The rule becomes the public function ``NAME_backward(grad_output, input, axis=-1)``.

    Parameters
    ----------
    **fields
        The attributes of :class:`ReductionDerivative` except `rule`.
    """

    def declare(rule: Callable[..., Any]) -> Callable[..., Any]:
        declared = ReductionDerivative(rule, **fields)
        REDUCTION_DERIVATIVES[declared.activation] = declared
        return _public(declared, row_gradients.of_input(declared))

    return declare


def _public(
    declared: RowDerivative | ReductionDerivative, function: Callable[..., Any]
) -> Callable[..., Any]:
    """The public function of a derivative, with the module and the name of its rule."""
    function.__name__ = function.__qualname__ = declared.name
    function.__module__ = declared.rule.__module__
    function.__doc__ = row_gradient_docstring(declared)
    ROW_GRADIENTS[declared.name] = function
    return function


def _ufunc_of(declared: Activation) -> np.ufunc:
    made = _make(declared, declared.name, "fastact")
    UFUNCS[declared.name] = made
    return made


def _make(declared: Activation, name: str, module: str) -> np.ufunc:
    return ufunc.create(
        name=name,
        module=module,
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
