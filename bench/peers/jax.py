"""JAX: functions compiled by jax.jit, for JAX's arrays."""

from .base import Library


def load(threads: int) -> Library:
    """`threads` is unused: XLA starts as many as the environment and the process's cores allow."""
    import jax

    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_platforms", "cpu")

    def compiled(function):
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
        "softmax": jax.nn.softmax,
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
