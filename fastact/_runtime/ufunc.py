"""Genuine ``numpy.ufunc`` objects whose loops are made when they are first needed.

NumPy's C API is reached through ctypes; its slot numbers are part of the stable ABI
(``numpy/_core/code_generators/numpy_api.py``). A ufunc is created without loops, but with a
*promoter* that matches every DType: a function that NumPy calls, once per combination of
DTypes, when it has no loop for them. Ours makes the loop, registers it and names the DTypes to
use. So the first call compiles, and every later one goes straight to machine code.
"""

import ctypes
import functools
from collections.abc import Callable, Sequence
from ctypes import POINTER, byref, c_char, c_char_p, c_int, c_ssize_t, c_void_p, py_object
from typing import Any, NoReturn

import numpy as np
from numpy._core import _multiarray_umath  # type: ignore[attr-defined] # not in its stubs

from fastact._loading import jobs
from fastact._loading.lasting import lasting
from fastact._loading.lock import MAKING
from fastact._machine.formats import (
    BFLOAT16,
    CONVERSIONS,
    Format,
    conversion_format,
    first_safe,
    format_of,
)
from fastact._runtime.engine import DType


def _table(name: str) -> "ctypes._Pointer[c_void_p]":
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = c_void_p, (py_object, c_char_p)
    return ctypes.cast(pointer(getattr(_multiarray_umath, name), None), POINTER(c_void_p))


def numpy_function(slot: int) -> int:
    """The address of a function of NumPy's C API for arrays."""
    return int(_table("_ARRAY_API")[slot])


def _function(table: str, slot: int, result: Any, *arguments: Any) -> Callable[..., Any]:
    # PYFUNCTYPE keeps the GIL and raises the exception that the function sets.
    return ctypes.PYFUNCTYPE(result, *arguments)(_table(table)[slot])


_from_func_and_data = _function(  # and signature, which is NULL for element-wise ufuncs
    "_UFUNC_API", 31, py_object,
    c_void_p, c_void_p, c_void_p, c_int, c_int, c_int, c_int, c_char_p, c_char_p, c_int, c_char_p,
)  # fmt: skip
_add_loop_from_spec = _function("_UFUNC_API", 43, c_int, py_object, c_void_p)
_add_promoter = _function("_UFUNC_API", 44, c_int, py_object, py_object, py_object)
_promote_dtypes = _function("_ARRAY_API", 364, py_object, c_ssize_t, POINTER(py_object))

# These accept null.
_keep = ctypes.PYFUNCTYPE(None, c_void_p)(("Py_IncRef", ctypes.pythonapi))
_release = ctypes.PYFUNCTYPE(None, c_void_p)(("Py_DecRef", ctypes.pythonapi))

_NEW_LIKE_ARRAY = 277  # in _ARRAY_API

# NumPy's abstract DTypes of Python numbers.
_WEAK = {"_PyFloatDType": float, "_PyLongDType": int}

_NO_IDENTITY = -1  # PyUFunc_None
_SAME_KIND_CASTING = 3
_NO_FLOATING_POINT_ERRORS, _SUPPORTS_UNALIGNED = 1 << 1, 1 << 2
_SLOT_STRIDED_LOOP, _SLOT_UNALIGNED_STRIDED_LOOP = 5, 7


class _Slot(ctypes.Structure):
    _fields_ = (("slot", c_int), ("function", c_void_p))


class _Spec(ctypes.Structure):
    """PyArrayMethod_Spec of numpy/dtype_api.h."""

    _fields_ = (
        ("name", c_char_p),
        ("nin", c_int),
        ("nout", c_int),
        ("casting", c_int),
        ("flags", c_int),
        ("dtypes", POINTER(py_object)),
        ("slots", POINTER(_Slot)),
    )


class _UFuncStruct(ctypes.Structure):
    """The head of PyUFuncObject of numpy/ufuncobject.h, behind the object header."""

    _fields_ = (
        ("nin", c_int),
        ("nout", c_int),
        ("nargs", c_int),
        ("identity", c_int),
        ("functions", c_void_p),
        ("data", c_void_p),
        ("ntypes", c_int),
        ("reserved", c_int),
        ("name", c_void_p),
        ("types", c_void_p),
        ("doc", c_void_p),
        ("ptr", c_void_p),
        ("obj", c_void_p),
        ("userloops", c_void_p),
        ("core_enabled", c_int),
        ("core_num_dim_ix", c_int),
        ("core_num_dims", c_void_p),
        ("core_dim_ixs", c_void_p),
        ("core_offsets", c_void_p),
        ("core_signature", c_void_p),
        ("type_resolver", c_void_p),
    )


DTypes = tuple[DType, ...]
MakeLoop = Callable[[DType], int]
ChooseDType = Callable[[DType, bool], DType | None]
MakeMixed = Callable[[DTypes, DType, int], int]

_promoter_type = ctypes.CFUNCTYPE(
    c_int, py_object, POINTER(c_void_p), POINTER(c_void_p), POINTER(c_void_p)
)


