"""ONNX Runtime: a session for a graph of one operator, or of a layer, which it fuses into one."""

import functools

import numpy as np

from .base import Library, Unsupported


def load(threads: int) -> Library:
    import onnx
    import onnxruntime
    from onnx import helper, numpy_helper
    from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernel

    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = 1
    options.intra_op_num_threads = threads

    def bound(nodes, constants, x: np.ndarray, out: np.ndarray):
        """Return the call that runs `nodes` from `x` to `out` without copying them."""
        element = helper.np_dtype_to_tensor_dtype(x.dtype)
        values = [
            helper.make_tensor_value_info(name, element, array.shape)
            for name, array in (("x", x), ("y", out))
        ]
        tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
        graph = helper.make_graph(nodes, "compared", values[:1], values[1:], tensors)
        # The second has operators that ONNX itself does not have.
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
        try:
            session = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except NoKernel as error:
            raise Unsupported(str(error)) from error
        binding = session.io_binding()
        binding.bind_input("x", "cpu", 0, x.dtype, x.shape, x.ctypes.data)
        binding.bind_output("y", "cpu", 0, out.dtype, out.shape, out.ctypes.data)
        return functools.partial(session.run_with_iobinding, binding)

    def array(operator: str, **attributes):
        node = onnx.helper.make_node(operator, ["x"], ["y"], **attributes)
        return lambda inputs, out: bound([node], {}, inputs[0], out)

    def celu(inputs, out):
        if out.dtype != np.float32:
            raise Unsupported("the operator is for float32")
        return array("Celu", alpha=float(inputs[1]))(inputs, out)

    def with_slope(factory):
        """Attributes are float32, so that results in float64 have errors of 1e-8."""

        def checked(inputs, out):
            if out.dtype == np.float64:
                raise Unsupported("the slope is a float32 number")
            return factory(inputs, out)

        return checked

    def clip(low: float, high: float):
        node = helper.make_node("Clip", ["x", "low", "high"], ["y"])

        def factory(inputs, out):
            limits = {"low": np.array(low, out.dtype), "high": np.array(high, out.dtype)}
            return bound([node], limits, inputs[0], out)

        return factory

    def relu2(inputs, out):
        nodes = [helper.make_node("Relu", ["x"], ["z"]), helper.make_node("Mul", ["z", "z"], ["y"])]
        return bound(nodes, {}, inputs[0], out)

    def layer_norm(inputs, out):
        x, weight, bias, eps = inputs
        node = helper.make_node(
            "LayerNormalization", ["x", "weight", "bias"], ["y"], epsilon=float(eps)
        )
        return bound([node], {"weight": weight, "bias": bias}, x, out)

    def dense(operator: str):
        nodes = [
            helper.make_node("Gemm", ["x", "W", "b"], ["z"]),
            helper.make_node(operator, ["z"], ["y"]),
        ]
        return lambda inputs, out: bound(nodes, {"W": inputs[1], "b": inputs[2]}, inputs[0], out)

    operators = {
        "sigmoid": "Sigmoid",
        "tanh": "Tanh",
        "relu": "Relu",
        "softplus": "Softplus",
        "leaky_relu": "LeakyRelu",  # alpha is 0.01 by default
        "softsign": "Softsign",
        "mish": "Mish",
        "elu": "Elu",
        "selu": "Selu",
        "gelu": "Gelu",
        "erf": "Erf",
        "softmax": "Softmax",  # along the last axis
        "log_softmax": "LogSoftmax",
    }
    return Library(
        onnxruntime.__version__,
        {name: array(operator) for name, operator in operators.items()}
        | {
            "relu6": clip(0, 6),
            "hard_tanh": clip(-1, 1),
            "hard_sigmoid": with_slope(array("HardSigmoid", alpha=1 / 6, beta=0.5)),
            "hard_swish": with_slope(array("HardSwish")),
            "relu2": relu2,
            "celu": celu,
            "layer_norm": layer_norm,
            "silu": array("QuickGelu", domain="com.microsoft", alpha=1.0),
            "quick_gelu": array("QuickGelu", domain="com.microsoft", alpha=1.702),
            "gelu_tanh": array("Gelu", approximate="tanh"),
        },
        dense={name: dense(operators[name]) for name in ("relu", "sigmoid")},
    )
