"""fastact.torch, and gradients of layers, compared with PyTorch's own autograd."""

import copy
import functools
import sys
import types
import warnings

import numpy as np
import pytest
from conftest import run_python

import fastact
from fastact._declarations.records import (
    ACTIVATIONS,
    DERIVATIVES,
    ROW_ACTIVATIONS,
    ROW_DERIVATIVES,
    Derivative,
    RowDerivative,
)

torch = pytest.importorskip("torch", reason="the extra integration installs torch")
fat = pytest.importorskip("fastact.torch")
_torch_ops = pytest.importorskip("fastact._interop.torch_ops")

pytestmark = pytest.mark.integration

NAMES = [*DERIVATIVES, *ROW_DERIVATIVES]
TOLD_BY_OUTPUT = [name for name, declared in DERIVATIVES.items() if declared.output_tells]
LAYERS = [*TOLD_BY_OUTPUT, *ROW_DERIVATIVES, "identity"]
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
# The part of the array API standard that formulas of row-wise functions use.
STANDARD = types.SimpleNamespace(exp=torch.exp, log=torch.log, max=torch.amax, sum=torch.sum)
# The declared formula, unless the dict below has a function for the name.
THEIRS = {
    **{name: functools.partial(ACTIVATIONS[name].reference, torch) for name in DERIVATIVES},
    **{n: functools.partial(ROW_ACTIVATIONS[n].reference, STANDARD) for n in ROW_DERIVATIVES},
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "step": lambda x: torch.heaviside(x.detach(), torch.ones((), dtype=x.dtype)) + 0 * x,
    "softplus": lambda x: torch.nn.functional.softplus(x, threshold=1e9),
    "softmax": lambda x: torch.softmax(x, -1),
    "identity": lambda x: x,
}

each = pytest.mark.parametrize("name", NAMES)


def values(*shape, dtype=torch.float64, seed=0):
    """Return values away from 0, where finite differences are wrong for relu and step."""
    torch.manual_seed(seed)
    x = torch.randn(shape, dtype=torch.float64)
    return (x + x.sign() * 0.01).to(dtype)


def leaf(*shape, **kwargs):
    return values(*shape, **kwargs).requires_grad_()


def test_every_activation_is_there():
    unary = [name for name, activation in ACTIVATIONS.items() if activation.nin == 1]
    assert set(fat.__all__) == {"dense", *unary, *ROW_ACTIVATIONS}
    assert THEIRS.keys() == {"identity", *NAMES}
    for name in NAMES:
        function = getattr(fat, name)
        assert function.__name__ == name
        assert "Parameters\n----------\nx : Tensor" in function.__doc__


@each
def test_gradcheck(name):
    function = getattr(fat, name)
    assert torch.autograd.gradcheck(function, (leaf(3, 5),))
    assert torch.autograd.gradcheck(function, (leaf(4, 6)[:, ::2].T,))
    if name in ROW_DERIVATIVES:
        assert torch.autograd.gradcheck(lambda x: function(x, dim=0), (leaf(3, 5),))
        assert torch.autograd.gradcheck(lambda x: function(x, 1), (leaf(3, 2, 2),))
    else:
        assert torch.autograd.gradcheck(function, (leaf(),))


@each
def test_values_and_gradients_are_those_of_torch(name):
    x = leaf(50, 4)
    other = x.detach().clone().requires_grad_()
    y, expected = getattr(fat, name)(x), THEIRS[name](other)
    weight = values(50, 4, seed=1)
    y.backward(weight)
    expected.backward(weight)
    torch.testing.assert_close(y, expected, rtol=1e-14, atol=1e-15)
    torch.testing.assert_close(x.grad, other.grad, rtol=1e-13, atol=1e-15)