def create(
    name: str,
    nin: int,
    doc: str,
    types: str,
    choose: ChooseDType,
    make_loop: MakeLoop,
    signature: str | None = None,
    nout: int = 1,
    make_mixed: MakeMixed | None = None,
    module: str = "fastact",
) -> np.ufunc:
    """Create a ufunc of `nin` inputs and `nout` outputs that computes in one DType.

    Parameters
    ----------
    types : str
        The type characters that ``ufunc.types`` lists, one loop each.
    choose : callable
        ``choose(dtype, requested)`` returns the DType to compute in when the common DType of the
        inputs (or, if `requested`, the one the caller asked for) is `dtype`; None to refuse.
    make_loop : callable
        ``make_loop(dtype)`` returns the address of a strided loop. Called once per DType.
    signature : str, optional
        The core dimensions of a generalized ufunc, for example "(n)->(n)".
    make_mixed : callable, optional
        ``make_mixed(inputs, dtype, loop)`` returns the address of a strided loop that converts
        `inputs` of other DTypes for the `loop` for `dtype`. Without it, NumPy casts.
    module : str
        The module that has the ufunc under its `name`, for pickles.
    """
    names = [name.encode(), doc.encode()]
    core = None if signature is None else signature.encode()
    nargs = nin + nout
    ufunc = _from_func_and_data(None, None, None, 0, nin, nout, _NO_IDENTITY, *names, 0, core)
    listed = (c_char * (len(types) * nargs))(
        *(bytes([np.dtype(t).num]) for t in types for _ in range(nargs))
    )
    struct = _UFuncStruct.from_address(id(ufunc) + object.__basicsize__)
    struct.types = ctypes.addressof(listed)
    struct.ntypes = len(types)
    # NumPy's legacy resolver would select a type from the list, and call a legacy loop for it.
    # There are none.
    struct.type_resolver = None

    if hasattr(ufunc, "__dict__"):  # not in older versions of NumPy
        # Otherwise pickle searches every module for the name.
        vars(ufunc).update(__module__=module, __qualname__=name)

    made: dict[DTypes, int] = {}  # addresses by the DTypes of inputs and outputs
    # NumPy caches what it finds for a combination of DTypes. If the caller asks for the DTypes of
    # outputs, inputs of several types have to lead to NumPy's casts, which some methods insist on.
    # If not, they have to lead to a loop for these inputs. `promote` must not name the DTypes of
    # its outputs, since NumPy would find the casts. It names this one, which has no loop.
    detour = [np.dtypes.VoidDType] * nout

    keep = _keep  # destructors may call ufuncs when the end of the interpreter has emptied modules

    def promote(ufunc: Any, operands: Any, signature: Any, result: Any) -> int:
        # NumPy reads `result` even if an exception is lost on the way back.
        for i in range(nargs):
            keep(operands[i])
            result[i] = operands[i]
        try:
            try:
                dtypes = wanted([operands[i] for i in range(nin)], signature)
                if dtypes is not None:
                    if dtypes not in made:
                        jobs.run((ufunc, dtypes), functools.partial(make, dtypes))
                    # NumPy looks again with these if they differ from what it had. So an
                    # unspecified output becomes known, and a known one unspecified.
                    found = dtypes if len(set(dtypes)) == 1 else (*dtypes[:nin], *detour)
                    for i in range(nargs):
                        known_output = i >= nin and operands[i]
                        _replace(result, i, None if known_output else found[i])
            except BaseException as error:
                _replace(result, 0, _Raiser(error))
        except BaseException as error:  # an interrupt within the lines above
            _replace(result, 0, _Raiser(error))
        return 0

    def make(dtypes: DTypes) -> None:
        from fastact._runtime import direct_calls  # not needed to import the package

        *inputs, dtype = dtypes[: nin + 1]
        plain = (dtype,) * nargs
        if plain not in made:
            loop = make_loop(dtype)
            register(plain, loop)
            if direct_calls.fits(ufunc):
                direct_calls.attach(ufunc, dtype, loop, numpy_function(_NEW_LIKE_ARRAY))
        if dtypes not in made:
            # Without `make_mixed`, `wanted` returns only plain combinations.
            address = make_mixed(tuple(inputs), dtype, made[plain])  # type: ignore[misc]
            # Have NumPy cache the casts for calls that ask for outputs, before there is a loop for
            # exactly these DTypes.
            given = [np.dtype(one.type) for one in dtypes]
            ufunc.resolve_dtypes(tuple(given), signature=(*[None] * nin, *given[nin:]))
            register(dtypes, address)

    def register(dtypes: DTypes, address: int) -> None:
        with MAKING:  # two threads may be here, if one holds Numba's lock
            if dtypes not in made:
                _add_loop(ufunc, name, dtypes, address)
                made[dtypes] = address

    def wanted(operands: list[int], signature: Any) -> DTypes | None:
        fixed = {signature[i] for i in range(nargs) if signature[i]}
        if len(fixed) > 1:
            return None
        if fixed:
            dtype = choose(_object_at(fixed.pop()), True)
            return None if dtype is None else (dtype,) * nargs
        inputs = [_object_at(address) for address in operands if address]
        try:
            dtype = choose(_common(inputs), False)
        except TypeError:  # no common DType
            dtype = None
        dtype = dtype or _first_safe(inputs, types)
        if dtype is None:
            return None
        if not operands[0]:  # a reduction, whose first operand is a result
            inputs = [dtype] * nin
        taken = (given if make_mixed and _converts(given, dtype) else dtype for given in inputs)
        return *taken, *(dtype,) * nout

    callback = _promoter_type(promote)
    capsule = ctypes.pythonapi.PyCapsule_New
    capsule.restype, capsule.argtypes = py_object, (c_void_p, c_char_p, c_void_p)
    capsule_name = b"numpy._ufunc_promoter"
    wrapped = capsule(ctypes.cast(callback, c_void_p), capsule_name, None)
    _add_promoter(ufunc, (np.dtype,) * nargs, wrapped)
    if (nin, nout) == (2, 1):  # for reductions, where the first DType is not known
        _add_promoter(ufunc, (None, np.dtype, np.dtype), wrapped)
    lasting((ufunc, names, listed, callback, capsule_name))
    return ufunc  # type: ignore[no-any-return] # of ctypes


