"""Facts: number formats, targets, and what the system tells of the machine.

Imports nothing else of the package.
"""