@each
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_type_gives_the_bits_of_the_ufunc(name, dtype):
    x = leaf(40, 3, dtype=dtype)
    y = getattr(fat, name)(x)
    assert y.dtype == dtype and y.shape == x.shape
    weight = values(40, 3, dtype=dtype, seed=1)
    y.backward(weight)
    assert x.grad.dtype == dtype
    given, expected = fat._array(x), getattr(fastact, name)(fat._array(x))
    assert fat._array(y).tobytes() == expected.tobytes()
    kept = given if name in DERIVATIVES and DERIVATIVES[name].saved == "input" else expected
    gradient = getattr(fastact, f"{name}_backward")(fat._array(weight), kept)
    assert fat._array(x.grad).tobytes() == gradient.tobytes()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nothing_is_copied(dtype):
    x = values(6, 4, dtype=dtype)
    for view in (x, x.T, x[::2, 1:], x[0, 0]):
        array = fat._array(view)
        assert array.__array_interface__["data"][0] == view.data_ptr()
        assert [s * x.element_size() for s in view.stride()] == list(array.strides)
        assert fat._tensor(array).data_ptr() == view.data_ptr()


def test_views_that_negate_are_resolved():
    x = torch.randn(5, dtype=torch.complex128).conj().imag
    assert x.is_neg()
    np.testing.assert_array_equal(fat.tanh(x).numpy(), fastact.tanh(x.resolve_neg().numpy()))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_layers_and_gradients_that_are_views_which_negate(dtype):
    wide = torch.complex128 if dtype == torch.float64 else torch.complex64
    found = []
    for resolve in (False, True):
        torch.manual_seed(0)
        views = [torch.randn(4, 4, dtype=wide).conj().imag for _ in range(4)]
        if wide != torch.complex64 or dtype == torch.float32:
            assert all(view.is_neg() for view in views)
        views = [view.to(dtype) for view in views]
        x, W, g, b = [view.resolve_neg().clone() if resolve else view for view in views]
        leaves = [v.detach().requires_grad_() for v in (x, W, b[0])]
        fat.dense(*leaves, "tanh").backward(g)
        found.append([leaf.grad for leaf in leaves])
    for ours, theirs in zip(*found, strict=True):
        assert torch.equal(ours, theirs)


@each
def test_gradients_that_torch_knows_to_be_zero(name):
    x = leaf(3, 4)
    getattr(fat, name)(x).backward(torch._efficientzerotensor((3, 4), dtype=x.dtype))
    assert not x.grad.any()


@each
def test_without_gradients(name):
    x = leaf(3, 4)
    expected = getattr(fat, name)(x).detach()
    with torch.no_grad():
        y = getattr(fat, name)(x)
    assert not y.requires_grad and torch.equal(y, expected)
    with torch.inference_mode():
        y = getattr(fat, name)(x)
    assert not y.requires_grad and torch.equal(y, expected)
    assert not getattr(fat, name)(x.detach()).requires_grad


@each
def test_differentiating_twice_is_refused(name):
    x = leaf(3, 4)
    (gradient,) = torch.autograd.grad(getattr(fat, name)(x).pow(2).sum(), x, create_graph=True)
    # The gradient itself is right; differentiating it again must raise, not drop a term silently.
    other = x.detach().clone().requires_grad_()
    (expected,) = torch.autograd.grad(THEIRS[name](other).pow(2).sum(), other)
    torch.testing.assert_close(gradient.detach(), expected)
    with pytest.raises(NotImplementedError, match=f"fastact.torch.{name} .*once, not twice"):
        (gradient.sum() + (x**3).sum()).backward()


def test_saved_values_are_watched():
    x = leaf(5)
    y = fat.sigmoid(x)
    y.detach().zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # about future changes of torch
    NESTED = torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])
    QUANTIZED = torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)

