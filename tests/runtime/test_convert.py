"""Conversion of arrays between formats: rounded to nearest even, once, for all strides."""

import ctypes
import itertools

import ml_dtypes
import numpy as np
import pytest
from conftest import FLOATS, assert_same, bits, is_nan, nans

from fastact._compiler import symbols
from fastact._compiler.loops import convert
from fastact._loading import linker, loader
from fastact._machine.formats import CONVERSIONS, INTEGERS, conversion_format
from fastact._machine.targets import BASELINES
from fastact._runtime import convert as conversion

TYPES = [np.dtype("?"), *map(np.dtype, INTEGERS), *FLOATS]
PAIRS = [
    (source, sink)
    for source, sink in itertools.product(TYPES, FLOATS)
    if source != sink
    and (conversion_format(source.type), conversion_format(sink.type)) in CONVERSIONS
]


def ties(sink):
    """Return float64 numbers halfway between two numbers of `sink`, and their neighbours."""
    info = ml_dtypes.finfo(sink)
    last = float(info.smallest_subnormal)
    powers = [
        float(info.smallest_normal),
        float(info.smallest_normal) / 2,
        1.0,
        float(info.max) / 2,
    ]
    steps = [p * 2.0**-info.nmant for p in (powers[0], 0.0, powers[2], powers[3])]
    found = [0.5 * last, 1.5 * last, 2.5 * last, float(info.max) * (1 + 2.0 ** -(info.nmant + 2))]
    for power, step in zip(powers, steps, strict=True):
        found += [power + k * max(step, last) / 2 for k in range(8)]
    found = np.array(found)
    return np.concatenate([found, np.nextafter(found, 0), np.nextafter(found, np.inf)])


def values(source):
    """Return all values of types of at most 16 bits, and some values of longer types."""
    size = 8 * source.itemsize
    if source.kind == "b":
        return np.array([0, 1, 2, 255], np.uint8).view(source)
    if size <= 16:
        return np.arange(1 << size).astype(f"u{source.itemsize}").view(source)
    rng = np.random.default_rng(8)
    drawn = rng.integers(0, 256, 40_000 * source.itemsize, np.uint8).view(source)
    if source.kind in "iu":
        few = np.array([[1], [3]], source) << np.arange(size - 2).astype(source)
        shorter = drawn >> rng.integers(0, size, drawn.shape, source)
        return np.concatenate([drawn, shorter, few.ravel(), few.ravel() + 1, few.ravel() - 1])
    plain = np.ldexp(rng.uniform(-1, 1, 20_000), rng.integers(-160, 140, 20_000))
    near = np.concatenate([plain, *map(ties, FLOATS[:3]), [np.inf, 0]])
    with np.errstate(all="ignore"):
        near = near.astype(source)
    found = np.empty(len(drawn) + 2 * len(near) + len(nans(source)), source)
    np.concatenate([drawn, near, -near, nans(source)], out=found)
    return found


