"""The examples run, agree with scikit-learn about every label, and have small errors."""

import re

import pytest
from conftest import ROOT, run_python

NEED_MORE = {"dask_cluster"}  # than the extra "test"; tests/integration runs them
EXAMPLES = sorted(path for path in (ROOT / "examples").glob("*.py") if path.stem not in NEED_MORE)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(path):
    source = path.read_text(encoding="utf-8")
    printed = run_python(source)
    for equal, all_of_them in re.findall(
        r"labels equal to scikit-learn's: (\d+) of (\d+)", printed
    ):
        assert equal == all_of_them
    for difference in re.findall(r"largest difference.*: (\S+)", printed):
        assert float(difference) < 1e-12
    for error in re.findall(r"error: (\S+)", printed):
        assert float(error) < 1e-5
    assert ("scikit-learn" in printed) == ("sklearn" in source)


def test_there_are_examples():
    assert {path.stem for path in EXAMPLES} >= {
        "linear_regression",
        "perceptron",
        "mlp_digits",
        "gelu_network",
        "feed_forward",
    }
