"""LLVM IR that shares work among threads, and what helper threads run."""
