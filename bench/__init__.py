"""Speed and accuracy, measured: ``python -m bench`` compares with other libraries.

==================  ==========================================================================
workloads           what is measured: the only list; problems: the arrays of one, and its results
peers               the libraries, a module each; bounds: what the machine allows
timing, measure     samples of calls; one workload in all libraries, checked and timed
threads             the same with several threads, each library in a process of its own
results             what was measured, as it is kept; machine: where
tables, pictures    what shows it; report: all of it in a folder; readme: part of it in documents
compare             two result files: what became slower
__main__            the command; conftest, test_workloads: the same for pytest-benchmark
asv_benchmarks      this package over its history
accuracy            errors over every input of 16 and 32 bits
variants, tiles     races of other code for the same, for the lab book NOTES.md
njit, pytensor      loops that users compile with Numba; PyTensor before and after
startup             the time to the first result
==================  ==========================================================================
"""
