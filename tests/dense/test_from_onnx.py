"""Models that are read from ONNX compute what the reference evaluator of ONNX computes."""

import builtins
import importlib
import re
import sys
import warnings

import ml_dtypes
import numpy as np
import onnx
import pytest
import scipy.special
from conftest import FLOATS
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

import fastact as fa
from fastact._declarations.records import activations
from fastact._dense.formulas import Formulas, TooLarge, recognised
from fastact._dense.from_onnx import _SUPPORTED

NEWEST = onnx.defs.onnx_opset_version()
RNG = np.random.default_rng(0)
W = RNG.normal(size=(3, 4))
B = RNG.normal(size=4)
X = RNG.normal(0, 3, (50, 3))


class Erf(OpRun):
    """That of the reference evaluator computes in float32."""

    op_domain = ""

    def _run(self, x):
        return (scipy.special.erf(x),)


class Gelu(OpRun):
    """The same, for its constants."""

    op_domain = ""

    def _run(self, x, approximate="none"):
        if approximate == "none":
            return (x * scipy.special.ndtr(x),)
        return (x / 2 * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3))),)


def model(body, opset=NEWEST, shape="N, 3", kind="double", result="double", **constants):
    """A model that computes y from x."""
    header = f'<ir_version: 10, opset_import: ["": {opset}, "ai.onnx.ml": 3]>'
    graph = f"g ({kind}[{shape}] x) => ({result}[A, B] y) {{ {body} }}"
    proto = onnx.parser.parse_model(header + graph)
    for name, value in constants.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
    return proto


def assert_as_in_onnx(proto, x=X, tolerance=1e-12):
    converted = fa.Sequential.from_onnx(proto)
    (expected,) = ReferenceEvaluator(proto, new_ops=[Erf, Gelu]).run(["y"], {"x": x})
    y = converted(x.reshape(-1, converted.in_features)).reshape(expected.shape)
    np.testing.assert_allclose(y, expected, rtol=tolerance, atol=tolerance)
    return converted


def after_layer(body, **keywords):
    """A model that computes y from h, the result of a layer."""
    return model(f"h = MatMul(x, W) {body}", W=W, **keywords)


# Operators of layers.


@pytest.mark.parametrize(
    "attributes, constants",
    [
        ("", {"B": W, "C": B}),
        ("", {"B": W, "C": B[np.newaxis]}),
        ("", {"B": W, "C": np.float64(0.7)}),
        ("", {"B": W, "C": B[:1]}),
        ("", {"B": W}),
        ("<transB = 1>", {"B": W.T, "C": B}),
        ("<alpha = 0.3, beta = 0.7>", {"B": W, "C": B}),
        ("<alpha = 0.3, beta = 0.7, transB = 1>", {"B": W.T, "C": B}),
        ("<alpha = 0.3>", {"B": W}),
        ("<beta = 0.0>", {"B": W, "C": B}),
    ],
)
def test_gemm(attributes, constants):
    names = ", ".join(["x", *constants])
    for opset in (7, 9, 11, NEWEST):
        if "C" in constants or opset >= 11:
            converted = assert_as_in_onnx(
                model(f"y = Gemm {attributes}({names})", opset, **constants)
            )
            assert len(converted) == 1


@pytest.mark.parametrize(
    "body, layers",
    [
        ("h = MatMul(x, W) y = Add(h, b)", 1),
        ("h = MatMul(x, W) y = Add(b, h)", 1),
        ("c = Sub(x, m) s = Div(c, d) h = MatMul(s, W) y = Add(h, b)", 1),
        ("s = Mul(d, x) c = Sub(m, s) y = MatMul(c, W)", 1),
        ("n = Neg(x) y = MatMul(n, W)", 1),
        ("h = MatMul(x, W) i = Identity(h) c = Cast <to = 11> (i) y = Add(c, b)", 1),
        ("h = MatMul(x, W) t = Tanh(h) s = Mul(t, b) y = Add(s, b)", 2),
        ("y = Scaler <offset = [1.5, 2.5, 3.5], scale = [2.0, 0.5, 4.0]> (x)", 1),
    ],
)
def test_scalings(body, layers):
    body = body.replace("Scaler", "ai.onnx.ml.Scaler")
    several = {"m": W[:, 0], "d": W[:, 1], "e": B[::-1], "v": B**2}
    for opset in (9, 13, NEWEST):
        proto = model(body, opset, W=W, b=B, **several)
        assert len(assert_as_in_onnx(proto)) == layers


def test_batch_normalization():
    """At versions 9 to 13, the reference evaluator computes the mean of the batch."""
    body = "h = MatMul(x, W) y = BatchNormalization <epsilon = 0.125> (h, b, e, b, v)"
    given = {"W": W, "b": B, "e": B[::-1], "v": B**2}
    expected = assert_as_in_onnx(model(body, **given))(X)
    for opset in (7, 9, 13, 14):
        found = fa.Sequential.from_onnx(model(body, opset, **given))
        assert len(found) == 1
        np.testing.assert_array_equal(found(X), expected)


