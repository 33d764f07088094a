"""The registers of the floating-point environment, read and set by tests."""

import contextlib
import ctypes
import ctypes.util
import gc
import platform
import struct
from dataclasses import dataclass

import pytest

# The C library reads and writes the registers of this thread. They keep their values from one call
# through ctypes to the next, since neither Python nor NumPy sets them.

STATES = ["as usual", "down", "up", "towards zero", "flushing", "flags raised", "all at once"]


@dataclass(frozen=True)
class Registers:
    """Control and status of this thread's floating-point unit, as one integer."""

    offset: int  # in fenv_t, in bytes
    form: str
    directions: dict[str, int]  # of rounding, except to nearest
    flush: int  # replaces subnormal inputs and results by 0
    flags: int
    masks: int  # switch off traps for invalid operations, division by zero and overflow

    def __post_init__(self):
        object.__setattr__(self, "library", ctypes.CDLL(ctypes.util.find_library("m")))
        object.__setattr__(self, "environment", ctypes.create_string_buffer(64))

    def read(self):
        assert self.library.fegetenv(self.environment) == 0
        return struct.unpack_from(self.form, self.environment, self.offset)[0]

    def write(self, value):
        assert self.library.fegetenv(self.environment) == 0
        struct.pack_into(self.form, self.environment, self.offset, value)
        assert self.library.fesetenv(self.environment) == 0

    @contextlib.contextmanager
    def set(self, value):
        saved = self.read()
        gc.disable()  # hypothesis times collections, and its arithmetic would raise a flag
        self.write(value)
        try:
            yield
        finally:
            self.write(saved)
            gc.enable()

    def value(self, state):
        """Return the registers in one of STATES; flags are raised only if its name says so."""
        cases = self.directions | {"flushing": self.flush, "flags raised": self.flags}
        cases["all at once"] = cases["up"] | cases["flushing"] | cases["flags raised"]
        return (self.read() & ~self.flags) | cases.get(state, 0)


REGISTERS = {
    "x86_64": Registers(  # MXCSR
        offset=28,
        form="<I",
        directions={"down": 1 << 13, "up": 2 << 13, "towards zero": 3 << 13},
        flush=0x8040,
        flags=0x3F,
        masks=0x680,
    ),
    "aarch64": Registers(  # FPCR, and FPSR as the upper half
        offset=0,
        form="<Q",
        directions={"up": 1 << 22, "down": 2 << 22, "towards zero": 3 << 22},
        flush=1 << 24,
        flags=0x9F << 32,
        masks=0,
    ),
}
needs_registers = pytest.mark.skipif(
    platform.system() != "Linux" or platform.machine() not in REGISTERS,
    reason="the layout of fenv_t is known for glibc on x86-64 and aarch64",
)
