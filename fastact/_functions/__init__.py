"""The functions: a file for each activation or family, with kernel, derivative and declaration.

To add a function, add its file here. The ufunc, docstring, tests, benchmarks, tables and types
follow from the declaration. A kernel is written in the vocabulary of ``_kernels/vocabulary.py``,
with the functions of ``_kernels/elementary.py``. It has no branches, since LLVM vectorises it only
then. A derivative is declared below its activation, by a kernel ``NAME_backward``, or by a rule for
a function of rows.

Imports ``_declarations`` and ``_kernels``.
"""

import importlib
import os

from fastact._declarations.declare import ROW_GRADIENTS as ROW_GRADIENTS
from fastact._declarations.declare import UFUNCS as UFUNCS

# Import every file of the folder, so that no list has to name each of them again.
for _file in sorted(os.listdir(__path__[0])):
    if _file.endswith(".py") and not _file.startswith("_"):
        importlib.import_module(f"{__name__}.{_file.removesuffix('.py')}")
