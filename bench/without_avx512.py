"""Run a module on this processor as if it had no AVX-512: ``python -m bench.without_avx512``.

For example, ``python -m bench.without_avx512 bench --core 1`` measures the code that each library
has for AVX2. All of them, and we, ask the processor what it can do by the instruction CPUID. Linux
lets a process receive a signal instead (``arch_prctl(ARCH_SET_CPUID)``, also used by the debugger
rr), if the processor or the virtual machine supports it. The handler of that signal executes the
instruction, and clears what x86-64-v3 does not have. Processes that are started from this one, and
have another program, see everything again.
"""

import ctypes
import os
import runpy
import sys
from collections.abc import Sequence

import llvmlite.binding as llvm

_ARCH_SET_CPUID = 0x1012
_SYS_ARCH_PRCTL = 158
_SA_SIGINFO, _SA_NODEFER = 4, 0x40000000
_SIGSEGV = 11

# By leaf, subleaf and register (eax, ebx, ecx, edx): the bits of AVX-512, AVX10, AMX, and of what
# later processors added to AVX2 (Intel, "Architecture Instruction Set Extensions Programming
# Reference", section 1.5).
_CLEARED = {
    (7, 0, 1): (16, 17, 21, 26, 27, 28, 30, 31),
    (7, 0, 2): (1, 6, 11, 12, 14),
    (7, 0, 3): (2, 3, 8, 22, 23, 24, 25),
    (7, 1, 0): (4, 5, 21, 23),
    (7, 1, 3): (4, 5, 10, 19),
    (13, 0, 0): (5, 6, 7, 17, 18),
}

# The GNU C library has read the features before anything of ours runs.
_TUNABLES = "glibc.cpu.hwcaps=" + ",".join(
    f"-AVX512{part}" for part in ("F", "BW", "CD", "DQ", "VL", "ER", "PF")
)


def _ir(signal: int) -> str:
    """The handler, which reads and writes the registers of ``ucontext_t``."""
    selects, values = [], {}
    for register, name in enumerate(("a", "b", "c", "d")):
        values[register] = f"%{name}"
        selects.append(f"%{name} = extractvalue {{i32, i32, i32, i32}} %found, {register}")
    for k, ((leaf, subleaf, register), bits) in enumerate(_CLEARED.items()):
        kept = ~sum(1 << bit for bit in bits)
        selects += [
            f"%leaf{k} = icmp eq i32 %leaf, {leaf}",
            f"%subleaf{k} = icmp eq i32 %subleaf, {subleaf}",
            f"%here{k} = and i1 %leaf{k}, %subleaf{k}",
            f"%kept{k} = and i32 {values[register]}, {kept}",
            f"%value{k} = select i1 %here{k}, i32 %kept{k}, i32 {values[register]}",
        ]
        values[register] = f"%value{k}"
    stores = []
    for register, place in enumerate((13, 11, 14, 12)):  # rax, rbx, rcx, rdx
        stores += [
            f"%wide{register} = zext i32 {values[register]} to i64",
            f"%place{register} = getelementptr i64, ptr %registers, i64 {place}",
            f"store i64 %wide{register}, ptr %place{register}",
        ]

    def answers(how: int) -> str:
        registers = "={rax},{rax},{rdi},{rsi},~{rcx},~{r11},~{memory}"
        numbers = f"i64 {_SYS_ARCH_PRCTL}, i64 {_ARCH_SET_CPUID}, i64 {how}"
        return f'call i64 asm sideeffect "syscall", "{registers}"({numbers})'

    lines = "\n  ".join([*selects, *stores])
    return f"""
define void @handler(i32 %number, ptr %info, ptr %context) {{
  %registers = getelementptr i8, ptr %context, i64 40
  %rip = getelementptr i64, ptr %registers, i64 16
  %next = load i64, ptr %rip
  %code = inttoptr i64 %next to ptr
  %opcode = load i16, ptr %code, align 1
  %is = icmp eq i16 %opcode, {0xA20F - 0x10000}
  br i1 %is, label %cpuid, label %other
cpuid:
  %rax = getelementptr i64, ptr %registers, i64 13
  %rcx = getelementptr i64, ptr %registers, i64 14
  %leaf64 = load i64, ptr %rax
  %leaf = trunc i64 %leaf64 to i32
  %subleaf64 = load i64, ptr %rcx
  %subleaf = trunc i64 %subleaf64 to i32
  %on = {answers(1)}
  %found = call {{i32, i32, i32, i32}} asm sideeffect "cpuid",
    "={{eax}},={{ebx}},={{ecx}},={{edx}},0,2"(i32 %leaf, i32 %subleaf)
  %off = {answers(0)}
  {lines}
  %after = add i64 %next, 2
  store i64 %after, ptr %rip
  ret void
other:
  %libc = inttoptr i64 {signal} to ptr
  %before = call ptr %libc(i32 {_SIGSEGV}, ptr null)
  ret void
}}
"""


class _Action(ctypes.Structure):
    """``struct sigaction`` of the GNU C library."""

    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_ulong * 16),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


def hide() -> llvm.ExecutionEngine:
    """Hide AVX-512 from this process until it ends.

    Returns
    -------
    llvmlite.binding.ExecutionEngine
        It owns the code of the handler.

    Raises
    ------
    OSError
        If this is not Linux on x86-64, or the processor cannot refuse the instruction.
    """
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        raise OSError("only Linux on x86-64 can hide features of the processor")
    libc = ctypes.CDLL(None, use_errno=True)
    llvm.initialize_native_target()
    llvm.initialize_native_asmparser()
    llvm.initialize_native_asmprinter()
    signal = ctypes.cast(libc.signal, ctypes.c_void_p).value
    module = llvm.parse_assembly(_ir(signal or 0))
    machine = llvm.Target.from_default_triple().create_target_machine()
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    action = _Action(engine.get_function_address("handler"), flags=_SA_SIGINFO | _SA_NODEFER)
    if libc.sigaction(_SIGSEGV, ctypes.byref(action), None):
        raise OSError(ctypes.get_errno(), "sigaction failed")
    if libc.syscall(_SYS_ARCH_PRCTL, _ARCH_SET_CPUID, 0):
        raise OSError(ctypes.get_errno(), "the processor or the virtual machine always answers")
    return engine


def main(arguments: Sequence[str]) -> None:
    """Run the module named first, with the other arguments as its own."""
    if not arguments:
        sys.exit(f"usage: python -m {__spec__.name} MODULE [ARGUMENT ...]")
    if os.environ.get("GLIBC_TUNABLES") != _TUNABLES:
        os.environ["GLIBC_TUNABLES"] = _TUNABLES
        os.execv(sys.executable, [sys.executable, "-m", __spec__.name, *arguments])
    try:
        engine = hide()
    except OSError as error:
        sys.exit(f"cannot hide AVX-512: {error}")
    sys.argv = list(arguments)
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    del engine


if __name__ == "__main__":
    main(sys.argv[1:])
