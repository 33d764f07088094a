"""Loads of elements of packed W that are stored in fewer bits, widened in registers.

An element of bfloat16 is the upper half of a float. The common way, to widen an integer and to
shift it, takes two instructions, and both compete with the fma. Here, a load repeats the elements
in the parts of a wide vector, which takes no other unit, and one instruction puts each of them in
its place (bench/NOTES.md). It selects bytes within 128-bit parts only. With 16 lanes, the second
and the third part would need elements that the load put elsewhere. So packed W has the second and
the third quarter of each vector exchanged (`memory_order`).
"""

from fastact._compiler.conversions import decode_ir, storage_type
from fastact._machine.formats import Format
from fastact._machine.targets import Target


def load_ir(value: str, stored: Format, lanes: int, target: Target) -> str:
    """IR that loads `lanes` elements of format `stored` at ``VALUE.p`` as a vector of floats."""
    kind = f"<{lanes} x {storage_type(stored, target)}>"
    text = f"""
  {value}.stored = load {kind}, ptr {value}.p, align {stored.itemsize}"""
    shuffle = target.shuffle
    if stored.kind != "bfloat" or shuffle is None or lanes * 32 != target.vector_bits:
        return text + decode_ir(stored, target, value, f"{value}.stored", lanes)
    twice = ", ".join(f"i32 {k % lanes}" for k in range(2 * lanes))
    words, size = f"<{2 * lanes} x i16>", 4 * lanes
    of_bytes = f"<{size} x i8>"
    places = ", ".join(f"i8 {place}" for place in _places(lanes // 4))
    return f"""{text}
  {value}.words = shufflevector {kind} {value}.stored, {kind} poison, <{2 * lanes} x i32> <{twice}>
  {value}.bytes = bitcast {words} {value}.words to {of_bytes}
  {value}.bits = call {of_bytes} @{shuffle.name}({of_bytes} {value}.bytes, {of_bytes} <{places}>)
  {value} = bitcast {of_bytes} {value}.bits to <{lanes} x float>"""


def _places(parts: int) -> list[int]:
    """The bytes of each part, of eight words, that become its bytes."""
    first = [4 * (2 * part // parts) for part in range(parts)]  # word of a part
    words = [start + k for start in first for k in range(4)]
    return [place for word in words for place in (-1, -1, 2 * word, 2 * word + 1)]


def declarations_ir(target: Target) -> str:
    """The declarations that `load_ir` needs."""
    if target.shuffle is None:
        return ""
    of_bytes = f"<{target.vector_bits // 8} x i8>"
    return f"\ndeclare {of_bytes} @{target.shuffle.name}({of_bytes}, {of_bytes})"
