"""A pytest plugin that applies the patch and counts the calls of each function in its tables."""

import collections
import functools

from sklearn.neural_network import _base, _rbm

import fastact
import fastact.sklearn

calls = collections.Counter()


def counting(function, origin):
    @functools.wraps(function)
    def counted(*args, **kwargs):
        calls[f"{origin}.{function.__name__}"] += 1
        return function(*args, **kwargs)

    return counted


def pytest_configure(config):
    fastact.sklearn.patch()
    for table in (_base.ACTIVATIONS, _base.DERIVATIVES):
        for name, function in table.items():
            table[name] = counting(function, f"{function.__module__} {name}")
    _rbm.expit = counting(_rbm.expit, "fastact" if _rbm.expit is fastact.sigmoid else "scipy")


def pytest_terminal_summary(terminalreporter):
    for name, count in calls.items():
        terminalreporter.write_line(f"calls of {name}: {count}")
