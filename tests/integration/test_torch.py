"""fastact.torch, and gradients of layers, compared with PyTorch's own autograd."""

import copy
import functools
import inspect
import itertools
import math
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
    REDUCTION_DERIVATIVES,
    ROW_ACTIVATIONS,
    ROW_DERIVATIVES,
    ROW_REDUCTIONS,
    RowDerivative,
    activations,
    unary_derivatives,
)

torch = pytest.importorskip("torch", reason="the extra integration installs torch")
fat = pytest.importorskip("fastact.torch")
_torch_ops = pytest.importorskip("fastact._interop.torch_ops")

pytestmark = pytest.mark.integration

EVERY = [*unary_derivatives(), *ROW_DERIVATIVES]
SEVERAL = [name for name in DERIVATIVES if ACTIVATIONS[name].nin > 1]
PARAMETRIC = [name for name in SEVERAL if name in activations()]
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
# The part of the array API standard that formulas of row-wise functions use.
STANDARD = types.SimpleNamespace(exp=torch.exp, log1p=torch.log1p, max=torch.amax, sum=torch.sum)


class Formulas:
    """The module that references of element-wise functions get: torch, also for numbers."""

    def __getattr__(self, name):
        of_tensors, of_numbers = getattr(torch, name), getattr(math, name, None)
        return lambda x: of_tensors(x) if isinstance(x, torch.Tensor) else of_numbers(x)


def formula(name):
    return functools.partial(ACTIVATIONS[name].reference, Formulas())


# The declared formula, unless the dict below has a function for the name.
THEIRS = {
    **{name: formula(name) for name in DERIVATIVES},
    **{n: functools.partial(ROW_ACTIVATIONS[n].reference, STANDARD) for n in ROW_DERIVATIVES},
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "logit": torch.logit,  # its reference subtracts a mask
    "relu": torch.relu,
    "step": lambda x: torch.heaviside(x.detach(), torch.ones((), dtype=x.dtype)) + 0 * x,
    "softplus": lambda x: torch.nn.functional.softplus(x, threshold=1e9),
    "softmax": lambda x: torch.softmax(x, -1),
    "identity": lambda x: x,
}


def kinds(names):
    """One of the functions for each kind of inputs and derivative, of those defined everywhere."""
    first = {}
    for name in names:
        declared, derivative = ACTIVATIONS[name], DERIVATIVES[name]
        if declared.interval[0] <= -3 and declared.interval[1] >= 3:
            kept = (*derivative.needs, derivative.output_tells)
            first.setdefault((declared.nin, len(declared.parameters), kept), name)
    return [*first.values()]


# Of those with one input, the sharp ones besides.
NAMES = [*dict.fromkeys([*kinds(unary_derivatives()), "relu", "step"]), *ROW_DERIVATIVES]
LAYERS = [*NAMES, "identity"]
KINDS = kinds(SEVERAL)

every = pytest.mark.parametrize("name", EVERY)
each = pytest.mark.parametrize("name", NAMES)
each_several = pytest.mark.parametrize("name", SEVERAL)
each_kind = pytest.mark.parametrize("name", KINDS)

# torch warns when its forward mode starts, and when its compiler gives up.
theirs = pytest.mark.filterwarnings(
    "ignore:`torch.jit.script:DeprecationWarning", "ignore::UserWarning:torch"
)


def values(*shape, dtype=torch.float64, seed=0):
    """Return values away from 0, where finite differences are wrong for relu and step."""
    torch.manual_seed(seed)
    x = torch.randn(shape, dtype=torch.float64)
    return (x + x.sign() * 0.01).to(dtype)


def leaf(*shape, **kwargs):
    return values(*shape, **kwargs).requires_grad_()


def test_every_activation_is_there():
    differentiable = [name for name in ACTIVATIONS if hasattr(fastact, f"{name}_backward")]
    assert set(fat.__all__) == {"dense", *differentiable, *ROW_ACTIVATIONS, *ROW_REDUCTIONS}
    assert THEIRS.keys() == {"identity", *EVERY, *SEVERAL}
    for name in (*EVERY, *SEVERAL, *ROW_REDUCTIONS):
        function = getattr(fat, name)
        assert function.__name__ == name
        assert "Parameters\n----------\n" in function.__doc__
    for name in SEVERAL:
        declared = ACTIVATIONS[name]
        assert [*inspect.signature(getattr(fat, name)).parameters] == declared.inputs
        for operand in declared.inputs:
            kind = "Tensor or float" if operand in declared.parameters else "Tensor"
            assert f"\n{operand} : {kind}\n" in getattr(fat, name).__doc__


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


