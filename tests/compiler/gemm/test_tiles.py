"""Every register tile of every target that runs here, called directly.

The loops around the tiles choose among them by shape. The tests call each tile with every
combination of strides, of ragged last vectors, and of ways to start and to finish.
"""

import functools
import itertools
import platform
from ctypes import CFUNCTYPE, c_int64

import gmpy2
import llvmlite.binding as llvm
import numpy as np
import pytest
from llvmlite import ir

from fastact._compiler import host as host_module
from fastact._compiler import pipeline
from fastact._compiler.gemm import loops as gemm_loops
from fastact._compiler.gemm import tiles as tile_module
from fastact._compiler.gemm.interface import bits_of, lanes_for
from fastact._loading import linker
from fastact._machine.formats import FORMATS
from fastact._machine.targets import BASELINES, TILES

pytestmark = pytest.mark.functional

ON_X86 = platform.machine() in ("x86_64", "AMD64")
TARGETS = {"host": host_module.host()} | {
    n: BASELINES[n] for n in ("x86-64-v2", "x86-64-v3") if ON_X86
}


def lanes_of(form, target):
    """Every number of lanes that code is made for."""
    widest = target.vector_bits // form.bits
    return sorted({lanes_for(columns, form, target) for columns in range(1, widest + 1)})


KINDS = [
    (target, name, lanes)
    for target in TARGETS
    for name in ("float32", "float64")
    for lanes in lanes_of(FORMATS[name], TARGETS[target])
]
every_kind = pytest.mark.parametrize(("target", "name", "lanes"), KINDS)


def sizes_of(target):
    return [(h, v) for v, tallest in target.tiles.items() for h in range(1, tallest + 1)]


@functools.cache
def tiles(target, name, lanes):
    """The machine code of all tiles, by rows and vectors."""
    machine = pipeline.machine_of(TARGETS[target])
    form, sizes = FORMATS[name], sizes_of(TARGETS[target])
    text = tile_module.declarations_ir(form, lanes, TARGETS[target]) + "".join(
        tile_module.tile_ir(form, *size, lanes, TARGETS[target]) for size in sizes
    )
    text = pipeline.for_target(text, TARGETS[target], str(machine.target_data))
    code = machine.emit_object(llvm.parse_assembly(text))
    names = {size: tile_module.tile_name(*size) for size in sizes}
    addresses = linker.load_all(code, names.values())
    kind = CFUNCTYPE(None, *[c_int64] * len(tile_module.PARAMETERS.split(",")))
    return {size: kind(addresses[names[size]]) for size in sizes}


GUARD = 1e6


def call(tile, lanes, x, w, bias, c, ragged=0, first=1, final=1, floor=-np.inf):
    """Compute c = x @ w + bias, where the last two vectors have `ragged` columns in common.

    W has shape (K, N), any stride along K, and contiguous rows.
    """
    depth = x.shape[1]
    columns = c.shape[1]
    size = c.itemsize
    assert columns % lanes == -ragged % lanes and (w.strides[1] == size or not w.size)
    last = (columns - lanes) * size
    tile(
        x.ctypes.data, *x.strides, w.ctypes.data, lanes * size, last, w.strides[0], depth,
        bias.ctypes.data, c.ctypes.data, c.strides[0], last, first, final,
        bits_of(floor, FORMATS[c.dtype.name]), 0, 0,
    )  # fmt: skip


def room(rows, columns, dtype):
    """An array for results between guards, and a function that tells whether these are intact."""
    around = np.full((rows + 2, columns + 5), GUARD, dtype)
    inner = around[1:-1, 3:-2]

    def intact():
        mask = np.ones(around.shape, bool)
        mask[1:-1, 3:-2] = False
        return (around[mask] == GUARD).all()

    return inner, intact


def raggeds(vectors, lanes):
    """By how many columns the last vector may overlap the one before."""
    return sorted({0, 1, lanes - 1} if vectors > 1 else {0})


