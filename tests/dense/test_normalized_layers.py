"""Layers whose activation is a normalization, which has several parameters."""

import copy
import pickle

import numpy as np
import pytest
from conftest import assert_same

import fastact as fa
from fastact._declarations.records import NORMALIZATIONS

pytestmark = pytest.mark.functional

each = pytest.mark.parametrize("name", NORMALIZATIONS)


def layer(rows=6, depth=7, columns=5, dtype=np.float32):
    rng = np.random.default_rng([rows, depth, columns])
    shapes = (rows, depth), (depth, columns), (columns,)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def parameters(name, columns):
    rng = np.random.default_rng(columns)
    return [rng.standard_normal(columns) for _ in NORMALIZATIONS[name].columns]


def applied(name, before, given, eps=1e-5):
    rows = [np.broadcast_to(np.asarray(v, before.dtype), before.shape[1]) for v in given]
    return getattr(fa, name)(before, *rows, np.asarray(eps, before.dtype))


@each
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("columns", [1, 3, 8, 16, 17, 100, 1500])
def test_the_parameters_are_operands_of_the_ufunc(name, dtype, columns):
    x, W, b = layer(columns=columns, dtype=dtype)
    before, function, given = fa.dense(x, W, b), getattr(fa, name), parameters(name, columns)
    for values in (given, [0.5 + k for k in range(len(given))], [*given[:-1], 2.0]):
        expected = applied(name, before, values)
        for activation in ((function, *values, 1e-5), (name, *values, 1e-5)):
            assert_same(fa.dense(x, W, b, activation), expected)
            made = fa.Dense(W, b, activation)
            assert_same(made(x), expected)
            assert_same(made(x[0]), expected[0])
            assert_same(fa.Sequential([fa.Dense(W, b), activation])(x), expected)
        out = np.zeros((6, columns + 3), dtype)[:, :columns]
        assert_same(made(x, out=out), expected)
        saved = np.zeros_like(before)
        assert_same(made(x, saved=saved), expected)
        assert_same(saved, before)


@each
def test_narrow_layers_compute_in_float32(name):
    x, W, b = layer(dtype=np.float16)
    wide = [v.astype(np.float32) for v in (x, W, b)]
    given = parameters(name, 5)
    expected = applied(name, fa.dense(*wide), given).astype(np.float16)
    assert_same(fa.dense(x, W, b, (name, *given, 1e-5)), expected)
    # A type that is wider than the layer's.
    x = x.astype(np.float64)
    expected = applied(name, fa.dense(x, *wide[1:]), given)
    assert_same(fa.Dense(*wide[1:], (name, *given, 1e-5))(x), expected)


@each
@pytest.mark.parametrize("shape", [(2, 64, 2000), (3000, 64, 40)], ids=["columns", "rows"])
def test_threads(name, shape):
    rows, depth, columns = shape
    x, W, b = layer(rows, depth, columns)
    given = parameters(name, columns)
    expected = applied(name, fa.dense(x, W, b), given)
    with fa.num_threads(4):
        for _ in range(3):
            assert_same(fa.Dense(W, b, (name, *given, 1e-5))(x), expected)


@each
@pytest.mark.parametrize("again", [copy.copy, lambda made: pickle.loads(pickle.dumps(made))])
def test_copies_and_pickles(name, again):
    x, W, b = layer(columns=9)
    given = (name, *parameters(name, 9), 1e-3)
    made = fa.Dense(W, b, given)
    assert_same(again(made)(x), made(x))
    stack = fa.Sequential([(name, *[1] * (len(given) - 2), 0.5), made, given])
    assert repr(again(stack)) == repr(stack)
    assert_same(again(stack)(x), stack(x))


def test_what_a_layer_says_of_its_parameters():
    _, W, b = layer(columns=9)
    weight = np.arange(9.0)
    made = fa.Dense(W, b, (fa.layer_norm, weight, 0.5, 1e-5))
    assert repr(made) == "Dense(7 -> 9, layer_norm(9 values, 0.5, 1e-05), float32)"
    assert made.activation == "layer_norm"
    assert list(made.parameters) == ["weight", "bias", "eps"]
    np.testing.assert_array_equal(made.parameters["weight"], weight)
    assert (made.parameters["bias"], made.parameters["eps"]) == (0.5, 1e-5)


