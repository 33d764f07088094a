"""From the name of an object file to addresses in this process: cache, linker, jobs and locks.

Imports ``_compiler``, ``_kernels`` and ``_machine``.
"""
