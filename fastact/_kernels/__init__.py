"""The operations that kernels are written with, and the mathematics that kernels share.

This package imports no other part of fastact, and no compiler.
"""
