"""Variants of code compute the same function, and the table says which is fastest."""

import itertools

import numpy as np
import pytest

from bench import operations, variants
from bench.references import FOR_ARRAYS
from bench.variants import Variant
from fastact._compiler import host

LEVELS = ["native", host.levels()[0]]


@pytest.mark.parametrize(
    "variant",
    [
        *(Variant(1), Variant(8), Variant(2, 128), Variant(4, None, host.host().cpu)),
        Variant(2, stages=3),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    ("name", "level"), [("relu_backward", LEVELS[0]), ("logistic_grad_hess", LEVELS[1])]
)
def test_every_variant_computes_the_function(name, level, variant):
    declared = operations.declarations()[name]
    usual = variants.levels()[level]()
    code = variants.compiled(declared, "float64", usual, variant)
    operands = variants.operands_of(declared, "float64", 1000)
    variants.caller(code.address, operands, 999)()
    inputs, outputs = operands[: declared.nin], operands[declared.nin :]
    for output, result in enumerate(outputs):
        for i in range(0, 999, 37):
            want = declared.reference(FOR_ARRAYS, *(x[i] for x in inputs))
            want = want[output] if len(outputs) > 1 else want
            np.testing.assert_allclose(result[i], want, rtol=1e-14)
        assert result[999] == 0  # not one more


def test_instructions_are_ordered_for_a_processor():
    relu = operations.declarations()["relu"]
    target = host.host()
    sources = operations.sources(relu, "float32", target)
    with variants.tuned("generic"):
        tuned = str(variants.pipeline.optimised(*sources, target)[0])
    assert '"tune-cpu"="generic"' in tuned
    assert "tune-cpu" not in str(variants.pipeline.optimised(*sources, target)[0])


def test_stages_are_those_of_the_variant_or_of_the_package():
    target = variants.levels()["native"]()
    assert Variant(2, stages=3).target(target).stages == 3
    divided = Variant(2, stages=4).target(target)
    assert Variant(2).target(divided).stages == 4
    assert str(Variant(2, 256, stages=3)) == "256x2 in 3"


def test_the_usual_code_is_fastest_unless_another_is_faster_by_more_than_noise():
    assert variants.fastest({"1": 2.0, "4": 1.01, "8": 1.0}, "4") == ("4", 0.0)
    best, loss = variants.fastest({"1": 2.0, "4": 1.2, "8": 1.0}, "4")
    assert best == "8" and loss == pytest.approx(0.2)
    assert variants.fastest({"1": 2.0, "8": 1.0}, "4") == ("8", None)


def test_the_usual_code_is_found_among_numbers_of_stages(capsys):
    chosen = ["sigmoid", "--formats", "float64", "--levels", LEVELS[1], "--stages", "1", "3"]
    variants.main([*chosen, "--shapes", "4", "--size", "64", "--repetitions", "1"])
    header, _, line = capsys.readouterr().out.strip().split("\n")
    cells = [[cell.strip() for cell in text.strip("|").split("|")] for text in (header, line)]
    assert cells[0][3:] == ["4 in 1", "4 in 3", "fastest", "loss"]
    assert cells[1][-1].endswith("%")


def test_the_table_has_a_row_for_every_function_format_and_level(capsys):
    chosen = ["relu", "tanh_backward", "--formats", "float16", "bfloat16", "--levels", *LEVELS]
    variants.main([*chosen, "--shapes", "1", "128x2", "--size", "64", "--repetitions", "1"])
    header, _, *lines = capsys.readouterr().out.strip().split("\n")
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in (header, *lines)]
    assert cells[0] == ["function", "format", "level", "1", "128x2", "fastest", "loss"]
    expected = itertools.product(["relu", "tanh_backward"], ["float16", "bfloat16"], LEVELS)
    assert [tuple(row[:3]) for row in cells[1:]] == list(expected)
    assert all(row[-2] in ("1", "128x2") for row in cells[1:])