def test_weights_keep_their_bits():
    for dtype, kind in zip(FLOATS, ("float16", "bfloat16", "float", "double"), strict=True):
        proto = model(
            "h = MatMul(x, W) y = Add(h, b)", kind=kind, W=W.astype(dtype), b=B.astype(dtype)
        )
        (layer,) = fa.Sequential.from_onnx(proto)
        assert layer.dtype == dtype
        assert layer.W.tobytes() == W.astype(dtype).tobytes()
        assert layer.b.tobytes() == B.astype(dtype).tobytes()


def test_casts_do_not_change_the_type_of_a_model():
    body = "c = Cast <to = 11> (x) h = MatMul(c, W) y = Cast <to = 10> (h)"
    converted = fa.Sequential.from_onnx(model(body, kind="float", W=W))
    assert converted.dtype == converted(X.astype("f")).dtype == np.float64
    narrow = fa.Sequential.from_onnx(model(body, kind="int64", W=W.astype("f")))
    assert narrow.dtype == narrow(X.astype("f")).dtype == np.float32


# Activations.

WITH_ATTRIBUTES = {
    "Relu(h)": "relu",
    "LeakyRelu(h)": "leaky_relu",
    "LeakyRelu <alpha = 0.3> (h)": "prelu",
    "PRelu(h, b)": "prelu",
    "PRelu(h, s)": "prelu",
    "Elu(h)": "elu",
    "Selu(h)": "selu",
    "Sigmoid(h)": "sigmoid",
    "Tanh(h)": "tanh",
    "Softplus(h)": "softplus",
    "Softsign(h)": "softsign",
    "Erf(h)": "erf",
    "HardSigmoid <alpha = 0.16666667, beta = 0.5> (h)": "hard_sigmoid",
    "HardSigmoid(h)": "hard_sigmoid",
    "HardSigmoid <alpha = 0.7, beta = 0.1> (h)": "hard_sigmoid",
    "Celu <alpha = 0.3> (h)": "celu",
    "Clip(h, zero, six)": "relu6",
    "Clip(h, low, one)": "hard_tanh",
    "Clip(h, low, six)": "hard_tanh",
    "Clip(h, zero)": "relu",
    "Clip(h, low)": "relu",
    "Clip(h, , one)": "relu",
    "Clip(h, low, large)": "relu",
    "Clip(h)": "identity",
    "Max(h, zero)": "relu",
    "Min(one, h)": "relu",
    "Dropout(h)": "identity",
    "Softmax(h)": "softmax",
    "LogSoftmax <axis = 1> (h)": "log_softmax",
    "HardSwish(h)": "hard_swish",
    "Mish(h)": "mish",
    "Gelu(h)": "gelu",
    'Gelu <approximate = "tanh"> (h)': "gelu_tanh",
    "LayerNormalization(h, b, c)": "layer_norm",
    "LayerNormalization <axis = 1, epsilon = 0.01> (h, b)": "layer_norm",
    "RMSNormalization <epsilon = 0.01> (h, b)": "rms_norm",
    "Swish(h)": "silu",
    "Swish <alpha = 0.3> (h)": "swish",
}
NUMBERS = {"zero": 0.0, "one": 1.0, "six": 6.0, "low": -1.0, "s": 0.2, "large": np.finfo("d").max}


@pytest.mark.parametrize("call, activation", WITH_ATTRIBUTES.items(), ids=str)
def test_operators_of_activations(call, activation):
    """Attributes are float32: 1/6 and the constants of Selu are rounded in ONNX, and exact here."""
    proto = after_layer(f"y = {call}", b=B, c=B[::-1].copy(), **NUMBERS)
    single = call[0] in "SLH" or "Norm" in call  # computed in float32, or with such a constant
    converted = assert_as_in_onnx(proto, tolerance=3e-7 if single else 1e-12)
    assert activation in [layer.activation for layer in converted]


def test_old_operators():
    for opset in (7, 10):
        for call in ("Clip <min = -0.5, max = 2.0> (h)", "Clip <max = 2.0> (h)", "Clip(h)"):
            assert_as_in_onnx(after_layer(f"y = {call}", opset=opset), tolerance=1e-7)
        for call in ("Softmax(h)", "LogSoftmax <axis = -1> (h)", "Dropout <ratio = 0.3> (h)"):
            assert_as_in_onnx(after_layer(f"y = {call}", opset=opset))