@pytest.mark.parametrize(
    ("activation", "words"),
    [
        (fa.layer_norm, r"\(fa.layer_norm, weight, bias, eps\), got layer_norm with 0 parameters"),
        ((fa.layer_norm, 1, 0), "got layer_norm with 2 parameters"),
        ((fa.rms_norm, 1, 0, 1e-5), r"\(fa.rms_norm, weight, eps\), got rms_norm with 3"),
        ((fa.layer_norm, np.ones(4), 0, 1e-5), r"weight must be .* shape \(5,\)"),
        ((fa.layer_norm, 1, np.ones((5, 1)), 1e-5), "bias must be a number or have shape"),
        ((fa.layer_norm, 1, 0, np.ones(5)), r"eps must be a number, got an array of shape \(5,\)"),
    ],
)
def test_errors(activation, words):
    x, W, b = layer()
    for call in (
        lambda: fa.dense(x, W, b, activation),
        lambda: fa.Dense(W, b, activation),
        lambda: fa.Sequential([fa.Dense(W, b), activation]),
    ):
        with pytest.raises(ValueError, match=words):
            call()


@each
def test_gradients_are_refused(name):
    x, W, b = layer()
    activation = (name, *[1] * len(NORMALIZATIONS[name].columns), 1e-5)
    y = fa.dense(x, W, b, activation)
    with pytest.raises(ValueError, match=f"must have a derivative, got {name}.*, which has none"):
        fa.dense_backward(y, x, W, y, activation, saved=y)


# Models of PyTorch.


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="torch is not installed")


def as_in_torch(torch, module, width):
    module = module.double().eval()
    x = np.random.default_rng(0).standard_normal((13, width))
    model = fa.Sequential.from_torch(module)
    np.testing.assert_allclose(model(x), module(torch.from_numpy(x)).detach(), atol=1e-12)
    return model


def test_torch_modules(torch):
    nn = torch.nn
    torch.manual_seed(0)
    stack = nn.Sequential(
        nn.LayerNorm(9),
        nn.Linear(9, 20),
        nn.LayerNorm(20, eps=1e-3),
        nn.ReLU(),
        nn.LayerNorm(20, elementwise_affine=False),
        nn.Linear(20, 8),
        nn.BatchNorm1d(8),
        nn.LayerNorm(8, bias=False),
        nn.BatchNorm1d(8),
        nn.Linear(8, 6),
        nn.RMSNorm(6, eps=0.1, elementwise_affine=False),
        nn.RMSNorm(6),
    )
    for module in stack:
        for parameter in module.parameters():
            nn.init.normal_(parameter)
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    model = as_in_torch(torch, stack, 9)
    kinds = [getattr(layer, "activation", None) or str(layer) for layer in model]
    assert [kind.partition("(")[0] for kind in kinds] == [
        *("layer_norm", "layer_norm", "<ufunc 'relu'>", "layer_norm", "layer_norm"),
        *("rms_norm", "rms_norm"),
    ]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_default_eps_of_torch(torch, dtype):
    nn = torch.nn
    module = nn.Sequential(nn.Linear(3, 4), nn.RMSNorm(4, dtype=getattr(torch, dtype)))
    model = fa.Sequential.from_torch(module)
    assert model[0].parameters["eps"] == np.finfo(dtype).eps


def test_what_is_refused_of_torch(torch):
    nn = torch.nn
    linear = nn.Linear(3, 4)
    for module, words in (
        (nn.LayerNorm((3, 4)), r"module\[1\] must have a normalized_shape of one axis, got Layer"),
        (nn.LayerNorm(3), r"module\[1\]: weight must .* shape \(4,\).*got shape \(3,\)"),
        (nn.LayerNorm(1, elementwise_affine=False), r"module\[1\]: weight must .*got shape \(1,\)"),
        (nn.RMSNorm(4, elementwise_affine=False), r"module\[1\] must have an eps or a weight"),
    ):
        with pytest.raises(ValueError, match=f"^from_torch: {words}"):
            fa.Sequential.from_torch(nn.Sequential(linear, module))
