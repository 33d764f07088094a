"""A pytest plugin that applies the patch and counts the calls of each function in its place."""

from own_tests import counting, pytest_terminal_summary

import fastact.keras

__all__ = ["pytest_configure", "pytest_terminal_summary"]


def pytest_configure(config):
    fastact.keras.patch()
    for hook in fastact.keras._hooks():
        name = f"{hook.place.__name__.rpartition('.')[2]}.{hook.key}"
        counted = counting(getattr(hook.place, hook.key), name)
        hook.put(staticmethod(counted) if isinstance(hook.place, type) else counted)
