"""Functions that declare activations: each stores a record and makes the ufunc."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from fastact._declarations import hidden, row_gradients
from fastact._declarations.docstrings import docstring, row_docstring
from fastact._declarations.records import (
    ACTIVATIONS,
    DERIVATIVES,
    OBJECTIVES,
    ROW_ACTIVATIONS,
    ROW_DERIVATIVES,
    SUFFIX,
    Activation,
    Derivative,
    Objective,
    RowActivation,
    RowDerivative,
)
from fastact._runtime import engine, ufunc

if TYPE_CHECKING:
    from fastact._declarations.typing import (
        BinaryDeclarator,
        Declarator,
        ObjectiveDeclarator,
        RowGradientDeclarator,
        RowUfunc,
    )

UFUNCS: dict[str, np.ufunc] = {}
"""All declared ufuncs by name."""

ROW_GRADIENTS: dict[str, Callable[..., Any]] = {}
"""The public functions of all declared derivatives of row activations, by name."""


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
        return _ufunc_of(declared)

    return declare  # type: ignore[return-value] # typing.pyi declares the type


def derivative(**fields: Any) -> "BinaryDeclarator":
    """Declare the derivative of the activation ``NAME``, by a kernel ``NAME_backward``.

    Parameters
    ----------
    **fields
        The attributes of :class:`Derivative` except `kernel` and `summary`.
    """

    def declare(kernel: Callable[..., Any]) -> np.ufunc:
        name = kernel.__name__.removesuffix(SUFFIX)
        summary = f"Gradient with respect to the input of {name}, element-wise."
        declared = Derivative(kernel, summary, **fields)
        if declared.saved not in ("input", "output") or (
            declared.saved == "output" and declared.of_output is not None
        ):
            raise ValueError(
                f"{kernel.__name__}: the second parameter must be named input, or output if there "
                f"is no of_output, got {declared.saved!r}"
            )
        DERIVATIVES[name] = declared
        return _ufunc_of(declared)

    return declare  # type: ignore[return-value] # typing.pyi declares the type


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
    made = ufunc.create(
        name=declared.name,
        nin=1,
        doc=row_docstring(declared),
        types="efd",
        choose=functools.partial(engine.choose_dtype, keeps_integers=False),
        make_loop=functools.partial(engine.rows_address, declared.steps),
        make_mixed=engine.mixed_rows_address,
        signature="(n)->(n)",
    )
    hidden.refuse(made)
    UFUNCS[declared.name] = made
    return made  # type: ignore[return-value] # typing.pyi declares the type


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
        function = row_gradients.function_of(declared)
        ROW_GRADIENTS[declared.name] = function
        return function

    return declare


def _ufunc_of(declared: Activation) -> np.ufunc:
    made = ufunc.create(
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
    UFUNCS[declared.name] = made
    return made
