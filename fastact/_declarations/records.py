"""What is known of each activation: records that everything else reads."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, NamedTuple


class TorchModule(NamedTuple):
    """A class of ``torch.nn`` whose modules compute an activation.

    Attributes
    ----------
    name : str
        Of the class.
    accepts : callable
        ``accepts(module)``: whether a module with its parameters is that activation; all are by
        default.
    requirement : str
        What `accepts` asks for, as an error message says it: "have beta=1".
    """

    name: str
    accepts: Callable[[Any], bool] = lambda module: True
    requirement: str = ""


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
    nondecreasing : bool
        Whether a larger input never gives a smaller result.
    range : tuple of float
        The least and the greatest result, of infinite inputs too.
    steepest : float
        The largest absolute value of the derivative; infinite where the function jumps.
    torch_modules : sequence of TorchModule
        Those that :meth:`fastact.Sequential.from_torch` takes for the activation.
    sklearn_names : sequence of str
        The names that the neural networks of scikit-learn have for the activation.
    """

    kernel: Callable[..., Any]
    summary: str
    formula: str
    notes: str
    reference: Callable[..., Any]
    specials: Sequence[tuple[float, ...]]
    interval: tuple[float, float]
    ulp: dict[str, float]
    # From here on, what is not declared is not assumed.
    keeps_integers: bool = False
    nondecreasing: bool = False
    range: tuple[float, float] = (-inf, inf)
    steepest: float = inf
    torch_modules: Sequence[TorchModule] = ()
    sklearn_names: Sequence[str] = ()

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

    Its kernel ``NAME_backward(grad_output, saved)`` gives the gradient with respect to the input
    of the activation ``NAME`` from that with respect to its output. The name of the second
    parameter, "output" or "input", tells what of the activation is to be saved for it.

    Attributes
    ----------
    interval : tuple of float
        As of :class:`Activation`, of `saved`.
    ulp : dict
        A bound in ulp that samples stay below, by format name, with respect to the exact result
        for operands as they are, rounded before or not.
    slope : callable
        ``slope(m, saved)``: by how much the derivative of the activation changes with `saved`.
    of_output : callable, optional
        ``of_output(m, output)``: the derivative in terms of the output, if that is not `saved`.
        An activation whose output does not tell has no gradient as part of a layer.
    jumps : sequence of float
        The values of `saved` where the derivative jumps.
    infinity_times_zero : float, optional
        What an infinite gradient gives where the derivative is 0: 0 or NaN.
    """

    slope: Callable[..., Any] = None  # type: ignore[assignment] # those before have defaults
    of_output: Callable[..., Any] | None = None
    jumps: Sequence[float] = ()
    infinity_times_zero: float | None = None

    @property
    def activation(self) -> str:
        """The name of the activation."""
        return self.name.removesuffix(SUFFIX)

    @property
    def saved(self) -> str:
        return self.parameters[1]

    @property
    def output_tells(self) -> bool:
        """Whether the derivative follows from the output of the activation."""
        return self.saved == "output" or self.of_output is not None


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
    invalid : str
        A sentence that says which rows give NaN.
    reference : callable
        ``reference(xp, x)``: the definition, along the last axis of an array `x`, in terms of a
        module `xp` that has ``exp``, ``log``, ``max`` and ``sum`` with the signatures of the
        array API standard (NumPy, autograd's NumPy, or one in higher precision).
    specials : sequence of tuple
        Rows and their results.
    ulp : dict
        A bound in ulp that samples stay below, by format name.
    torch_modules, sklearn_names : sequence
        As of :class:`Activation`.
    """

    name: str
    steps: type
    summary: str
    formula: str
    notes: str
    invalid: str
    reference: Callable[..., Any]
    specials: Sequence[tuple[Sequence[float], Sequence[float]]]
    ulp: dict[str, float]
    torch_modules: Sequence[TorchModule] = ()
    sklearn_names: Sequence[str] = ()


ROW_ACTIVATIONS: dict[str, RowActivation] = {}
"""Every declared activation of whole rows by name."""


@dataclass(frozen=True, eq=False, repr=False)
class RowDerivative:
    """What is known of the function that takes a gradient back through an activation of rows.

    Attributes
    ----------
    rule : callable
        ``NAME_backward(xp, grad_output, output, axis)``: the gradient with respect to the input of
        the activation ``NAME`` from those of its output and the output itself, in terms of a
        module `xp` as of ``RowActivation.reference``.
    formula, notes : str
        The definition, and how large errors are.
    specials : sequence of tuple
        Rows of gradients, rows of outputs, and the exact results.
    tangent : callable, optional
        ``tangent(xp, tangent, output, axis)``: the derivative of the output in the direction of
        `tangent`. By default that is `rule`, for activations whose Jacobian is symmetric.
    """

    rule: Callable[..., Any]
    formula: str
    notes: str
    specials: Sequence[tuple[Sequence[float], Sequence[float], Sequence[float]]]
    tangent: Callable[..., Any] | None = None

    @property
    def name(self) -> str:
        return self.rule.__name__

    @property
    def activation(self) -> str:
        """The name of the activation."""
        return self.name.removesuffix(SUFFIX)


ROW_DERIVATIVES: dict[str, RowDerivative] = {}
"""Every declared derivative of an activation of whole rows by the name of its activation."""


def activations() -> dict[str, Activation | RowActivation]:
    """The activations of one input, which a layer may have."""
    unary = {name: declared for name, declared in ACTIVATIONS.items() if declared.nin == 1}
    return unary | ROW_ACTIVATIONS
