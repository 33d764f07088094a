"""From kernels to object files: LLVM IR of all loops, and the passes over it.

Imports ``_kernels`` and ``_machine``. ``frontend.py`` alone knows Numba's compiler.
"""
