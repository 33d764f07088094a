"""The libraries that are compared, each with its fastest idiomatic spelling of the functions.

To add a library, write its loader and enter it in :data:`PEERS`; to add a function, enter a
factory under its name in the loaders of the libraries that have it.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

import fastact
from fastact._declare import ACTIVATIONS

Call = Callable[[], object]
Factory = Callable[[Sequence[np.ndarray], np.ndarray], Call]
"""``factory(inputs, out)`` gives the call to time, with all that can be prepared done."""


class Unsupported(Exception):
    """The library has the function, but not for this dtype."""


class Library(NamedTuple):
    """A library once imported: its version, and its functions by activation name."""

    version: str
    factories: dict[str, Factory]


@dataclass(frozen=True)
class Peer:
    """A library that may be installed.

    Attributes
    ----------
    load : callable
        Imports the library; raises ImportError where it is missing.
    writes : bool
        Whether calls write to `out`, else they return the result.
    """

    load: Callable[[], Library]
    writes: bool = True

    def result(self, returned: object, out: np.ndarray) -> np.ndarray:
        """The result of a call that returned `returned`, as an array."""
        return out if self.writes else np.asarray(returned)


def _into(function: Callable, *constants: object, convert: Callable = np.asarray) -> Factory:
    """The factory of ``function(*inputs, *constants, out=out)``.

    A partial object, since a lambda would add a Python frame to every timed call.
    """

    def factory(inputs, out):
        arrays = map(convert, inputs)
        return functools.partial(function, *arrays, *constants, out=convert(out))

    return factory


def _load_fastact() -> Library:
    factories = {name: _into(getattr(fastact, name)) for name in ACTIVATIONS}
    return Library(fastact.__version__, factories)


def _numpy_sigmoid(inputs, out):
    (x,) = inputs

    def call():
        np.negative(x, out=out)
        np.exp(out, out=out)
        np.add(out, 1, out=out)
        np.divide(1, out, out=out)

    return call


def _numpy_softplus(inputs, out):
    """The stable formula in steps: np.logaddexp(x, 0) is several times slower."""
    (x,) = inputs
    positive = np.zeros_like(x)

    def call():
        np.abs(x, out=out)
        np.negative(out, out=out)
        np.exp(out, out=out)
        np.log1p(out, out=out)
        np.maximum(x, 0, out=positive)
        np.add(out, positive, out=out)

    return call


def _load_numpy() -> Library:
    factories = {
        "sigmoid": _numpy_sigmoid,
        "tanh": _into(np.tanh),
        "relu": _into(np.maximum, 0),
        # Loses NaN, but np.heaviside(x, 1) is many times slower.
        "step": _into(np.greater_equal, 0),
        "softplus": _numpy_softplus,
        "heaviside": _into(np.heaviside),
    }
    return Library(np.__version__, factories)


def _load_scipy() -> Library:
    import scipy
    from scipy import special

    def softplus(inputs, out):
        (x,) = inputs

        def call():
            np.negative(x, out=out)
            special.log_expit(out, out=out)
            np.negative(out, out=out)

        return call

    return Library(scipy.__version__, {"sigmoid": _into(special.expit), "softplus": softplus})


def _load_torch() -> Library:
    import torch

    torch.set_num_threads(1)
    into = functools.partial(_into, convert=torch.from_numpy)
    factories = {
        "sigmoid": into(torch.sigmoid),
        "tanh": into(torch.tanh),
        "relu": into(torch.clamp_min, 0),  # torch.relu has no `out`
        "step": into(torch.ge, 0),
        # What torch.nn.functional.softplus is, but that has no `out`.
        "softplus": into(torch._C._nn.softplus),
        "heaviside": into(torch.heaviside),
    }
    return Library(torch.__version__, factories)


def _load_onnxruntime() -> Library:
    import onnx
    import onnxruntime
    from onnx import helper
    from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernel

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1

    def model(operator: str, dtype: np.dtype) -> onnx.ModelProto:
        element = helper.np_dtype_to_tensor_dtype(dtype)
        x, y = (helper.make_tensor_value_info(name, element, ["n"]) for name in "xy")
        graph = helper.make_graph([helper.make_node(operator, ["x"], ["y"])], operator, [x], [y])
        opset = helper.make_opsetid("", 18)
        return helper.make_model(graph, opset_imports=[opset], ir_version=9)

    def node(operator: str) -> Factory:
        def factory(inputs, out):
            (x,) = inputs
            try:
                session = onnxruntime.InferenceSession(
                    model(operator, x.dtype).SerializeToString(),
                    options,
                    providers=["CPUExecutionProvider"],
                )
            except NoKernel as error:
                raise Unsupported(str(error)) from error
            binding = session.io_binding()
            binding.bind_input("x", "cpu", 0, x.dtype, x.shape, x.ctypes.data)
            binding.bind_output("y", "cpu", 0, out.dtype, out.shape, out.ctypes.data)
            return functools.partial(session.run_with_iobinding, binding)

        return factory

    operators = {"sigmoid": "Sigmoid", "tanh": "Tanh", "relu": "Relu", "softplus": "Softplus"}
    factories = {name: node(operator) for name, operator in operators.items()}
    return Library(onnxruntime.__version__, factories)


def _load_jax() -> Library:
    import jax

    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_platforms", "cpu")

    def compiled(function: Callable) -> Factory:
        function = jax.jit(function)

        def factory(inputs, out):
            arrays = [jax.numpy.asarray(x) for x in inputs]
            return lambda: function(*arrays).block_until_ready()

        return factory

    functions = {
        "sigmoid": jax.nn.sigmoid,
        "tanh": jax.numpy.tanh,
        "relu": jax.nn.relu,
        "step": lambda x: jax.numpy.heaviside(x, 1),
        "softplus": jax.nn.softplus,
        "heaviside": jax.numpy.heaviside,
    }
    factories = {name: compiled(function) for name, function in functions.items()}
    return Library(jax.__version__, factories)


def _load_numexpr() -> Library:
    import numexpr

    numexpr.set_num_threads(1)

    def expression(formula: str) -> Factory:
        def factory(inputs, out):
            names = ["x"] if len(inputs) == 1 else ["x1", "x2"]
            arrays = dict(zip(names, inputs, strict=True))
            numexpr.evaluate(formula, local_dict=arrays, global_dict={}, out=out)
            # Repeats the latest expression, which is this one: no two are prepared at a time.
            return functools.partial(numexpr.re_evaluate, local_dict=arrays)

        return factory

    formulas = {
        "sigmoid": "1 / (1 + exp(-x))",
        "tanh": "tanh(x)",
        "relu": "maximum(x, 0)",
        "step": "x >= 0",
        "softplus": "(x + abs(x)) / 2 + log1p(exp(-abs(x)))",
        "heaviside": "where(x1 == 0, x2, x1 > 0)",
    }
    factories = {name: expression(formula) for name, formula in formulas.items()}
    return Library(numexpr.__version__, factories)


OURS = "fastact"
PEERS: dict[str, Peer] = {
    OURS: Peer(_load_fastact),
    "numpy": Peer(_load_numpy),
    "scipy": Peer(_load_scipy),
    "torch": Peer(_load_torch),
    "onnxruntime": Peer(_load_onnxruntime),
    "jax": Peer(_load_jax, writes=False),  # its arrays cannot be written to
    "numexpr": Peer(_load_numexpr),
}
"""Every library by name: the only list of them."""


def load(names: Sequence[str]) -> tuple[dict[str, Library], dict[str, str]]:
    """Import libraries.

    Parameters
    ----------
    names : sequence of str
        Keys of :data:`PEERS`.

    Returns
    -------
    libraries : dict
        The :class:`Library` of each that is installed.
    missing : dict
        Why each of the others could not be imported.
    """
    libraries, missing = {}, {}
    for name in names:
        try:
            libraries[name] = PEERS[name].load()
        except (ImportError, OSError) as error:  # OSError: a shared library is not there
            missing[name] = str(error)
    return libraries, missing
