"""Models that are saved and loaded are the same, and damaged files are refused."""

import functools
import json
import os
import stat
import sys
import tracemalloc
import zlib

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from conftest import FLOATS, assert_same, run_python
from hypothesis import given
from hypothesis import strategies as st

import fastact as fa
from fastact._dense.activated import Activated, known
from fastact._dense.compact import NAMES
from fastact._dense.safetensors import LARGEST_HEADER, read

each_type = pytest.mark.parametrize("dtype", FLOATS, ids=str)
ACTIVATIONS = ["identity", "relu", "softmax", ("prelu", 0.1)]  # few, which compile fast
SLOPES = np.array([0.1, np.nan, -0.0])


def again(model, path):
    model.save(path)
    return fa.load(path)


def assert_equal(found, model):
    """The same layers, to the last bit of each number."""
    assert type(found) is type(model) and repr(found) == repr(model)
    assert found.dtype == model.dtype
    if isinstance(model, fa.Sequential):
        for ours, theirs in zip(found, model, strict=True):
            assert_equal_layers(ours, theirs)
        assert (found.classes_ is None) == (model.classes_ is None)
        if model.classes_ is not None:
            assert found.classes_.dtype == model.classes_.dtype
            np.testing.assert_array_equal(found.classes_, model.classes_)
    else:
        assert_equal_layers(found, model)


def assert_equal_layers(found, layer):
    assert type(found) is type(layer)
    if not isinstance(layer, fa.Dense | fa.Gated):
        assert str(found) == str(layer)
        if isinstance(layer, Activated):
            assert_same_bits(found.named(), layer.named())
        return
    assert (found.dtype, found.weights_dtype) == (layer.dtype, layer.weights_dtype)
    gated = isinstance(layer, fa.Gated)
    names = ("W_gate", "W_up", "b_gate", "b_up") if gated else ("W", "b")
    ours, theirs = ({name: getattr(of, name) for name in names} for of in (found, layer))
    for name in names:
        assert (ours[name] is None) == (theirs[name] is None)
    assert_same_bits(ours, theirs)
    assert_same_bits(found.parameters, layer.parameters)
    for k in range(1 + gated) if layer.weights_dtype is not None else ():
        ours, theirs = found._own.compact(k), layer._own.compact(k)
        assert_same_bits(
            ours._asdict() | {"name": 0, "dtype": 0}, theirs._asdict() | {"name": 0, "dtype": 0}
        )


