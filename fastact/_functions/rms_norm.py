"""Normalization by the root mean square."""

from math import inf, nan

from fastact._declarations.declare import normalization
from fastact._declarations.records import OnnxOperator, TorchModule
from fastact._kernels import normalization as steps
from fastact._kernels.normalization_steps import Scheme


class _RMSNorm:
    """The steps of rms_norm, in the order of ``_kernels/normalization_steps.py``."""

    scheme = Scheme(centered=False)
    merge, add_square, rescale = steps.merge, steps.add_square, steps.rescale
    invert, result = steps.invert, steps.result

    class in_double:
        merge, add_square = steps.plain_merge, steps.plain_add_square
        rescale, invert, result = steps.plain_rescale, steps.plain_invert, steps.plain_result


def _definition(xp, x, weight, eps):
    square = xp.mean(x * x, axis=-1, keepdims=True)
    return x / xp.sqrt(square + eps[..., None]) * weight


rms_norm = normalization(
    name="rms_norm",
    steps=_RMSNorm,
    summary="Normalization along the last axis: elements divided by their root mean square.",
    formula="rms_norm(x, weight, eps) = x / sqrt(mean(x**2) + eps) * weight",
    notes="""The 16-bit formats and float32 are computed in float64. Their results are rounded to
float32, and those of the 16-bit formats once more. In float64, sums and products carry their
rounding errors, as in T. J. Dekker, "A floating-point technique for extending the available
precision" (1971). A row whose squares would overflow or underflow is multiplied by a power of
2.""",
    invalid="""If a row contains NaN or an infinity, or if all its elements and `eps` are 0, the
result is a row of NaN.""",
    reference=_definition,
    specials=[
        ([-2.0, 2.0], [1.0, 0.5], 0.0, [-1.0, 0.5]),
        ([0.0, -0.0], [1.0, 1.0], 1.0, [0.0, -0.0]),
        ([3.0], [2.0], 16.0, [1.2]),
        ([0.0, 0.0], [1.0, 1.0], 0.0, [nan, nan]),
        ([-2.0, 2.0], [inf, 1.0], 0.0, [-inf, 1.0]),
        ([-1.0, inf], [1.0, 1.0], 0.0, [nan, nan]),
    ],
    ulp={"float16": 0.51, "bfloat16": 0.51, "float32": 0.51, "float64": 0.51},
    torch_modules=[
        TorchModule(
            "RMSNorm",
            lambda module: len(module.normalized_shape) == 1,
            "have a normalized_shape of one axis",
        )
    ],
    onnx_operators=[
        OnnxOperator("RMSNormalization", lambda scale, epsilon=1e-5, stash_type=1: (scale, epsilon))
    ],
    elsewhere={
        "PyTorch": "nn.functional.rms_norm",
        "Keras": "ops.rms_normalization",
        "ONNX": "RMSNormalization",
    },
)