CONSTANTS = {
    "root": 2**0.5,
    "half": 0.5,
    "one": 1.0,
    "three": 3.0,
    "six": 6.0,
    "zero": 0.0,
    "minus": -1.0,
    "c": 0.044715,
    "rate": 1.702,
    "beta": 0.3,
    "r": (2 / np.pi) ** 0.5,
    "sixth": 1 / 6,
}
EXACT = {"cube": np.int64(3), "twenty": 20.0}
ERF = "d = Div(h, root) e = Erf(d) s = Add(e, one)"
TANH_OF = "q = Mul(r, t) u = Tanh(q) v = Add(one, u)"
FORMULAS = [
    ("gelu", f"{ERF} m = Mul(h, s) y = Mul(m, half)"),
    ("gelu", f"{ERF} m = Mul(half, s) y = Mul(m, h)"),
    ("gelu", f"m = Mul(h, half) {ERF} y = Mul(s, m)"),
    (
        "gelu_tanh",
        f"p = Pow(h, cube) m = Mul(c, p) t = Add(h, m) {TANH_OF} w = Mul(half, v) y = Mul(h, w)",
    ),
    (
        "gelu_tanh",
        f"a = Mul(h, h) p = Mul(a, h) m = Mul(p, c) t = Add(m, h) {TANH_OF} w = Mul(h, v)"
        " y = Mul(w, half)",
    ),
    ("quick_gelu", "m = Mul(h, rate) s = Sigmoid(m) y = Mul(h, s)"),
    ("swish", "m = Mul(h, beta) s = Sigmoid(m) y = Mul(h, s)"),
    ("silu", "s = Sigmoid(h) y = Mul(s, h)"),
    ("silu", "n = Neg(h) e = Exp(n) a = Add(e, one) y = Div(h, a)"),
    ("hard_swish", "s = HardSigmoid <alpha = 0.16666667, beta = 0.5> (h) y = Mul(h, s)"),
    ("hard_swish", "a = Add(h, three) k = Clip(a, zero, six) m = Mul(h, k) y = Div(m, six)"),
    ("hard_swish", "a = Add(h, three) k = Clip(a, zero, six) m = Mul(k, sixth) y = Mul(h, m)"),
    ("hard_sigmoid", "a = Add(h, three) k = Clip(a, zero, six) y = Div(k, six)"),
    ("mish", "p = Softplus(h) t = Tanh(p) y = Mul(h, t)"),
    ("mish", "e = Exp(h) a = Add(one, e) l = Log(a) t = Tanh(l) y = Mul(h, t)"),
    ("softplus", "e = Exp(h) a = Add(e, one) y = Log(a)"),
    ("softplus", "p = Softplus(h) g = Greater(h, twenty) y = Where(g, h, p)"),
    ("log_sigmoid", "s = Sigmoid(h) y = Log(s)"),
    ("log_sigmoid", "n = Neg(h) p = Softplus(n) y = Neg(p)"),
    ("sigmoid", "n = Mul(h, minus) e = Exp(n) a = Add(e, one) y = Reciprocal(a)"),
    ("softsign", "a = Abs(h) s = Add(a, one) y = Div(h, s)"),
    ("tanhshrink", "t = Tanh(h) y = Sub(h, t)"),
    ("relu2", "r2 = Relu(h) y = Mul(r2, r2)"),
    ("prelu", "p = Relu(h) n = Neg(h) q = Relu(n) m = Mul(b, q) y = Sub(p, m)"),
    ("squareplus", "q = Mul(h, h) a = Add(q, beta) w = Sqrt(a) s = Add(h, w) y = Mul(s, half)"),
    ("softmin", "n = Neg(h) y = Softmax(n)"),
    ("log_softmax", "s = Softmax(h) y = Log(s)"),
]


@pytest.mark.parametrize("activation, body", FORMULAS, ids=lambda value: value[:30])
def test_activations_of_several_operators(activation, body):
    """For constants in any type, and within rounding errors for those in float64."""
    exact = EXACT | {"b": B}
    converted = assert_as_in_onnx(
        after_layer(body, **exact, **CONSTANTS),
        tolerance=1e-7 if "16666" in body else 3e-9 if "Where" in body else 1e-11,
    )
    assert [layer.activation for layer in converted] == [activation]
    for dtype, kind in zip(FLOATS, ("float16", "bfloat16", "float", "double"), strict=True):
        rounded = {name: np.array(value, dtype) for name, value in CONSTANTS.items()}
        given = exact | {"twenty": np.array(20, dtype), "b": B.astype(dtype)}
        proto = model(f"h = MatMul(x, W) {body}", kind=kind, W=W.astype(dtype), **given, **rounded)
        (layer,) = fa.Sequential.from_onnx(proto)
        assert layer.activation == activation


@pytest.mark.parametrize(
    "activation, body",
    [
        ("silu", "s = Sigmoid(h) m = Mul(s, b) y = Mul(m, h)"),
        ("silu", "s = Sigmoid(h) m = Mul(h, s) k = Mul(m, b) y = Add(k, shifts)"),
        ("silu", "s = Sigmoid(h) m = Mul(s, h) k = Sub(one, m) y = Mul(zeros, k)"),
        ("swish", "q = Mul(h, beta) s = Sigmoid(q) m = Mul(b, s) y = Mul(h, m)"),
        ("gelu", f"{ERF} m = Mul(h, s) k = Mul(m, b) y = Add(k, shifts)"),
        ("mish", "p = Softplus(h) t = Tanh(p) u = Mul(t, b) y = Mul(h, u)"),
        ("softsign", "a = Abs(h) s = Add(a, one) k = Mul(h, b) y = Div(k, s)"),
        ("tanhshrink", "t = Tanh(h) u = Mul(t, b) k = Mul(h, b) y = Sub(k, u)"),
    ],
)
def test_activations_of_several_operators_with_factors(activation, body):
    """Exporters move the factors of a batch normalization into the formula before it."""
    several = {"b": B, "shifts": B[::-1].copy(), "zeros": np.array([2.0, 0.0, -1.0, 0.0])}
    body = f"{body.replace('y =', 'z =')} y = MatMul(z, V)"
    converted = assert_as_in_onnx(after_layer(body, V=W.T.copy(), **several, **CONSTANTS))
    assert [layer.activation for layer in converted] == [activation, "identity"]


