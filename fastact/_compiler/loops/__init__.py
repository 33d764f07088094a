"""LLVM IR of the loops that NumPy calls, one module for each kind."""
