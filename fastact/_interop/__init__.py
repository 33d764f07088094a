"""Inside Numba's compiled functions and other libraries: what several public modules share.

Imports ``_dense``, ``_functions`` and what is below them.
"""
