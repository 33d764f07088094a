"""Number formats, compile targets, and what the operating system reports about the machine.

This package imports no other part of fastact.
"""
