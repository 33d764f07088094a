"""Facts: number formats, targets, and the machine this process runs on.

Imports nothing else of the package.
"""