def assert_same_bits(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if value is not None:
            ours, theirs = np.asarray(found[name]), np.asarray(value)
            assert ours.dtype == theirs.dtype and ours.shape == theirs.shape, name
            assert ours.tobytes() == theirs.tobytes(), name


@st.composite
def models(draw):
    """Stacks of all kinds of layers, whose weights have any bits, but for int8."""
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    width = draw(st.integers(1, 20))
    layers = draw(st.lists(st.sampled_from(ACTIVATIONS[:2]), max_size=1))
    for _ in range(draw(st.integers(1, 3))):
        shape = width, draw(st.sampled_from([1, 17]))
        dtype, compact = draw(st.sampled_from(FLOATS)), draw(st.sampled_from([None, *NAMES]))
        activation = draw(st.sampled_from(ACTIVATIONS))
        biases = []
        matrices = []
        for _ in range(2):
            W, b = (
                rng.integers(0, 256, (*s, dtype.itemsize), np.uint8) for s in (shape, shape[1:])
            )
            W, b = (a.view(dtype)[..., 0] for a in (W, b))
            matrices.append(rng.normal(size=shape).astype(dtype) if compact == "int8" else W)
            biases.append(draw(st.sampled_from([b, None])))
        if shape[0] and activation != "softmax" and draw(st.booleans()):
            layers.append(fa.Gated(*matrices, activation, *biases, compact))
        else:
            layers.append(fa.Dense(matrices[0], biases[0], activation, compact))
        layers += draw(st.lists(st.sampled_from(ACTIVATIONS[:2]), max_size=2))
        width = shape[1]
    return fa.Sequential(layers), rng


@given(drawn=models())
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_loaded_models_are_the_same(tmp_path_factory, drawn):
    model, rng = drawn
    found = again(model, tmp_path_factory.mktemp("models") / "model.safetensors")
    assert_equal(found, model)
    x = rng.normal(size=(5, model.in_features)).astype(model.dtype)
    assert_same(found(x), model(x))


@each_type
@pytest.mark.parametrize("weights_dtype", [None, *NAMES])
@pytest.mark.parametrize("activation", ["sigmoid", ("prelu", SLOPES)], ids=str)
def test_a_gated_layer(tmp_path, dtype, weights_dtype, activation):
    rng = np.random.default_rng(0)
    gate, up = rng.normal(size=(2, 40, 3)).astype(dtype)
    b = np.array([0, -0.0, 1]).astype(dtype)
    for biases in ((None, b), (b, None)):
        layer = fa.Gated(gate, up, activation, *biases, weights_dtype)
        found = again(layer, tmp_path / "layer")
        assert_equal(found, layer)
        x = rng.normal(size=(5, 40)).astype(dtype)
        assert_same(found(x), layer(x))


@each_type
@pytest.mark.parametrize("weights_dtype", [None, *NAMES])
def test_a_single_layer(tmp_path, dtype, weights_dtype):
    rng = np.random.default_rng(0)
    W, b = rng.normal(size=(40, 3)).astype(dtype), np.array([0, -0.0, 1]).astype(dtype)
    layer = fa.Dense(W, b, ("prelu", SLOPES), weights_dtype)
    assert_equal(again(layer, str(tmp_path / "layer")), layer)
    layer = fa.Dense(W, None, ("prelu", 0.3), weights_dtype)
    assert_equal(again(layer, tmp_path / "layer"), layer)
    layer = fa.Dense(W[:0], b, "relu", weights_dtype)  # without inputs
    assert_equal(again(layer, tmp_path / "layer"), layer)


def test_the_payload_of_every_nan_is_kept(tmp_path):
    """All bits of the 16-bit formats, of which float16 layers make signalling NaN quiet."""
    every = np.arange(1 << 16, dtype=np.uint16).reshape(256, 256)
    for dtype in (np.float16, ml_dtypes.bfloat16):
        for name in (None, "float16", "bfloat16"):
            layer = fa.Dense(every.view(dtype), None, weights_dtype=name)
            assert_equal(again(layer, tmp_path / "layer"), layer)
    wide = np.full((2, 2), np.nan)
    wide.view(np.uint64)[...] += np.arange(4, dtype=np.uint64).reshape(2, 2) * 12345
    layer = fa.Dense(wide, wide[1], ("prelu", wide[0]))
    found = again(layer, tmp_path / "layer")
    assert_same_bits({"W": found.W, "b": found.b}, {"W": wide, "b": wide[1]})
    assert_same_bits(found.parameters, {"slope": wide[0]})


def test_all_activations(tmp_path):
    given_ = []
    for name, declared in known().items():
        names = getattr(declared, "parameters", ())
        values = (1e-5 if parameter == "eps" else [0.1, -0.0] for parameter in names)
        given_.append((name, *values) if names else name)
    model = fa.Sequential([fa.Dense(np.eye(2)), *given_])
    assert len(model) == len(known()) + 1
    assert_equal(again(model, tmp_path / "model"), model)


def test_stacks_of_stacks_are_saved_as_their_layers(tmp_path):
    inner = fa.Sequential([fa.Dense(np.eye(2), activation="relu"), "tanh"], classes_=[1, 2])
    model = fa.Sequential([inner, fa.Dense(np.ones((2, 3)))])
    assert_equal(again(model, tmp_path / "model"), model)


@pytest.mark.parametrize(
    "classes",
    [
        [3, -1],
        [True, False],
        np.array([1, 2], np.uint8),
        np.array([0.5, np.nan], np.float16),
        np.array([0.5, 2], ml_dtypes.bfloat16),
        np.array([1j, 2], np.complex64),
        np.array([1, 2], ">i4"),
        ["cat", "dog"],
        ["", "\U0001f408\ud800"],
        np.array(["a", "b"], "U9"),
        np.array(["a", "b"], ">U9"),
        np.array("one", "U"),
        np.empty((0, 2), "U5"),
        np.array(["a\0", "\ud800"], object),
        np.empty((2, 0), object),
        np.arange(4).reshape(2, 2)[:, ::-1],
    ],
    ids=repr,
)
def test_classes(tmp_path, classes):
    model = fa.Sequential([fa.Dense(np.eye(2))], classes_=classes)
    found = again(model, tmp_path / "model").classes_
    assert found.dtype == model.classes_.dtype.newbyteorder("=")
    assert found.shape == model.classes_.shape
    # NaN is not equal to itself.
    assert str(found.tolist()) == str(model.classes_.tolist())


@pytest.mark.parametrize(
    "classes, message",
    [
        (np.array([1, "a"], object), "dtype object with .1, 'a'"),
        ([b"a"], r"dtype \|S1"),
        ([1j], "dtype complex128"),
        (np.array(["2000-01-01"], "M8[D]"), r"dtype datetime64"),
        ([None], "dtype object"),
    ],
)
def test_classes_that_are_refused(tmp_path, classes, message):
    model = fa.Sequential([fa.Dense(np.eye(2))], classes_=classes)
    with pytest.raises(TypeError, match=f"save: classes_ of model must be numbers.* got {message}"):
        model.save(tmp_path / "model")
    assert not os.listdir(tmp_path)


class Tenfold(fa.Dense):
    pass


class Stack(fa.Sequential):
    def __call__(self, x):
        return super().__call__(x)


def with_attribute(model):
    model.note = "kept by pickles"
    return model


@pytest.mark.parametrize(
    "model, error, message",
    [
        (
            lambda: Tenfold(np.eye(2)),
            TypeError,
            "model must be one of Sequential, Dense, Gated or an .*Tenfold$",
        ),
        (
            lambda: fa.Sequential([Tenfold(np.eye(2))]),
            TypeError,
            r"model\[0\] must be one of .*Tenfold$",
        ),
        (
            lambda: fa.Sequential(["relu", Stack([fa.Dense(np.eye(2))])]),
            TypeError,
            r"model\[1\] .*Stack$",
        ),
        (
            lambda: with_attribute(fa.Dense(np.eye(2))),
            ValueError,
            "model must have no attr.* got note$",
        ),
        (
            lambda: with_attribute(fa.Sequential([fa.Dense(np.eye(2))])),
            ValueError,
            "model must .* note$",
        ),
        (
            lambda: fa.Sequential([with_attribute(fa.Dense(np.eye(2)))]),
            ValueError,
            r"model\[0\] must have no attributes that were added to it, .* got note$",
        ),
        (
            lambda: fa.Dense(np.ones((0, 3))),
            ValueError,
            "model must have outputs, and inputs or a bias, got Dense.0 -> 3",
        ),
        (
            lambda: fa.Sequential([fa.Dense(np.ones((3, 0)), np.ones(0))]),
            ValueError,
            r"model\[0\] must have outputs, and inputs or a bias, got Dense.3 -> 0",
        ),
    ],
)
def test_models_that_are_refused(tmp_path, model, error, message):
    path = tmp_path / "model"
    path.write_bytes(b"old")
    with pytest.raises(error, match=f"^save: {message}"):
        model().save(path)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize("path", [None, 3, b"model"])
def test_paths_that_are_refused(path):
    with pytest.raises(TypeError, match=r"^save: path must be a str or os\.PathLike, got "):
        fa.Dense(np.eye(2)).save(path)
    with pytest.raises(TypeError, match=r"^load: path must be a str or os\.PathLike, got "):
        fa.load(path)


@functools.cache
def small():
    """A model with a layer of each kind."""
    return fa.Sequential(
        [
            fa.Dense(np.eye(3, 2, dtype=np.float32), [1, 2], ("prelu", [0.1, 0.2])),
            fa.Dense(np.ones((2, 19)), None, "relu", "int8"),
            ("prelu", 0.5),
            fa.Dense(np.ones((19, 1), ml_dtypes.bfloat16), np.ones(1, ml_dtypes.bfloat16)),
            "softmax",
        ],
        classes_=["a"],
    )


@pytest.fixture
def content(tmp_path):
    small().save(tmp_path / "content")
    return (tmp_path / "content").read_bytes()


def header_of(content):
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def made_of(header, elements=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + elements


def test_the_package_safetensors_reads_what_is_saved(tmp_path, content):
    arrays = safetensors.numpy.load_file(tmp_path / "content")
    for k in (0, 1, 3):
        layer, W = small()[k], arrays[f"layers.{k}.W"]
        scale = arrays.get(f"layers.{k}.scale", 1)
        assert_same((W * scale).astype(layer.W.dtype), layer.W)
        assert (f"layers.{k}.b" in arrays) == (layer.b is not None)
    assert_same(arrays["layers.0.b"], small()[0].b)
    assert_same(arrays["layers.0.activation.slope"], np.array([0.1, 0.2]))
    assert_same(arrays["layers.2.activation.slope"], np.array(0.5))
    header, _ = header_of(content)
    assert header.pop("__metadata__").keys() == {"fastact", "fastact_crc32"}
    assert header.keys() == arrays.keys()
    first = len(content) - sum(array.nbytes for array in arrays.values())
    assert first % 8 == 0
    for name, described in header.items():
        assert described["data_offsets"][0] % arrays[name].itemsize == 0, name
    path = tmp_path / "content"
    with safetensors.safe_open(path, "np") as file:
        assert json.loads(file.metadata()["fastact"])["version"] == 1


def test_files_that_the_package_safetensors_has_written_are_loaded(tmp_path, content):
    """It puts arrays in another order, and keeps texts that it is given."""
    arrays = safetensors.numpy.load_file(tmp_path / "content")
    metadata = header_of(content)[0]["__metadata__"] | {"format": "np"}
    path = tmp_path / "theirs"
    safetensors.numpy.save_file(arrays, path, metadata)
    assert path.read_bytes() != content
    assert_equal(fa.load(path), small())


def test_elements_need_not_be_aligned(tmp_path, content):
    header, elements = header_of(content)
    metadata = header.pop("__metadata__")
    entries = sorted(header.items(), key=lambda item: item[1]["data_offsets"], reverse=True)
    parts = []
    for _, described in entries:
        begin, stop = described["data_offsets"]
        start = sum(map(len, parts))
        parts.append(elements[begin:stop])
        described["data_offsets"] = [start, start + stop - begin]
    assert any(d["data_offsets"][0] % 4 for d in header.values() if d["dtype"] == "F32")
    path = tmp_path / "model"
    path.write_bytes(made_of(header | {"__metadata__": metadata}, b"".join(parts)))
    assert_equal(fa.load(path), small())
    arrays = [entry.array() for entry in read(str(path))[0].values()]
    assert all(array.flags.aligned for array in arrays)  # compiled code may rely on it


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
EIGHT = bytes(8)


def entry(**changes):
    return {"a": ENTRY | changes}


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "it must have 8 bytes or more, got 0$"),
        (EIGHT[:7], "it must have 8 bytes or more, got 7$"),
        (EIGHT, "it must have an object in JSON as the header, got ''$"),
        (b"\xff" * 8, f"a header of at most 0 bytes, got a length of {2**64 - 1}$"),
        (
            b"\x20" + bytes(7) + b"{}",
            r"it must have a header of at most 2 bytes, got a length of 32$",
        ),
        (made_of(b"[1]"), r"an object in JSON as the header, got '\[1\]'$"),
        (made_of(b" {}"), "an object in JSON as the header, got ' {}'$"),
        (made_of(b"{} {}"), "valid JSON as the header, got an error: Extra data"),
        (made_of(b'{"\xff": 1}'), "a header in UTF-8, got an error: .* can't decode"),
        (made_of(b'{"a": NaN}'), "an error: NaN, which JSON does not have$"),
        (made_of(b'{"a": ' + b"[" * 100_000), "valid JSON as the header, got an error: "),
        (made_of(b'{"a": ' + b"1" * 5_000 + b"}"), "valid JSON as the header, got an error: "),
        (made_of(b'{"a": 1, "b": 2, "a": 1}'), "an error: the key 'a' twice$"),
        (made_of({"__metadata__": []}), r"texts by name in __metadata__, got \[\]$"),
        (made_of({"__metadata__": {"a": 1}}), "texts by name in __metadata__, got {'a': 1}$"),
        (made_of({"a": 1}), "a dtype of F64, .* and two data_offsets for 'a', got 1$"),
        (made_of({"a": {}}), "two data_offsets for 'a', got {}$"),
        (made_of(entry(dtype="F33")), "a dtype of .* got {'dtype': 'F33'"),
        (made_of(entry(dtype=["F32"])), "a dtype of .* got "),
        (made_of(entry(shape=2)), "a dtype of .* got "),
        (made_of(entry(shape=[2.0])), "a dtype of .* got "),
        (made_of(entry(shape=[True])), "a dtype of .* got "),
        (made_of(entry(shape=[-2])), "a dtype of .* got "),
        (made_of(entry(shape=[1 << 63])), "a dtype of .* got "),
        (made_of(entry(shape=[1] * 65)), "a dtype of .* got "),
        (made_of(entry(data_offsets=[0])), "a dtype of .* got "),
        (made_of(entry(data_offsets=[0, "8"])), "a dtype of .* got "),
        (made_of(entry(other=1)), "a dtype of .* got "),
        (made_of(entry(), EIGHT[1:]), "it must have 8 bytes of elements, got 7$"),
        (made_of(entry(), EIGHT + b"1"), "it must have 8 bytes of elements, got 9$"),
        (
            made_of(entry(shape=[3]), EIGHT),
            r"it must have 'a', float32 of shape \(3,\), at bytes 0 to 12 of the elements, got",
        ),
        (
            made_of(entry(data_offsets=[1, 9]), EIGHT),
            "at bytes 0 to 8 of the elements, got 1 to 9$",
        ),
        (
            made_of(entry(data_offsets=[8, 0]), EIGHT),
            "at bytes 0 to 8 of the elements, got 8 to 0$",
        ),
        (
            made_of(entry() | {"b": ENTRY | {"data_offsets": [4, 12]}}, EIGHT),
            r"it must have 'b', .* at bytes 8 to 16 of the elements, got 4 to 12$",
        ),
        (
            made_of(entry(shape=[1 << 62, 1 << 62], data_offsets=[0, 1 << 62])),
            "at bytes 0 to 85070591730234615865843651857942052864 of the elements",
        ),
        (
            made_of(entry() | {"b": {"dtype": "I8", "shape": [0], "data_offsets": [4, 4]}}, EIGHT),
            "it must have 'b', int8 of .* at bytes 8 to 8 of the elements, got 4 to 4$",
        ),
        (
            made_of(entry(), EIGHT),
            r"a text 'fastact' that describes the layers, as files of save\(\) do, got only "
            r"arrays, \['a'\]; Dense\(W, b\) makes a layer of arrays$",
        ),
    ],
)
def test_files_that_are_refused(tmp_path, content, message):
    path = tmp_path / "model"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"^load: {path}: .*{message}"):
        fa.load(path)


