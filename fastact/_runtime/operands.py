"""The arguments of layers as arrays; masked elements and missing values are not used as numbers."""

import sys
from collections.abc import Iterable
from typing import Any

import numpy as np

from fastact._machine.formats import FORMATS, first_safe, format_of


def as_array(caller: str, name: str, value: Any) -> np.ndarray:
    """`value` as an ndarray.

    Raise ValueError if some of its elements are masked. Missing values of a Series or a DataFrame
    become NaN, and columns of several numeric types are converted to one.
    """
    if type(value) is np.ndarray:
        return value
    check_unmasked(caller, name, value)
    array = np.asarray(value)
    if array.dtype == object and hasattr(value, "to_numpy"):
        return _numbers(value, array)
    return array


def check_unmasked(caller: str, name: str, value: Any, remedy: str = "filled(...)") -> None:
    """Raise ValueError for arrays with masked elements, also in lists."""
    masked = getattr(sys.modules.get("numpy.ma"), "MaskedArray", None)
    if masked is None:  # without the module there are no masked arrays
        return
    if isinstance(value, list | tuple):
        if any(issubclass(kind, list | tuple | masked) for kind in set(map(type, value))):
            for item in value:
                check_unmasked(caller, name, item)
    elif isinstance(value, masked) and np.ma.is_masked(value):
        raise ValueError(
            f"{caller}: {name} must have no masked elements, got {np.ma.count_masked(value)} of "  # type: ignore[no-untyped-call] # of NumPy
            f"{value.size}; {name}.{remedy} has none"
        )


def check_present(caller: str, name: str, value: Any) -> None:
    """Raise ValueError for pandas arrays with missing values."""
    if not isinstance(value, np.ndarray) and hasattr(value, "isna"):
        missing = np.count_nonzero(value.isna())
        if missing:
            raise ValueError(
                f"{caller}: {name} must have no missing values, got {missing} of {value.size}; "
                f"{name}.to_numpy(na_value=...) has none"
            )


def common_type(caller: str, **operands: Any) -> np.dtype:
    """The type of the result, as for a ufunc with inputs of these types.

    If NumPy promotes them to no type that is supported, it is the first of float16, float32 and
    float64 to which all of them can be cast safely: float32 for float16 and bfloat16. TypeError
    for the first operand for which there is no such type.
    """
    types = []
    for name, operand in operands.items():
        if operand is None:
            continue
        dtype = operand.dtype
        known = dtype.type is np.bool_ or format_of(dtype.type) is not None
        if not known and first_safe(dtype) is None:
            raise TypeError(
                f"{caller}: {name} must be an array of float16, bfloat16, float32, float64, "
                f"integers or bool, got dtype {dtype}"
            )
        types.append(dtype)
    try:
        common = np.result_type(*types)
    except TypeError:
        return first_safe(*types)  # type: ignore[return-value] # float64, if no other
    form = format_of(common.type)
    if form is not None and not form.is_integer:
        return common
    if form is None and common.type is not np.bool_:
        return first_safe(*types)  # type: ignore[return-value] # float64, if no other
    return np.dtype(np.float64)


def compute_dtype(dtype: np.dtype) -> np.dtype:
    return np.dtype(FORMATS[format_of(dtype.type).compute].name)  # type: ignore[union-attr] # has one


def check_same_shape(caller: str, **operands: np.ndarray) -> None:
    """ValueError unless the second of two operands has the shape of the first."""
    (first, x), (second, y) = operands.items()
    if y.shape != x.shape:
        raise ValueError(
            f"{caller}: {second} must have the shape of {first}, {x.shape}, got shape {y.shape}"
        )


def _numbers(value: Any, array: np.ndarray) -> np.ndarray:
    """A Series or DataFrame in one numeric type; `array`, of objects, if there is no such type."""
    dtypes: Any = getattr(value, "dtypes", None)
    if isinstance(dtypes, np.dtype) or not isinstance(dtypes, Iterable):
        dtypes = [getattr(value, "dtype", None)]
    kinds = [_of_numbers(dtype) for dtype in dtypes]
    if any(kind is None for kind in kinds):
        return array
    common = np.result_type(*kinds)
    if common.kind != "f":
        try:
            return value.to_numpy(dtype=common)  # type: ignore[no-any-return] # of pandas
        except (TypeError, ValueError):  # values are missing, and `common` has no NaN
            common = np.dtype(np.float64)
    try:
        return value.to_numpy(dtype=common, na_value=np.nan)  # type: ignore[no-any-return] # as above
    except (TypeError, ValueError):
        return array


def _of_numbers(dtype: Any) -> np.dtype | None:
    """The NumPy type of the real numbers in a column of type `dtype`; None if it has no such."""
    for attribute in ("numpy_dtype", "subtype"):  # of nullable and Arrow types; of sparse types
        dtype = getattr(dtype, attribute, dtype)
    return dtype if isinstance(dtype, np.dtype) and dtype.kind in "biuf" else None