def rounded(x, sink):
    """Round `x`, of at most 53 bits, to the nearest number of `sink`, by scaling to integers."""
    info = ml_dtypes.finfo(sink)
    wide = x.astype(np.float64)
    if sink == np.float64:
        return wide
    exponent = np.maximum(np.frexp(wide)[1] - 1, np.frexp(float(info.smallest_normal))[1] - 1)
    step = exponent - info.nmant
    whole = np.rint(np.ldexp(np.ldexp(wide, -step // 2), -step - (-step // 2)))
    result = np.ldexp(np.ldexp(whole, step // 2), step - step // 2)
    result = np.where(np.isfinite(wide), result, wide)
    return np.where(np.abs(result) > float(info.max), np.copysign(np.inf, wide), result).astype(
        sink
    )


def exact(x, sink):
    """Convert `x` with one rounding."""
    if x.dtype.kind == "b":
        return (x.view(np.uint8) != 0).astype(np.uint8).astype(sink)
    if x.dtype.kind in "iu" and x.dtype.itemsize == 8:
        return (
            np.array([int(v) for v in x], object).astype(sink)
            if sink == np.float64
            else x.astype(sink)
        )
    with np.errstate(all="ignore"):
        return rounded(x, sink)


def assert_converted(x, y):
    expected = exact(x, y.dtype)
    unknown = is_nan(x) if x.dtype in FLOATS else np.zeros(x.shape, bool)
    assert is_nan(y[unknown]).all()
    np.testing.assert_array_equal(bits(y)[~unknown], bits(expected)[~unknown])


@pytest.mark.parametrize("source, sink", PAIRS, ids=lambda dtype: dtype.name)
def test_one_rounding(source, sink):
    x = values(source)
    y = np.empty(x.shape, sink)
    conversion.copy(x, y)
    assert_converted(x, y)


@pytest.mark.parametrize("alike", [*map(np.dtype, INTEGERS), *FLOATS], ids=str)
def test_same_format_keeps_bits(alike):
    x = values(alike)
    y = np.empty(x.shape, alike)
    conversion.copy(x, y)
    assert_same(y, x)


SMALLEST = [(np.dtype(a), np.dtype(b)) for a, b in ("de", "fe", "ef", "ed", "Qf", "Qd", "qf", "qd")]
SMALLEST += [(np.dtype(t), FLOATS[1]) for t in "fd"]
host = pytest.mark.skipif(
    not loader.host().triple.startswith("x86_64"), reason="code for x86-64 runs on x86-64 alone"
)


@host
@pytest.mark.parametrize("source, sink", SMALLEST, ids=lambda dtype: dtype.name)
def test_one_rounding_without_its_instructions(source, sink):
    forms = conversion_format(source.type), conversion_format(sink.type)
    code = convert.object_code(*forms, BASELINES["x86-64-v2"])
    address = linker.load(code, symbols.ENTRY)
    function = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.py_object, ctypes.py_object)(address)
    x = values(source)
    y = np.empty(x.shape, sink)
    assert function(x, y) == 0
    assert_converted(x, y)


LAYOUTS = {
    "rows": lambda a: a[:12, :20],
    "contiguous": lambda a: np.ascontiguousarray(a[:12, :20]),
    "transposed": lambda a: a[:20, :12].T,
    "Fortran": lambda a: np.asfortranarray(a[:12, :20]),
    "steps": lambda a: a[1:25:2, ::2][:, :20],
    "backwards": lambda a: a[12:0:-1, 20:0:-1],
    "narrow": lambda a: a[:40, :3],
    "narrow Fortran": lambda a: np.asfortranarray(a[:40, :3]),
    "one row": lambda a: a[5, :33],
    "one column": lambda a: a[:33, 5],
    "column": lambda a: a[:33, 5:6],
    "one": lambda a: a[5, 5:6],
    "none": lambda a: a[5:5, :7],
    "no columns": lambda a: a[:7, 5:5],
    "blocks": lambda a: a[:36].reshape(6, 6, 40)[:, 1:5],
    "blocks transposed": lambda a: a[:36, :15].reshape(3, 12, 5, 3).transpose(3, 1, 0, 2),
}


@pytest.mark.parametrize("source, sink", ["ef", "fe", "dd", "?d", "qd", "df"])
def test_layouts(source, sink):
    x = np.resize(values(np.dtype(source)), (40, 40))
    x = x if source == "?" else np.where(x == x, x, np.ones((), source))
    for name, layout in LAYOUTS.items():
        part = layout(x)
        flat = np.empty(part.size, sink)
        conversion.copy(np.ascontiguousarray(part).reshape(-1), flat)
        for other, sink_layout in LAYOUTS.items():
            big = np.full((40, 40), 7, sink)
            place = sink_layout(big)
            if place.shape != part.shape:
                continue
            around = big.copy()
            conversion.copy(part, place)
            np.testing.assert_array_equal(place, flat.reshape(part.shape), f"{name} to {other}")
            if np.may_share_memory(place, big):
                sink_layout(around)[...] = place
                np.testing.assert_array_equal(big, around)
        converted = conversion.converted(part, np.dtype(sink))
        np.testing.assert_array_equal(converted, flat.reshape(part.shape), name)
        with np.errstate(all="ignore"):
            assert converted.strides == part.astype(sink, copy=False).strides or 0 in part.shape


def test_unaligned_and_broadcast():
    buffer = np.arange(1 + 8 * 50, dtype=np.uint8)
    x = buffer[1:].view(np.float64)
    assert not x.flags.aligned
    y = np.empty(len(x), np.float32)
    conversion.copy(x, y)
    assert_converted(x, y)
    out = np.empty((7, 50), np.float64)
    conversion.copy(np.broadcast_to(y, (7, 50)), out)
    np.testing.assert_array_equal(out, np.broadcast_to(y.astype(np.float64), (7, 50)))


@pytest.mark.parametrize("source, sink", [(">f4", "f8"), ("f8", ">f2"), ("f4", "F"), ("q", "e")])
def test_rare_conversions_are_left_to_numpy(source, sink):
    x = np.arange(12).astype(source).reshape(3, 4)
    y = np.empty((3, 4), sink)
    conversion.copy(x, y)
    np.testing.assert_array_equal(y, x.astype(sink))
