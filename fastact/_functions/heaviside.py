"""The step with a given value at zero."""

from fastact._declarations.declare import activation
from fastact._kernels.vocabulary import like, quiet


@activation(
    summary="Heaviside step function with a given value at zero, element-wise.",
    formula="heaviside(x1, x2) = 0 if x1 < 0, x2 if x1 == 0, 1 if x1 > 0",
    notes="""Same as ``numpy.heaviside``: `x2` is used only where `x1` is 0. There is no
``heaviside_backward``, since there are two inputs; the derivative with respect to `x1` is
``step_backward``.""",
    reference=lambda m, x1, x2: (x1 > 0) + (x1 == 0) * x2 + 0 * x1,
    measured_in_full=True,
    elsewhere={
        "PyTorch": "heaviside",
        "JAX": "numpy.heaviside",
        "NumPy": "heaviside",
    },
    specials=[(-1.0, 0.5, 0.0), (0.0, 0.5, 0.5), (-0.0, 0.5, 0.5), (1.0, 0.5, 1.0)],
    interval=(-3.0, 3.0),
    ulp={"float16": 0.0, "bfloat16": 0.0, "float32": 0.0, "float64": 0.0},
)
def heaviside(x1, x2):
    zero = like(x1, 0)
    jump = like(x1, 1) if x1 > zero else zero
    jump = x2 if x1 == zero else jump
    return quiet(jump if x1 == x1 else x1)
