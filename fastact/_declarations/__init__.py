"""How functions are declared, and what follows from that: records, ufuncs, docstrings, types.

Imports ``_runtime`` and what is below it.
"""
