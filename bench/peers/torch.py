"""PyTorch: tensors that share the memory of NumPy's arrays, results into `out`."""

import functools

from .base import Library, into


def load(threads: int) -> Library:
    import torch

    torch.set_num_threads(threads)
    into_tensor = functools.partial(into, convert=torch.from_numpy)
    arrays = {
        "sigmoid": into_tensor(torch.sigmoid),
        "tanh": into_tensor(torch.tanh),
        "relu": into_tensor(torch.clamp_min, 0),  # torch.relu has no `out`
        "step": into_tensor(torch.ge, 0),
        # The same function as torch.nn.functional.softplus, which has no `out`.
        "softplus": into_tensor(torch._C._nn.softplus),
        "heaviside": into_tensor(torch.heaviside),
        "softmax": into_tensor(torch.softmax, 1),
    }

    def dense(activate):
        def factory(inputs, out):
            x, weights, bias, y = map(torch.from_numpy, (*inputs, out))

            def call():
                torch.addmm(bias, x, weights, out=y)
                activate(y)

            return call

        return factory

    layers = {"relu": dense(torch.relu_), "sigmoid": dense(torch.sigmoid_)}
    return Library(torch.__version__, arrays, dense=layers)