REFUSED = {
    "array": (np.zeros(3), TypeError, "got ndarray"),
    "integers": (torch.zeros(3, dtype=torch.int64), TypeError, "torch.int64"),
    "complex": (torch.zeros(3, dtype=torch.complex64), TypeError, "torch.complex64"),
    "another device": (torch.zeros(3, device="meta"), ValueError, r"on meta; x\.cpu\(\)"),
    "sparse": (torch.zeros(3).to_sparse(), ValueError, "sparse"),
    "nested": (torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]), ValueError, "nested"),
    "quantized": (
        torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
        TypeError,
        "qint8",
    ),
}


@each
@pytest.mark.parametrize(("bad", "error", "words"), REFUSED.values(), ids=REFUSED)
def test_other_inputs_are_refused(name, bad, error, words):
    with pytest.raises(error, match=f"{name}: x must be .*{words}"):
        getattr(fat, name)(bad)


# Layers.


def layer(dtype=torch.float64, bias=True):
    x, W = leaf(7, 5, dtype=dtype), leaf(5, 3, dtype=dtype, seed=1)
    return x, W, leaf(3, dtype=dtype, seed=2) if bias else None


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_dense(name, bias):
    operands = [v for v in layer(bias=bias) if v is not None]
    assert torch.autograd.gradcheck(lambda *v: fat.dense(*v, activation=name), operands)
    others = [v.detach().clone().requires_grad_() for v in operands]
    weight = values(7, 3, seed=3)
    y = fat.dense(*operands, activation=name)
    expected = THEIRS[name](others[0] @ others[1] + (others[2] if bias else 0))
    y.backward(weight)
    expected.backward(weight)
    torch.testing.assert_close(y, expected, rtol=1e-13, atol=1e-14)
    for ours, theirs in zip(operands, others, strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("shape", [(7, 5), (5,), (2, 3, 5)], ids=str)
def test_dense_backward(name, shape):
    """Gradients for NumPy arrays agree with torch's own layer."""
    x, W, b = leaf(*shape), leaf(5, 3, seed=1), leaf(3, seed=2)
    weight = values(*shape[:-1], 3, seed=3)
    THEIRS[name](x @ W + b).backward(weight)
    arrays = [v.detach().numpy() for v in (x, W, b)]
    y = fastact.dense(*arrays, name)
    found = fastact.dense_backward(weight.numpy(), *arrays[:2], y, name)
    for ours, theirs in zip(found, (x, W, b), strict=True):
        np.testing.assert_allclose(ours, theirs.grad.numpy(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dense_of_every_type(dtype):
    x, W, b = layer(dtype)
    fat.dense(x, W, b, fastact.tanh).sum().backward()
    assert {v.grad.dtype for v in (x, W, b)} == {dtype}


def test_dense_differentiated_twice_is_refused():
    x, W, b = layer()
    (gradient,) = torch.autograd.grad(fat.dense(x, W, b, "tanh").sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match=r"fastact\.torch\.dense .*once, not twice"):
        gradient.sum().backward()


def test_dense_refuses():
    x, W, b = layer()
    for arguments, error, words in (
        ((x.detach().numpy(), W, b), TypeError, "x must be a tensor.*ndarray"),
        ((x, W.float(), b), TypeError, "W must have the dtype of x, torch.float64, got torch.fl"),
        ((x, W, b.to("meta")), ValueError, "b must be on the CPU, got a tensor on meta"),
        ((x, W, b, "swish"), ValueError, "activation must be one of"),
        ((x, W[:3], b), ValueError, "x must have shape"),
        ((x, W, b[:2]), ValueError, "b must have shape"),
    ):
        with pytest.raises(error, match=f"dense: {words}"):
            fat.dense(*arguments)


def test_dense_refuses_what_it_could_not_differentiate(monkeypatch):
    needs = Derivative(**vars(DERIVATIVES["softplus"]) | {"of_output": None})
    monkeypatch.setitem(DERIVATIVES, "softplus", needs)
    with pytest.raises(
        ValueError, match=r"^dense: activation must .*whose derivative needs its in"
    ):
        fat.dense(*layer(), "softplus")


def test_a_network_learns_the_same():
    """Steps of gradient descent from the same start, with our functions and with torch's."""
    x, target = values(64, 6), (values(64, 1, seed=5) > 0).double()
    first = [leaf(6, 8, seed=1), leaf(8, seed=2), leaf(8, 1, seed=3), leaf(1, seed=4)]
    second = copy.deepcopy(first)
    for _ in range(20):
        W, b, V, c = first
        ours = fat.dense(fat.dense(x, W, b, "tanh"), V, c, "sigmoid")
        W, b, V, c = second
        theirs = torch.sigmoid(torch.tanh(x @ W + b) @ V + c)
        for output, parameters in ((ours, first), (theirs, second)):
            gradients = torch.autograd.grad((output - target).pow(2).mean(), parameters)
            with torch.no_grad():
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    parameter -= gradient
    for ours, theirs in zip(first, second, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


# Tensors without memory, and wrapped tensors: compilers, torch.func, batched gradients.


# torch warns when its forward mode starts, and when its compiler gives up.
theirs = pytest.mark.filterwarnings(
    "ignore:`torch.jit.script:DeprecationWarning", "ignore::UserWarning:torch"
)


def compiled(function, backend="eager", fullgraph=True):
    torch._dynamo.reset()
    return torch.compile(function, backend=backend, fullgraph=fullgraph)


CALLS = {name: getattr(fat, name) for name in NAMES} | {
    **{f"{name} along 0": functools.partial(getattr(fat, name), dim=0) for name in ROW_DERIVATIVES},
    "dense": lambda x: fat.dense(x, *PARAMETERS, "tanh"),
    "dense, softmax": lambda x: fat.dense(x, PARAMETERS[0], activation=fastact.softmax),
    "dense, none": lambda x: fat.dense(x, *PARAMETERS),
}
PARAMETERS = (values(5, 3, seed=1), values(3, seed=2))
call = pytest.mark.parametrize("function", CALLS.values(), ids=CALLS)


@call
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_in_one_graph(function, backend):
    for dtype in (torch.float64, torch.bfloat16):
        x, other = leaf(7, 5), leaf(7, 5)
        if function in (CALLS[name] for name in NAMES):
            x, other = leaf(7, 5, dtype=dtype), leaf(7, 5, dtype=dtype)
        y, expected = compiled(lambda z: function(2 * z) + 1, backend)(x), function(2 * other) + 1
        assert torch.equal(y, expected) and y.stride() == expected.stride()
        y.pow(2).sum().backward()
        expected.pow(2).sum().backward()
        assert torch.equal(x.grad, other.grad)


@theirs
def test_compiled_refusals_are_the_same():
    for bad, error, words in (REFUSED["integers"], REFUSED["complex"]):
        with pytest.raises(error, match=f"sigmoid: x must be .*{words}"):
            compiled(fat.sigmoid, fullgraph=False)(bad)
    x = leaf(3)
    twice = compiled(
        lambda x: torch.autograd.grad(fat.tanh(x).sum(), x, create_graph=True)[0], fullgraph=False
    )
    with pytest.raises(NotImplementedError, match=r"fastact\.torch\.tanh .*once, not twice"):
        twice(x).sum().backward()


def test_exported():
    class Model(torch.nn.Module):
        def forward(self, x):
            return fat.softmax(fat.dense(x, *PARAMETERS, "relu"))

    x = values(7, 5)
    program = torch.export.export(Model(), (x,), dynamic_shapes=({0: torch.export.Dim("rows")},))
    for rows in (x, values(9, 5, seed=4)):
        assert torch.equal(program.module()(rows), Model()(rows))


@theirs
def test_forward_mode_of_rows_is_by_the_declared_tangent(monkeypatch):
    tangent = lambda xp, t, y, axis: 3 * t * y  # noqa: E731
    declared = RowDerivative(**vars(ROW_DERIVATIVES["softmax"]) | {"tangent": tangent})
    monkeypatch.setitem(ROW_DERIVATIVES, "softmax", declared)
    y, found = torch.func.jvp(fat.softmax, (values(4, 3),), (values(4, 3, seed=1),))
    assert torch.equal(found, 3 * values(4, 3, seed=1) * y)


def test_operators():
    """PyTorch's own checks of registered operators pass, including shapes and gradients."""
    x, W, b = (v.detach().requires_grad_() for v in layer())
    for operator, arguments in (
        (_torch_ops.element_wise, (x, "softplus")),
        (_torch_ops.element_wise, (x.detach().T, "relu")),
        *((_torch_ops.row_wise, (x, name, 0)) for name in ROW_DERIVATIVES),
        (_torch_ops.dense, (x, W, b, "tanh")),
        (_torch_ops.dense, (x, W, None, None)),
    ):
        torch.library.opcheck(operator, arguments)


@theirs
@each
def test_second_derivatives_are_refused_by_torch_func(name):
    """They are not treated as 0, whatever the modes of the two derivatives."""
    func, function = torch.func, getattr(fat, name)
    for outer in (func.jacfwd, func.jacrev):
        for inner in (func.jacfwd, func.jacrev):
            for run in (outer(inner(function)), compiled(outer(inner(function)), fullgraph=False)):
                with pytest.raises(NotImplementedError, match=f"torch.{name} .*once, not twice"):
                    run(values(3))


@theirs
@call
def test_compiled_torch_func(function):
    def both(x):
        return torch.func.vmap(torch.func.grad(lambda row: function(row).pow(2).sum()))(x)

    torch.testing.assert_close(compiled(both)(values(7, 5)), both(values(7, 5)))
    if function in map(CALLS.get, NAMES):
        slope = lambda x: torch.func.jvp(function, (x,), (x,))[1]  # noqa: E731
        assert torch.equal(compiled(slope)(values(3)), slope(values(3)))


def test_tensors_without_memory():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        x, W = torch.empty(3, 4), torch.empty(4, 5)
        assert fat.softmax(fat.dense(fat.tanh(x), W)).shape == (3, 5)


# The library itself.

HIDDEN = """
import sys
sys.modules["torch"] = None
try:
    import fastact.torch
except ImportError as error:
    print(error)
import fastact
"""


def test_missing_library():
    assert (
        run_python(HIDDEN) == 'torch is not installed; pip install "fastact[torch]" installs it\n'
    )


def test_is_imported_only_when_asked_for():
    assert run_python("import fastact, sys; print('torch' in sys.modules)") == "False\n"


def test_other_versions(monkeypatch):
    monkeypatch.setattr(torch, "__version__", "9.1.0")
    monkeypatch.delitem(sys.modules, "fastact.torch")
    with pytest.warns(UserWarning, match=r"PyTorch 9\.1\.0 is outside the range .* 2\.13 to below"):
        __import__("fastact.torch")


# Tracing and transforms. Traced tensors have no memory, so our code must not read it.

COLD = """
import warnings
import torch
import fastact.torch as fat
from torch._dynamo.utils import counters

warnings.simplefilter("error", UserWarning)
x = torch.linspace(-1, 1, 4, requires_grad=True)
W = torch.linspace(-2, 2, 12).reshape(4, 3).requires_grad_()
for function in (
    lambda z: fat.sigmoid(z) + 1,
    lambda z: fat.softplus(z) + 1,
    lambda z: fat.softmax(z, 0) + 1,
    lambda z: fat.dense(z, W, None, "tanh") + 1,
    lambda z: fat.dense(z, W, W[0]) + 1,
):
    for backend in ("eager", "aot_eager"):
        y = torch.compile(function, backend=backend, fullgraph=True)(x)
        weight = torch.arange(1.0, 1 + len(y))
        (gradient,) = torch.autograd.grad(y, x, weight)
        expected = function(x)
        assert torch.equal(y, expected)
        torch.testing.assert_close(gradient, torch.autograd.grad(expected, x, weight)[0])
print("all")
"""


@pytest.mark.parametrize("cache", ["none", "warm"])
def test_compiled_with_nothing_compiled_before(cache, tmp_path, monkeypatch):
    if cache == "none":
        monkeypatch.setenv("FASTACT_CACHE", "0")
    assert run_python(COLD) == "all\n"


# PyTorch loads its forward-mode derivatives of gradients by a function that it deprecates.
its_own = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")


@its_own
@each
def test_transforms(name):
    ours, theirs = getattr(fat, name), THEIRS[name]
    x, t = values(3, 4), values(3, 4, seed=1)
    func = torch.func
    close = functools.partial(torch.testing.assert_close, rtol=1e-12, atol=1e-14)
    for axis in (0, 1):
        close(func.vmap(ours, axis)(x), func.vmap(theirs, axis)(x))
    close(
        func.grad(lambda v: (ours(v) * t).sum())(x), func.grad(lambda v: (theirs(v) * t).sum())(x)
    )
    expected = torch.autograd.functional.jacobian(theirs, x)
    close(func.jacrev(ours)(x), expected)
    close(func.vmap(func.jacrev(ours))(x), torch.stack([expected[i, :, i] for i in range(3)]))
    for settings in ({}, {"vectorize": True}, {"vectorize": True, "strategy": "forward-mode"}):
        close(torch.autograd.functional.jacobian(ours, x, **settings), expected)
    directional = (expected * t).sum((-1, -2))
    close(func.jvp(ours, (x,), (t,))[1], directional)
    close(func.jacfwd(ours)(x), expected)
    y = ours(x.requires_grad_())
    (found,) = torch.autograd.grad(
        y, x, torch.eye(12).double().reshape(12, 3, 4), is_grads_batched=True
    )
    close(found, expected.reshape(12, 3, 4))
    with pytest.raises(NotImplementedError, match=f"fastact.torch.{name} .*once, not twice"):
        func.hessian(lambda v: ours(v).sum())(x.detach())


def test_softmax_along_an_axis_of_each():
    x = values(2, 3, 4)
    for dim in (0, 1, -1, -2):
        for axis in (0, 2):
            found = torch.func.vmap(lambda v, dim=dim: fat.softmax(v, dim), axis)(x)
            expected = torch.func.vmap(lambda v, dim=dim: torch.softmax(v, dim), axis)(x)
            torch.testing.assert_close(found, expected)
    with pytest.raises(
        IndexError, match="softmax: dim must be an axis of a tensor of 2 axes, got 2"
    ):
        torch.func.vmap(lambda v: fat.softmax(v, 2))(x)


@its_own
@pytest.mark.parametrize(
    "axes", [(0, None, None), (None, 0, None), (None, None, 0), (1, 2, 0)], ids=str
)
def test_dense_transforms(axes):
    operands = values(3, 5), values(5, 3, seed=1), values(3, seed=2)
    batched = [
        v if a is None else torch.stack([v, 2 * v, -v], a)
        for v, a in zip(operands, axes, strict=True)
    ]

    def ours(*v):
        return fat.dense(*v, "tanh")

    def theirs(x, W, b):
        return torch.tanh(x @ W + b)

    func = torch.func
    torch.testing.assert_close(func.vmap(ours, axes)(*batched), func.vmap(theirs, axes)(*batched))
    for i in range(3):
        found, expected = (
            func.vmap(func.jacrev(f, argnums=i), axes)(*batched) for f in (ours, theirs)
        )
        torch.testing.assert_close(found, expected)
    for settings in ({}, {"vectorize": True}):
        found, expected = (
            torch.autograd.functional.jacobian(f, operands, **settings) for f in (ours, theirs)
        )
        torch.testing.assert_close(found, expected)
    with pytest.raises(NotImplementedError, match=r"fastact\.torch\.dense has no forward-mode"):
        func.jvp(ours, operands, operands)