@every
def test_values_and_gradients_are_those_of_torch(name):
    x = leaf(50, 4)
    if name in ACTIVATIONS:
        low, high = ACTIVATIONS[name].interval
        x = (low + (high - low) * torch.rand(50, 4).double()).requires_grad_()
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
        assert _torch_ops.tensor(array).data_ptr() == view.data_ptr()


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


# Functions of several inputs. Parameters are broadcast.


def operands_of(name, shape=(3, 5), parameters=(5,), dtype=torch.float64):
    """Return leaves for the inputs of a function; those that are no parameters have one shape."""
    declared = ACTIVATIONS[name]
    found = []
    for seed, operand in enumerate(declared.inputs):
        if operand in declared.parameters:
            typical = torch.tensor(np.resize(np.array(declared.parameters[operand]), parameters))
            found.append(typical.to(dtype).requires_grad_())
        else:
            x = values(*shape, dtype=dtype, seed=seed)
            found.append((x if declared.interval[0] < 0 else abs(x)).requires_grad_())
    return found


def copies(tensors):
    return [tensor.detach().clone().requires_grad_() for tensor in tensors]


BROADCAST = [(), (1,), (5,), (3, 1), (3, 5), (2, 1, 1)]


@each_several
@pytest.mark.parametrize("shape", BROADCAST, ids=str)
def test_several_inputs(name, shape):
    function = getattr(fat, name)
    operands = operands_of(name, parameters=shape)
    assert torch.autograd.gradcheck(function, operands)
    others = copies(operands)
    y, expected = function(*operands), THEIRS[name](*others)
    weight = values(*expected.shape, seed=9)
    y.backward(weight)
    expected.backward(weight)
    torch.testing.assert_close(y, expected, rtol=1e-14, atol=1e-15)
    for ours, theirs in zip(operands, others, strict=True):
        assert ours.grad.shape == ours.shape
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-12, atol=1e-14)


@each_several
def test_each_input_may_be_the_only_one_with_a_gradient(name):
    function, whole = getattr(fat, name), operands_of(name)
    function(*whole).sum().backward()
    for k in range(len(whole)):
        operands = [v.detach().requires_grad_(i == k) for i, v in enumerate(whole)]
        function(*operands).sum().backward()
        assert [v.grad is not None for v in operands] == [i == k for i in range(len(whole))]
        assert torch.equal(operands[k].grad, whole[k].grad)


@each_kind
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_several_inputs_of_every_type_give_the_bits_of_the_ufuncs(name, dtype):
    operands = operands_of(name, (40, 3), (40, 3), dtype)
    y, weight = getattr(fat, name)(*operands), values(40, 3, dtype=dtype, seed=9)
    y.backward(weight)
    arrays = [fat._array(v) for v in operands]
    expected = getattr(fastact, name)(*arrays)
    assert y.dtype == dtype and fat._array(y).tobytes() == expected.tobytes()
    kept = DERIVATIVES[name].operands(arrays, expected)
    gradients = getattr(fastact, f"{name}_backward")(fat._array(weight), *kept)
    for operand, gradient in zip(operands, gradients, strict=True):
        assert fat._array(operand.grad).tobytes() == gradient.tobytes()


@each_several
def test_parameters_are_numbers_or_named(name):
    function, declared = getattr(fat, name), ACTIVATIONS[name]
    operands = operands_of(name, parameters=())
    expected = function(*operands)
    numbers = [
        v.item() if operand in declared.parameters else v
        for operand, v in zip(declared.inputs, operands, strict=True)
    ]
    y = function(*numbers)
    assert torch.equal(y, expected) and y.requires_grad
    y.sum().backward()
    assert operands[0].grad is not None
    named = dict(zip(declared.inputs, numbers, strict=True))
    assert torch.equal(function(**named), expected)
    first = numbers[0]
    del named[declared.inputs[0]]
    assert torch.equal(function(first, **named), expected)


@each_several
def test_several_inputs_without_gradients(name):
    function, operands = getattr(fat, name), operands_of(name)
    expected = function(*operands).detach()
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            y = function(*operands)
        assert not y.requires_grad and torch.equal(y, expected)
    assert not function(*(v.detach() for v in operands)).requires_grad


