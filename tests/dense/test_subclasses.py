"""Layers do not change, and what a subclass adds takes effect everywhere."""

import copy
import pickle

import numpy as np
import pytest
from conftest import assert_same

import fastact as fa

W = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
B = np.arange(4, dtype=np.float32)
X = np.random.default_rng(1).standard_normal((5, 3)).astype(np.float32)
SQUARE = np.random.default_rng(2).standard_normal((4, 4)).astype(np.float32)

COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{
        f"pickle {protocol}": lambda m, protocol=protocol: pickle.loads(pickle.dumps(m, protocol))
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)
    },
}

each_copy = pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
types = pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8], ids=str)


class Tenfold(fa.Dense):
    """A layer with another result, other arguments of ``__init__``, and more attributes."""

    __slots__ = ("slot",)

    def __init__(self, W, factor):
        self.factor = factor
        super().__init__(W, B)
        self.weights = "its own name for something else"
        self.slot = "kept"

    def __call__(self, x):
        return self.factor * super().__call__(x)


class Named(fa.Dense):
    """A layer with one more attribute."""

    name = "nobody"


class Centred(fa.Sequential):
    """A stack whose result for a row depends on the others."""

    def __init__(self, layers, *, scale):
        super().__init__(layers, classes_=["a", "b", "c", "d"])
        self.scale = scale

    def __call__(self, x):
        y = super().__call__(x)
        return self.scale * (y - y.mean(axis=0))


class Plain(fa.Sequential):
    pass


def one_by_one(layers, x):
    for layer in layers:
        x = layer(x)
    return x


# Attributes that cannot be changed.


@pytest.mark.parametrize("name", ["activation", "dtype", "in_features", "out_features", "W", "b"])
@pytest.mark.parametrize("made", [lambda: fa.Dense(W, B), lambda: Tenfold(W, 2)])
def test_attributes_of_a_layer_stay(made, name):
    layer = made()
    before = repr(layer), [layer(X.astype(dtype)).tobytes() for dtype in "fde"]
    with pytest.raises(AttributeError, match=f"{name}.* (cannot be changed|has no setter)"):
        setattr(layer, name, "relu")
    with pytest.raises(AttributeError, match=f"{name}.* (cannot be deleted|has no deleter)"):
        delattr(layer, name)
    assert before == (repr(layer), [layer(X.astype(dtype)).tobytes() for dtype in "fde"])


@pytest.mark.parametrize("name", ["classes_", "dtype", "in_features", "layers", "out_features"])
def test_attributes_of_a_stack_stay(name):
    model = fa.Sequential([fa.Dense(W), "relu"])
    with pytest.raises(AttributeError, match=f"^Sequential: {name} cannot be changed, got 7;"):
        setattr(model, name, 7)
    with pytest.raises(AttributeError, match=f"^Sequential: {name} cannot be deleted"):
        delattr(model, name)


def test_a_second_init_does_not_change_attributes():
    layer, model = fa.Dense(W), fa.Sequential([fa.Dense(W)])
    expected = layer(X)
    with pytest.raises(AttributeError, match=r"^Dense: \w+ can be set only once, by __init__"):
        layer.__init__(2 * W)
    with pytest.raises(AttributeError, match=r"^Sequential: \w+ can be set only once"):
        model.__init__([layer, "relu"])
    assert_same(layer(X), expected)
    assert_same(model(X), expected)


def test_attributes_cannot_be_set_before_init():
    class Early(fa.Dense):
        def __init__(self):
            self.activation = "relu"
            super().__init__(W)

    with pytest.raises(AttributeError, match=r"^Early: activation can be set only once"):
        Early()


# Copies.


@each_copy
def test_copies_of_a_layer_are_of_its_class(copied):
    layer = Tenfold(W, 10)
    layer.more = ["kept"]
    again = copied(layer)
    assert type(again) is Tenfold and repr(again) == "Tenfold(3 -> 4, identity, float32)"
    assert (again.factor, again.slot, again.more) == (10, "kept", ["kept"])
    assert (again.more is layer.more) == (copied is copy.copy)
    assert_same(again(X), layer(X))
    assert_same(again(X), np.float32(10) * fa.dense(X, W, B))


@each_copy
def test_copies_of_a_stack_are_of_its_class(copied):
    model = Centred([Tenfold(W, 3), "tanh", Named(SQUARE)], scale=2)
    again = copied(model)
    assert type(again) is Centred and again.scale == 2
    assert again.classes_.tolist() == ["a", "b", "c", "d"]
    assert [type(layer) for layer in again] == [Tenfold, np.ufunc, Named]
    assert repr(again) == repr(model)
    assert_same(again(X), model(X))


@each_copy
def test_copies_keep_attributes_of_plain_layers(copied):
    layer, model = fa.Dense(W), fa.Sequential([fa.Dense(W)])
    layer.name, model.name = "first", "all"
    assert (copied(layer).name, copied(model).name) == ("first", "all")
    assert type(copied(layer)) is fa.Dense and type(copied(model)) is fa.Sequential


class Stateful(fa.Dense):
    def __getstate__(self):
        return {"from": super().__getstate__()}

    def __setstate__(self, state):
        self.restored = state["from"]


@each_copy
def test_a_subclass_may_have_its_own_state(copied):
    layer = Stateful(W)
    layer.name = "it"
    assert copied(layer).restored == {"name": "it"}


