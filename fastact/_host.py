"""The machine this process runs on."""

import functools

import llvmlite.binding as llvm

from ._targets import Target


@functools.cache
def host() -> Target:
    """This machine, as LLVM sees it."""
    features = llvm.get_host_cpu_features()
    triple = llvm.get_process_triple()
    if triple.startswith("x86_64"):
        wide = features.get("avx512f") and features.get("avx512dq") and features.get("avx512vl")
        bits = 512 if wide else 256 if features.get("avx2") else 128
        fma, half = bool(features.get("fma")), bool(features.get("f16c"))
    else:  # aarch64; others are not tried, and get its shape without its environment
        bits, fma, half = 128, True, True
    return Target(triple, llvm.get_host_cpu_name(), features.flatten(), bits, fma, half)
