"""The language that kernels are written in, and their common parts: pure mathematics.

Imports nothing else of the package, and no compiler.
"""