def described(model, entries=(), *, version=1, checksum=None):
    """A file with arrays, or ones of these shapes, whose checksum is right.

    `model` may be JSON already.
    """
    arrays = {
        name: given if isinstance(given, np.ndarray) else np.ones(given)
        for name, given in dict(entries).items()
    }
    model = model if isinstance(model, str) else json.dumps(model)
    text = f'{{"version": {json.dumps(version)}, "model": {model}}}'
    if checksum is None:
        table = sorted((name, a.dtype.name, list(a.shape)) for name, a in arrays.items())
        checksum = f"{zlib.crc32((text + json.dumps(table)).encode()):08x}"
    return safetensors.numpy.save(arrays, {"fastact": text, "fastact_crc32": checksum})


PLAIN = {"kind": "Dense", "activation": "identity", "dtype": "float64", "weights_dtype": None}
STACK = {"kind": "Sequential", "classes": None, "layers": [PLAIN]}
ONE = {"W": (1, 1)}
FIRST = {"layers.0.W": (1, 1)}


@pytest.mark.parametrize(
    "content, message",
    [
        (described(PLAIN, ONE, version=2), "it must have version 1 of the format, got 2$"),
        (described(PLAIN, ONE, version=None), "it must have version 1 of the format, got None$"),
        (described(PLAIN, ONE, checksum=""), "it must have the checksum .* got ''; it was damaged"),
        (described(3), "model must be of type dict, got 3$"),
        (
            described({}),
            "kind of a layer must be one of Sequential, Dense, Gated, activation, got None$",
        ),
        (described({"kind": "os.system"}), "kind of a layer must be .* got 'os.system'$"),
        (described({"kind": ["Dense"]}), "kind of a layer must be .* got "),
        (described({"kind": "Dense"}), "there must be activation, dtype, weights_dtype, got $"),
        (described(PLAIN | {"x": 1}, ONE), "there must be activation, .* got .*, x$"),
        (described(PLAIN | {"activation": 1}, ONE), "activation must be of type str, got 1$"),
        (described(PLAIN | {"activation": "os"}, ONE), "activation must be one of .* got 'os'$"),
        (
            described(PLAIN | {"dtype": "int8"}, ONE),
            "must be those of a layer, got 'int8' and None",
        ),
        (described(PLAIN | {"dtype": "float32"}, ONE), "W must be an array of float32 with 2 axes"),
        (described(PLAIN | {"weights_dtype": "float8"}, ONE), "got 'float64' and 'float8'$"),
        (described(PLAIN), "there must be an array 'W', got none$"),
        (described(PLAIN, {"W": (1,)}), r"float64 with 2 axes, got float64 of shape \(1,\)$"),
        (described(PLAIN, ONE | {"b": (2,)}), r"b must have shape \(1,\) .* got shape \(2,\)$"),
        (described(PLAIN, ONE | {"c": ()}), "must belong to a layer, got 'c', which does not$"),
        # Of few bytes, but with more rows or columns than memory and time are for.
        (
            described(PLAIN, {"W": (0, 1 << 40)}),
            r"W or b must have elements, got W of shape \(0, 1",
        ),
        (
            described(PLAIN, {"W": (1 << 40, 0), "b": (0,)}),
            r"W or b must have elements, got W of s",
        ),
        (described(PLAIN, {"W": (1 << 40, 0), "b": (2,)}), r"b must have shape \(0,\)"),
        (
            described(PLAIN | {"activation": "prelu"}, ONE),
            "there must be an array 'activation.slope', got none$",
        ),
        (
            described(PLAIN | {"activation": "prelu"}, ONE | {"activation.slope": (2,)}),
            r"slope must be a number or have shape \(1,\), .* got shape \(2,\)$",
        ),
        (
            described(PLAIN | {"weights_dtype": "float16"}, {"W": np.ones((1, 1), np.float16)}),
            "dtype must be that of the weights, float32, got 'float64'$",
        ),
        (
            described(
                PLAIN | {"dtype": "float32", "weights_dtype": "int8"},
                {"W": np.ones((1, 1), np.int8), "scale": np.ones(2, np.float32)},
            ),
            r"scale must have shape \(1,\), got shape \(2,\)$",
        ),
        (described({"kind": "activation", "activation": "relu"}), "must be a layer or a stack"),
        (described(STACK | {"layers": 1}), "layers must be of type list, got 1$"),
        (described(STACK | {"layers": []}), "layers must have at least one Dense"),
        (described(STACK | {"layers": [1]}), r"layers\[0\]: a layer must be an object .* got 1$"),
        (described(STACK | {"classes": {}}, FIRST), "there must be type, got $"),
        (
            described(STACK | {"classes": {"type": "float32"}}, FIRST | {"classes": (1,)}),
            r"classes must be an array of float32, got float64 of shape \(1,\)$",
        ),
        (
            described(STACK | {"classes": {"type": "str"}}, FIRST),
            "there must be an array 'classes'",
        ),
        (
            described(STACK | {"classes": {"type": "object", "shape": [1], "values": [1]}}, FIRST),
            r"values of classes must be str, got \[1\]$",
        ),
        (
            described(
                STACK | {"classes": {"type": "object", "shape": [9], "values": ["a"]}}, FIRST
            ),
            "cannot reshape",
        ),
        (
            described(STACK | {"layers": [PLAIN, PLAIN]}, FIRST | {"layers.1.W": (2, 1)}),
            "layer 1 must have 1 input features .*$",
        ),
    ],
    # A short file would be its own name, and safetensors writes metadata in any order.
    ids=lambda value: "file" if isinstance(value, bytes) else None,
)
def test_descriptions_that_are_refused(tmp_path, content, message):
    path = tmp_path / "model"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"^load: {path}: .*{message}"):
        fa.load(path)


