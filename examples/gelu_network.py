"""A network with gelu that is trained in NumPy: forward pass, gradients, and steps against them.

Handwritten digits of 8 x 8 pixels. If PyTorch is installed, it takes the same steps on one thread.
"""

import itertools
import time

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import fastact as fa

EPOCHS, BATCH, RATE = 30, 64, 0.2

X, y = load_digits(return_X_y=True)
X, X_new, y, y_new = train_test_split(X / 16, y, random_state=0)
targets = np.eye(10)[y]
rng = np.random.default_rng(0)
sizes = [64, 128, 64, 10]
layers = [
    (rng.normal(0, np.sqrt(2 / rows), (rows, columns)), np.zeros(columns))
    for rows, columns in itertools.pairwise(sizes)
]
activations = ["gelu", "gelu", "softmax"]
batches = [
    indices[start : start + BATCH]
    for indices in (rng.permutation(len(X)) for _ in range(EPOCHS))
    for start in range(0, len(X), BATCH)
]


def step(x, target):
    """Change the weights in place, and return the loss before that: the cross-entropy."""
    # gelu cannot be differentiated given its output alone, so `saved` keeps its input.
    passed = [x]
    inputs = []
    for (W, b), activation in zip(layers, activations, strict=True):
        inputs.append(np.empty((len(x), len(b))))
        passed.append(fa.dense(passed[-1], W, b, activation, saved=inputs[-1]))
    loss = -np.log((passed[-1] * target).sum(axis=1)).mean()

    # The gradient of cross-entropy and softmax together, with respect to the input of softmax.
    grad = (passed.pop() - target) / len(x)
    backwards = zip(layers, ["gelu", "gelu", "identity"], passed, inputs, strict=True)
    for (W, b), activation, before, saved in reversed(list(backwards)):
        grad, grad_W, grad_b = fa.dense_backward(grad, before, W, None, activation, saved=saved)
        W -= RATE * grad_W
        b -= RATE * grad_b
    return loss


def timed(step, *arguments):
    """Take all steps, and return the losses and the median of the times in microseconds."""
    losses, times = [], []
    for batch in batches:
        start = time.perf_counter()
        losses.append(step(*(argument[batch] for argument in arguments)))
        times.append(time.perf_counter() - start)
    return np.array(losses), np.median(times) * 1e6


start = [(W.copy(), b.copy()) for W, b in layers]
with fa.num_threads(1):
    losses, microseconds = timed(step, X, targets)
model = fa.Sequential(
    [fa.Dense(W, b, activation) for (W, b), activation in zip(layers, activations, strict=True)]
)
wrong = np.count_nonzero(model(X_new).argmax(axis=1) != y_new)
print(model)
print(f"the loss fell from {losses[0]:.2f} to {losses[-1]:.4f}")
print(f"{wrong} of {len(y_new)} new digits of scikit-learn's data are taken for others")
print(f"one step: {microseconds:.0f} us")

try:
    import torch
except ImportError:
    print("PyTorch is not installed")
else:
    torch.set_num_threads(1)
    parameters = [torch.tensor(array, requires_grad=True) for pair in start for array in pair]
    optimizer = torch.optim.SGD(parameters, lr=RATE)

    def torch_step(x, label):
        """Do as `step` does, with PyTorch's functions."""
        for i in range(0, len(parameters), 2):
            x = torch.addmm(parameters[i + 1], x, parameters[i])
            x = torch.nn.functional.gelu(x) if i < 4 else x
        loss = torch.nn.functional.cross_entropy(x, label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    theirs, microseconds = timed(torch_step, torch.tensor(X), torch.tensor(y))
    print(f"one step by PyTorch: {microseconds:.0f} us")
    print(f"largest difference of a loss: {np.abs(losses - theirs).max():.0e}")
