"""Arrays of other libraries: results equal those for NumPy arrays, and labels and names stay."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pint
import polars as pl
import pytest
import scipy.sparse
import sparse
import torch
import xarray as xr
from conftest import assert_same
from pint.facets.numpy.numpy_func import HANDLED_UFUNCS

import fastact as fa

pytestmark = pytest.mark.integration

VALUES = np.random.default_rng(0).normal(0, 3, (4, 3))


@functools.cache
def net():
    return fa.Sequential([fa.Dense(np.random.default_rng(1).normal(size=(3, 2))), "sigmoid"])


def operands(activation, wrap):
    """Return inputs as NumPy arrays, and the same inputs converted by `wrap`."""
    arrays = [np.roll(VALUES, i, axis=0) for i in range(activation.nin)]
    return arrays, [wrap(array) for array in arrays]


def check(activation, wrap, unwrap):
    arrays, wrapped = operands(activation, wrap)
    function = getattr(fa, activation.name)
    result = function(*wrapped)
    assert type(result) is type(wrapped[0])
    assert_same(unwrap(result), function(*arrays))
    return result


frame = functools.partial(pd.DataFrame, index=list("abcd"), columns=list("uvw"))


def test_pandas_keeps_labels(activation):
    result = check(activation, frame, pd.DataFrame.to_numpy)
    assert list(result.index) == list("abcd") and list(result.columns) == list("uvw")
    series = frame(VALUES.astype(np.float32))["v"]
    result = getattr(fa, activation.name)(*[series] * activation.nin)
    assert (result.name, result.dtype) == ("v", np.float32) and (result.index == series.index).all()


def test_pandas_aligns_labels_and_keeps_missing_values():
    a = pd.Series([0.0, -1.0], index=["p", "q"])
    b = pd.Series([1.0, 0.25], index=["q", "p"])
    assert fa.heaviside(a, b).to_dict() == {"p": 0.25, "q": 0.0}
    missing = fa.sigmoid(pd.Series([0.0, None], dtype="Float64"))
    assert missing.dtype == "Float64" and missing[0] == 0.5 and missing[1] is pd.NA
    assert fa.relu(pd.Series([1, -1])).dtype == np.int64


def test_pandas_softmax_and_layers():
    x = frame(VALUES)
    for axis in (-1, 0, 1):
        result = fa.softmax(x, axis=axis)
        assert_same(result.to_numpy(), fa.softmax(VALUES, axis=axis))
        assert result.index.equals(x.index)
    groups = x["u"].groupby([0, 1, 0, 1]).transform(fa.softmax)
    np.testing.assert_allclose(groups.groupby([0, 1, 0, 1]).sum(), 1, rtol=1e-15)
    for layer in (net(), net().layers[0], lambda x: fa.dense(x, np.ones((3, 2)))):
        assert_same(layer(x), layer(VALUES))  # of type ndarray


dims = functools.partial(
    xr.DataArray, dims=("row", "col"), coords={"row": [7, 8, 9, 6]}, attrs={"unit": "1"}
)


def test_xarray_keeps_dimensions(activation):
    result = check(activation, dims, lambda array: array.values)
    assert result.dims == ("row", "col") and list(result["row"]) == [7, 8, 9, 6]
    function = getattr(fa, activation.name)
    arguments = [dims(VALUES)] * activation.nin
    xr.testing.assert_identical(xr.apply_ufunc(function, *arguments), function(*arguments))


def test_xarray_over_a_dimension():
    x = dims(VALUES)
    for dim, axis in (("row", 0), ("col", 1)):
        core = {"input_core_dims": [[dim]], "output_core_dims": [[dim]]}
        result = xr.apply_ufunc(fa.softmax, x, **core).transpose("row", "col")
        assert_same(result.values, fa.softmax(VALUES, axis=axis))
    result = xr.apply_ufunc(net(), x, input_core_dims=[["col"]], output_core_dims=[["class"]])
    assert result.dims == ("row", "class")
    assert_same(result.values, net()(VALUES))
    assert_same(net()(x), net()(VALUES))  # without dimensions
    with pytest.raises(NotImplementedError, match=r"apply_ufunc"):
        fa.softmax(x)


def test_xarray_over_dask_is_lazy():
    x = dims(VALUES).chunk(row=2)
    result = fa.sigmoid(x)
    assert result.chunks is not None
    assert_same(result.values, fa.sigmoid(VALUES))
    lazy = xr.apply_ufunc(
        fa.softmax,
        x,
        input_core_dims=[["col"]],
        output_core_dims=[["col"]],
        dask="parallelized",
        output_dtypes=[x.dtype],
    )
    assert lazy.chunks is not None
    assert_same(lazy.values, fa.softmax(VALUES))


def test_polars_keeps_names_and_nulls(activation):
    column = [*VALUES.ravel(), None]
    series = pl.Series("z", column)
    result = getattr(fa, activation.name)(*[series] * activation.nin)
    assert result.name == "z" and result.null_count() == 1 and result[-1] is None
    values = VALUES.ravel()
    expected = getattr(fa, activation.name)(*[values] * activation.nin)
    assert_same(result[:-1].to_numpy(), expected)


def test_polars_in_expressions_and_what_it_refuses():
    frame = pl.DataFrame({"z": VALUES.ravel().astype(np.float32)})
    result = frame.lazy().select(fa.sigmoid(pl.col("z"))).collect()["z"]
    assert_same(result.to_numpy(), fa.sigmoid(VALUES.ravel().astype(np.float32)))
    assert_same(fa.softmax(pl.Series(VALUES[0])).to_numpy(), fa.softmax(VALUES[0]))
    with pytest.raises(pl.exceptions.ComputeError, match="missing data"):
        fa.softmax(pl.Series([0.0, None]))
    table = pl.DataFrame(VALUES)
    assert_same(net()(table), net()(VALUES))
    assert_same(fa.sigmoid(table), fa.sigmoid(VALUES))  # of type ndarray


@pytest.mark.parametrize("kind", [sparse.COO, sparse.GCXS])
def test_sparse_stays_so_over_another_fill_value(activation, kind):
    dense = np.where(VALUES > 0, VALUES, 0)
    function = getattr(fa, activation.name)
    x = kind(sparse.COO.from_numpy(dense))
    result = function(*[x] * activation.nin)
    assert isinstance(result, kind)
    assert_same(result.todense(), function(*[dense] * activation.nin))
    assert result.fill_value == function(*[0.0] * activation.nin)
    assert result.nnz <= x.nnz


def test_sparse_where_it_has_to_be_dense():
    x = sparse.COO.from_numpy(VALUES)
    with pytest.raises(TypeError, match="NotImplemented from __array_ufunc__"):
        fa.softmax(x)
    with pytest.raises(RuntimeError, match="todense"):
        net()(x)
    with pytest.raises(TypeError, match="sigmoid"):
        fa.sigmoid(scipy.sparse.csr_array(VALUES))


def test_pint_by_a_wrapper_that_refuses_units():
    units = pint.UnitRegistry()
    sigmoid = units.wraps("", "")(lambda x: fa.sigmoid(x))
    result = sigmoid(units.Quantity(100 * VALUES, "percent"))
    assert result.units == units.dimensionless
    np.testing.assert_allclose(result.magnitude, fa.sigmoid(VALUES), rtol=1e-14)
    with pytest.raises(pint.DimensionalityError, match="meter"):
        sigmoid(units.Quantity(VALUES, "metre"))


def test_pint_refuses_ufuncs_that_it_does_not_know(activation):
    units = pint.UnitRegistry()
    function = getattr(fa, activation.name)
    for unit in ("metre", ""):
        if function.__name__ in HANDLED_UFUNCS:  # pint calls NumPy's of the same name
            continue
        with pytest.raises(TypeError, match="NotImplemented from __array_ufunc__"):
            function(*[units.Quantity(VALUES, unit)] * activation.nin)
    with pytest.raises(pint.DimensionalityError):
        fa.tanh(units.Quantity(VALUES, "metre"))
    assert_same(fa.tanh(units.Quantity(VALUES, "")).magnitude, np.tanh(VALUES))
    with pytest.warns(pint.UnitStrippedWarning):
        assert_same(net()(units.Quantity(VALUES, "metre")), net()(VALUES))


def test_torch_tensors():
    tensor = torch.from_numpy(VALUES.astype(np.float32))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "__array_wrap__", DeprecationWarning)
        result = fa.sigmoid(tensor)
    assert isinstance(result, torch.Tensor)
    assert_same(result.numpy(), fa.sigmoid(tensor.numpy()))
    assert_same(net()(tensor.double()), net()(tensor.double().numpy()))  # of type ndarray
    expected = fa.sigmoid(tensor.numpy())
    fa.sigmoid(tensor.numpy(), out=tensor.numpy())
    assert_same(tensor.numpy(), expected)
    with pytest.raises(RuntimeError, match="requires grad"):
        fa.sigmoid(tensor.requires_grad_())
    with pytest.raises(TypeError, match="BFloat16"):
        fa.sigmoid(tensor.detach().bfloat16())


def test_jax_arrays():
    x = jnp.asarray(VALUES, jnp.float32)
    expected = fa.sigmoid(VALUES.astype(np.float32))
    assert_same(fa.sigmoid(x), expected)  # of type ndarray
    assert fa.sigmoid(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16
    compiled = jax.jit(lambda x: jax.pure_callback(fa.sigmoid, x, x))
    assert_same(np.asarray(compiled(x)), expected)
    with pytest.raises(jax.errors.TracerArrayConversionError):
        jax.jit(lambda x: fa.sigmoid(x))(x)
