"""A pytest plugin that applies the patch and counts the calls of each function in its tables."""

from own_tests import counting, pytest_terminal_summary
from sklearn.neural_network import _base, _rbm

import fastact
import fastact.sklearn

__all__ = ["pytest_configure", "pytest_terminal_summary"]


def pytest_configure(config):
    fastact.sklearn.patch()
    for table in (_base.ACTIVATIONS, _base.DERIVATIVES):
        for name, function in table.items():
            origin = f"{function.__module__} {name}.{function.__name__}"
            table[name] = counting(function, origin)
    origin = "fastact" if _rbm.expit is fastact.sigmoid else "scipy"
    _rbm.expit = counting(_rbm.expit, f"{origin}.{_rbm.expit.__name__}")