@pytest.mark.parametrize("depth", [100, 600, 100_000])
def test_deep_descriptions(tmp_path, depth):
    """Those of more levels than Python has for functions are refused."""
    before, after = json.dumps(STACK | {"layers": ["within"]}).split('"within"')
    text = before * depth + json.dumps(PLAIN) + after * depth
    path = tmp_path / "model"
    path.write_bytes(described(text, {"layers.0." * depth + "W": (1, 1)}))
    if depth == 100:
        assert_equal(fa.load(path), fa.Sequential([fa.Dense([[1.0]])]))
    else:
        with pytest.raises(ValueError, match=rf"^load: {path}: .*recursion"):
            fa.load(path)


def edited(path, classes, last):
    """A file with `classes`, whose last bytes are those of the last class, replaced by `last`."""
    fa.Sequential([fa.Dense([[1.0]])], classes_=classes).save(path)
    path.write_bytes(path.read_bytes()[: -len(last)] + last)
    return path


def test_code_points_that_do_not_exist(tmp_path):
    assert fa.load(edited(tmp_path / "model", ["a"], b"b\0\0\0")).classes_ == ["b"]
    with pytest.raises(ValueError, match="classes must be code points"):
        fa.load(edited(tmp_path / "model", ["a"], b"\xff" * 4))


