"""JAX: functions compiled by jax.jit, for JAX's arrays."""

import functools

from .base import Library, Unsupported


def load(threads: int) -> Library:
    """`threads` is unused: XLA starts as many as the environment and the process's cores allow."""
    import jax

    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_platforms", "cpu")

    def compiled(function):
        function = jax.jit(function)

        def factory(inputs, out):
            arrays = [jax.numpy.asarray(x) for x in inputs]
            try:
                function(*arrays)  # compiles
            except TypeError as error:  # jax.scipy.special.ndtr has no float16
                raise Unsupported(str(error)) from error
            return lambda: function(*arrays).block_until_ready()

        return factory

    functions = {
        "sigmoid": jax.nn.sigmoid,
        "tanh": jax.numpy.tanh,
        "relu": jax.nn.relu,
        "step": lambda x: jax.numpy.heaviside(x, 1),
        "softplus": jax.nn.softplus,
        "gelu": functools.partial(jax.nn.gelu, approximate=False),
        "erf": jax.scipy.special.erf,
        "erfc": jax.scipy.special.erfc,
        "ndtr": jax.scipy.special.ndtr,
        "log_ndtr": jax.scipy.special.log_ndtr,
        "heaviside": jax.numpy.heaviside,
        "leaky_relu": jax.nn.leaky_relu,
        "relu6": jax.nn.relu6,
        "hard_swish": jax.nn.hard_swish,
        "hard_sigmoid": jax.nn.hard_sigmoid,
        "hard_tanh": jax.nn.hard_tanh,
        "relu2": lambda x: jax.numpy.square(jax.nn.relu(x)),
        "softsign": jax.nn.soft_sign,
        "reglu": lambda a, b: jax.nn.relu(a) * b,
        "swish": lambda x, beta: x * jax.nn.sigmoid(beta * x),
        "glu": lambda a, b: a * jax.nn.sigmoid(b),
        "geglu": lambda a, b: jax.nn.gelu(a, approximate=False) * b,
        "swiglu": lambda a, b: jax.nn.silu(a) * b,
        "softmax": jax.nn.softmax,
        "softmin": lambda x: jax.nn.softmax(-x),
        "logsumexp": lambda x: jax.nn.logsumexp(x, axis=1),
        "log_softmax": jax.nn.log_softmax,
        "silu": jax.nn.silu,
        "gelu_tanh": jax.nn.gelu,
        "log_sigmoid": jax.nn.log_sigmoid,
        "mish": jax.nn.mish,
        "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
        "tanhshrink": lambda x: x - jax.numpy.tanh(x),
        "elu": jax.nn.elu,
        "selu": jax.nn.selu,
        "celu": jax.nn.celu,
        "squareplus": jax.nn.squareplus,
        "expm1": jax.numpy.expm1,
        "log1p": jax.numpy.log1p,
        "log1mexp": lambda x: jax.nn.log1mexp(-x),
        "logit": jax.scipy.special.logit,
        "logaddexp": jax.numpy.logaddexp,
        "xlogy": jax.scipy.special.xlogy,
    }
    layers = {
        "relu": lambda x, weights, bias: jax.nn.relu(x @ weights + bias),
        "sigmoid": lambda x, weights, bias: jax.nn.sigmoid(x @ weights + bias),
    }
    arrays, dense = (
        {name: compiled(function) for name, function in group.items()}
        for group in (functions, layers)
    )
    scalars = {name: jax.jit(function) for name, function in functions.items()}
    return Library(jax.__version__, arrays, scalars, dense)
