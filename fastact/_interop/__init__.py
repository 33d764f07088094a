"""Code for Numba and other libraries that several public modules share.

Imports ``_dense``, ``_functions`` and what is below them.
"""
