"""Models of Keras become layers that compute the same."""

import atexit
import functools
import os
import shutil
import tempfile
import warnings

import ml_dtypes
import numpy as np
import pytest
from conftest import run_python
from hypothesis import given, settings
from hypothesis import strategies as st
from parts_of_models import magnitude, operations

import fastact as fa
from fastact._declarations.records import activations
from fastact._dense import from_keras

pytestmark = pytest.mark.integration

os.environ["KERAS_BACKEND"] = "numpy"  # before Keras is imported
if "KERAS_HOME" not in os.environ:  # instead of the user's folder
    os.environ["KERAS_HOME"] = tempfile.mkdtemp(prefix="keras-tests-")
    atexit.register(shutil.rmtree, os.environ["KERAS_HOME"], ignore_errors=True)
keras = pytest.importorskip("keras")
L = keras.layers
EPS = np.finfo(np.float32).eps


def numbers(rng, *shape):
    """Numbers of both signs whose products are neither large nor small."""
    return rng.uniform(0.5, 2, shape) * rng.choice([-1, 1], shape)


def trained(model, seed=0):
    """The model with weights that are neither 0 nor 1."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if "variance" in weight.path:
            weight.assign(rng.uniform(0.1, 4, weight.shape))
        elif "alpha" in weight.path:
            weight.assign(rng.uniform(-1, 1, weight.shape))
        else:
            weight.assign(numbers(rng, *weight.shape))
    return model


def predicted(model, x):
    return np.asarray(model.predict(x, verbose=0))


def assert_alike(model, x):
    """Equal within a bound: each has an error of half an eps for each operation with a term."""
    found = fa.Sequential.from_keras(model)
    parts = from_keras._parts(model)
    y, expected = found(x), predicted(model, x)
    assert y.dtype == expected.dtype == np.float32 and y.shape == expected.shape
    bound = operations(parts) * EPS * magnitude(parts, x)
    assert (abs(y.astype(np.float64) - expected) <= bound).all()
    return found


def shapes(model):
    """The layers of a model in short."""
    return [
        (layer.in_features, layer.out_features, layer.activation)
        if isinstance(layer, fa.Dense)
        else layer
        for layer in model
    ]


FEW = ["linear", "relu", "relu6", "tanh", "hard_tanh", "sigmoid", "softmax"]


@st.composite
def layers_of_chains(draw, tested):
    """What makes layers in any order, one of the kind `tested`, and the width of the first."""
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    width = first = draw(st.integers(2, 4))  # Keras warns of softmax of one column
    kinds = draw(
        st.permutations([tested, L.Dense, *draw(st.lists(st.sampled_from(KINDS), max_size=4))])
    )
    makers = []
    for kind in kinds:
        options = {name: draw(st.sampled_from(values)) for name, values in OPTIONS[kind].items()}
        if kind is L.Dense:
            width = options["units"]
        elif kind is L.Normalization:
            options |= {"mean": 3.0, "variance": 0.5}
            if options["axis"] is not None:
                options |= {"mean": numbers(rng, width), "variance": rng.uniform(0.1, 4, width)}
        elif kind is L.Rescaling and draw(st.booleans()):
            options = {name: numbers(rng, width).tolist() for name in options}
        makers.append(functools.partial(kind, **options))
    return makers, first


OPTIONS = {
    L.Dense: {"units": [2, 3, 4], "activation": FEW, "use_bias": [True, False]},
    L.BatchNormalization: {
        "axis": [1, -1],
        "epsilon": [1e-3, 0.5],
        "center": [True, False],
        "scale": [True, False],
    },
    L.Normalization: {"axis": [None, 1, -1], "invert": [True, False]},
    L.Rescaling: {"scale": [0.25], "offset": [0, -1]},
    L.Activation: {"activation": FEW},
    L.LeakyReLU: {"negative_slope": [0.25, 1.0]},
    L.PReLU: {"shared_axes": [None, [1]]},
    L.ReLU: {"max_value": [None, 6, 1.5]},
    L.Softmax: {"axis": [1, -1, [1]]},
    L.Dropout: {"rate": [0.5]},
    L.GaussianNoise: {"stddev": [1.0]},
    L.Flatten: {},
    L.Reshape: {"target_shape": [(-1,)]},
    L.Identity: {},
}
KINDS = list(OPTIONS)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@settings(max_examples=20)
@given(data=st.data())
def test_random_chains(kind, data):
    """Some of the layers are in a model of their own."""
    makers, width = data.draw(layers_of_chains(kind))
    start, functional = data.draw(st.tuples(st.integers(0, 5), st.booleans()))
    layers = [make() for make in makers]
    start = min(start, len(layers) - 1)
    layers = [*layers[:start], keras.Sequential(layers[start:])]
    if functional:
        source = result = keras.Input((width,))
        for layer in layers:
            result = layer(result)
        model = keras.Model(source, result)
    else:
        model = keras.Sequential([keras.Input((width,)), *layers])
    x = numbers(np.random.default_rng(start), 5, width).astype(np.float32)
    assert_alike(trained(model), x)


@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize(
    "make",
    [
        L.LayerNormalization,
        functools.partial(L.LayerNormalization, center=False, epsilon=0.5),
        functools.partial(L.LayerNormalization, scale=False),
        functools.partial(L.LayerNormalization, scale=False, center=False),
        functools.partial(L.RMSNormalization, epsilon=0.5),
    ],
)
def test_normalizations_of_rows(make, axis):
    for layers in ([L.Dense(3), make(axis=axis)], [make(axis=axis), L.Dense(3, "relu")]):
        model = trained(keras.Sequential([keras.Input((4,)), *layers]))
        found = fa.Sequential.from_keras(model)
        assert len(found) == (1 if isinstance(layers[0], L.Dense) else 2)
        x = numbers(np.random.default_rng(0), 50, 4).astype(np.float32)
        np.testing.assert_allclose(found(x), predicted(model, x), rtol=1e-5, atol=1e-5)


def test_normalization_along_other_axes_is_refused():
    model = keras.Sequential([keras.Input((4, 3)), L.LayerNormalization(name="a", axis=1)])
    with pytest.raises(ValueError, match=r"layer 'a' must be along the last axis, got .*axis="):
        fa.Sequential.from_keras(model)
    flat = keras.Sequential(
        [keras.Input((4, 3)), L.LayerNormalization(), L.Flatten(name="b"), L.Dense(2)]
    )
    with pytest.raises(ValueError, match="layer 'b' must come before layers"):
        fa.Sequential.from_keras(flat)


NAMES = sorted(f.public for a in activations().values() for f in a.keras_functions)


@pytest.mark.parametrize("name", sorted({*NAMES, "linear", "swish", "hard_swish"}))
def test_every_function(name):
    """As the activation of a layer, and as a layer; by name, and as a function."""
    x = np.linspace(-9, 9, 60, dtype=np.float32).reshape(-1, 3)
    function = keras.activations.get(name)
    for layers in ([L.Dense(3, name)], [L.Dense(3), L.Activation(function)]):
        model = trained(keras.Sequential([keras.Input((3,)), *layers]))
        found = fa.Sequential.from_keras(model)
        assert len(found) == 1
        np.testing.assert_allclose(found(x), predicted(model, x), rtol=2e-5, atol=1e-5)


def test_every_function_of_keras_is_known_or_refused():
    known = {"linear", *NAMES}
    for function in keras.src.activations.ALL_OBJECTS:
        model = keras.Sequential([keras.Input((2,)), L.Dense(2)])
        model.layers[0].activation = function
        if function.__name__ in known:
            from_keras._parts(model)
        else:
            with pytest.raises(TypeError, match=f"must be one of .* got {function.__name__}$"):
                fa.Sequential.from_keras(model)


@pytest.mark.parametrize(
    "layers, expected",
    [
        ([L.BatchNormalization, L.Dense], [(3, 2, "identity")]),
        ([L.Dense, L.BatchNormalization, L.ReLU], [(3, 2, "relu")]),
        ([L.Dense, L.ReLU, L.BatchNormalization], [(3, 2, "relu"), (2, 2, "identity")]),
        ([L.Normalization, L.Flatten, L.Dense, L.Softmax], [(3, 2, "softmax")]),
    ],
)
def test_what_is_folded(layers, expected):
    made = [kind(2) if kind is L.Dense else kind() for kind in layers]
    model = trained(keras.Sequential([keras.Input((3,)), *made]))
    x = numbers(np.random.default_rng(0), 5, 3).astype(np.float32)
    assert shapes(assert_alike(model, x)) == expected


def test_layers_as_activations():
    layers = [L.Dense(4, activation=L.ReLU(2)), L.Dense(4, activation=L.LeakyReLU(0.1))]
    layers.append(L.Dense(3, activation=L.Softmax()))
    model = trained(keras.Sequential([keras.Input((3,)), *layers]))
    assert_alike(model, numbers(np.random.default_rng(0), 5, 3).astype(np.float32))


def test_an_adapted_normalization():
    data = np.random.default_rng(0).normal(30, [1, 2, 0], (50, 3)).astype(np.float32)
    layer = L.Normalization()
    layer.adapt(data)
    model = trained(keras.Sequential([keras.Input((3,)), layer, L.Dense(2)]))
    layer.adapt(data)
    assert float(layer.variance[0, 2]) < 1e-10  # the divisor is epsilon then
    found = assert_alike(model, data)
    assert np.isfinite(found[0].W).all()


def test_a_layer_that_is_called_twice():
    shared = L.Dense(3, "tanh")
    source = keras.Input((3,))
    model = trained(keras.Model(source, shared(L.ReLU()(shared(source)))))
    found = assert_alike(model, numbers(np.random.default_rng(0), 5, 3).astype(np.float32))
    assert len(found) == 3


def test_a_part_of_a_model():
    """Which begins behind the first layers of the graph."""
    source = keras.Input((3,))
    middle = L.Dense(4, "relu")(source)
    result = L.Dense(2)(middle)
    x = numbers(np.random.default_rng(0), 5, 4).astype(np.float32)
    assert shapes(assert_alike(keras.Model(middle, result), x)) == [(4, 2, "identity")]


def test_inputs_of_more_axes():
    """Flatten takes the elements in order; without it, layers act on the last axis."""
    x = numbers(np.random.default_rng(0), 5, 2, 3).astype(np.float32)
    for flat in (L.Flatten(), L.Reshape((6,))):
        first = [L.Rescaling(0.5), L.ReLU(), flat]
        model = trained(keras.Sequential([keras.Input((2, 3)), *first, L.Dense(2)]))
        found = fa.Sequential.from_keras(model)(x.reshape(5, -1))
        np.testing.assert_allclose(found, predicted(model, x), rtol=1e-5)
    layers = [L.Dense(4), L.BatchNormalization(), L.PReLU(shared_axes=[1]), L.Softmax(axis=2)]
    model = trained(keras.Sequential([keras.Input((2, 3)), *layers]))
    found = fa.Sequential.from_keras(model)
    assert shapes(found) == [(3, 4, "prelu"), fa.softmax]
    np.testing.assert_allclose(found(x), predicted(model, x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "policy, dtype",
    [
        ("float16", np.float16),
        ("bfloat16", ml_dtypes.bfloat16),
        ("mixed_float16", np.float32),
        ("mixed_bfloat16", np.float32),
    ],
)
def test_types_are_those_of_the_variables(policy, dtype):
    layers = [L.Dense(4, "relu", dtype=policy), L.BatchNormalization(dtype=policy)]
    model = trained(keras.Sequential([keras.Input((3,)), *layers, L.Dense(2, dtype=policy)]))
    found = fa.Sequential.from_keras(model)
    assert found.dtype == dtype
    x = numbers(np.random.default_rng(0), 5, 3).astype(dtype)
    parts, eps = from_keras._parts(model), float(ml_dtypes.finfo(predicted(model, x).dtype).eps)
    # Sums are in the type of Keras' results there, and each part is rounded to it.
    bound = operations(parts) * eps * magnitude(parts, x)
    assert (abs(found(x).astype(float) - predicted(model, x).astype(float)) <= bound).all()


def test_low_rank_updates_of_weights():
    """LoRA: the weights are the sum of both parts."""
    model = keras.Sequential([keras.Input((3,)), L.Dense(2)])
    model.layers[0].enable_lora(1)
    trained(model)
    kernel = np.asarray(model.layers[0]._kernel)
    found = assert_alike(model, numbers(np.random.default_rng(0), 5, 3).astype(np.float32))
    assert (kernel != found[0].W).any()


def test_weights_are_copied():
    model = trained(keras.Sequential([keras.Input((3,)), L.Dense(2)]))
    found = fa.Sequential.from_keras(model)
    before = found(np.ones(3, np.float32))
    model.layers[0].kernel.assign(np.zeros((3, 2)))
    np.testing.assert_array_equal(found(np.ones(3, np.float32)), before)


class Impostor(L.Dense):
    pass


class Own(keras.Model):
    def call(self, x):
        return x


def chain(*layers):
    return keras.Sequential([keras.Input((2,)), L.Dense(2, name="first"), *layers])


def branched(merge, inputs=1):
    sources = [keras.Input((2,)) for _ in range(inputs)]
    return keras.Model(sources, merge(*sources))


def replaced():
    model = chain(L.Dense(2, name="second"))
    model.layers[1].call = lambda x: x
    return model


def quantized():
    model = chain()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras converts its own variables with a warning
        model.layers[0].quantize("int8")
    return model


def wide(*layers):
    return keras.Sequential([keras.Input((4, 2)), *layers])


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: [], TypeError, r"model must be a keras\.Sequential or .* got builtins\.list$"),
        (lambda: L.Dense(2), TypeError, r"model must be .* got keras\..*\.Dense$"),
        (Own, TypeError, r"model must be .* of no subclass, got .*Own$"),
        (lambda: keras.Sequential([L.Dense(2)]), ValueError, r"model must be built, .*call build"),
        (
            lambda: chain(L.UnitNormalization(name="a")),
            TypeError,
            "layer 'a' must be one of Dense,",
        ),
        (lambda: chain(Impostor(2, name="a")), TypeError, "layer 'a' must be one of .*Impostor$"),
        (
            lambda: chain(keras.Sequential([Impostor(2, name="a")], name="in")),
            TypeError,
            "layer 'in/a' must be one of .*Impostor$",
        ),
        (
            lambda: branched(lambda x: keras.ops.relu(L.Dense(2)(x))),
            TypeError,
            r"layer 'relu\w*' must be one of .* got keras\.src\.ops\.nn\.Relu$",
        ),
        (
            lambda: branched(lambda x: L.Add(name="a")([x, x])),
            ValueError,
            "layer 'a' must have one",
        ),
        (
            lambda: branched(lambda x, y: L.Add()([x, y]), 2),
            ValueError,
            r"model must have one output and one input .* got 1 and shapes \[\(None, 2\), ",
        ),
        (
            lambda: branched(lambda x: [L.Dense(2)(x), L.Dense(3)(x)]),
            ValueError,
            "model must have one output and one input .* got 2 and shapes",
        ),
        (
            lambda: keras.Sequential([keras.Input(()), L.Flatten(), L.Dense(2)]),
            ValueError,
            r"one input of two axes or more, got 1 and shapes \[\(None,\)\]",
        ),
        (
            lambda: branched(lambda x: L.Dropout(0.5, name="a")(L.Dense(2)(x), training=True)),
            ValueError,
            "layer 'a' must be called with its input alone, got True as well$",
        ),
        (
            replaced,
            ValueError,
            "layer 'second' must have the methods of Dense, got a replaced call",
        ),
        (
            quantized,
            ValueError,
            "layer 'first' must not be quantized, got .*quantization_mode='int8",
        ),
        (
            lambda: chain(L.BatchNormalization(name="a", dtype="float32", axis=1, epsilon=-9.0)),
            ValueError,
            "layer 'a' must multiply by finite numbers and add such, got nan",
        ),
        (
            lambda: wide(L.BatchNormalization(name="a", axis=1)),
            ValueError,
            "layer 'a' must be along the last axis, got BatchNormalization with axis=1$",
        ),
        (
            lambda: wide(L.Normalization(name="a", axis=(1, 2))),
            ValueError,
            r"layer 'a' must be along the last axis, got Normalization with axis=\(1, 2\)$",
        ),
        (
            lambda: wide(L.Softmax(name="a", axis=1)),
            ValueError,
            "layer 'a' must be along the last axis, got Softmax with axis=1$",
        ),
        (
            lambda: wide(L.Softmax(name="a", axis=[1, 2])),
            ValueError,
            r"layer 'a' must be along the last axis, got Softmax with axis=\[1, 2\]$",
        ),
        (
            lambda: wide(L.PReLU(name="a")),
            ValueError,
            "layer 'a' must share its slopes along all axes .*shared_axes=None$",
        ),
        (
            lambda: wide(L.Dense(3), L.Flatten(name="a")),
            ValueError,
            "layer 'a' must come before layers that compute with the last axis, .*input_axes=3$",
        ),
        (
            lambda: wide(L.Softmax(), L.Reshape((8,), name="a")),
            ValueError,
            "layer 'a' must come before layers that compute with the last axis, .*input_axes=3$",
        ),
        (
            lambda: wide(L.Flatten("channels_first", name="a")),
            ValueError,
            "layer 'a' must have data_format='channels_last', .*'channels_first'$",
        ),
        (
            lambda: chain(L.Reshape((1, 2), name="a")),
            ValueError,
            r"layer 'a' must make rows, got Reshape with target_shape=\(1, 2\)$",
        ),
        (lambda: chain(L.ELU(0.5, name="a")), ValueError, "'a' must have alpha=1, got ELU .*0.5$"),
        (
            lambda: chain(L.LeakyReLU(1.5, name="a")),
            ValueError,
            "layer 'a' must have a negative_slope of at most 1, got LeakyReLU with .*=1.5$",
        ),
        (
            lambda: chain(L.ReLU(6, 0.1, name="a")),
            ValueError,
            "layer 'a' must have either max_value or negative_slope, got ReLU with max_value=6, ",
        ),
        (
            lambda: chain(L.ReLU(threshold=1, name="a")),
            ValueError,
            "layer 'a' must have threshold=0, got ReLU with threshold=1$",
        ),
        (
            lambda: chain(L.ReLU(0, name="a")),
            ValueError,
            "layer 'a' must have a positive max_value, got ReLU with max_value=0$",
        ),
        (
            lambda: chain(L.Activation(np.tanh, name="a")),
            TypeError,
            "the activation of layer 'a' must be one of linear, .*, got <ufunc 'tanh'>$",
        ),
        (
            lambda: chain(L.Dense(2, lambda x: x, name="a")),
            TypeError,
            "the activation of layer 'a' must be one of linear, .*, got <function .*lambda",
        ),
    ],
)
def test_what_is_refused(make, error, message):
    with pytest.raises(error, match=f"^from_keras: .*{message}"):
        fa.Sequential.from_keras(make())


def test_a_call_of_a_class_that_was_replaced(monkeypatch):
    model = chain(L.ReLU(name="a"))
    monkeypatch.setattr(L.ReLU, "call", lambda self, x: x)
    with pytest.raises(ValueError, match="layer 'a' must have the methods of ReLU, got a replaced"):
        fa.Sequential.from_keras(model)


def test_a_function_that_only_has_the_name():
    def relu(x):
        return -x

    model = chain(L.Activation(relu, name="a"))
    with pytest.raises(TypeError, match=r"the activation of layer 'a' must be one of .* got <func"):
        fa.Sequential.from_keras(model)


def test_channels_first():
    keras.config.set_image_data_format("channels_first")
    try:
        model = chain(L.Rescaling([1.0, 2.0], name="a"))
        with pytest.raises(ValueError, match="layer 'a' must have one scale and one offset where"):
            fa.Sequential.from_keras(model)
    finally:
        keras.config.set_image_data_format("channels_last")


OTHER = """
import warnings
warnings.simplefilter("ignore")  # the backends may warn while they are imported
import keras
import numpy as np
import fastact as fa
L = keras.layers
rng = np.random.default_rng(0)
for dtype in TYPES:
    layers = [L.BatchNormalization(dtype=dtype), L.Dense(9, "gelu", dtype=dtype)]
    layers += [L.PReLU(dtype=dtype), L.Dropout(0.5), L.Dense(2, "softmax", dtype=dtype)]
    first = L.Normalization(mean=1.0, variance=2.0, axis=None)
    model = keras.Sequential([keras.Input((4,)), first, *layers])
    for w in model.weights:
        w.assign(rng.uniform(0.2, 1, w.shape))
    found = fa.Sequential.from_keras(model)
    assert found.dtype == dtype and len(found) == 3, (found, dtype)
    x = rng.normal(size=(5, 4)).astype(dtype)
    expected = np.asarray(keras.ops.convert_to_numpy(model(x, training=False)))
    tolerance = {"float64": 1e-6, "float32": 1e-6, "bfloat16": 2e-2}[dtype]
    np.testing.assert_allclose(found(x).astype(float), expected.astype(float), atol=tolerance)
"""


@pytest.mark.parametrize(
    "backend, types",
    [("jax", ["bfloat16"]), ("torch", ["float32", "bfloat16", "float64"])],
)
def test_other_backends(backend, types):
    run_python(OTHER.replace("TYPES", str(types)), KERAS_BACKEND=backend, PYTHONWARNINGS="ignore")
