"""Time converted models next to their originals: ``python -m bench.models``

A classifier of handwritten digits (64 pixels, layers of 128, 64 and 10) is fitted in float32 by
scikit-learn, with a scaler before it. ONNX Runtime and PyTorch get models with the same weights.
Each of the three is converted, and original and converted model take turns, with one thread on one
core. The table is in Markdown.
"""

import argparse
import functools
import statistics
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from tabulate import tabulate

import fastact as fa

from . import timing

HIDDEN = (128, 64)
LATENCIES = (1, 8, 64)  # rows
THROUGHPUT = 4096  # rows
HEADERS = [
    "source",
    "model",
    "layers",
    "largest difference",
    *(f"{rows} row{'s' * (rows > 1)}, us: {who}" for rows in LATENCIES for who in ("its", "ours")),
    *(f"{THROUGHPUT} rows, million rows/s: {who}" for who in ("its", "ours")),
]

Source = tuple[str, str, fa.Sequential, Callable[[np.ndarray], Callable[[], Any]]]


def fitted(passes: int) -> tuple[Any, np.ndarray]:
    """Return a pipeline, and the pixels that it was fitted to."""
    from sklearn.datasets import load_digits
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    pixels, digits = load_digits(return_X_y=True)
    pixels = pixels.astype(np.float32)
    network = MLPClassifier(HIDDEN, max_iter=passes, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a few passes do not converge
        return make_pipeline(StandardScaler(), network).fit(pixels, digits), pixels


def sources(pipeline: Any) -> Iterator[Source]:
    """Yield each library, its model, the converted model, and what binds its call to rows."""
    yield (
        "scikit-learn",
        "StandardScaler, MLPClassifier",
        fa.Sequential.from_sklearn(pipeline),
        lambda x: functools.partial(pipeline.predict_proba, x),
    )
    yield onnx_source(pipeline)
    yield torch_source(pipeline)


def onnx_source(pipeline: Any) -> Source:
    import onnx
    import onnxruntime

    scaler, network = pipeline[0], pipeline[-1]
    constants = {"mean": scaler.mean_, "deviation": scaler.scale_}
    steps = "s = Sub(x, mean) a0 = Div(s, deviation)"
    for k, (W, b) in enumerate(zip(network.coefs_, network.intercepts_, strict=True)):
        constants |= {f"W{k}": W, f"b{k}": b}
        steps += f" h{k} = Gemm(a{k}, W{k}, b{k})"
        steps += f" a{k + 1} = Relu(h{k})" if k < len(HIDDEN) else f" y = Softmax(h{k})"
    types = f"(float[N, {len(scaler.mean_)}] x) => (float[N, {W.shape[1]}] y)"
    model = onnx.parser.parse_model(
        f'<ir_version: 9, opset_import: ["": 20]> digits {types} {{ {steps} }}'
    )
    for name, array in constants.items():
        tensor = onnx.numpy_helper.from_array(array.astype(np.float32), name)
        model.graph.initializer.append(tensor)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return (
        "ONNX Runtime",
        "Sub, Div, Gemm, Relu, Softmax",
        fa.Sequential.from_onnx(model),
        lambda x: lambda: session.run(None, {"x": x})[0],
    )


def torch_source(pipeline: Any) -> Source:
    import torch
    from torch import nn

    torch.set_num_threads(1)
    scaler, network = pipeline[0], pipeline[-1]
    norm = nn.BatchNorm1d(len(scaler.mean_), eps=0.0, affine=False)
    norm.running_mean.copy_(torch.from_numpy(scaler.mean_))
    norm.running_var.copy_(torch.from_numpy(scaler.scale_**2))
    modules: list[nn.Module] = [norm]
    for W, b in zip(network.coefs_, network.intercepts_, strict=True):
        linear = nn.Linear(*W.shape)
        linear.weight.data.copy_(torch.from_numpy(W.T))
        linear.bias.data.copy_(torch.from_numpy(b))
        modules += [linear, nn.ReLU()]
    modules[-1] = nn.Softmax(dim=-1)
    module = nn.Sequential(*modules).eval()

    def bound(x: np.ndarray) -> Callable[[], Any]:
        tensor = torch.from_numpy(x)

        def call() -> np.ndarray:
            with torch.inference_mode():
                return module(tensor).numpy()

        return call

    return "PyTorch", "BatchNorm1d, Linear, ReLU, Softmax", fa.Sequential.from_torch(module), bound


def measured(source: Source, pixels: np.ndarray, repetitions: int) -> list[Any]:
    """Return a line of the table."""
    name, model, converted, bind = source
    line = [name, model, len(converted), float(abs(bind(pixels)() - converted(pixels)).max())]
    for rows in (*LATENCIES, THROUGHPUT):
        x = np.resize(pixels, (rows, pixels.shape[1]))
        calls = {"its": bind(x), "ours": functools.partial(converted, x)}
        counts = {who: timing.calls_per_sample(call) for who, call in calls.items()}
        samples = timing.interleaved(calls, counts, repetitions)
        times = [statistics.median(samples[who]) / 1000 for who in calls]
        line += [rows / time if rows == THROUGHPUT else time for time in times]
    return line


def main(arguments: list[str] | None = None) -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser("python -m bench.models", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=25, help="samples of each model")
    parser.add_argument("--passes", type=int, default=20, help="over the images, to fit the model")
    options = parser.parse_args(arguments)
    with timing.one_thread():
        pipeline, pixels = fitted(options.passes)
        lines = [measured(source, pixels, options.repetitions) for source in sources(pipeline)]
        versions = ", ".join(
            f"{name} {__import__(name).__version__}"
            for name in ("numpy", "sklearn", "onnxruntime", "torch")
        )
    floats = ("", "", "", ".1e", *[".3g"] * 2 * (len(LATENCIES) + 1))
    print("# Converted models and their originals\n")
    print(tabulate(lines, HEADERS, "github", floatfmt=floats), versions, sep="\n\n")


if __name__ == "__main__":
    main()