@each_several
def test_several_inputs_differentiated_twice_are_refused(name):
    operands = operands_of(name)
    for k in range(len(operands)):
        chosen = [v.detach().requires_grad_(i == k) for i, v in enumerate(operands)]
        y = getattr(fat, name)(*chosen)
        (gradient,) = torch.autograd.grad(y.pow(2).sum(), chosen[k], create_graph=True)
        with pytest.raises(NotImplementedError, match=f"fastact.torch.{name} .*once, not twice"):
            (gradient.sum() + (chosen[k] ** 3).sum()).backward()


def test_bad_parameters_are_named():
    x = torch.zeros(3, 5)
    for bad, error, words in [
        ("a", TypeError, "slope must be a number or a tensor of float16, .* got str"),
        (1j, TypeError, "slope must be a number or a tensor of float16, .* got complex"),
        (np.ones(5), TypeError, "slope must be a number or a tensor of float16, .* got ndarray"),
        (torch.ones(5, dtype=int), TypeError, "slope must be .* got torch.int64"),
        (torch.ones(5).double(), TypeError, "slope must have the dtype of x, torch.float32, got t"),
        (torch.ones(5, device="meta"), ValueError, "slope must be on the CPU, .* on meta"),
        (torch.ones(4), ValueError, r"operands must have .* got \(3, 5\), \(4,\)"),
    ]:
        with pytest.raises(error, match=f"^prelu: {words}"):
            fat.prelu(x, bad)
    for given, named in [((x,), {}), ((x, 1, 2), {}), ((x, 1), {"slope": 1}), ((x,), {"alpha": 1})]:
        with pytest.raises(TypeError, match=r"^prelu: expected x, slope, got "):
            fat.prelu(*given, **named)


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


# Reductions of rows.

THEIR_REDUCTIONS = {"logsumexp": torch.logsumexp}
each_reduction = pytest.mark.parametrize("name", REDUCTION_DERIVATIVES)


@theirs
@each_reduction
@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_reductions_are_those_of_torch(name, dim, keepdim):
    x, other = leaf(4, 3, 5), leaf(4, 3, 5)
    y = getattr(fat, name)(x, dim, keepdim)
    expected = THEIR_REDUCTIONS[name](other, dim, keepdim)
    weight = values(*expected.shape, seed=1)
    y.backward(weight)
    expected.backward(weight)
    torch.testing.assert_close(y, expected, rtol=1e-14, atol=1e-15)
    torch.testing.assert_close(x.grad, other.grad, rtol=1e-13, atol=1e-15)
    along = lambda x: getattr(fat, name)(x, dim=dim, keepdim=keepdim)  # noqa: E731
    assert torch.autograd.gradcheck(along, (leaf(4, 3, 2),), check_forward_ad=True)
    assert torch.autograd.gradcheck(along, (leaf(4, 3, 4)[:, :, ::2].mT,))


@each_reduction
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_reductions_of_every_type_give_the_bits_of_the_ufunc(name, dtype):
    for shape in ((40, 3), (7,)):
        x = leaf(*shape, dtype=dtype)
        y = getattr(fat, name)(x)
        weight = values(*shape[:-1], dtype=dtype, seed=1)
        y.backward(weight)
        assert y.dtype == x.grad.dtype == dtype and y.shape == shape[:-1]
        assert fat._array(y).tobytes() == getattr(fastact, name)(fat._array(x)).tobytes()
        backward = getattr(fastact, f"{name}_backward")
        gradient = backward(fat._array(weight), fat._array(x))
        assert fat._array(x.grad).tobytes() == gradient.tobytes()
        with torch.no_grad():
            assert torch.equal(getattr(fat, name)(x), y)
        assert not getattr(fat, name)(x.detach()).requires_grad