@pytest.mark.parametrize("activation, body", FORMULAS, ids=lambda value: value[:30])
def test_activations_of_several_operators_after_a_bias(activation, body):
    """The sum with the bias is no part of an activation, though it may be one of its beginning."""
    proto = model(f"k0 = MatMul(x, W) h = Add(k0, b) {body}", W=W, b=B, **CONSTANTS, **EXACT)
    (layer,) = fa.Sequential.from_onnx(proto)
    assert layer.activation == activation


def test_every_declared_formula_is_tested():
    declared = {name for name, a in activations().items() if a.onnx_formulas}
    assert declared == {name for name, _ in FORMULAS}
    operators = {o.name for a in activations().values() for o in a.onnx_operators}
    assert operators <= {call.split("(")[0].split()[0] for call in WITH_ATTRIBUTES}


@pytest.mark.parametrize(
    "body",
    [
        f"{ERF.replace('root', 'other')} m = Mul(h, s) y = Mul(m, half)",
        f"{ERF} m = Mul(h, s) k = Mul(m, h) y = Mul(k, half)",
        "s = Sigmoid(h) t = Tanh(h) y = Mul(s, t)",
        "t = Tanh(h) u = Mul(t, half) y = Sub(h, u)",
        "s = Sigmoid(h) m = Mul(h, s) y = Add(m, h)",
        "q = Mul(h, h) a = Add(q, beta) y = Sqrt(a)",
        "e = Exp(h) y = Add(e, one)",
        "p = Softplus(h) g = Greater(h, one) y = Where(g, h, p)",
        "p = Softplus(h) g = Greater(h, twenty) y = Where(g, p, h)",
        "a = Mul(h, h) c2 = Mul(a, a) d = Mul(c2, c2) y = Mul(d, d)",
        "y = Max(h, zero, one)",
        "y = Pow(h, half)",
    ],
)
def test_formulas_of_no_activation_are_refused(body):
    """1.4142 instead of the root of 2 in float64, and others."""
    with pytest.raises(ValueError, match=r"node '\w+' .* must compute an activation of 'h'"):
        proto = after_layer(body, other=1.4142, twenty=20.0, **CONSTANTS)
        fa.Sequential.from_onnx(proto)


def test_formulas_have_few_terms():
    """Others would take long to compare, and are of no activation."""
    m = Formulas()
    with pytest.raises(TooLarge):
        m.x**5
    several = m.x + 1 + m.exp(m.x)
    with pytest.raises(TooLarge):
        several * (several + m.log(m.x))


def test_formulas_are_compared_within_two_eps():
    for dtype in FLOATS:
        eps = float(ml_dtypes.finfo(dtype).eps)
        for change, found in ((1, True), (4, False)):
            m = Formulas()
            rate = m.constant(1 / 2**0.5 * (1 + change * eps), eps)
            parts = recognised("part", m.x * (1 + m.erf(m.x * rate)) / 2)
            assert (parts is not None) == found


# Rows of several axes.


@pytest.mark.parametrize(
    "body, shape",
    [
        ("f = Flatten(x) y = MatMul(f, W)", (50, 3)),
        ("f = Flatten <axis = -1> (x) y = MatMul(f, W)", (50, 3)),
        ("f = Flatten <axis = 2> (x) y = MatMul(f, W)", (2, 5, 3)),
        ("d = Div(x, n) f = Flatten(d) y = MatMul(f, V)", (10, 3, 5)),
        ("r = Reshape(x, flat) y = MatMul(r, V)", (10, 3, 5)),
        ("r = Reshape(x, flatter) y = MatMul(r, V)", (10, 3, 5)),
        ("r = Reshape(x, same) y = MatMul(r, W)", (2, 5, 3)),
        ("h = MatMul(x, W) y = Reshape(h, last)", (2, 5, 3)),
        ("u = Unsqueeze(x, zero) h = MatMul(u, W) y = Squeeze(h, zero)", (50, 3)),
        ("h = MatMul(x, W) s = Softmax <axis = 2> (h) y = Identity(s)", (2, 5, 3)),
    ],
)
def test_shapes(body, shape):
    x = RNG.normal(size=shape)
    constants = {"V": RNG.normal(size=(15, 2)), "n": 255.0, "zero": np.int64([0])}
    targets = {"flat": [0, -1], "flatter": [-1, 15], "same": [0, 0, -1], "last": [10, 4]}
    constants |= {name: np.int64(target) for name, target in targets.items()}
    proto = model(body, shape=", ".join(["N", *map(str, shape[1:])]), W=W, **constants)
    assert_as_in_onnx(proto, x)


