"""Time the feed-forward block of a transformer in float32: a gated layer with silu and a dense one.

    python -m bench.feed_forward --rows 1 8 512 --width 768 --hidden 3072

It prints, for each number of rows, the median time on one core, how many times longer each other
library takes, and how many times longer two dense layers and swiglu take in place of the gated one.
"""

import argparse
import functools

import numpy as np
from tabulate import tabulate

import fastact as fa

from . import timing
from .peers.base import Call

OURS, SEPARATE, TORCH, ONNX = "gated, us", "separate layers", "torch", "onnxruntime"
TOLERANCE = 1e-4  # of the largest element, for sums of thousands of products in float32

Weights = tuple[np.ndarray, np.ndarray, np.ndarray]


def ours(x: np.ndarray, out: np.ndarray, weights: Weights) -> Call:
    gate, up, down = weights
    return functools.partial(fa.Sequential([fa.Gated(gate, up), fa.Dense(down)]), x, out=out)


def separate(x: np.ndarray, out: np.ndarray, weights: Weights) -> Call:
    """The same by the layers that a gated one consists of, with buffers of its own."""
    gate, up, down = map(fa.Dense, weights)
    of_gate, of_up = np.zeros((2, len(x), gate.out_features), np.float32)

    def call() -> None:
        gate(x, out=of_gate)
        up(x, out=of_up)
        fa.swiglu(of_gate, of_up, out=of_gate)
        down(of_gate, out=out)

    return call


def in_torch(x: np.ndarray, out: np.ndarray, weights: Weights) -> Call:
    """As models do, with weights as ``nn.Linear`` has them."""
    import torch

    torch.set_num_threads(1)
    given, result = map(torch.from_numpy, (x, out))
    gate, up, down = (torch.from_numpy(W.T.copy()) for W in weights)
    linear, silu = torch.nn.functional.linear, torch.nn.functional.silu

    def call() -> None:
        with torch.inference_mode():
            hidden = silu(linear(given, gate)) * linear(given, up)
            torch.mm(hidden, down.T, out=result)

    return call


def in_onnxruntime(x: np.ndarray, out: np.ndarray, weights: Weights) -> Call:
    """A graph, optimised by the session, that reads `x` and writes `out` in place."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("MatMul", ["x", "gate"], ["g"]),
        helper.make_node("MatMul", ["x", "up"], ["u"]),
        helper.make_node("QuickGelu", ["g"], ["s"], domain="com.microsoft", alpha=1.0),  # silu
        helper.make_node("Mul", ["s", "u"], ["h"]),
        helper.make_node("MatMul", ["h", "down"], ["y"]),
    ]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape)
        for name, array in (("x", x), ("y", out))
    ]
    names = ("gate", "up", "down")
    tensors = [numpy_helper.from_array(W, name) for W, name in zip(weights, names, strict=True)]
    graph = helper.make_graph(nodes, "block", values[:1], values[1:], tensors)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    binding = session.io_binding()
    binding.bind_input("x", "cpu", 0, np.float32, x.shape, x.ctypes.data)
    binding.bind_output("y", "cpu", 0, np.float32, out.shape, out.ctypes.data)

    def call(*, kept: object = (x, out)) -> None:  # the binding has only their addresses
        session.run_with_iobinding(binding)

    return call


BLOCKS = {OURS: ours, SEPARATE: separate, TORCH: in_torch, ONNX: in_onnxruntime}


def calls(rows: int, width: int, hidden: int) -> dict[str, Call]:
    """Return a call for each block, after a comparison of their results."""
    random = np.random.default_rng(0)
    x = random.standard_normal((rows, width), np.float32)
    shapes = (width, hidden), (width, hidden), (hidden, width)
    weights = tuple(random.standard_normal(s, np.float32) / np.float32(s[0] ** 0.5) for s in shapes)
    found, results = {}, {}
    for name, block in BLOCKS.items():
        out = np.zeros((rows, width), np.float32)
        try:
            found[name] = block(x, out, weights)
        except ImportError:
            continue
        found[name]()
        results[name] = out
    largest = abs(results[OURS]).max()
    for name, result in results.items():
        if abs(result - results[OURS]).max() > TOLERANCE * largest:
            raise RuntimeError(f"{name} computes another result")
    return found


def measured(rows: int, width: int, hidden: int, repetitions: int) -> list:
    """Return a line of the table."""
    blocks = calls(rows, width, hidden)
    counts = {name: timing.calls_per_sample(call) for name, call in blocks.items()}
    samples = timing.interleaved(blocks, counts, repetitions)
    medians = {name: float(np.median(times)) for name, times in samples.items()}
    ratios = [medians[name] / medians[OURS] if name in medians else None for name in BLOCKS]
    return [f"{rows} x {width} x {hidden}", medians[OURS] / 1000, *ratios[1:]]


def main(arguments: list[str] | None = None) -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.feed_forward", description=__doc__)
    parser.add_argument("--rows", nargs="+", type=int, default=[1, 8, 512])
    parser.add_argument("--width", type=int, default=768, help="columns of the input")
    parser.add_argument("--hidden", type=int, default=3072, help="columns of the gated layer")
    parser.add_argument("--repetitions", type=int, default=21, help="samples of each block")
    options = parser.parse_args(arguments)
    with timing.one_thread():
        lines = [
            measured(rows, options.width, options.hidden, options.repetitions)
            for rows in options.rows
        ]
    headers = ["rows x width x hidden", *BLOCKS]
    print(tabulate(lines, headers, "github", floatfmt=(None, ".1f", ".2f", ".2f", ".2f")))


if __name__ == "__main__":
    main()
