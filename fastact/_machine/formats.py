"""The number formats of arrays, and the formats that kernels compute in."""

from typing import NamedTuple

import numpy as np


# Not a dataclass: creating one would add 1.5 ms to every import of the package.
class Format(NamedTuple):
    """A storage format.

    `kind` is "float", "bfloat", "signed", "unsigned" or "bool"; `compute` is the name of the
    format that kernels compute in, which is wider for the 16-bit floats.
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
"""Only a source of conversions: nothing is computed in it."""


def format_of(scalar_type: type) -> Format | None:
    """Return the format of arrays of `scalar_type`, or None if there is none.

    bfloat16 is recognised by its name, so that ml_dtypes need not be imported.
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
    # A 64-bit integer would be rounded twice on its way to 16 bits.
    or not (sink.is_integer or (source.is_integer and (source.bits, sink.bits) == (64, 16)))
)
"""The pairs (source, sink) that have a compiled conversion (``_compiler/loops/convert.py``)."""


def conversion_format(scalar_type: type) -> Format | None:
    """Return the format of `scalar_type` as the source of a conversion, or None."""
    return BOOL if scalar_type is np.bool_ else format_of(scalar_type)


def first_safe(*dtypes: np.dtype, codes: str = "efd") -> np.dtype | None:
    """Return the first type of `codes` that all `dtypes` cast to safely, or None.

    The default `codes` are float16, float32 and float64. Types without a common type of this
    package, like float16 and bfloat16, or int4, are computed in the result.
    """
    for wide in map(np.dtype, codes):
        if all(dtype.kind not in "mM" and np.can_cast(dtype, wide) for dtype in dtypes):
            return wide
    return None