@pytest.mark.parametrize(
    "body",
    [
        "h = Div(x, d) f = Flatten(h)",
        "h = PRelu(x, d) f = Flatten(h)",
        "h = MatMul(x, W) f = Flatten(h)",
        "h = Softmax(x) f = Flatten(h)",
        "h = Div(x, d) f = Reshape(h, flat)",
    ],
)
def test_flattening_after_columns_were_treated(body):
    """Each of them has another meaning for the new columns."""
    proto = model(
        f"{body} y = MatMul(f, V)",
        shape="N, 5, 3",
        W=RNG.normal(size=(3, 3)),
        V=RNG.normal(size=(15, 2)),
        d=np.array([1.0, 2.0, 3.0]),
        flat=np.int64([0, -1]),
    )
    with pytest.raises(ValueError, match=r"node 'f' .* must come before .* columns.* got node 'h'"):
        fa.Sequential.from_onnx(proto)


# Constants, files, and functions.


def test_constants_may_be_computed():
    body = """k = Constant <value = double[4] {0.5, -1.0, 2.0, 3.0}> ()
    w = Transpose(V) i = Identity(w) d = Cast <to = 11> (i) h = MatMul(x, d)
    t = Add(k, k) y = Mul(t, h)"""
    assert len(assert_as_in_onnx(model(body, V=W.T.astype("f")))) == 1


def test_random_constants_are_refused():
    with pytest.raises(
        TypeError, match=r"node 'r' .* must have one of the operators .* got RandomNormal"
    ):
        fa.Sequential.from_onnx(model("r = RandomNormal <shape = [3, 4]> () y = MatMul(x, r)"))


def test_paths_bytes_and_weights_in_other_files(tmp_path):
    proto = model("h = MatMul(x, W) y = Relu(h)", W=W)
    expected = fa.Sequential.from_onnx(proto)(X)
    path = tmp_path / "model.onnx"
    onnx.save(proto, path, save_as_external_data=True, size_threshold=0, location="weights")
    for given in (path, str(path)):
        np.testing.assert_array_equal(fa.Sequential.from_onnx(given)(X), expected)
    with pytest.raises(ValueError, match=r"must contain its weights, got 'W' .* pass the path"):
        fa.Sequential.from_onnx(proto)  # saving has moved its weights
    (tmp_path / "weights").unlink()
    with pytest.raises(ValueError, match=r"model must be a valid ONNX model, got '.*model.onnx'"):
        fa.Sequential.from_onnx(path)
    proto = model("h = MatMul(x, W) y = Relu(h)", W=W)
    np.testing.assert_array_equal(fa.Sequential.from_onnx(proto.SerializeToString())(X), expected)
    onnx.save(model("y = Relu(unknown)"), path)
    with pytest.raises(ValueError, match=r"must be a valid ONNX model, got '.*model.onnx': "):
        fa.Sequential.from_onnx(path)
    with pytest.raises(FileNotFoundError, match=r"absent\.onnx"):
        fa.Sequential.from_onnx(tmp_path / "absent.onnx")
    with pytest.raises(
        ValueError, match="model must be a valid ONNX model, got an object of bytes"
    ):
        fa.Sequential.from_onnx(b"no model")
    with pytest.raises(TypeError, match=r"model must be a path, bytes or .*, got builtins\.int"):
        fa.Sequential.from_onnx(3)


def test_functions_of_a_model():
    text = f"""<ir_version: 10, opset_import: ["": {NEWEST}, "own": 1]>
    g (double[N, 3] x) => (double[N, 4] y) {{ h = MatMul(x, W) y = own.twice(h) }}
    <domain: "own", opset_import: ["": {NEWEST}]>
    twice (h) => (y) {{ t = Tanh(h) y = Add(t, t) }}"""
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(W, "W"))
    (layer, scaling) = assert_as_in_onnx(proto)
    assert layer.activation == "tanh" and (np.diag([2.0] * 4) == scaling.W).all()


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r'onnx is not installed; pip install "fastact\[onnx\]"'):
        fa.Sequential.from_onnx(b"")


def test_a_broken_installation(monkeypatch):
    real = builtins.__import__

    def broken(name, *arguments):
        if name == "onnx":
            raise ModuleNotFoundError("No module named 'google'", name="google")
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", broken)
    with pytest.raises(ModuleNotFoundError, match="google"):
        fa.Sequential.from_onnx(b"")


# Classifiers and regressors as scikit-learn's converter writes them.

TWO = {
    "ww": np.hstack([-W[:, :1], W[:, :1]]).astype("f"),
    "bb": np.float32([-0.5, 0.5]),
    "axis": np.int64([1]),
    "w": W[:, :1].astype("f"),
    "b": B[:1].astype("f"),
    "one": np.float32(1),
    "minus": np.float32(-1),
}
CLASSIFIER = (
    "ai.onnx.ml.LinearClassifier <coefficients = [1.0, 2.0, 3.0, -1.0, 0.5, 0.25], "
    'intercepts = [0.5, -0.5], classlabels_{} = {}, post_transform = "{}"> (x)'
)


