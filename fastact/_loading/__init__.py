"""From an object file's name to addresses in this process: cache, linker, and who waits for whom.

Imports ``_compiler``, ``_kernels`` and ``_machine``.
"""