@every_kind
def test_identity(target, name, lanes):
    """With the identity as x, results are exactly rows of W; with it as W, columns of x."""
    for (rows, vectors), tile in tiles(target, name, lanes).items():
        for ragged in raggeds(vectors, lanes):
            columns = vectors * lanes - ragged
            depth = max(rows, columns) + 1
            rng = np.random.default_rng(rows * 16 + vectors)
            zero = np.zeros(columns, name)
            for k in range(0, depth - rows, max(1, depth // 3)):
                x = np.eye(rows, depth, k, dtype=name)
                w = rng.standard_normal((depth, columns)).astype(name)
                c, intact = room(rows, columns, name)
                call(tile, lanes, x, w, zero, c, ragged)
                assert (c == w[k : k + rows]).all()
                assert intact()
            x = rng.standard_normal((rows, depth)).astype(name)
            w = np.eye(depth, columns, dtype=name)
            c, intact = room(rows, columns, name)
            call(tile, lanes, x, w, zero, c, ragged)
            assert (c == x[:, :columns]).all()
            assert intact()


@every_kind
def test_integers_are_exact(target, name, lanes):
    """Sums are below 2**24. Strides are of every kind, with offsets; k is in one part or two."""
    for (rows, vectors), tile in tiles(target, name, lanes).items():
        rng = np.random.default_rng(rows * 16 + vectors)
        for depth, ragged in itertools.product((0, 1, 6, 37), raggeds(vectors, lanes)):
            columns = vectors * lanes - ragged
            whole = [rng.integers(-99, 99, s) for s in ((rows, depth), (depth, columns), columns)]
            expected = whole[0] @ whole[1] + whole[2]
            x, w, bias = (v.astype(name) for v in whole)
            wide = np.full((rows, 2 * depth + 1), np.nan, name)[:, : 2 * depth : 2]
            wide[...] = x
            broad = np.full((depth + 1, columns + 7), np.nan, name)[:depth, 3 : columns + 3]
            broad[...] = w
            backwards = np.ascontiguousarray(w[::-1])[::-1]
            for x_laid, w_laid in (
                (x, w), (np.asfortranarray(x), broad), (wide, w),
                (np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1], backwards),
            ):  # fmt: skip
                c, intact = room(rows, columns, name)
                call(tile, lanes, x_laid, w_laid, bias, c, ragged)
                assert (c == expected).all()
                assert intact()
                # The same in two parts; the first does not read c.
                c[...] = np.nan
                half = depth // 2
                call(tile, lanes, x_laid[:, :half], w_laid[:half], bias, c, ragged, 1, 0)
                assert (c == whole[0][:, :half] @ whole[1][:half]).all()
                call(tile, lanes, x_laid[:, half:], w_laid[half:], bias, c, ragged, 0, 1)
                assert (c == expected).all()
                assert intact()


@every_kind
def test_one_rounding_a_product_in_the_order_of_k(target, name, lanes):
    """MPFR computes the same bits, with the sum that ``_compiler/gemm/tiles.py`` describes."""
    fused = TARGETS[target].has_fma
    dtype, depth = np.dtype(name), 9
    context = gmpy2.context(precision=np.finfo(dtype).nmant + 1)
    for (rows, vectors), tile in tiles(target, name, lanes).items():
        columns = vectors * lanes
        rng = np.random.default_rng(rows * 16 + vectors)
        x = rng.standard_normal((rows, depth)).astype(name)
        w = rng.standard_normal((depth, columns)).astype(name)
        bias = rng.standard_normal(columns).astype(name)
        c, _ = room(rows, columns, name)
        call(tile, lanes, x, w, bias, c)
        # Some elements of each tile; over all tiles, every row, vector and lane.
        for column in range(rows % lanes, columns, max(1, lanes - 1)):
            row = (column // lanes + vectors) % rows
            total = gmpy2.mpfr(0)
            with gmpy2.context(context):
                for k in range(depth):
                    factors = (gmpy2.mpfr(float(v)) for v in (x[row, k], w[k, column]))
                    total = gmpy2.fma(*factors, total) if fused else gmpy2.mul(*factors) + total
                total = total + gmpy2.mpfr(float(bias[column]))
            assert c[row, column] == float(total)


@pytest.mark.parametrize("state", ["subnormal product", "negative zeros"])
@every_kind
def test_k_in_parts_gives_the_same_bits(target, name, lanes, state):
    """Also where a partial sum is -0, which a product that underflows leaves."""
    tiny = float(np.finfo(name).smallest_subnormal)
    depth = 7
    for (rows, vectors), tile in tiles(target, name, lanes).items():
        columns = vectors * lanes
        x, w = np.full((rows, depth), -0.0, name), np.ones((depth, columns), name)
        bias = np.full(columns, -0.0, name)
        if state == "subnormal product":
            x[:, 0], w[0] = -tiny, tiny
        else:
            x[0], w[:, ::2] = 1, tiny
        expected, _ = room(rows, columns, name)
        call(tile, lanes, x, w, bias, expected)
        c, _ = room(rows, columns, name)
        for start, stop in ((0, 3), (3, 3), (3, 6), (6, 7)):
            first, final = int(start == 0), int(stop == depth)
            part = x[:, start:stop], w[start:stop]
            call(tile, lanes, *part, bias, c, first=first, final=final)
        assert (c == expected).all()
        assert (np.signbit(c) == np.signbit(expected)).all()


@every_kind
def test_a_floor_replaces_smaller_results_alone(target, name, lanes):
    """NaN, infinities and zeros of both signs stay what they are."""
    for (rows, vectors), tile in tiles(target, name, lanes).items():
        columns = vectors * lanes
        x = np.ones((rows, 1), name)
        values = [-0.0, 0.0, np.nan, -np.inf, np.inf, 1.5, -1.5, -np.finfo(name).smallest_subnormal]
        w = np.resize(np.array(values, name), (1, columns))
        x[rows // 2] = -1
        bias = np.full(columns, -0.0, name)
        for floor in (0.0, -1.5, -np.inf):
            c, intact = room(rows, columns, name)
            call(tile, lanes, x, w, bias, c, floor=floor)
            product = x * w + bias
            expected = np.where(product < floor, np.array(floor, name), product)
            # The sum begins with +0.
            expected[product == 0] = 0.0
            np.testing.assert_array_equal(c, expected)
            assert not np.signbit(c[product == 0]).any()
            assert intact()


MACHINES = {
    "16 registers": "x86-64-v3",
    "16 registers, no fma": "x86-64-v2",
    "32 registers": "x86-64-v4",
}


@functools.cache
def shape_functions(registers):
    """`breadth` and `height` of ``_compiler/gemm/loops.py`` for a set of registers."""
    target = BASELINES[MACHINES[registers]]
    assert target.tiles is TILES[registers]
    module = ir.Module()
    gemm_loops._breadth(module, target), gemm_loops._height(module, target)
    host = host_module.host()
    machine = pipeline.machine_of(host)
    text = pipeline.for_target(str(module), host, str(machine.target_data))
    code = machine.emit_object(llvm.parse_assembly(text))
    addresses = linker.load_all(code, ("breadth", "height"))
    return (
        CFUNCTYPE(c_int64, c_int64, c_int64, c_int64)(addresses["breadth"]),
        CFUNCTYPE(c_int64, c_int64)(addresses["height"]),
    )


@pytest.mark.parametrize("registers", TILES)
def test_shapes_of_tiles(registers):
    """The loops only ask for tiles that exist, and never for a ragged vector alone.

    The last vector shares columns with the one before. If k is split, the same tile must read
    both, or the products of these columns would be added twice.
    """
    breadth, height = shape_functions(registers)
    for vectors, tallest in TILES[registers].items():
        assert height(vectors) == tallest
    for rows, vectors, widest in itertools.product(
        [*range(1, 70), 500, 1001], [*range(1, 70), 257], [3, 4, 6, 12]
    ):
        most = breadth(rows, vectors, widest)
        assert most in TILES[registers]
        assert most <= widest
        assert most > 1 or vectors == 1
        groups = -(-vectors // most)
        for v in {vectors // groups, -(-vectors // groups)}:
            assert TILES[registers][v] >= height(most)


@pytest.mark.parametrize("registers", TILES)
def test_tiles_fit_the_registers(registers):
    spare = "no fma" in registers  # for a product
    for vectors, tallest in TILES[registers].items():
        assert tallest * vectors + vectors + 1 + spare <= int(registers.split()[0])
