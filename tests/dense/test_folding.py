"""Parts of models are folded into few layers, which are within stated bounds of the parts."""

import ml_dtypes
import numpy as np
import pytest
from conftest import FLOATS
from hypothesis import given
from hypothesis import strategies as st
from parts_of_models import evaluate, evaluate_layers, magnitude, operations

import fastact as fa
from fastact._dense.folding import (
    Activation,
    Affine,
    Scaling,
    batch_normalization,
    clip,
    fold,
    standardization,
)

EPS = np.finfo(np.float64).eps


def numbers(rng, *shape):
    """Numbers of both signs whose products are neither large nor small."""
    return rng.uniform(0.5, 2, shape) * rng.choice([-1, 1], shape)


@st.composite
def models(draw, dtype):
    """Parts of all kinds in any order, with a map among them, and inputs."""
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    first = width = draw(st.integers(1, 4))
    parts = []
    kinds = ["affine", "biased", "scaling", "same scaling", "relu", "tanh", "sigmoid", "prelu"]
    drawn = draw(st.lists(st.sampled_from(kinds), max_size=8))
    for kind in [*drawn[:4], "affine", *drawn[4:]]:
        name = f"part {len(parts)}"
        if kind in ("affine", "biased"):
            new = draw(st.integers(1, 4))
            b = numbers(rng, new).astype(dtype) if kind == "biased" else None
            parts.append(Affine(name, numbers(rng, width, new).astype(dtype), b))
            width = new
        elif kind == "scaling":
            parts.append(Scaling(name, numbers(rng, width), numbers(rng, width)))
        elif kind == "same scaling":
            parts.append(Scaling(name, *numbers(rng, 2)))
        elif kind == "prelu":
            parts.append(Activation(name, ("prelu", rng.uniform(-1, 1, width))))
        else:
            parts.append(Activation(name, kind))
    return parts, numbers(rng, 3, first).astype(dtype)


@given(data=st.data())
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_layers_compute_what_the_parts_do(dtype, data):
    """The bound is that of the docstring: weights are wrong by half an eps and in float64."""
    parts, x = data.draw(models(dtype))
    layers = fold("test", parts)
    found, expected = evaluate_layers(layers, x), evaluate(parts, x)
    steps = operations(parts)
    relative = steps * EPS / 2 + steps * np.finfo(np.longdouble).eps
    if dtype != np.float64:
        relative += float(ml_dtypes.finfo(dtype).eps) / 2
    bound = len(layers) * relative * magnitude(parts, x)
    assert (abs(found - expected) <= 1.01 * bound).all()
    assert all(layer.dtype == dtype for layer in layers if isinstance(layer, fa.Dense))


def layers_of(*parts):
    """What `fold` makes of the parts, in short."""
    return [
        (layer.in_features, layer.out_features, layer.activation)
        if isinstance(layer, fa.Dense)
        else layer.name
        for layer in fold("test", parts)
    ]


def affine(K, N):
    return Affine(f"{K} to {N}", numbers(np.random.default_rng(0), K, N), np.ones(N))


RELU, TANH = Activation("relu", "relu"), Activation("tanh", "tanh")
SCALING = Scaling("scaling", 2.0, 1.0)


@pytest.mark.parametrize(
    "parts, expected",
    [
        # Scalings on both sides, one or several.
        ([SCALING, affine(3, 4), SCALING], [(3, 4, "identity")]),
        ([SCALING, SCALING, affine(3, 4), RELU], [(3, 4, "relu")]),
        ([affine(3, 4), RELU, SCALING, affine(4, 2)], [(3, 4, "relu"), (4, 2, "identity")]),
        # A map of its own only where there is none between the same activations.
        ([SCALING, RELU, affine(3, 4)], [(3, 3, "relu"), (3, 4, "identity")]),
        ([affine(3, 4), TANH, SCALING, SCALING], [(3, 4, "tanh"), (4, 4, "identity")]),
        ([affine(3, 4), TANH, SCALING, RELU], [(3, 4, "tanh"), (4, 4, "relu")]),
        ([Scaling("scaling", [1.0, 2.0])], [(2, 2, "identity")]),
        # Maps become one where this takes no more products.
        ([affine(9, 4), affine(4, 2)], [(9, 2, "identity")]),
        ([affine(9, 2), affine(2, 9), RELU], [(9, 2, "identity"), (2, 9, "relu")]),
        ([affine(4, 2), affine(2, 4)], [(4, 4, "identity")]),  # as many
        ([affine(9, 2), SCALING, affine(2, 9)], [(9, 2, "identity"), (2, 9, "identity")]),
        # The first two only after the last two.
        ([affine(20, 2), affine(2, 20), affine(20, 1)], [(20, 1, "identity")]),
        # Activations without a layer before them, and none.
        ([RELU, TANH, affine(3, 4), RELU, TANH], ["relu", "tanh", (3, 4, "relu"), "tanh"]),
        ([affine(9, 4), Activation("none"), affine(4, 2)], [(9, 2, "identity")]),
        ([affine(9, 4), Activation("none", None)], [(9, 4, "identity")]),
        ([affine(0, 3), affine(3, 0)], [(0, 0, "identity")]),
        ([SCALING, affine(0, 3), SCALING], [(0, 3, "identity")]),
    ],
)
def test_what_is_folded(parts, expected):
    assert layers_of(*parts) == expected


