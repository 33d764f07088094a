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
        opset = helper.make_opsetid("", 18)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=9)
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

    def array(operator: str):
        node = onnx.helper.make_node(operator, ["x"], ["y"])
        return lambda inputs, out: bound([node], {}, inputs[0], out)

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
        "softmax": "Softmax",  # along the last axis
    }
    return Library(
        onnxruntime.__version__,
        {name: array(operator) for name, operator in operators.items()},
        dense={name: dense(operators[name]) for name in ("relu", "sigmoid")},
    )
