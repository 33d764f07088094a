"""Gated layers: ``activation(x @ W_gate + b_gate) * (x @ W_up + b_up)`` in one pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from fastact._declarations.records import NORMALIZATIONS, ROW_ACTIVATIONS
from fastact._dense.activated import Activated, ActivationLike, chosen
from fastact._dense.compact import Compact
from fastact._dense.frozen import again
from fastact._dense.layers import PackedLayer, check_weights
from fastact._runtime.operands import as_array

if TYPE_CHECKING:  # importing numpy.typing takes a hundredth of NumPy's import time
    import numpy as np
    from numpy.typing import ArrayLike

__all__ = ["Gated"]

T = TypeVar("T")


class Gated(PackedLayer):
    """A layer ``activation(x @ W_gate + b_gate) * (x @ W_up + b_up)`` that packs its weights once.

    With silu, gelu, relu and sigmoid, it is the layer that is known as SwiGLU, GEGLU, ReGLU and
    GLU. The feed-forward block of a transformer is such a layer and a :class:`Dense`.

    Parameters
    ----------
    W_gate : array_like, shape (K, N)
        The weights of the gate, to which the activation is applied. The layer keeps a copy.
    W_up : array_like, shape (K, N)
        The weights of what the gate is multiplied by. The layer keeps a copy.
    activation : str, ufunc, tuple or None, optional
        As for :func:`dense`, but element-wise. Default is "silu".
    b_gate, b_up : array_like, shape (N,), optional
        The biases. Default is no bias. They come last, since most models have none.
    weights_dtype : {None, "bfloat16", "float16", "int8"}, optional
        As for :class:`Dense`, for both matrices.

    Attributes
    ----------
    W_gate, W_up : ndarray, shape (K, N)
        The weights as they are used, new arrays each time: of the dtype of the layer, or float32
        if there is a `weights_dtype`.
    b_gate, b_up : ndarray or None
        The biases, new arrays each time.
    in_features, out_features : int
        K and N.
    dtype : dtype
        The common type of weights and biases, and the type of the result unless the input has a
        wider one. With `weights_dtype`, it is float32 instead of float64.
    activation : str
        The name of the activation, "identity" for none.
    parameters : dict
        The parameters of the activation by name: a float, or an ndarray of shape (N,).
    weights_dtype : str or None
        As given.

    Raises
    ------
    ValueError, TypeError
        As for :class:`Dense`. Also for matrices of different shapes, and for an activation that is
        a function of rows, such as softmax.
    AttributeError
        If an attribute of the layer is set or deleted.

    See Also
    --------
    swiglu, geglu, reglu, glu : The products of a gate, as functions of two arrays.

    Notes
    -----
    Both sums are computed as by :func:`dense`, with the same bits. With silu, gelu, relu and
    sigmoid, the result is that of :data:`swiglu`, :data:`geglu`, :data:`reglu` and :data:`glu` of
    the two sums. Other activations, and none, are computed and rounded by themselves, and their
    product with the other sum is rounded once more. The 16-bit formats are computed in float32, and
    only the result is rounded to them. So the bits of an element depend only on its row and column,
    as for :func:`dense`, and what is said there about types, memory layout, NaN, infinities and the
    floating-point environment holds, too.

    The sums are within ``d_gate`` and ``d_up`` of the exact ones, with ``d = K * eps * (abs(x) @
    abs(W))`` as for :func:`dense`. For an activation whose slope is at most L (1.1 for silu, 1.13
    for gelu, 1 for relu, 1/4 for sigmoid), the result is within ``L * d_gate * (abs(up) + d_up) +
    abs(activation(gate)) * d_up`` of the product of the exact sums, and the errors of the
    activation and the product.

    Both sums are computed for a few rows and columns at a time, and are multiplied while they are
    in the first-level cache.

    References
    ----------
    N. Shazeer, "GLU Variants Improve Transformer" (2020), equations 5 and 6.

    Examples
    --------
    >>> import numpy as np, fastact as fa
    >>> layer = fa.Gated(np.ones((3, 2), np.float32), np.eye(3, 2, dtype=np.float32))
    >>> layer
    Gated(3 -> 2, silu, float32)
    >>> x = np.array([1.0, 2.0, -3.0], np.float32)
    >>> layer(x)
    array([0., 0.], dtype=float32)
    >>> np.array_equal(layer(-2 * x + 1), fa.silu(np.float32([3, 3])) * np.float32([-1, -3]))
    True
    """

    __module__ = "fastact"  # for pickles, which stay valid if modules move inside the package

    _caller = "Gated"
    _matrix = "W_gate"

    def __init__(
        self,
        W_gate: ArrayLike,
        W_up: ArrayLike,
        activation: ActivationLike = "silu",
        b_gate: ArrayLike | None = None,
        b_up: ArrayLike | None = None,
        weights_dtype: str | None = None,
    ):
        matrices: dict[str, Any] = {"W_gate": W_gate, "W_up": W_up}
        biases: dict[str, Any] = {"b_gate": b_gate, "b_up": b_up}
        for name, W in matrices.items():
            if not isinstance(W, Compact):  # which copies of layers have
                matrices[name] = as_array("Gated", name, W)
        for name, b in biases.items():
            biases[name] = None if b is None else as_array("Gated", name, b)
        for names in zip(matrices, biases, strict=True):
            check_weights("Gated", matrices[names[0]], biases[names[1]], names)
        shapes = [W.shape for W in matrices.values()]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"Gated: W_up must have the shape of W_gate, {shapes[0]}, got shape {shapes[1]}"
            )
        activated = chosen("Gated", activation, shapes[0][1])
        if activated is not None and activated.name in ROW_ACTIVATIONS | NORMALIZATIONS:
            raise ValueError(
                f"Gated: activation must be element-wise, got {activated}, a function of rows"
            )
        matrices, biases = (dict(_ordered(activated, *d.items())) for d in (matrices, biases))
        self._set(matrices, biases, activated, weights_dtype)

    @property
    def W_gate(self) -> np.ndarray:
        """The weights of the gate as they are used, as a new array."""
        return self._unpacked(self._indices[0])

    @property
    def W_up(self) -> np.ndarray:
        """The other weights as they are used, as a new array."""
        return self._unpacked(self._indices[1])

    @property
    def b_gate(self) -> np.ndarray | None:
        """The bias of the gate, as a new array, or None."""
        return self._bias(self._indices[0])

    @property
    def b_up(self) -> np.ndarray | None:
        """The other bias, as a new array, or None."""
        return self._bias(self._indices[1])

    @property
    def _indices(self) -> tuple[int, int]:
        """Those of the gate and of what it is multiplied by, among the packed matrices."""
        return _ordered(self._activated, 0, 1)

    def __reduce__(self) -> tuple[Any, ...]:
        gate, up = self._indices
        activation = None if self._activated is None else self._activated.argument
        arguments = (
            self._stored(gate), self._stored(up), activation, self._bias(gate), self._bias(up),
            self.weights_dtype,
        )  # fmt: skip
        return again, (type(self), Gated, *arguments), self.__getstate__()


def _ordered(activated: Activated | None, gate: T, up: T) -> tuple[T, T]:
    """Both in the order of the inputs of their product. The gate is the second input of glu."""
    last = activated is not None and activated.name == "sigmoid"
    return (up, gate) if last else (gate, up)
