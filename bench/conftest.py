"""The cases of the pytest-benchmark suite, from the list of workloads.

``python -m pytest bench --benchmark-only`` times all of them. ``--benchmark-disable`` runs each
kind once without timing, as small as possible.
"""

import contextlib

import pytest

from . import measure, peers, timing, workloads

_stack = contextlib.ExitStack()
_loaded = pytest.StashKey[tuple[dict, dict]]()


def pytest_configure(config):
    _stack.enter_context(timing.one_thread())
    config.stash[_loaded] = peers.load(list(peers.PEERS))


def pytest_unconfigure(config):
    _stack.close()


def pytest_report_header(config):
    libraries, missing = config.stash[_loaded]
    lines = [f"{name} {library.version}" for name, library in libraries.items()]
    return [
        f"compared: {', '.join(lines)}",
        *(f"missing: {name}: {reason}" for name, reason in missing.items()),
    ]


@pytest.fixture(scope="session")
def libraries(request):
    """The installed libraries by name."""
    return request.config.stash[_loaded][0]


def pytest_generate_tests(metafunc):
    if "workload" not in metafunc.fixturenames:
        return
    libraries, missing = metafunc.config.stash[_loaded]
    untimed = metafunc.config.getoption("benchmark_disable")
    chosen = (workloads.small if untimed else workloads.every)(workloads.functions())
    cases = [
        pytest.param(workload, name, id=f"{workload.name}-{name}")
        for workload in chosen
        for name, library in libraries.items()
        if measure.factory_of(library, workload)
    ]
    for name, reason in missing.items():
        skip = pytest.mark.skip(reason=f"{name} is missing: {reason}")
        cases.append(pytest.param(chosen[0], name, id=f"{name}-missing", marks=skip))
    metafunc.parametrize(("workload", "library"), cases)