@pytest.mark.parametrize("kind", [fa.Dense, fa.Sequential])
def test_pickles_name_the_public_class(kind):
    assert (kind.__module__, kind.__qualname__) == ("fastact", kind.__name__)
    assert b"_dense" not in pickle.dumps(kind)


def test_slices_are_of_the_class():
    model = Centred([Named(W), "tanh", Named(SQUARE), "relu"], scale=7)
    part = model[:2]
    assert type(part) is Centred and part.scale == 7 and part.classes_ is None
    assert_same(part(X), Centred([Named(W), "tanh"], scale=7)(X))
    assert type(fa.Sequential([fa.Dense(W), "relu"])[:1]) is fa.Sequential


# Calls.


@types
@pytest.mark.parametrize("place", range(3))
def test_a_layer_with_its_own_call_at_any_place(place, dtype):
    layers = [fa.Dense(W, B, "tanh"), fa.Dense(SQUARE), fa.Dense(SQUARE), "sigmoid"]
    layers[place] = Tenfold(layers[place].W, 10)
    model, x = fa.Sequential(layers), X.astype(dtype)
    expected = one_by_one(model, x)
    for _ in range(2):
        assert_same(model(x), expected)
    out = np.empty_like(expected)
    assert model(x, out=out) is out
    assert_same(out, expected)
    single = np.empty(expected.shape, np.float16)
    assert_same(model(x, out=single), expected.astype(np.float16))
    assert_same(model(x[0]), one_by_one(model, x[0]))
    assert model[place] is layers[place]


@types
def test_an_activation_after_a_layer_with_its_own_call(dtype):
    layer, x = Tenfold(W, -10), X.astype(dtype)
    assert_same(fa.Sequential([layer, "relu"])(x), fa.relu(layer(x)))


@types
def test_a_stack_with_its_own_call_is_not_flattened(dtype):
    inner, x = Centred([fa.Dense(W)], scale=3), X.astype(dtype)
    model = fa.Sequential([inner, "tanh", fa.Dense(SQUARE)])
    assert model[0] is inner and len(model) == 3
    assert (model.in_features, model.out_features, model.dtype) == (3, 4, np.float32)
    assert_same(model(x), fa.dense(fa.tanh(inner(x)), SQUARE))
    assert "Centred(\n        Dense(3 -> 4" in repr(model)
    assert_same(fa.Sequential(inner)(x), inner(x))
    with pytest.raises(ValueError, match=r"layer 1 must have 4 input features.*got Centred"):
        fa.Sequential([fa.Dense(W), inner])


def test_a_stack_with_its_own_call_gets_all_rows_at_once():
    """Other stacks get blocks of rows."""
    inner = Centred([fa.Dense(SQUARE)], scale=1)
    x = np.random.default_rng(0).standard_normal((70_000, 3))
    y = fa.Sequential([fa.Dense(W), inner])(x)
    assert_same(y, inner(fa.dense(x, W)))
    assert abs(y.mean(axis=0)).max() < 1e-12


def test_subclasses_without_their_own_call_are_compiled():
    """Stacks are flattened, and activations become part of the layers that they follow."""
    model = fa.Sequential([Named(W), "relu", Plain([Named(SQUARE), "tanh"])])
    assert [type(layer) for layer in model] == [Named, np.ufunc, Named, np.ufunc]
    assert_same(model(X), one_by_one(model, X))
    (program,) = model._compiled.values()
    assert len(program._steps) == 2


class Cut(fa.Dense):
    def __call__(self, x):
        return super().__call__(x)[..., :2]


def test_results_that_do_not_fit():
    model = fa.Sequential([Cut(W)])
    assert model(X).shape == (5, 2)
    out = np.full((5, 4), 7, np.float32)
    with pytest.raises(
        ValueError, match=r"^Sequential: layers must return shape \(5, 4\), got \(5, 2"
    ):
        model(X, out=out)
    with pytest.raises(ValueError, match=r"^Sequential: out must have shape \(5, 4\)"):
        model(X, out=out[:, :2])
    with pytest.raises(ValueError, match=r"^Dense: x must have shape \(\.\.\., 4\)"):
        fa.Sequential([Cut(W), fa.Dense(SQUARE)])(X)
    assert (out == 7).all()


class Wayward(fa.Dense):
    """A layer whose attributes differ from what it computes with."""

    @property
    def W(self):
        return np.zeros((3, 4))

    @property
    def b(self):
        return None

    @property
    def activation(self):
        return "identity"


def test_overridden_attributes_do_not_change_results():
    layer, plain = Wayward(W, B, "tanh"), fa.Dense(W, B, "tanh")
    for dtype in "efd":
        assert_same(layer(X.astype(dtype)), plain(X.astype(dtype)))
        assert_same(
            fa.Sequential([layer, "relu"])(X.astype(dtype)), fa.relu(plain(X.astype(dtype)))
        )
    assert_same(copy.copy(layer)(X), plain(X))


# Arguments that are not layers.


@pytest.mark.parametrize(
    ("layers", "got"),
    [
        (lambda: None, "None"),
        (lambda: 7, "7"),
        (lambda: "relu", "'relu'"),
        (lambda: fa.Dense(W), r"Dense\(3 -> 4"),
        (lambda: fa.relu, "<ufunc 'relu'>"),
    ],
)
def test_layers_must_be_a_sequence(layers, got):
    with pytest.raises(TypeError, match=f"^Sequential: layers must be .*, got {got}"):
        fa.Sequential(layers())
