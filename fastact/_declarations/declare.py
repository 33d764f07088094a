"""How an activation is declared: its record is kept, and its ufunc made."""

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
from fastact._runtime import engine
from fastact._runtime import ufunc as _ufunc

if TYPE_CHECKING:
    from fastact._declarations.typing import (
        BinaryDeclarator,
        Declarator,
        ObjectiveDeclarator,
        RowGradientDeclarator,
        RowUfunc,
    )

UFUNCS: dict[str, np.ufunc] = {}
"""The ufuncs of all that is declared, by name."""

ROW_GRADIENTS: dict[str, Callable[..., Any]] = {}
"""The public functions of all declared derivatives of activations of rows, by name."""


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

    return declare  # type: ignore[return-value] # its ufunc, as typing.pyi has it


def derivative(**fields: Any) -> "BinaryDeclarator":
    """Declare the decorated kernel the derivative of the activation that it is named after.

    Parameters
    ----------
    **fields
        The attributes of :class:`Derivative` but `kernel` and `summary`.
    """

    def declare(kernel: Callable[..., Any]) -> np.ufunc:
        name = kernel.__name__.removesuffix(SUFFIX)
        summary = f"Gradient with respect to the input of {name}, element-wise."
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

    return declare  # type: ignore[return-value] # its ufunc, as typing.pyi has it


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

    return declare  # type: ignore[return-value] # its ufunc, as typing.pyi has it


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
    hidden.refuse(ufunc)
    UFUNCS[declared.name] = ufunc
    return ufunc  # type: ignore[return-value] # as typing.pyi has it


def row_derivative(**fields: Any) -> "RowGradientDeclarator":
    """Declare the decorated rule the derivative of the activation of rows that it is named after.

    It becomes the public function ``NAME_backward(grad_output, output, axis=-1)``.

    Parameters
    ----------
    **fields
        The attributes of :class:`RowDerivative` but `rule`.
    """

    def declare(rule: Callable[..., Any]) -> Callable[..., Any]:
        declared = RowDerivative(rule, **fields)
        ROW_DERIVATIVES[declared.activation] = declared
        function = row_gradients.function_of(declared)
        ROW_GRADIENTS[declared.name] = function
        return function

    return declare


def _ufunc_of(declared: Activation) -> np.ufunc:
    ufunc = _ufunc.create(
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
    UFUNCS[declared.name] = ufunc
    return ufunc
