"""The feed-forward block of a transformer: a normalization, a gated layer and a dense layer.

The weights are random, and the sizes are those of a small language model. If PyTorch is installed,
it computes the same on one thread. Errors are relative to the largest element of NumPy's result in
float64.
"""

import time

import numpy as np

import fastact as fa

WIDTH, HIDDEN = 768, 2048
EPSILON = 1e-6
REPETITIONS = 50

rng = np.random.default_rng(0)
W_gate, W_up = rng.standard_normal((2, WIDTH, HIDDEN), np.float32) / np.sqrt(np.float32(WIDTH))
W_down = rng.standard_normal((HIDDEN, WIDTH), np.float32) / np.sqrt(np.float32(HIDDEN))
weight = rng.uniform(0.5, 1.5, WIDTH).astype(np.float32)
norm = (fa.rms_norm, weight, EPSILON)
block = fa.Sequential([norm, fa.Gated(W_gate, W_up, "silu"), fa.Dense(W_down)])
print(block)


def reference(x):
    """The block in float64."""
    x = x.astype(np.float64)
    x = x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + EPSILON) * weight
    gate, up = (x @ W for W in (W_gate, W_up))
    return gate / (1 + np.exp(-gate)) * up @ W_down


def compare(name, function, x):
    """Print the error and the time of `function`."""
    exact = reference(x)
    error = np.abs(function(x) - exact).max() / np.abs(exact).max()
    times = []
    for _ in range(REPETITIONS):
        start = time.perf_counter()
        function(x)
        times.append(time.perf_counter() - start)
    print(f"{name}, rows: {len(x)}, time: {np.median(times) * 1e6:.0f} us, error: {error:.1e}")


functions = {"fastact": block}
try:
    import torch
except ImportError:
    print("PyTorch is not installed")
else:
    torch.set_num_threads(1)
    gate, up, down = (torch.from_numpy(W.T.copy()) for W in (W_gate, W_up, W_down))
    scale = torch.from_numpy(weight)

    def in_torch(x):
        """Compute the block as models in PyTorch do."""
        linear, silu = torch.nn.functional.linear, torch.nn.functional.silu
        with torch.inference_mode():
            x = torch.nn.functional.rms_norm(torch.from_numpy(x), (WIDTH,), scale, EPSILON)
            return linear(silu(linear(x, gate)) * linear(x, up), down).numpy()

    functions["PyTorch"] = in_torch

with fa.num_threads(1):
    for rows in (8, 1):
        x = rng.standard_normal((rows, WIDTH), np.float32)
        for name, function in functions.items():
            compare(name, function, x)
