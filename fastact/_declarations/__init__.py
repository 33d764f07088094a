"""Declarations of functions, and what follows from them: records, ufuncs, docstrings, types.

Imports ``_runtime`` and the packages below it.
"""
