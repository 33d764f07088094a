"""Records of the declared functions, which everything else reads."""

from collections.abc import Callable, Sequence
from math import inf
from typing import Any, ClassVar, NamedTuple, dataclass_transform


class TorchModule(NamedTuple):
    """A class of ``torch.nn`` whose modules compute an activation.

    Attributes
    ----------
    name : str
        The name of the class.
    accepts : callable
        ``accepts(module)``: whether a module computes the activation with its parameters. By
        default, all do.
    requirement : str
        What `accepts` requires, worded for an error message: "have beta=1".
    """

    name: str
    accepts: Callable[[Any], bool] = lambda module: True
    requirement: str = ""


@dataclass_transform()
class Record:
    """A class whose annotated attributes are the parameters of its constructor.

    Like a dataclass, but ``dataclasses`` need not be imported with the package, nor generate code
    for each class then.
    """

    fields: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        cls.fields += tuple(name for name in cls.__annotations__ if name not in cls.fields)

    def __init__(self, *values: Any, **named: Any) -> None:
        cls = type(self)
        given = dict(zip(cls.fields, values, strict=False))
        required = {name for name in cls.fields if not hasattr(cls, name)}
        wrong = {
            "twice": given.keys() & named.keys(),
            "without a name": values[len(cls.fields) :],
            "unknown": named.keys() - cls.fields,
            "missing": required - given.keys() - named.keys(),
        }
        if any(wrong.values()):
            what = "; ".join(
                f"{how}: {sorted(which, key=str)}" for how, which in wrong.items() if which
            )
            raise TypeError(f"{cls.__name__}: expected {', '.join(cls.fields)}; got {what}")
        vars(self).update(given | named)


class Activation(Record):
    """The record of an element-wise activation.

    Attributes
    ----------
    kernel : callable
        The scalar function, in the vocabulary of ``_kernels``. The activation has its name.
    summary, formula : str
        The first line of the docstring, and the definition.
    notes : str
        The algorithm and its sources.
    reference : callable
        ``reference(m, *x)``: the definition in terms of a module `m` that has ``exp``,
        ``log1p`` and ``tanh`` in higher precision (mpmath's ``mp``, or gmpy2).
    specials : sequence of tuple
        Inputs followed by the exact result.
    interval : tuple of float
        The inputs shown in plots and used in benchmarks.
    ulp : dict
        Largest error in ulp by format name: measured over all inputs and rounded up, or, for
        float64, a bound that holds for all sampled inputs. 0.5 means correctly rounded, 0 exact.
    keeps_integers : bool
        Whether integers keep their type. Otherwise they are converted to float64.
    nondecreasing : bool
        Whether a larger input never gives a smaller result.
    range : tuple of float
        The smallest and the largest result, including those for infinite inputs.
    steepest : float
        The largest absolute value of the derivative; infinite where the function jumps.
    torch_modules : sequence of TorchModule
        The modules that :meth:`fastact.Sequential.from_torch` converts to the activation.
    sklearn_names : sequence of str
        The names of the activation in the neural networks of scikit-learn.
    """

    kernel: Callable[..., Any]
    summary: str
    formula: str
    notes: str
    reference: Callable[..., Any]
    specials: Sequence[tuple[float, ...]]
    interval: tuple[float, float]
    ulp: dict[str, float]
    # The defaults below assume nothing about the function.
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
"""Follows the name of the activation in the name of its derivative."""


class Derivative(Activation):
    """The record of a function that propagates a gradient back through an activation.

    The kernel ``NAME_backward(grad_output, saved)`` computes the gradient with respect to the
    input of the activation ``NAME``, given the gradient with respect to its output. The name of the
    second parameter, "output" or "input", says which of the two must be saved for it.

    Attributes
    ----------
    interval : tuple of float
        As for :class:`Activation`, but the interval of `saved`.
    ulp : dict
        By format name, a bound in ulp that holds for all sampled inputs. Errors are with respect
        to the exact result for the operands as given, even if these were rounded before.
    slope : callable
        ``slope(m, saved)``: the derivative with respect to `saved` of the activation's derivative.
    of_output : callable, optional
        ``of_output(m, output)``: the derivative in terms of the output, where `saved` is the
        input. Without it, such an activation has no gradient as part of a layer.
    jumps : sequence of float
        The values of `saved` where the derivative jumps.
    infinity_times_zero : float, optional
        The result for an infinite gradient where the derivative is 0: 0 or NaN.
    """

    slope: Callable[..., Any] = None  # type: ignore[assignment] # the fields before have defaults
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
        """Whether the derivative can be computed from the output of the activation."""
        return self.saved == "output" or self.of_output is not None


DERIVATIVES: dict[str, Derivative] = {}
"""Every declared derivative by the name of its activation."""


def element_wise() -> dict[str, Activation]:
    """Activations and derivatives by the names of their ufuncs."""
    return ACTIVATIONS | {declared.name: declared for declared in DERIVATIVES.values()}


class Objective(Activation):
    """The record of a loss that gradient boosting minimises.

    The kernel ``NAME(score, label)`` returns the first and the second derivative of the loss with
    respect to the score. Its reference and specials contain both of them.
    """

    @property
    def results(self) -> list[str]:
        return ["grad", "hess"]


OBJECTIVES: dict[str, Objective] = {}
"""Every declared objective by name."""


class RowActivation(Record):
    """The record of an activation of whole rows, which is a generalized ufunc "(n)->(n)".

    Attributes
    ----------
    name : str
    steps : type
        A class whose functions are the steps of ``_kernels/row_steps.py``, in the vocabulary of
        ``_kernels/vocabulary.py``.
    summary, formula, notes : str
        As of :class:`Activation`.
    invalid : str
        A sentence that says for which rows the result is NaN.
    reference : callable
        ``reference(xp, x)``: the definition, along the last axis of an array `x`, in terms of a
        module `xp` that has ``exp``, ``log``, ``max`` and ``sum`` with the signatures of the
        array API standard (NumPy, autograd's NumPy, or a module of higher precision).
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


class RowDerivative(Record):
    """The record of a function that propagates a gradient back through a row activation.

    Attributes
    ----------
    rule : callable
        ``NAME_backward(xp, grad_output, output, axis)``: the gradient with respect to the input of
        the activation ``NAME``, given the output and the gradient with respect to it, in terms of
        a module `xp` as for ``RowActivation.reference``.
    formula, notes : str
        The definition, and a bound on the error.
    specials : sequence of tuple
        Rows of gradients, rows of outputs, and the exact results.
    tangent : callable, optional
        ``tangent(xp, tangent, output, axis)``: the derivative of the output in the direction of
        `tangent`. The default is `rule`, for activations whose Jacobian is symmetric.
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
"""Every declared derivative of a row activation by the name of the activation."""


def activations() -> dict[str, Activation | RowActivation]:
    """The activations with one input, which layers accept."""
    unary = {name: declared for name, declared in ACTIVATIONS.items() if declared.nin == 1}
    return unary | ROW_ACTIVATIONS
