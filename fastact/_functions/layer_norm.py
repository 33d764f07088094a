"""Layer normalization."""

from math import inf, nan

from fastact._declarations.declare import normalization
from fastact._declarations.records import OnnxOperator, TorchModule
from fastact._kernels import normalization as steps
from fastact._kernels.normalization_steps import Scheme


class _LayerNorm:
    """The steps of layer_norm, in the order of ``_kernels/normalization_steps.py``."""

    scheme = Scheme(centered=True)
    add, merge, center = steps.add, steps.merge, steps.center
    add_square, rescale = steps.add_square_of_deviation, steps.rescale
    invert, result = steps.invert, steps.result_of_deviation

    class in_double:
        add, merge, center = steps.plain_add, steps.plain_merge, steps.plain_center
        add_square, rescale = steps.plain_add_square_of_deviation, steps.plain_rescale
        invert, result = steps.plain_invert, steps.plain_result_of_deviation


def _definition(xp, x, weight, bias, eps):
    deviation = x - xp.mean(x, axis=-1, keepdims=True)
    variance = xp.mean(deviation * deviation, axis=-1, keepdims=True)
    return deviation / xp.sqrt(variance + eps[..., None]) * weight + bias


layer_norm = normalization(
    name="layer_norm",
    steps=_LayerNorm,
    summary="Layer normalization along the last axis: deviations from the mean, divided by the "
    "standard deviation.",
    formula="layer_norm(x, weight, bias, eps) = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias",
    notes="""`var` is the variance of the population, the mean of squared deviations. They are
computed in a second pass over the row, so that a mean much larger than the deviations does not
matter: of a row of equal numbers, all deviations are 0.

The 16-bit formats and float32 are computed in float64. Their results are rounded to float32, and
those of the 16-bit formats once more. In float64, sums and products carry their rounding errors, as
in T. J. Dekker, "A floating-point technique for extending the available precision" (1971). A row
whose squares would overflow or underflow is multiplied by a power of 2.

Where an element is nearly equal to the mean, or a term nearly equal to -`bias`, the error can be
larger than the bound below. What exceeds the bound is less than 2^-48 (in float64, 2^-100) times
``abs(weight) * max(abs(x)) / sqrt(var(x) + eps) + abs(bias)``, unless the mean is subnormal in
float64.""",
    invalid="""If a row contains NaN or an infinity, or if its variance and `eps` are 0, the result
is a row of NaN.""",
    reference=_definition,
    specials=[
        ([-1.0, 1.0], [1.0, 2.0], [0.0, 1.0], 0.0, [-1.0, 3.0]),
        ([5.0, 5.0], [1.0, 1.0], [0.5, -2.0], 1e-05, [0.5, -2.0]),
        ([3.0], [2.0], [0.25], 1.0, [0.25]),
        ([5.0, 5.0], [1.0, 1.0], [0.0, 0.0], 0.0, [nan, nan]),
        ([-1.0, 1.0], [1.0, 1.0], [inf, 0.0], 0.0, [inf, 1.0]),
        ([-1.0, inf], [1.0, 1.0], [0.0, 0.0], 0.0, [nan, nan]),
    ],
    ulp={"float16": 0.51, "bfloat16": 0.51, "float32": 0.51, "float64": 0.51},
    torch_modules=[
        TorchModule(
            "LayerNorm",
            lambda module: len(module.normalized_shape) == 1,
            "have a normalized_shape of one axis",
        )
    ],
    onnx_operators=[
        OnnxOperator(
            "LayerNormalization",
            lambda scale, bias=0.0, epsilon=1e-5, stash_type=1: (scale, bias, epsilon),
        )
    ],
    elsewhere={
        "PyTorch": "nn.functional.layer_norm",
        "Keras": "ops.layer_normalization",
        "ONNX": "LayerNormalization",
    },
)