@theirs
@each_reduction
@pytest.mark.parametrize("keepdim", [False, True])
def test_transforms_of_reductions(name, keepdim):
    func, x, t = torch.func, values(4, 3, 5), values(4, 3, 5, seed=1)
    for dim in (0, 1, -1):
        ours, expected = (
            lambda x, f=f, dim=dim: f(x, dim, keepdim)
            for f in (getattr(fat, name), THEIR_REDUCTIONS[name])
        )
        torch.testing.assert_close(func.jvp(ours, (x,), (t,)), func.jvp(expected, (x,), (t,)))
        for transform in (func.jacrev, func.jacfwd):
            torch.testing.assert_close(transform(ours)(x), transform(expected)(x))
    for dim in (0, -1):
        ours, expected = (
            lambda x, f=f, dim=dim: f(x, dim, keepdim)
            for f in (getattr(fat, name), THEIR_REDUCTIONS[name])
        )
        for axis in (0, 1, 2):
            for transform in (lambda f: f, func.jacrev, func.jacfwd):
                torch.testing.assert_close(
                    func.vmap(transform(ours), axis)(x), func.vmap(transform(expected), axis)(x)
                )


@each_reduction
def test_reductions_refuse(name):
    function, x = getattr(fat, name), leaf(3, 4)
    for bad, error, words in REFUSED.values():
        with pytest.raises(error, match=f"{name}: x must be .*{words}"):
            function(bad)
    for shape, dim in [((3, 4), 2), ((3, 4), -3), ((), 0)]:
        with pytest.raises(IndexError, match=f"{name}: dim must be an axis of a tensor of "):
            function(leaf(*shape), dim)
    (gradient,) = torch.autograd.grad(function(x).sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match=f"fastact.torch.{name} .*once, not twice"):
        gradient.sum().backward()
    with pytest.raises(NotImplementedError, match=f"torch.{name} .*once, not twice"):
        torch.func.jacfwd(torch.func.jacrev(function))(values(3))


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
    saved = np.empty(weight.shape)
    y = fastact.dense(*arrays, name, saved=saved)
    found = fastact.dense_backward(weight.numpy(), *arrays[:2], y, name, saved=saved)
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
        ((x, W, b, "swoosh"), ValueError, "activation must be one of"),
        ((x, W[:3], b), ValueError, "x must have shape"),
        ((x, W, b[:2]), ValueError, "b must have shape"),
    ):
        with pytest.raises(error, match=f"dense: {words}"):
            fat.dense(*arguments)


def test_dense_refuses_what_it_could_not_differentiate(monkeypatch):
    monkeypatch.delitem(DERIVATIVES, "softplus")
    with pytest.raises(ValueError, match=r"^dense: activation must have a derivative, .* softplus"):
        fat.dense(*layer(), "softplus")


@pytest.mark.parametrize("name", PARAMETRIC)
@pytest.mark.parametrize("shape", [(), (3,)], ids=str)
def test_dense_with_a_parameter(name, shape):
    operands = [*layer(), operands_of(name, parameters=shape)[1]]

    def ours(x, W, b, parameter):
        return fat.dense(x, W, b, (name, parameter))

    assert torch.autograd.gradcheck(ours, operands)
    others, weight = copies(operands), values(7, 3, seed=3)
    y, expected = ours(*operands), THEIRS[name](others[0] @ others[1] + others[2], others[3])
    y.backward(weight)
    expected.backward(weight)
    torch.testing.assert_close(y, expected, rtol=1e-13, atol=1e-14)
    for mine, theirs in zip(operands, others, strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-12, atol=1e-14)
    x, W, b, parameter = operands
    assert torch.equal(fat.dense(x, W, b, (getattr(fastact, name), parameter.detach())), y)
    if shape == ():
        assert torch.equal(fat.dense(x, W, b, (name, parameter.item())), y)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dense_of_every_type_with_a_parameter(dtype):
    x, W, b = layer(dtype)
    slope = torch.tensor([0.25, -0.5, 1.0], dtype=dtype, requires_grad=True)
    y = fat.dense(x, W, b, (fastact.prelu, slope))
    y.sum().backward()
    assert {v.grad.dtype for v in (x, W, b, slope)} == {dtype} and slope.grad.shape == (3,)
    arrays = [fat._array(v) for v in (x, W, b)]
    expected = fastact.dense(*arrays, (fastact.prelu, fat._array(slope)))
    assert fat._array(y).tobytes() == expected.tobytes()


