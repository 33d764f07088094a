"""From kernels to object files: LLVM IR of all loops, and the passes over it.

Imports ``_kernels`` and ``_machine``. Only ``frontend.py`` uses Numba's compiler.
"""
