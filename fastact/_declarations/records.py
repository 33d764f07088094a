"""What is known of each activation: records that everything else reads."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


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


SUFFIX = "_backward"
"""Of the name of a derivative, behind that of its activation."""


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
        return self.name.removesuffix(SUFFIX)

    @property
    def saved(self) -> str:
        return self.parameters[1]


DERIVATIVES: dict[str, Derivative] = {}
"""Every declared derivative by the name of its activation."""


def element_wise() -> dict[str, Activation]:
    """Activations and derivatives by the names of their ufuncs."""
    return ACTIVATIONS | {declared.name: declared for declared in DERIVATIVES.values()}


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