def test_bool_that_is_neither_0_nor_1(tmp_path):
    classes = fa.load(edited(tmp_path / "model", [False, True], b"\2")).classes_
    assert classes.dtype == bool and classes.view(np.uint8).tolist() == [0, 1]


def refused_or_same(path, content):
    """Whether the file is refused; otherwise it is the model."""
    path.write_bytes(content)
    tracemalloc.start()
    try:
        found = fa.load(path)
    except ValueError as error:
        assert str(error).startswith(f"load: {path}: ")
        return True
    finally:
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
        tracemalloc.stop()
    assert_equal(found, small())
    return False


def test_truncated_files_are_refused(tmp_path, content):
    for size in range(len(content)):
        assert refused_or_same(tmp_path / "model", content[:size]), size


@given(data=st.data())
def test_a_changed_byte_of_the_header_is_an_error_or_nothing(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("models") / "model"
    small().save(path)
    content = bytearray(path.read_bytes())
    first = 8 + int.from_bytes(content[:8], "little")
    place = data.draw(st.integers(0, first - 1))
    content[place] = data.draw(st.one_of(st.integers(0, 255), st.sampled_from(b'0189 "abFI\\{,')))
    refused_or_same(path, content)


def test_every_digit_and_letter_of_the_header_matters(tmp_path, content):
    length = int.from_bytes(content[:8], "little")
    for place in range(8, 8 + length):
        character = content[place : place + 1]
        if character.isalnum():
            other = next(c for c in (b"12" if character.isdigit() else b"xy") if c != character[0])
            changed = content[:place] + bytes([other]) + content[place + 1 :]
            assert refused_or_same(tmp_path / "model", changed), (place, character)


def test_later_changes_of_the_file_have_no_effect(tmp_path):
    """Though the file was mapped into memory."""
    path = tmp_path / "model"
    for weights_dtype in (None, *NAMES):
        for shape in ((64, 64), (3, 1)):
            rng = np.random.default_rng(0)
            W, b = rng.normal(size=shape).astype(np.float32), np.ones(shape[1], np.float32)
            layer = fa.Dense(W, b, ("prelu", 0.5), weights_dtype)
            model = fa.Sequential([layer], classes_=np.arange(shape[1]))
            found = again(model, path)
            with open(path, "r+b") as stream:
                stream.write(b"\xff" * path.stat().st_size)
            assert_equal(found, model)


def peak(call):
    tracemalloc.start()
    try:
        kept = call()
        return kept, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["float32", "float64", *NAMES])