def test_weights_that_are_not_folded_keep_their_bits():
    rng = np.random.default_rng(0)
    for dtype in FLOATS:
        W, b = numbers(rng, 3, 4).astype(dtype), numbers(rng, 4).astype(dtype)
        (layer,) = fold("test", [Affine("part", W, b)])
        assert layer.W.tobytes() == W.tobytes() and layer.b.tobytes() == b.tobytes()
        (layer,) = fold("test", [Affine("part", W)])
        assert layer.b is None


def test_weights_are_rounded_once():
    """float32 would round the first product to 1 + 2 eps, and lose the rest of the second."""
    eps = np.finfo(np.float32).eps
    W = np.float32([[1 + eps]])
    (layer,) = fold(
        "test", [Affine("part", W), Scaling("one", 1 + eps), Scaling("two", 1 - 2 * eps)]
    )
    exact = np.longdouble(1 + eps) ** 2 * (1 - 2 * eps)
    assert np.float32(exact) == layer.W
    assert layer.dtype == np.float32


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_nothing_overflows(dtype):
    """What float32 can compute in two steps stays two steps if one has weights beyond its range."""
    large = dtype(np.finfo(dtype).max) ** dtype(0.75)
    W, x = np.full((2, 2), large), np.full(2, 1 / large)
    scaling = Scaling("scaling", float(large))
    parts = {
        "maps": [Affine("one", W), Affine("two", W)],
        "columns": [Affine("one", W), scaling],
        "rows": [scaling, Affine("two", W)],
    }
    for pair in parts.values():
        layers = fold("test", pair)
        assert [layer.dtype for layer in layers] == [dtype] * 2
        y = fa.Sequential(layers)(x)
        assert np.isfinite(y).all() and (y >= large).all()
    (layer,) = fold("test", [*parts["rows"], Scaling("back", 1 / float(large))])
    np.testing.assert_allclose(layer.W.astype(float), large, rtol=2 * np.finfo(dtype).eps)


def test_weights_that_are_not_finite_are_not_folded():
    """An infinite weight gives NaN if it is multiplied by a shift of 0, but not in two steps."""
    W = np.array([[np.inf, 1.0]])
    layers = fold("test", [Scaling("scaling", 2.0), Affine("map", W)])
    np.testing.assert_array_equal(fa.Sequential(layers)([1.0]), [np.inf, 2.0])


def test_a_factor_of_0():
    """It is a constant column, not a division by 0."""
    W = np.ones((2, 2), np.float32)
    layers = fold("test", [Affine("map", W), Scaling("scaling", [0.0, 1.0], [5.0, 0.0])])
    np.testing.assert_array_equal(fa.Sequential(layers)(np.float32([1, 2])), [5, 3])


@pytest.mark.parametrize("order", [1, -1])
def test_the_type_of_a_diagonal_is_that_of_the_maps(order):
    half, single = (
        Affine("half", np.ones((2, 2), np.float16)),
        Affine("single", np.ones((2, 2), "f")),
    )
    parts = [half, RELU, Scaling("scaling", [2.0, 3.0]), TANH, single][::order]
    assert [layer.dtype for layer in fold("test", parts)] == [np.float16, np.float32, np.float32][
        ::order
    ]
    assert [layer.dtype for layer in fold("test", [half, single])] == [np.float32]
    large = fold("test", [half, RELU, Scaling("scaling", 1e6)])
    assert [layer.dtype for layer in large] == [np.float16, np.float64]
    assert [layer.dtype for layer in fold("test", [Scaling("scaling", [1.0])])] == [np.float64]