def classifier(body, outputs, **constants):
    """A model with the outputs of a classifier."""
    header = f'<ir_version: 10, opset_import: ["": {NEWEST}, "ai.onnx.ml": 3]>'
    proto = onnx.parser.parse_model(f"{header} g (float[N, 3] x) => ({outputs}) {{ {body} }}")
    for name, value in constants.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
    return proto


LABELS = """a = ArgMax <axis = 1> (p) f = ai.onnx.ml.ArrayFeatureExtractor(c, a)
label = Cast <to = 7> (f)"""
PAIR = "z = MatMul(x, ww) t = Add(z, bb) p2 = Sigmoid(t)"
ROW = "z = MatMul(x, w) t = Add(z, b)"


@pytest.mark.parametrize(
    "body, activation",
    [
        (
            f"{ROW} s = Sigmoid(t) n = Sub(one, s) p = Concat <axis = 1> (n, s)",
            "sigmoid",
        ),
        (
            f"{ROW} n = Mul(t, minus) p = Concat <axis = -1> (n, t)",
            "identity",
        ),
        (f"l, p = {CLASSIFIER.format('ints', [5, 7], 'LOGISTIC')}", "sigmoid"),
        (f"{PAIR} a2 = Abs(p2) n = ReduceSum(a2, axis) p = Div(p2, n)", "sigmoid"),
        (f'{PAIR} p = ai.onnx.ml.Normalizer <norm = "L1"> (p2)', "sigmoid"),
        (f"l, p = {CLASSIFIER.format('ints', [5, 7], 'NONE')}", "identity"),
        (
            f"l, s = {CLASSIFIER.format('ints', [5, 7], 'SOFTMAX')}"
            'p = ai.onnx.ml.Normalizer <norm = "L1"> (s)',
            "softmax",
        ),
    ],
)
def test_classifiers(body, activation):
    body = f"{body} {LABELS}"
    proto = classifier(body, "int64[N] label, float[N, 2] p", c=np.int64([5, 7]), **TWO)
    x = X.astype("f")
    expected = ReferenceEvaluator(proto).run(["p"], {"x": x})[0]
    for output in (None, "p"):
        converted = fa.Sequential.from_onnx(proto, output)
        np.testing.assert_allclose(converted(x), expected, rtol=1e-5, atol=1e-6)
        assert converted.classes_.tolist() == [5, 7]
        assert [layer.activation for layer in converted] == [activation]
    with pytest.raises(
        TypeError, match=r"node 'f' \(ArrayFeatureExtractor\)|\(ArgMax\) must have one of"
    ):
        fa.Sequential.from_onnx(proto, "label")
    with pytest.raises(ValueError, match="output must be one of 'label', 'p', got 'q'"):
        fa.Sequential.from_onnx(proto, "q")


def test_probabilities_as_dicts():
    """Their keys are the classes, which may be texts."""
    body = f"""l, s = {CLASSIFIER.format("strings", '["a", "b"]', "SOFTMAX")}
    z = ai.onnx.ml.ZipMap <classlabels_strings = ["a", "b"]> (s)"""
    proto = classifier(body, "string[N] l, float[N, 2] z")
    kind = onnx.helper.make_map_type_proto(
        onnx.TensorProto.STRING, onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, [])
    )
    proto.graph.output[1].type.CopyFrom(onnx.helper.make_sequence_type_proto(kind))
    converted = fa.Sequential.from_onnx(proto)
    assert converted.classes_.tolist() == ["a", "b"] and len(converted) == 1
    x = X.astype("f")
    del proto.graph.node[1], proto.graph.output[1]
    proto.graph.output.append(onnx.helper.make_tensor_value_info("s", 1, ["N", 2]))
    (expected,) = ReferenceEvaluator(proto).run(["s"], {"x": x})
    np.testing.assert_allclose(converted(x), expected, rtol=1e-5)


def test_one_column_of_a_classifier():
    body = f"""l, s = {CLASSIFIER.format("ints", [5, 7], "NONE")}
    y = ai.onnx.ml.ArrayFeatureExtractor(s, k)"""
    proto = classifier(body, "int64[N] l, float[N, 1] y", k=np.int64(1))
    converted = fa.Sequential.from_onnx(proto)
    assert converted.out_features == 1 and converted.classes_ is None
    expected = ReferenceEvaluator(proto).run(["y"], {"x": X.astype("f")})[0]
    np.testing.assert_allclose(
        converted(X.astype("f")), expected.reshape(-1, 1), rtol=1e-5, atol=1e-6
    )


def test_linear_regressor():
    """The reference evaluator needs intercepts."""
    call = "ai.onnx.ml.LinearRegressor <coefficients = [1.0, 2.0, 3.0, -1.0, 0.5, 0.25]"
    zeros = ", intercepts = [0.0, 0.0]"
    found = [model(f"y = {call}, targets = 2{rest}> (x)") for rest in (zeros, "")]
    expected = assert_as_in_onnx(found[0])
    assert expected.out_features == 2
    np.testing.assert_array_equal(fa.Sequential.from_onnx(found[1])(X), expected(X))
    assert_as_in_onnx(model(f"y = {call}, targets = 2, intercepts = [0.5, 0.75]> (x)"))
    single = call.replace(", -1.0, 0.5, 0.25", "")
    assert_as_in_onnx(model(f"y = {single}, intercepts = [0.5]> (x)"))


