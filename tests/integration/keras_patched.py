"""A pytest plugin that applies the patch and counts the calls of each function in its place."""

import collections
import functools

import fastact.keras

calls = collections.Counter()


def counting(function, name):
    @functools.wraps(function)
    def counted(*args, **kwargs):
        calls[name] += 1
        return function(*args, **kwargs)

    return counted


def pytest_configure(config):
    fastact.keras.patch()
    for hook in fastact.keras._hooks():
        name = f"{hook.place.__name__.rpartition('.')[2]}.{hook.key}"
        counted = counting(getattr(hook.place, hook.key), name)
        hook.put(staticmethod(counted) if isinstance(hook.place, type) else counted)


def pytest_terminal_summary(terminalreporter):
    for name, count in calls.items():
        terminalreporter.write_line(f"calls of {name}: {count}")
