"""Targets, code and patterns of instructions, for tests that read machine code."""

import functools
import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import operations
from fastact._compiler import host
from fastact._machine.targets import BASELINES

TARGETS = {"host": host.host(), **BASELINES}

# Arithmetic on one element, or on elements of 8 bytes, by architecture. Loads and moves of
# constants are not arithmetic.
X86_OPERATION = r"\bv?(add|sub|mul|div|min|max|sqrt|f[n]?m(add|sub)\d+|cmp\w*|ucomi|comi)"
SCALAR = {
    "x86_64": re.compile(X86_OPERATION + r"s[sd]\b"),
    "aarch64": re.compile(r"\bf(add|sub|mul|div|madd|msub|min|max)\w*\s+[hsd]\d"),
}
DOUBLE = {
    "x86_64": re.compile(X86_OPERATION + r"[sp]d\b|\bv?cvt\w*[sp]d"),
    "aarch64": re.compile(r"\bf\w+\s+(v\d+\.2d|d\d)"),
}
PACKED = {
    "x86_64": re.compile(r"\bv?(\w+)p[sd]\b|\bvp?\w+\s.*[xyz]mm|\bp\w+\s.*xmm"),
    "aarch64": re.compile(r"\bv\d+\.(2d|4s|8h|16b)|\bq\d+, (q\d+|\[)"),
}
CALL = re.compile(r"(?m)^\t(callq?|blr?)\t(\S+)")
POINTER = re.compile(r"\*(?!.*@)|x\d+$")  # in a register or in memory, and not a symbol

PLACE = Path(os.environ["FASTACT_CACHE_DIR"]) / "assembly"  # shared by the processes of a run
_assembly, _row_assembly = operations.assembly, operations.row_assembly


def made_once(make: Callable[[], bytes], *key: object) -> bytes:
    """What `make` returns, made once in a run of the tests for each `key`."""
    path = PLACE / hashlib.blake2b(repr(key).encode(), digest_size=16).hexdigest()
    if path.exists():
        return path.read_bytes()
    content = make()
    PLACE.mkdir(exist_ok=True)
    new = path.with_suffix(f".{os.getpid()}")
    new.write_bytes(content)
    new.replace(path)
    return content


@functools.cache
def _text(make, made_of, label, form, target):
    key = make.__name__, label, form, target
    return made_once(lambda: make(made_of, form, target).encode(), *key).decode()


def assembly(name, form, target):
    """The code of the loop of a declared function of elements, made once in a run of the tests."""
    return _text(_assembly, operations.declarations()[name], name, form, target)


def row_assembly(steps, form, target):
    """The same, for the steps of a function of rows."""
    return _text(_row_assembly, steps, steps.__qualname__, form, target)


# Compiling takes most of the time. By default, tests compile only for this machine and for a level
# that most others can run.
every_target = pytest.mark.parametrize(
    "target",
    [
        name if name in ("host", "x86-64-v3") else pytest.param(name, marks=pytest.mark.exhaustive)
        for name in TARGETS
    ],
)
