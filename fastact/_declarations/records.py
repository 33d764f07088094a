"""Records of the declared functions, which everything else reads."""

from collections.abc import Callable, Mapping, Sequence
from math import ceil, inf
from types import MappingProxyType
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
    parameters : callable
        ``parameters(module)``: the parameters of the activation, each a number or a tensor with a
        value for each column or for all.
    """

    name: str
    accepts: Callable[[Any], bool] = lambda module: True
    requirement: str = ""
    parameters: Callable[[Any], tuple[Any, ...]] = lambda module: ()


class OnnxOperator(NamedTuple):
    """An operator of ONNX that computes an activation.

    Attributes
    ----------
    name : str
        The operator: "Relu".
    operands : callable
        ``operands(*inputs, **attributes)``, with the inputs of the operator after the first and its
        attributes: the parameters of the activation, or None if the operator computes something
        else then. Its defaults are those of ONNX. The axis of a function of rows is not among them.
    requirement : str
        What `operands` requires, worded for an error message: "have alpha=1".
    """

    name: str
    operands: Callable[..., tuple[Any, ...] | None] = lambda: ()
    requirement: str = ""


class KerasFunction(NamedTuple):
    """A function of Keras' NumPy backend that computes an activation.

    Attributes
    ----------
    name : str
        The module or class and the name: "nn.relu".
    operands : callable
        ``operands(*arguments)``, with the arguments of the function after the first: the parameters
        of the activation, or None if the function computes something else then. By default, there
        are no arguments and no parameters. The axis of a function of rows is not among them, nor
        that of a function of two inputs, which are halves of an array along an axis.
    requirement : str
        What `operands` requires of the arguments, worded for an error message: "have alpha=1".
    """

    name: str
    operands: Callable[..., tuple[float, ...] | None] = lambda: ()
    requirement: str = ""

    @property
    def public(self) -> str:
        """The name in ``keras.activations``."""
        place, _, key = self.name.partition(".")
        return place.lower() if key == "static_call" else key


class Fast(NamedTuple):
    """The faster and less accurate kernel of an activation, for the fast tier.

    Attributes
    ----------
    kernel : callable
        Named ``fast_NAME``. It may differ from the activation's kernel in float32 and float64.
    ulp : dict
        As of :class:`Activation`, for these formats.
    """

    kernel: Callable[..., Any]
    ulp: dict[str, float]


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


LIBRARIES = ("PyTorch", "JAX", "Keras", "ONNX", "SciPy", "NumPy")
"""The libraries whose names of functions the documents show."""


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
        Processors without fma may exceed it by `WITHOUT_FMA`.
    cancelling : callable, optional
        ``cancelling(m, *x)``: a term of the result that the other terms may cancel. The bounds of
        `ulp` then hold for errors in ulp or in units of 2^-p of this term (p bits of precision),
        whichever are less.
    keeps_integers : bool
        Whether integers keep their type. Otherwise they are converted to float64.
    nondecreasing : bool
        Whether the function is nondecreasing. Results of neighbouring inputs may nevertheless be
        in the wrong order, by one ulp, where they are not rounded correctly.
    range : tuple of float
        The smallest and the largest result, including those for infinite inputs.
    steepest : float
        The largest absolute value of the derivative; infinite where the function jumps.
    torch_modules : sequence of TorchModule
        The modules that :meth:`fastact.Sequential.from_torch` converts to the activation.
    onnx_operators : sequence of OnnxOperator
        The operators that :meth:`fastact.Sequential.from_onnx` converts to the activation.
    onnx_formulas : sequence of callable
        ``formula(m, x, *parameters)``: what exporters write instead of an operator, in terms of
        ``+``, ``-``, ``*``, ``/``, powers, activations without parameters, and ``exp``, ``log`` and
        ``abs`` of the module `m`.
    sklearn_names : sequence of str
        The names of the activation in the neural networks of scikit-learn.
    keras_functions : sequence of KerasFunction
        The functions that :func:`fastact.keras.patch` replaces with the activation, and
        :meth:`fastact.Sequential.from_keras` converts to it.
    pytensor_ops : sequence of str
        The classes in ``pytensor.scalar`` that compute the activation: "math.Sigmoid". Those of
        float32 and float64 are compiled as the activation after :func:`fastact.pytensor.register`.
    fast : Fast, optional
        The kernel of the fast tier. It has to be at least 1.3 times as fast.
    parameters : dict
        For each input that is a parameter, by name, values that tests try. Plots and benchmarks use
        the first of them. Layers have an array of them for their columns, or one number for all.
    defaults : dict
        Values of all parameters, by name, for layers that are given none. Empty if other libraries
        agree on no value, or learn it.
    elsewhere : dict
        What the function is in other libraries, by the names in :data:`LIBRARIES`: its name there,
        and how it differs.
    measured_in_full : bool
        Whether benchmarks have it in all sizes and layouts, and as a function of scalars. For
        others they have three sizes, since loops and calls do not depend on the function.
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
    cancelling: Callable[..., Any] | None = None
    keeps_integers: bool = False
    nondecreasing: bool = False
    range: tuple[float, float] = (-inf, inf)
    steepest: float = inf
    torch_modules: Sequence[TorchModule] = ()
    onnx_operators: Sequence[OnnxOperator] = ()
    onnx_formulas: Sequence[Callable[..., Any]] = ()
    sklearn_names: Sequence[str] = ()
    keras_functions: Sequence[KerasFunction] = ()
    pytensor_ops: Sequence[str] = ()
    fast: Fast | None = None
    parameters: Mapping[str, Sequence[float]] = MappingProxyType({})
    defaults: Mapping[str, float] = MappingProxyType({})
    elsewhere: Mapping[str, str] = MappingProxyType({})
    measured_in_full: bool = False

    @property
    def name(self) -> str:
        return self.kernel.__name__

    @property
    def inputs(self) -> list[str]:
        """The names of the inputs, the parameters among them."""
        code = self.kernel.__code__
        return list(code.co_varnames[: code.co_argcount])

    @property
    def nin(self) -> int:
        return len(self.inputs)

    @property
    def results(self) -> list[str]:
        """The names of the outputs."""
        return ["y"]


WITHOUT_FMA = 0.15
"""How many ulp the errors of activations in float32 and float64 may exceed those declared, on
processors without fma. The most that was measured is 0.14, for float64 in the fast tier."""


def without_fma(ulp: float) -> float:
    """The largest error of an activation without fma, for a declared one in float32 or float64.

    It is below an ulp if the declared one is.
    """
    more, most = round(ulp + WITHOUT_FMA, 2), ceil(ulp)
    return more if 0 < ulp == most else min(more, most)


WITHOUT_FMA_BACKWARD = 0.25
"""The same for derivatives. The most that was measured is 0.24, for expm1_backward."""

ACTIVATIONS: dict[str, Activation] = {}
"""Every declared activation by name: the only list of them."""


class FastActivation(Activation):
    """The record of an activation of the fast tier.

    Attributes
    ----------
    of : str
        The name of the activation that this is faster than.
    """

    of: str = ""

    @property
    def name(self) -> str:
        return f"fast.{self.of}"


FAST: dict[str, FastActivation] = {}
"""Every activation of the fast tier, by its name in layers: ``fast.NAME``."""


def fast_of(declared: Activation) -> FastActivation | None:
    """The record of the fast tier that `declared` has, if any."""
    if declared.fast is None:
        return None
    given = {name: getattr(declared, name) for name in Activation.fields}
    given |= {
        "kernel": declared.fast.kernel,
        "summary": f"{declared.summary.removesuffix('.')}, in the fast tier.",
        "ulp": declared.ulp | declared.fast.ulp,
        "torch_modules": (),
        "onnx_operators": (),
        "onnx_formulas": (),
        "sklearn_names": (),
        "keras_functions": (),
        "pytensor_ops": (),
        "fast": None,
    }
    return FastActivation(**given, of=declared.name)


SUFFIX = "_backward"
"""Follows the name of the activation in the name of its derivative."""


class Derivative(Activation):
    """The record of a function that propagates a gradient back through an activation.

    The kernel ``NAME_backward(grad_output, ...)`` computes the gradient with respect to the input
    of the activation ``NAME``, given the gradient with respect to its output. Its other inputs are
    what must be saved for it, "output" or "input" or both in this order, and the parameters of the
    activation. If the activation has several inputs, the kernel returns a gradient for each of
    them, in their order.

    Attributes
    ----------
    interval : tuple of float
        As for :class:`Activation`, but the interval of what is saved.
    ulp : dict
        By format name, a bound in ulp that holds for all sampled inputs. Errors are with respect
        to the exact result for the operands as given, even if these were rounded before.
    slope : callable, optional
        ``slope(m, saved)``: the derivative with respect to `saved` of the activation's derivative.
        Those of activations with one input need it.
    of_output : callable, optional
        ``of_output(m, output)``: the derivative in terms of the output, where the input is saved.
        Without it, the gradient of a layer needs the input of such an activation.
    jumps : sequence of float
        The values of `saved` where the derivative jumps.
    infinity_times_zero : float, optional
        The result for an infinite gradient where the derivative is 0: 0 or NaN.
    """

    slope: Callable[..., Any] | None = None
    of_output: Callable[..., Any] | None = None
    jumps: Sequence[float] = ()
    infinity_times_zero: float | None = None

    @property
    def activation(self) -> str:
        """The name of the activation."""
        return self.name.removesuffix(SUFFIX)

    @property
    def needs(self) -> list[str]:
        """What must be saved of the activation: its output, or inputs that are no parameters."""
        parameters = ACTIVATIONS[self.activation].parameters
        return [name for name in self.inputs[1:] if name not in parameters]

    @property
    def saved(self) -> str:
        """The name of what must be saved, if it is one thing."""
        (name,) = self.needs
        return name

    @property
    def results(self) -> list[str]:
        differentiated = inputs_of(ACTIVATIONS[self.activation])
        return [f"grad_{name}" for name in differentiated] if len(differentiated) > 1 else ["y"]

    def operands(self, inputs: Sequence[Any], output: Any) -> list[Any]:
        """What follows the gradient in a call, from inputs and output of the activation."""
        known = dict(zip(inputs_of(ACTIVATIONS[self.activation]), inputs, strict=True))
        return [output if name == "output" else known[name] for name in self.inputs[1:]]

    @property
    def output_tells(self) -> bool:
        """Whether the derivative can be computed from the output of the activation alone."""
        return self.needs == ["output"] or self.of_output is not None


def parameters_of(declared: Activation) -> Mapping[str, Sequence[float]]:
    """The parameters of an activation; of a derivative, those of its activation."""
    if isinstance(declared, Derivative):
        return ACTIVATIONS[declared.activation].parameters
    return declared.parameters


def inputs_of(declared: Activation) -> list[str]:
    """The inputs of an activation as derivatives name them: its only variable is the input."""
    names = declared.inputs
    return ["input", *names[1:]] if len(names) == len(declared.parameters) + 1 else names


DERIVATIVES: dict[str, Derivative] = {}
"""Every declared derivative by the name of its activation."""


def unary_derivatives() -> dict[str, Derivative]:
    """The derivatives of activations with one input, by the name of the activation."""
    return {name: d for name, d in DERIVATIVES.items() if ACTIVATIONS[name].nin == 1}


def element_wise() -> dict[str, Activation]:
    """Activations and derivatives by the names of their ufuncs, without the fast tier."""
    return ACTIVATIONS | {declared.name: declared for declared in DERIVATIVES.values()}


def derivative_of(activation: str) -> "Derivative | RowDerivative | None":
    """The derivative of an activation, or of the one that an activation of the fast tier is of."""
    name = FAST[activation].of if activation in FAST else activation
    return DERIVATIVES.get(name) or ROW_DERIVATIVES.get(name)


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
        module `xp` that has ``exp``, ``log1p``, ``max`` and ``sum`` with the signatures of the
        array API standard (NumPy, autograd's NumPy, or a module of higher precision).
    specials : sequence of tuple
        Rows and their results.
    ulp : dict
        A bound in ulp that samples stay below, by format name.
    torch_modules, onnx_operators, onnx_formulas, sklearn_names, keras_functions, elsewhere
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
    onnx_operators: Sequence[OnnxOperator] = ()
    onnx_formulas: Sequence[Callable[..., Any]] = ()
    sklearn_names: Sequence[str] = ()
    keras_functions: Sequence[KerasFunction] = ()
    elsewhere: Mapping[str, str] = MappingProxyType({})


ROW_ACTIVATIONS: dict[str, RowActivation] = {}
"""Every declared activation of whole rows by name."""


class RowReduction(Record):
    """The record of a function of whole rows with one result, a generalized ufunc "(n)->()".

    Attributes
    ----------
    name, steps, summary, formula, notes, invalid, reference, ulp, elsewhere
        As of :class:`RowActivation`.
    specials : sequence of tuple
        Rows and their result.
    """

    name: str
    steps: type
    summary: str
    formula: str
    notes: str
    invalid: str
    reference: Callable[..., Any]
    specials: Sequence[tuple[Sequence[float], float]]
    ulp: dict[str, float]
    elsewhere: Mapping[str, str] = MappingProxyType({})


ROW_REDUCTIONS: dict[str, RowReduction] = {}
"""Every declared reduction of rows by name."""


def of_rows() -> dict[str, RowActivation | RowReduction]:
    """The functions of whole rows by name."""
    return ROW_ACTIVATIONS | ROW_REDUCTIONS


class Normalization(Record):
    """The record of an activation that divides rows by the root of their mean square.

    It is a generalized ufunc of the input, of rows of the same length, and of a number:
    "(n),(n),(n),()->(n)".

    Attributes
    ----------
    name, summary, formula, notes, invalid, ulp, torch_modules, sklearn_names, keras_functions, \
    onnx_operators, onnx_formulas, elsewhere
        As of :class:`RowActivation`.
    steps : type
        A class whose functions are the steps of ``_kernels/normalization_steps.py``, with an
        attribute ``scheme``, and another such class ``in_double`` for formats that are narrower
        than float64.
    reference : callable
        ``reference(xp, x, *rows, eps)``: the definition, along the last axis of an array `x`, in
        terms of a module `xp` that has ``mean`` and ``sqrt`` with the signatures of the array API
        standard.
    specials : sequence of tuple
        The operands, then the result.
    """

    name: str
    steps: type
    summary: str
    formula: str
    notes: str
    invalid: str
    reference: Callable[..., Any]
    specials: Sequence[tuple[Any, ...]]
    ulp: dict[str, float]
    torch_modules: Sequence[TorchModule] = ()
    sklearn_names: Sequence[str] = ()
    keras_functions: Sequence[KerasFunction] = ()
    onnx_operators: Sequence[OnnxOperator] = ()
    onnx_formulas: Sequence[Callable[..., Any]] = ()
    elsewhere: Mapping[str, str] = MappingProxyType({})

    @property
    def columns(self) -> list[str]:
        """The names of the operands that have a number for each column."""
        return list(self.steps.scheme.operands)  # type: ignore[attr-defined] # every class has one

    @property
    def parameters(self) -> list[str]:
        """The names of all inputs but the first."""
        return [*self.columns, "eps"]

    @property
    def signature(self) -> str:
        return f"{'(n),' * (1 + len(self.columns))}()->(n)"


NORMALIZATIONS: dict[str, Normalization] = {}
"""Every declared normalization by name."""


def along_rows() -> dict[str, RowActivation | RowReduction | Normalization]:
    """All functions of whole rows by name, those with parameters among them."""
    return ROW_ACTIVATIONS | NORMALIZATIONS | ROW_REDUCTIONS


class _RowRule(Record):
    """What the records of derivatives of functions of rows have in common."""

    rule: Callable[..., Any]
    formula: str
    notes: str

    @property
    def name(self) -> str:
        return self.rule.__name__

    @property
    def activation(self) -> str:
        """The name of the function of rows."""
        return self.name.removesuffix(SUFFIX)


class RowDerivative(_RowRule):
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

    specials: Sequence[tuple[Sequence[float], Sequence[float], Sequence[float]]]
    tangent: Callable[..., Any] | None = None


ROW_DERIVATIVES: dict[str, RowDerivative] = {}
"""Every declared derivative of a row activation by the name of the activation."""


class ReductionDerivative(_RowRule):
    """The record of a function that propagates a gradient back through a reduction of rows.

    Attributes
    ----------
    rule : callable
        ``NAME_backward(xp, grad_output, input, axis)``: the gradient with respect to the input of
        the reduction ``NAME``, given that input and the gradient with respect to the output. This
        has length 1 along the axis. `xp` is a module as for ``RowActivation.reference``.
    formula, notes : str
        As of :class:`RowDerivative`.
    specials : sequence of tuple
        Gradients, rows of inputs, and the exact results.
    tangent : callable
        ``tangent(xp, tangent, input, axis)``: the derivative of the output in the direction of
        `tangent`, with length 1 along the axis.
    """

    specials: Sequence[tuple[float, Sequence[float], Sequence[float]]]
    tangent: Callable[..., Any]


REDUCTION_DERIVATIVES: dict[str, ReductionDerivative] = {}
"""Every declared derivative of a reduction of rows by the name of the reduction."""


def row_derivatives() -> dict[str, RowDerivative | ReductionDerivative]:
    """The derivatives of functions of whole rows, by the names of the functions."""
    return ROW_DERIVATIVES | REDUCTION_DERIVATIVES


def activations() -> dict[str, Activation | RowActivation | Normalization]:
    """The activations that layers accept.

    They have one input, or one besides a parameter, or they are of rows.
    """
    unary = {
        name: declared
        for name, declared in ACTIVATIONS.items()
        if declared.nin == 1 + len(declared.parameters) <= 2
    }
    return unary | ROW_ACTIVATIONS | NORMALIZATIONS | FAST
