"""The number formats that arrays may hold, and which one a kernel computes in."""

from typing import NamedTuple

import numpy as np


# Not a dataclass: to make one takes 1.5 ms of every import of the package.
class Format(NamedTuple):
    """A storage format.

    `kind` is "float", "bfloat", "signed" or "unsigned"; `compute` names the format that
    kernels calculate in, which differs for the 16-bit floats only.
    """

    name: str
    kind: str
    bits: int
    compute: str

    @property
    def itemsize(self) -> int:
        return self.bits // 8

    @property
    def is_integer(self) -> bool:
        return self.kind in ("signed", "unsigned")


FLOAT16 = Format("float16", "float", 16, "float32")
BFLOAT16 = Format("bfloat16", "bfloat", 16, "float32")
FLOAT32 = Format("float32", "float", 32, "float32")
FLOAT64 = Format("float64", "float", 64, "float64")

FLOATS = {f.name: f for f in (FLOAT16, BFLOAT16, FLOAT32, FLOAT64)}
INTEGERS = {
    name: Format(name, "unsigned" if name[0] == "u" else "signed", bits, name)
    for bits in (8, 16, 32, 64)
    for name in (f"int{bits}", f"uint{bits}")
}
FORMATS = FLOATS | INTEGERS

BOOL = Format("bool", "bool", 8, "float64")
"""As a source of conversions only: nothing is computed in it."""


def format_of(scalar_type: type) -> Format | None:
    """The format of arrays of `scalar_type`, or None where there is none.

    bfloat16 is known by its name, so that ml_dtypes need not be imported.
    """
    if issubclass(scalar_type, np.timedelta64):  # a subclass of np.signedinteger
        return None
    if issubclass(scalar_type, np.integer):
        return INTEGERS[np.dtype(scalar_type).name]
    if scalar_type in (np.float16, np.float32, np.float64):
        return FLOATS[scalar_type.__name__]
    if scalar_type.__name__ == "bfloat16" and scalar_type.__module__.startswith("ml_dtypes"):
        return BFLOAT16
    return None


CONVERSIONS = frozenset(
    (source, sink)
    for source in (BOOL, *FORMATS.values())
    for sink in FORMATS.values()
    if source == sink
    # A long integer would be rounded twice on its way to 16 bits.
    or not (sink.is_integer or (source.is_integer and (source.bits, sink.bits) == (64, 16)))
)
"""Source and sink of the conversions that are compiled (``_compiler/loops/convert.py``)."""


def conversion_format(scalar_type: type) -> Format | None:
    """The format of arrays of `scalar_type` in conversions, if it has one."""
    return BOOL if scalar_type is np.bool_ else format_of(scalar_type)


def first_safe(*dtypes: np.dtype, codes: str = "efd") -> np.dtype | None:
    """The first type of `codes` (float16, float32, float64) that all `dtypes` cast to safely.

    That is what types are computed in that have no common one here, such as float16 and bfloat16,
    or int4.
    """
    for wide in map(np.dtype, codes):
        if all(dtype.kind not in "mM" and np.can_cast(dtype, wide) for dtype in dtypes):
            return wide
    return None