def test_opposite_columns_stay_opposite():
    """The two columns of a binary classifier, whatever the map before it."""
    rng = np.random.default_rng(0)
    w, b = rng.normal(size=(40, 1)), rng.normal(size=1)
    last = Affine("classes", np.hstack([-w, w]), np.concatenate([-b, b]))
    first = Affine("components", rng.normal(size=(300, 40)), rng.normal(size=40))
    for parts in ([first, last], [Scaling("scaling", *rng.normal(size=(2, 40))), last]):
        (layer,) = fold("test", parts)
        np.testing.assert_array_equal(layer.W[:, 0], -layer.W[:, 1])
        np.testing.assert_array_equal(layer.b[0], -layer.b[1])


@pytest.mark.parametrize(
    "parts, error, message",
    [
        (
            [affine(3, 4), RELU, affine(5, 2)],
            ValueError,
            "^test: 5 to 2 must have 4 input features to match 3 to 4, got 5$",
        ),
        (
            [affine(3, 4), Scaling("scaling", [1.0, 2.0])],
            ValueError,
            "^test: scaling must have 4 input features to match 3 to 4, got 2$",
        ),
        (
            [Scaling("scaling", [1.0, 2.0]), RELU, affine(3, 4)],
            ValueError,
            "^test: 3 to 4 must have 2 input features to match scaling, got 3$",
        ),
        (
            [affine(3, 4), Activation("second", ("prelu", [1, 2]))],
            ValueError,
            r"^test: second: slope must be a number or have shape \(4,\)",
        ),
        ([affine(3, 4), Activation("second", "no")], ValueError, "^test: second: activation must"),
        (
            [Scaling("scaling", [1.0, np.inf])],
            ValueError,
            "^test: scaling must .* inf and 0.* column 1",
        ),
        (
            [Scaling("scaling", [1.0], [np.nan])],
            ValueError,
            "^test: scaling must .*1.0 and nan for",
        ),
        (
            [Scaling("scaling", [1.0], [1.0, 2.0])],
            ValueError,
            r"^test: scaling must .*\(1,\) and \(2,\)",
        ),
        ([Scaling("scaling", [[1.0]])], ValueError, r"^test: scaling must .*\(1, 1\) and \(\)"),
        ([SCALING, RELU], ValueError, "^test: scaling must have a number of columns"),
        ([], ValueError, "^test: the model must have at least one layer with weights, got nothing"),
        (
            [RELU, Activation("part", ("prelu", np.ones(50)))],
            ValueError,
            r"^test: the model must have .* weights, got relu, prelu\(50 values\)$",
        ),
        (
            [Affine("map", np.ones(3))],
            ValueError,
            r"^test: map must have W of shape .*\(3,\) and None",
        ),
        (
            [Affine("map", np.ones((2, 3)), np.ones(2))],
            ValueError,
            r"^test: map .*\(2, 3\) and \(2,\)",
        ),
        (
            [Affine("map", np.ones((2, 3)) * 1j)],
            TypeError,
            r"^test: map \(W\) must be .* complex128",
        ),
    ],
)
def test_parts_that_are_refused(parts, error, message):
    with pytest.raises(error, match=message):
        fold("test", parts)


def test_a_deviation_of_zero_is_refused():
    with pytest.raises(ValueError, match=r"^test: scaling must .* inf and -inf"):
        fold("test", [standardization("scaling", [1.0], [0.0])])


def test_parts_of_common_layers():
    rng = np.random.default_rng(0)
    x, mean, gamma, beta = rng.normal(size=(4, 5))
    variance = rng.uniform(0.1, 2, 5)
    expected = (x - mean) / np.sqrt(variance + 1e-3)
    for part, y in (
        (standardization("part", mean, None), x - mean),
        (standardization("part", None, gamma), x / gamma),
        (standardization("part", mean, gamma), (x - mean) / gamma),
    ):
        np.testing.assert_allclose(evaluate([part], x).astype(float), y, rtol=1e-14, atol=1e-14)
    for arguments, y in (
        ((), expected),
        ((gamma,), expected * gamma),
        ((None, beta), expected + beta),
        ((gamma, beta), expected * gamma + beta),
    ):
        parts = batch_normalization("part", mean, variance, 1e-3, *arguments)
        np.testing.assert_allclose(evaluate(parts, x).astype(float), y, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("low, high", [(-1, 1), (0, 6), (0, 1), (-0.25, 3.5), (10, 11), (-4, -3)])
def test_clipping(low, high):
    x = np.linspace(low - 2, high + 2, 101)
    layers = fold("test", [Affine("part", np.ones((1, 1))), *clip("part", low, high)])
    y = fa.Sequential(layers)(x[:, np.newaxis])[:, 0]
    np.testing.assert_allclose(y, np.clip(x, low, high), rtol=0, atol=4 * EPS * max(-low, high))
    assert len(layers) == (1 if (low, high) in [(-1, 1), (0, 6)] else 2)
