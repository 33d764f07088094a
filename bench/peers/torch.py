"""PyTorch: tensors that share the memory of NumPy's arrays, results into `out`."""

import functools

from .base import Library, Unsupported, into


def load(threads: int) -> Library:
    import torch

    torch.set_num_threads(threads)
    into_tensor = functools.partial(into, convert=torch.from_numpy)

    def relu2(inputs, out):
        x, y = map(torch.from_numpy, (*inputs, out))

        def call():
            torch.clamp_min(x, 0, out=y)
            torch.square(y, out=y)

        return call

    def reglu(inputs, out):
        a, b, y = map(torch.from_numpy, (*inputs, out))

        def call():
            torch.clamp_min(a, 0, out=y)
            torch.mul(y, b, out=y)

        return call

    def glu(inputs, out):
        a, b, y = map(torch.from_numpy, (*inputs, out))

        def call():  # torch.nn.functional.glu needs both inputs in one tensor
            torch.sigmoid(b, out=y)
            torch.mul(a, y, out=y)

        return call

    def swiglu(inputs, out):
        a, b, y = map(torch.from_numpy, (*inputs, out))

        def call():
            torch._C._nn.silu(a, out=y)
            torch.mul(y, b, out=y)

        return call

    def geglu(inputs, out):
        a, b, y = map(torch.from_numpy, (*inputs, out))

        def call():
            torch._C._nn.gelu(a, out=y)
            torch.mul(y, b, out=y)

        return call

    def softsign(inputs, out):
        """The formula of torch.nn.functional.softsign, which has no `out`."""
        x, y = map(torch.from_numpy, (*inputs, out))
        above = torch.empty_like(x)

        def call():
            torch.abs(x, out=above)
            torch.add(above, 1, out=above)
            torch.div(x, above, out=y)

        return call

    def tanhshrink(inputs, out):
        x, y = map(torch.from_numpy, (*inputs, out))

        def call():  # as torch.nn.functional.tanhshrink, which has no `out`
            torch.tanh(x, out=y)
            torch.sub(x, y, out=y)

        return call

    def log_ndtr(inputs, out):
        if out.itemsize == 2:
            raise Unsupported("log_ndtr is not implemented for float16")
        return into_tensor(torch.special.log_ndtr)(inputs, out)

    def celu(inputs, out):
        """The call that torch.nn.functional.celu makes, which has no `out`."""
        x, y = map(torch.from_numpy, (inputs[0], out))
        alpha = float(inputs[1])
        return functools.partial(torch._C._nn.elu, x, alpha, 1.0, 1 / alpha, out=y)

    def squareplus(inputs, out):
        x, y = map(torch.from_numpy, (inputs[0], out))
        b = float(inputs[1])

        def call():
            torch.mul(x, x, out=y)
            torch.add(y, b, out=y)
            torch.sqrt(y, out=y)
            torch.add(x, y, out=y)
            torch.mul(y, 0.5, out=y)

        return call

    def quick_gelu(inputs, out):
        x, y = map(torch.from_numpy, (*inputs, out))

        def call():
            torch.mul(x, 1.702, out=y)
            torch.sigmoid(y, out=y)
            torch.mul(x, y, out=y)

        return call

    def normalization(function):
        """A function that has no `out`; it returns a new array."""

        def factory(inputs, out):
            x, *columns = map(torch.from_numpy, inputs[:-1])
            eps = float(inputs[-1])
            return lambda: function(x, x.shape[1:], *columns, eps).numpy()

        return factory

    arrays = {
        "layer_norm": normalization(torch.nn.functional.layer_norm),
        "rms_norm": normalization(torch.nn.functional.rms_norm),
        "sigmoid": into_tensor(torch.sigmoid),
        "tanh": into_tensor(torch.tanh),
        "relu": into_tensor(torch.clamp_min, 0),  # torch.relu has no `out`
        "step": into_tensor(torch.ge, 0),
        # The same function as torch.nn.functional.softplus, which has no `out`.
        "softplus": into_tensor(torch._C._nn.softplus),
        "gelu": into_tensor(torch._C._nn.gelu),
        "erf": into_tensor(torch.erf),
        "erfc": into_tensor(torch.erfc),
        "ndtr": into_tensor(torch.special.ndtr),
        "log_ndtr": log_ndtr,
        "heaviside": into_tensor(torch.heaviside),
        "leaky_relu": into_tensor(torch._C._nn.leaky_relu),
        "relu6": into_tensor(torch._C._nn.hardtanh, 0, 6),
        "hard_swish": into_tensor(torch._C._nn.hardswish),
        "hard_sigmoid": into_tensor(torch._C._nn.hardsigmoid),
        "hard_tanh": into_tensor(torch._C._nn.hardtanh),
        "relu2": relu2,
        "reglu": reglu,
        "glu": glu,
        "swiglu": swiglu,
        "geglu": geglu,
        "softsign": softsign,
        # As above; selu is elu with these constants.
        "elu": into_tensor(torch._C._nn.elu),
        "selu": into_tensor(torch._C._nn.elu, 1.6732632423543772, 1.0507009873554805),
        "celu": celu,
        "squareplus": squareplus,
        "expm1": into_tensor(torch.expm1),
        "log1p": into_tensor(torch.log1p),
        "logit": into_tensor(torch.logit),
        "logaddexp": into_tensor(torch.logaddexp),
        "xlogy": into_tensor(torch.xlogy),
        "softmax": into_tensor(torch.softmax, 1),
        "logsumexp": into_tensor(torch.logsumexp, 1),
        "log_softmax": into_tensor(torch.log_softmax, 1),
        "silu": into_tensor(torch._C._nn.silu),
        "gelu_tanh": into_tensor(functools.partial(torch._C._nn.gelu, approximate="tanh")),
        "log_sigmoid": into_tensor(torch._C._nn.log_sigmoid),
        "mish": into_tensor(torch._C._nn.mish),
        "tanhshrink": tanhshrink,
        "quick_gelu": quick_gelu,
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
