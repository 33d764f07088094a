"""Genuine ufuncs: NumPy objects whose loops are made when they are first needed.

Imports ``_parallel``, ``_loading`` and what is below them.
"""