# Models that are refused.

REFUSED = {  # H is the layer h = MatMul(x, W)
    "y = Gemm <transA = 1> (x, W)": r"node 'y' \(Gemm\) must have transA=0, since it",
    "y = Gemm(x, W, R)": r"for each of the 4 columns, got an array of shape \(50, 4\)",
    "y = Gemm(W, x)": "must have constants as all inputs but the first, got 'x'",
    "H y = MatMul(h, W)": r"must have weights for 4 columns, got .* shape \(3, 4\)",
    "y = MatMul(x, B)": r"must have weights of shape \(K, N\), got an array of shape \(4,\)",
    "y = MatMul(x, I)": "must have constants of float16, .*, got int64",
    "H y = Add(h, W)": r"a number or one for each of the 4 columns, got .* \(3, 4\)",
    "H y = Add(h, N)": r"for 2 axes",
    "H y = ThresholdedRelu(h)": r"'y' \(ThresholdedRelu\) must have one of .*Add",
    "H y = Elu <alpha = 2.0> (h)": "must have alpha=1, got .*2.0",
    "H y = Celu <alpha = -1.0> (h)": "must have a positive alpha, got",
    "H y = Selu <alpha = 1.0> (h)": "must have the alpha and gamma that are the def",
    "H y = Softmax <axis = 0> (h)": "must be along the last axis, got axis=0 of 2",
    "H y = Clip(h, one, zero)": "must have a lower limit below .*, got 1.0 and 0.0",
    "H y = Clip(h, B)": r"must have a number, got an array of shape \(4,\)",
    "H y = Cast <to = 7> (h)": "must convert to float16, .*, got the type 7 of ONNX",
    "H y = Dropout(h, one, T)": "must be in inference mode, where it does nothing",
    "H y, m, v = BatchNormalization <training_mode = 1> (h, B, B, B, B)": "inference",
    "H y = Flatten <axis = 0> (h)": r"keep the columns.* got axis=0 .* shape \(\?, 4\)",
    "H y = Reshape(h, I)": r"must keep the columns, or make .* got shape \[2, 2\]",
    "H y = Unsqueeze(h, last)": "must keep the columns, or .* got axes",
    "H t = Tanh(h) y = Add(t, h)": r"'t' .*, node 'y' .* must compute an activation of 'h'",
    "H g = MatMul(x, W) y = Add(g, h)": "node 'h' .* must compute an activation of 'x'",
    "H y = Concat <axis = 0> (h, h)": "must compute an activation of 'h'",
    "t = Tanh(x) y = Concat <axis = 1> (t, t)": "must have a layer before it, whose",
    "a, b = Split <num_outputs = 2> (x) y = Mul(a, b)": "must have one output that is used",
    "a, b = Split <num_outputs = 2> (x) y = Tanh(b)": "must be used for its output 'a', got 'b'",
    "y = Identity(W)": "output must depend on the input 'x', got 'y', which is constant",
    'H y = ai.onnx.ml.Normalizer <norm = "L1"> (h)': "norm='L1' after probabilities",
    'H s = Sigmoid(h) y = ai.onnx.ml.Normalizer <norm = "L1"> (s)': "norm='L1' after probabilities",
    "H s = Sigmoid(h) a = Abs(s) n = ReduceSum(a, axis) y = Div(s, n)": "got ReduceSum",
    "H s = Softmax(h) a = Abs(s) n = ReduceSum <keepdims = 0> (a, axis) y = Div(s, n)": "ReduceSum",
    "H s = Softmax(h) a = Abs(s) n = ReduceSum(a, none) y = Div(s, n)": "got ReduceSum",
    f"y, p = {CLASSIFIER.format('ints', [5, 7], 'NONE')} ": "used for its output 'p', got 'y'",
    f"l, y = {CLASSIFIER.format('ints', [5, 7], 'PROBIT')} ": "post_transform of NONE.* got PROBIT",
    f"l, y = {CLASSIFIER.format('ints', [5, 7, 9], 'NONE')} ": "weights for 3 columns, got 6 .*2",
}


@pytest.mark.parametrize("body, message", REFUSED.items())
def test_models_that_are_refused(body, message):
    numbers = {"R": RNG.normal(size=(50, 4)), "N": np.ones((1, 1, 4)), "T": np.array(True)}
    constants = {
        "axis": np.int64([1]),
        "none": np.int64([]),
        "W": W,
        "B": B,
        "I": np.int64([2, 2]),
        "last": np.int64([2]),
        "one": 1.0,
        "zero": 0.0,
    }
    proto = model(body.replace("H", "h = MatMul(x, W)"), **constants, **numbers)
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        fa.Sequential.from_onnx(proto)
    assert str(caught.value).startswith("from_onnx: ")


