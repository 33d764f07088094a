"""LLVM IR that converts between the format in memory and the one that kernels compute in.

Each piece defines ``@decode`` (memory to compute) and ``@encode`` (back, rounded to nearest
even), in operations that LLVM vectorises.
"""

from fastact._machine.formats import FORMATS, Format
from fastact._machine.targets import Target

_INTEGER_TYPES = {8: "i8", 16: "i16", 32: "i32", 64: "i64"}
_FLOAT_TYPES = {16: "half", 32: "float", 64: "double"}


def storage_type(form: Format, target: Target) -> str:
    """The LLVM type of an element in memory."""
    if form.kind == "float" and (form.bits > 16 or target.has_half):
        return _FLOAT_TYPES[form.bits]
    return _INTEGER_TYPES[form.bits]


def compute_type(form: Format) -> str:
    """The LLVM type that the kernel computes in."""
    wide = FORMATS[form.compute]
    return (_INTEGER_TYPES if wide.is_integer else _FLOAT_TYPES)[wide.bits]


_SAME = """
define internal {t} @decode({t} %s) alwaysinline {{ ret {t} %s }}
define internal {t} @encode({t} %s) alwaysinline {{ ret {t} %s }}
"""

_NATIVE_HALF = """
define internal half @encode(float %v) alwaysinline {
  %s = fptrunc float %v to half
  ret half %s
}
"""

# For targets without instructions for half. Encoding rounds to nearest even with integers or, if
# the result is subnormal, by adding 0.5 as a float.
_SOFT_HALF = """
define internal i16 @encode(float %v) alwaysinline {
  %bits = bitcast float %v to i32
  %unsigned = and i32 %bits, 2147483647
  %sign = xor i32 %bits, %unsigned
  %sign16 = lshr i32 %sign, 16
  %abs = bitcast i32 %unsigned to float
  %sum = fadd float %abs, 5.0e-01
  %sumbits = bitcast float %sum to i32
  %subnormal = sub i32 %sumbits, 1056964608
  %cut = lshr i32 %unsigned, 13
  %odd = and i32 %cut, 1
  %rebased = sub i32 %unsigned, 939520001
  %rounded = add i32 %rebased, %odd
  %normal = lshr i32 %rounded, 13
  %issmall = icmp ult i32 %unsigned, 947912704
  %finite = select i1 %issmall, i32 %subnormal, i32 %normal
  %isbig = icmp uge i32 %unsigned, 1199566848
  %bounded = select i1 %isbig, i32 31744, i32 %finite
  %isnan = icmp ugt i32 %unsigned, 2139095040
  %payload = and i32 %cut, 1023
  %quiet = or i32 %payload, 32256
  %magnitude = select i1 %isnan, i32 %quiet, i32 %bounded
  %all = or i32 %magnitude, %sign16
  %s = trunc i32 %all to i16
  ret i16 %s
}
"""

# Rounding to nearest even is an integer addition.
_BFLOAT = """
define internal i16 @encode(float %v) alwaysinline {
  %bits = bitcast float %v to i32
  %cut = lshr i32 %bits, 16
  %odd = and i32 %cut, 1
  %bias = add i32 %odd, 32767
  %sum = add i32 %bits, %bias
  %rounded = lshr i32 %sum, 16
  %quiet = or i32 %cut, 64
  %isnan = fcmp uno float %v, %v
  %all = select i1 %isnan, i32 %quiet, i32 %rounded
  %s = trunc i32 %all to i16
  ret i16 %s
}
"""


def decode_ir(form: Format, target: Target, value: str, stored: str, lanes: int = 0) -> str:
    """Lines that compute `value`, a float, from `stored`, of a 16-bit format or a signed integer.

    Both are vectors of `lanes` elements, if that is not 0. The names of all values between them
    begin with `value`.
    """

    def of(kind: str) -> str:
        return f"<{lanes} x {kind}>" if lanes else kind

    def number(kind: str, text: str) -> str:
        return f"<{', '.join([f'{kind} {text}'] * lanes)}>" if lanes else text

    storage, i1, i32, single = map(of, (storage_type(form, target), "i1", "i32", "float"))
    if form.is_integer:
        return f"""
  {value}.w = sext {storage} {stored} to {i32}
  {value} = sitofp {i32} {value}.w to {single}"""
    if form.kind == "bfloat":  # the upper half of a binary32
        return f"""
  {value}.w = zext {storage} {stored} to {i32}
  {value}.bits = shl {i32} {value}.w, {number("i32", "16")}
  {value} = bitcast {i32} {value}.bits to {single}"""
    if target.has_half:
        return f"""
  {value} = fpext {storage} {stored} to {single}"""
    # Multiplying by 2**112 rebiases the exponent and normalises subnormals at once.
    return f"""
  {value}.w = zext {storage} {stored} to {i32}
  {value}.unsigned = and {i32} {value}.w, {number("i32", "32767")}
  {value}.sign = and {i32} {value}.w, {number("i32", "32768")}
  {value}.sign32 = shl {i32} {value}.sign, {number("i32", "16")}
  {value}.shifted = shl {i32} {value}.unsigned, {number("i32", "13")}
  {value}.small = bitcast {i32} {value}.shifted to {single}
  {value}.scaled = fmul {single} {value}.small, {number("float", "0x46F0000000000000")}
  {value}.finite = bitcast {single} {value}.scaled to {i32}
  {value}.special = or {i32} {value}.shifted, {number("i32", "2139095040")}
  {value}.isspecial = icmp uge {i32} {value}.unsigned, {number("i32", "31744")}
  {value}.magnitude = select {i1} {value}.isspecial, {i32} {value}.special, {i32} {value}.finite
  {value}.signed = or {i32} {value}.magnitude, {value}.sign32
  {value} = bitcast {i32} {value}.signed to {single}"""


def conversions_ir(form: Format, target: Target) -> str:
    """``@decode`` and ``@encode`` for arrays of `form` on `target`."""
    if form.bits != 16 or form.is_integer:
        return _SAME.format(t=compute_type(form))
    half = _NATIVE_HALF if target.has_half else _SOFT_HALF
    encode = _BFLOAT if form.kind == "bfloat" else half
    return f"""
define internal float @decode({storage_type(form, target)} %s) alwaysinline {{{
        decode_ir(form, target, "%v", "%s")
    }
  ret float %v
}}{encode}"""


def wide_conversions_ir(form: Format, target: Target) -> str:
    """The same for loops that compute in double, whatever `form` computes in.

    Numbers of the 16-bit formats are rounded to float before.
    """
    if form.bits == 64:
        return conversions_ir(form, target)
    storage = storage_type(form, target)
    narrow = conversions_ir(form, target).replace("code(", "code.single(")
    return f"""{narrow}
define internal double @decode({storage} %s) alwaysinline {{
  %v = call float @decode.single({storage} %s)
  %wide = fpext float %v to double
  ret double %wide
}}
define internal {storage} @encode(double %wide) alwaysinline {{
  %v = fptrunc double %wide to float
  %s = call {storage} @encode.single(float %v)
  ret {storage} %s
}}"""
