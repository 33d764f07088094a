"""Every workload in every library, for pytest-benchmark: a group is a workload.

pytest-benchmark can save and compare times, but it runs one library after another. Ratios between
libraries are reliable only from ``python -m bench``, where libraries take turns.
"""

import functools

import numpy as np
import pytest

from . import measure, problems
from .peers.base import Unsupported

problem = functools.lru_cache(maxsize=1)(problems.problem)  # libraries of one group share it


@pytest.mark.benchmark(max_time=0.1, min_rounds=5, disable_gc=True)
def test_workload(workload, library, libraries, benchmark):
    case = problem(workload)
    with np.errstate(all="ignore"):  # steps of other libraries overflow
        try:
            call, _ = measure.checked(library, libraries[library], case)
        except Unsupported as reason:
            pytest.skip(f"{library}: {reason}")
        benchmark.group, benchmark.name = workload.name, library
        benchmark(call)