def test_inputs_that_are_refused():
    with pytest.raises(
        ValueError, match=r"must use version 7 or later of the operators .* version 6"
    ):
        fa.Sequential.from_onnx(model("y = Relu(x)", 6))
    with pytest.raises(
        TypeError, match=r"input 'x' must be of floating-point numbers, or .* integers"
    ):
        fa.Sequential.from_onnx(model("y = Neg(x)", kind="int32"))
    with pytest.raises(TypeError, match=r"input 'x' must be a tensor of FLOAT, .*, got STRING"):
        fa.Sequential.from_onnx(model("y = Identity(x)", kind="string"))
    with pytest.raises(ValueError, match="input 'x' must have an axis of features, got a number"):
        number = model("y = Neg(x)")
        number.graph.input[0].type.tensor_type.shape.ClearField("dim")
        fa.Sequential.from_onnx(number)
    several = model("h = MatMul(x, W) y = Relu(h)")
    several.graph.input.append(onnx.helper.make_tensor_value_info("W", 11, [3, 4]))
    with pytest.raises(ValueError, match="model must have one input, got 'x', 'W'"):
        fa.Sequential.from_onnx(several)
    with pytest.raises(ValueError, match="for each of the 3 columns, got an array of shape"):
        fa.Sequential.from_onnx(model("y = Add(x, b)", b=B))


# The test cases that ONNX itself has. Inputs other than the first become constants.

OPERATORS = {name.lower() for name in _SUPPORTED} | {"batch_normalization", "thresholdedrelu"}
NOT_CONVERTED = {
    "other types": "cast_.*(INT|FLOAT[48])|.*_u?int(8|16|32|64)|identity_(opt|sequence)",
    "training, or images": "training_dropout|batchnorm",
    "no activations": "(abs|exp|greater|log|pow|reciprocal|sqrt|where)(_|$)|greater_equal|"
    "(max|min)_",
    "several arrays": "concat",
    "constants that differ between rows": "(add|sub|mul|div)$|gemm_default_matrix|matmul_[134]d|"
    "matmul_bcast|prelu_example",
    "mixed rows": "gemm_(transposeA|all)|flatten_(axis[02]|negative_axis[234])|(log)?softmax_axis_"
    "[01]|unsqueeze_(two|three|unsorted)|reshape_(?!reduced_dims|negative_extended)",
    "several axes": "(layer|rms)_normalization_(2d_axis(0|_negative_2)|3d_axis([01]|_negative_[23])"
    "|4d_axis([012]|_negative_[234]))",
    "attributes": "(elu|selu)(_example)?$|thresholdedrelu|clip_min_greater",
}


def cases_of_onnx():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy warns about some of the cases
        for name in OPERATORS:
            if importlib.util.find_spec(f"onnx.backend.test.case.node.{name}"):
                importlib.import_module(f"onnx.backend.test.case.node.{name}")
    for case in sys.modules["onnx.backend.test.case.node"]._NodeTestCases:
        arrays = [
            onnx.numpy_helper.to_array(a) if isinstance(a, onnx.TensorProto) else a
            for several in case.data_sets[0]
            for a in several
        ]
        if "_expanded" not in case.name and all(hasattr(a, "dtype") for a in arrays):
            count = len(case.data_sets[0][0])
            yield case.name.removeprefix("test_"), case.model, arrays[:count], arrays[count]


def test_cases_of_onnx():
    """A product with the identity follows, since a model needs a layer."""
    refused = set()
    names = []
    for name, case, (x, *constants), expected in cases_of_onnx():
        proto = onnx.ModelProto()
        proto.CopyFrom(case)
        graph = proto.graph
        for value, given in zip(list(graph.input)[1:], constants, strict=True):
            graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(given), value.name))
        identity = np.eye(expected.shape[-1] if expected.ndim else 1).astype(expected.dtype)
        graph.initializer.append(onnx.numpy_helper.from_array(identity, "identity"))
        graph.node.append(
            onnx.helper.make_node("MatMul", [graph.output[0].name, "identity"], ["product"])
        )
        kind = onnx.helper.np_dtype_to_tensor_dtype(expected.dtype)
        graph.output.append(onnx.helper.make_tensor_value_info("product", kind, ["..."]))
        names.append(name)
        try:
            converted = fa.Sequential.from_onnx(proto, "product")
            flattens = x.shape[-1:] != (converted.in_features,)
            y = converted(x.reshape(len(x), -1) if flattens else x)
        except (ValueError, TypeError) as error:
            assert str(error).startswith("from_onnx: "), name
            refused.add(name)
        else:
            y, expected = (a.reshape(expected.shape).astype(float) for a in (y, expected))
            finite = np.isfinite(expected).all(axis=-1)  # the product makes other rows NaN
            within = 4 * float(ml_dtypes.finfo(identity.dtype).eps)
            np.testing.assert_allclose(y[finite], expected[finite], within, within, err_msg=name)
    wrong = "|".join(NOT_CONVERTED.values())
    assert refused == {name for name in names if re.match(wrong, name)}
    assert len(names) - len(refused) > 80