def _converts(given: DType, dtype: DType) -> bool:
    """Whether a loop that computes in `dtype` can convert `given`; False for Python numbers."""
    if given.type is None:
        return False
    return (conversion_format(given.type), format_of(dtype.type)) in CONVERSIONS


class _Raiser:
    """An object that a promoter returns instead of a DType in order to raise `error`.

    An exception cannot leave a ctypes callback: Python prints it, and returns something. But NumPy
    compares the DTypes that it gets with those of its loops by ``issubclass``. For an object that
    is not a class, that looks up ``__bases__``, and it passes on what the look-up raises.
    """

    def __init__(self, error: BaseException) -> None:
        # To issubclass, an AttributeError only means that there are no bases.
        if isinstance(error, AttributeError):
            cause, error = error, RuntimeError(f"the loop cannot be made: {error}")
            error.__cause__ = cause
        self.error = error

    @property
    def __bases__(self) -> NoReturn:
        raise self.error


def _object_at(address: int) -> Any:
    return ctypes.cast(address, py_object).value


def _replace(references: Any, i: int, new: object | None) -> None:
    """Replace one of the references that an array owns by one to `new`."""
    before = references[i]
    address = None if new is None else id(new)
    _keep(address)
    references[i] = address
    _release(before)


def _common(dtypes: Sequence[DType]) -> DType:
    """The DType that NumPy promotes `dtypes` to; raise TypeError if there is none.

    Python numbers are weak next to bfloat16, too, as they are next to NumPy's floats.
    """
    others = [dtype for dtype in dtypes if dtype.__name__ not in _WEAK]
    if not others:
        dtypes = [type(np.dtype(_WEAK[dtype.__name__])) for dtype in dtypes]
    elif BFLOAT16 in map(_format, others):
        dtypes = others
    return _promote_dtypes(len(dtypes), (py_object * len(dtypes))(*dtypes))


def _format(dtype: DType) -> Format | None:
    return None if dtype.type is None else format_of(dtype.type)


def _first_safe(dtypes: Sequence[DType], codes: str) -> DType | None:
    """The same as `first_safe`, for DTypes."""
    # Python numbers follow the other operands; alone, they have NumPy's default types.
    firm = [dtype for dtype in dtypes if dtype.type not in (int, float)]
    found = first_safe(*(np.dtype(dtype.type) for dtype in firm or dtypes), codes=codes)
    return None if found is None else type(found)


def _add_loop(ufunc: np.ufunc, name: str, dtypes: DTypes, address: int) -> None:
    slots = (_Slot * 3)(
        _Slot(_SLOT_STRIDED_LOOP, address),
        _Slot(_SLOT_UNALIGNED_STRIDED_LOOP, address),
        _Slot(0, None),
    )
    # The loops leave the status flags as they were, so NumPy need not clear and read them. That
    # saves two accesses to the control register per call, and keeps the caller's flags.
    flags = _NO_FLOATING_POINT_ERRORS | _SUPPORTS_UNALIGNED
    casting = max(_casting(given, dtypes[-1]) for given in dtypes)
    listed = (py_object * ufunc.nargs)(*dtypes)
    spec = _Spec(name.encode(), ufunc.nin, ufunc.nout, casting, flags, listed, slots)
    _add_loop_from_spec(ufunc, byref(spec))


def _casting(given: DType, dtype: DType) -> int:
    """NumPy's number for the strictest rule by which `given` may be cast to `dtype`."""
    rules: tuple[Any, ...] = ("no", "equiv", "safe", "same_kind", "unsafe")
    arguments = np.dtype(given.type), np.dtype(dtype.type)
    return next(k for k, rule in enumerate(rules) if np.can_cast(*arguments, rule))