@pytest.mark.parametrize("compile_it", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64], ids=str)
def test_the_input_of_an_activation_is_kept_only_for_gradients(monkeypatch, dtype, compile_it):
    kept = []
    before = _torch_ops.layers.dense

    def dense(*operands, saved=None):
        kept.append(saved is not None or len(operands) == 3)  # without an activation
        return before(*operands, saved=saved)

    monkeypatch.setattr(_torch_ops.layers, "dense", dense)
    slope = leaf(dtype=dtype)

    def forward(x, W, b, activation):
        return fat.dense(x, W, b, activation)

    x, W, b = (v.detach() for v in layer(dtype))
    prelu = (fastact.prelu, slope.detach())
    for operands, expected in [
        ((x, W, b, prelu), False),
        ((x, W, b.clone().requires_grad_(), prelu), True),
        ((x, W, b, (fastact.prelu, slope)), True),
        ((x, W, b.clone().requires_grad_(), "tanh"), False),
        ((x, W, b.clone().requires_grad_(), "softplus"), False),
    ]:
        kept.clear()
        run = compiled(forward) if compile_it else forward
        run(*operands)
        assert kept == [expected]
        with torch.no_grad():
            run(*operands)
        assert kept == [expected, False]


@pytest.mark.parametrize("k", range(4))
def test_dense_with_a_parameter_differentiated_twice_is_refused(k):
    operands = [v.detach().requires_grad_(i == k) for i, v in enumerate([*layer(), leaf()])]
    y = fat.dense(*operands[:3], ("prelu", operands[3]))
    (gradient,) = torch.autograd.grad(y.sum(), operands[k], create_graph=True)
    with pytest.raises(NotImplementedError, match=r"fastact\.torch\.dense .*once, not twice"):
        (gradient.sum() + (operands[k] ** 3).sum()).backward()


def test_dense_refuses_other_parameters():
    x, W, b = layer()
    for activation, error, words in [
        (fastact.prelu, ValueError, r"activation must be \(fa.prelu, slope\)"),
        ((fastact.prelu, 1, 2), ValueError, "activation must be .* got prelu with 2 parameters"),
        (("relu", 1), ValueError, "activation must be fa.relu, got relu with 1 parameters"),
        ((fastact.prelu, "1"), TypeError, "slope must be a number or a tensor .* got str"),
        ((fastact.prelu, torch.ones(3)), TypeError, "slope must have the dtype of x"),
        (
            (fastact.prelu, torch.ones(4).double()),
            ValueError,
            r"slope must be a number or have shape \(3,\), .* got shape \(4,\)",
        ),
        ((fastact.prelu, torch.ones(7, 3).double()), ValueError, "slope must .* shape \\(7, 3\\)"),
    ]:
        with pytest.raises(error, match=f"^dense: {words}"):
            fat.dense(x, W, b, activation)


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


def compiled(function, backend="eager", fullgraph=True):
    torch._dynamo.reset()
    return torch.compile(function, backend=backend, fullgraph=fullgraph)


CALLS = {name: getattr(fat, name) for name in NAMES} | {
    **{f"{name} along 0": functools.partial(getattr(fat, name), dim=0) for name in ROW_DERIVATIVES},
    **{name: getattr(fat, name) for name in REDUCTION_DERIVATIVES},
    **{
        f"{name} along 0": lambda x, name=name: getattr(fat, name)(x.T, 0, True).T
        for name in REDUCTION_DERIVATIVES
    },
    "dense": lambda x: fat.dense(x, *PARAMETERS, "tanh"),
    "dense, softmax": lambda x: fat.dense(x, PARAMETERS[0], activation=fastact.softmax),
    "dense, none": lambda x: fat.dense(x, *PARAMETERS),
    **{name: lambda x, name=name: getattr(fat, name)(x, *OTHERS[name]) for name in KINDS},
    "prelu of a number": lambda x: fat.prelu(x, 0.25),
    "dense, prelu": lambda x: fat.dense(x, *PARAMETERS, (fastact.prelu, PARAMETERS[1])),
    "dense, prelu of a number": lambda x: fat.dense(x, *PARAMETERS, ("prelu", 0.25)),
}
PARAMETERS = (values(5, 3, seed=1), values(3, seed=2))
OTHERS = {name: [v.detach() for v in operands_of(name, (5,))[1:]] for name in KINDS}
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
        (_torch_ops.FUNCTIONS["softplus"], (x, "softplus")),
        (_torch_ops.FUNCTIONS["relu"], (x.detach().T, "relu")),
        *((_torch_ops.FUNCTIONS[name], (*operands_of(name), name)) for name in KINDS),
        (_torch_ops.FUNCTIONS["prelu"], (leaf(3, 1), leaf(4), "prelu")),
        *((_torch_ops.row_wise, (x, name, 0)) for name in ROW_DERIVATIVES),
        *(
            (_torch_ops.reduced, (x, name, 0, keep))
            for name in REDUCTION_DERIVATIVES
            for keep in (False, True)
        ),
        (_torch_ops.dense, (x, W, b, None, "tanh")),
        (_torch_ops.dense, (x, W, None, None, None)),
        (_torch_ops.dense, (x, W, b, leaf(3), "prelu")),
        (_torch_ops.dense_saving, (x, W, b, leaf(), "prelu")),
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


