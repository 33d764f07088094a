"""Code for Numba and other libraries that several public modules share.

Imports ``_dense``, ``_functions`` and the packages below them.
"""