def test_memory(tmp_path, name):
    """Loading takes that of the layers, and saving that of one layer besides them."""
    wide = name.startswith("float") and name != "float16"
    W = np.ones((512, 1024), name if wide else np.float32)
    model = fa.Sequential(
        [fa.Dense(part, None, "relu", None if wide else name) for part in [W[:, :512]] * 8]
    )
    size = 512 * 512 * (np.dtype(name).itemsize if name != "bfloat16" else 2)
    path = tmp_path / "model"
    _, saving = peak(lambda: model.save(path))
    _, loading = peak(lambda: fa.load(path))
    assert size * 8 < path.stat().st_size < size * 8 + 20_000
    assert saving < 1.3 * size
    assert loading < 8.9 * size  # the layers, and no copy of one


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_leaves_the_old_file(tmp_path, monkeypatch, step):
    path = tmp_path / "model"
    small().save(path)
    before = path.read_bytes()

    def fail(*_):
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(os, step, fail)
        with pytest.raises(OSError, match="no space left"):
            fa.Dense(np.eye(2)).save(path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["model"]


@pytest.mark.skipif(os.name == "nt", reason="links and permissions are other ones on Windows")
def test_links_and_permissions_are_kept(tmp_path):
    path, link = tmp_path / "model", tmp_path / "link"
    path.touch(0o600)
    link.symlink_to(path)
    assert_equal(again(small(), link), small())
    assert link.is_symlink() and path.stat().st_mode & 0o777 == 0o600
    small().save(tmp_path / "new")
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o666 & ~umask()
    path.chmod(0o666)  # which the umask of most users does not allow for new files
    small().save(path)
    assert path.stat().st_mode & 0o777 == 0o666


def umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_written_to_and_not_replaced(tmp_path):
    """A device is treated alike: /dev/null must not become a file."""
    pipe, path = tmp_path / "pipe", tmp_path / "model"
    os.mkfifo(pipe)
    # A pipe that is open for reading and writing takes what is written without a reader.
    descriptor = os.open(pipe, os.O_RDWR)
    try:
        small().save(pipe)
        assert stat.S_ISFIFO(pipe.stat().st_mode)
        small().save(path)
        assert os.read(descriptor, 1 << 16) == path.read_bytes()
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("place", ["", "folder", "no/model", "file/model", "x" * 300])
def test_errors_name_the_path_that_was_given(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(OSError) as raised:
        small().save(place)
    assert raised.value.filename == place and raised.value.filename2 is None
    assert sorted(os.listdir()) == ["file", "folder"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_and_folders_are_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(ValueError, match=rf"^load: {path}: it must be a regular file, got a"):
            fa.load(path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        fa.load(tmp_path / "nowhere")


def test_bfloat16_without_ml_dtypes(tmp_path, monkeypatch):
    """Only layers of bfloat16 need it, not weights in bfloat16."""
    path = tmp_path / "model"
    half = fa.Dense(np.ones((32, 32), np.float32), weights_dtype="bfloat16")
    half.save(path)
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    assert_equal(fa.load(path), half)
    small().save(path)
    with pytest.raises(ImportError, match=r"load: .* without ml_dtypes, got bfloat16; pip install"):
        fa.load(path)


def test_the_header_has_a_limit(tmp_path, monkeypatch):
    assert LARGEST_HEADER == 100_000_000  # of the package safetensors
    monkeypatch.setattr("fastact._dense.safetensors.LARGEST_HEADER", 500)
    with pytest.raises(ValueError, match=r"^save: .*the header .* at most 500 bytes, got \d+$"):
        small().save(tmp_path / "model")
    assert not os.listdir(tmp_path)


def test_it_is_imported_at_the_first_use(tmp_path):
    code = f"""
import sys
import numpy as np
import fastact as fa
layer = fa.Dense(np.eye(2))
print("fastact._dense.saved" in sys.modules, "mmap" in sys.modules)
layer.save({str(tmp_path / "model")!r})
assert (fa.load({str(tmp_path / "model")!r}).W == layer.W).all()
assert "numba" not in sys.modules
print("load" in dir(fa), "load" in fa.__all__)
"""
    assert run_python(code).split() == ["False", "False", "True", "True"]