@its_own
@each_kind
def test_transforms_of_several_inputs(name):
    ours, theirs, func = getattr(fat, name), THEIRS[name], torch.func
    operands = [v.detach() for v in operands_of(name, (3, 4), (4,))]
    count = len(operands)
    close = functools.partial(torch.testing.assert_close, rtol=1e-12, atol=1e-14)
    for which in itertools.product([None, 0, 1], repeat=count):
        if any(axis is not None for axis in which):
            axes = tuple(
                axis if axis is None else min(axis, v.ndim)
                for axis, v in zip(which, operands, strict=True)
            )
            given = [
                v if axis is None else torch.stack([v, 2 * v], axis)
                for v, axis in zip(operands, axes, strict=True)
            ]
            close(func.vmap(ours, axes)(*given), func.vmap(theirs, axes)(*given))
            for k in range(count):
                found, expected = (
                    func.vmap(func.jacrev(f, k), axes)(*given) for f in (ours, theirs)
                )
                close(found, expected)
    tangents = tuple(values(*v.shape, seed=7 + i) for i, v in enumerate(operands))
    close(
        func.jvp(ours, tuple(operands), tangents)[1], func.jvp(theirs, tuple(operands), tangents)[1]
    )
    for k in range(count):
        expected = func.jacrev(theirs, k)(*operands)
        close(func.jacrev(ours, k)(*operands), expected)
        close(func.jacfwd(ours, k)(*operands), expected)
        for outer, inner in itertools.product([func.jacfwd, func.jacrev], repeat=2):
            with pytest.raises(NotImplementedError, match=f"torch.{name} .*once, not twice"):
                outer(inner(ours, k), k)(*operands)
    settings = {"vectorize": True, "strategy": "forward-mode"}
    found, expected = (
        torch.autograd.functional.jacobian(f, tuple(operands), **settings) for f in (ours, theirs)
    )
    for one, other in zip(found, expected, strict=True):
        close(one, other)


@its_own
@each_kind
def test_infinite_inputs_do_not_spoil_other_derivatives(name):
    """A tangent that is missing is not one of 0, whose product with an infinity is NaN."""
    operands = [v.detach() for v in operands_of(name, (5,))]
    operands[0][0] = torch.inf
    for k in range(len(operands)):
        others = operands[:k], operands[k + 1 :]
        along = lambda v, others=others: getattr(fat, name)(*others[0], v, *others[1])  # noqa: E731
        _, forward = torch.func.jvp(along, (operands[k],), (torch.ones(5).double(),))
        (reverse,) = torch.func.vjp(along, operands[k])[1](torch.ones(5).double())
        assert torch.equal(forward.isnan(), reverse.isnan())


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


@its_own
@pytest.mark.parametrize("axes", [(0, None), (None, 0), (1, 1)], ids=str)
def test_transforms_of_dense_with_a_parameter(axes):
    W, b = PARAMETERS
    operands = values(3, 5), values(3, seed=4)
    batched = [
        v if a is None else torch.stack([v, 2 * v, -v], a)
        for v, a in zip(operands, axes, strict=True)
    ]

    def ours(x, slope):
        return fat.dense(x, W, b, (fastact.prelu, slope))

    def theirs(x, slope):
        return THEIRS["prelu"](x @ W + b, slope)

    func = torch.func
    torch.testing.assert_close(func.vmap(ours, axes)(*batched), func.vmap(theirs, axes)(*batched))
    for k in range(2):
        found, expected = (func.vmap(func.jacrev(f, k), axes)(*batched) for f in (ours, theirs))
        torch.testing.assert_close(found, expected)
        with pytest.raises(NotImplementedError, match=r"torch\.dense .*once, not twice"):
            func.jacrev(func.jacrev(ours, k), k)(*operands)
