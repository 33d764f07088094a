"""LLVM IR of dense layers: register tiles, the loops around them, and their interface."""
