"""Benchmarks: ``python -m bench`` compares speed and accuracy with other libraries.

==================  ==========================================================================
workloads           the list of everything that is measured
problems            the arrays of a workload, and its expected results
peers               the libraries, one module each
bounds              the limits of the machine
timing              samples of calls
measure             one workload in all libraries: results checked, calls timed
threads             the same with several threads, each library in a separate process
results             the format of results
machine             the machine that they come from
tables, pictures    results as tables and as pictures
report              all tables and pictures in one folder
readme              some of them in the documents
compare             two result files: what became slower
__main__            the command
without_avx512      the same on a processor that denies having AVX-512
conftest            the same workloads for pytest-benchmark, with test_workloads
asv_benchmarks      this package over its history
accuracy            errors over all inputs of 16 and 32 bits
operations          the number of instructions of every hot loop
machine_code        loops and kinds of instructions, in assembly
variants, tiles     other code for the same function, for the lab book NOTES.md
njit, pytensor      loops that users compile with Numba; PyTensor with and without this package
boosting            the objective for XGBoost and LightGBM
sklearn_training    scikit-learn's networks with and without this package
keras               Keras' activations with and without this package
startup             the time to the first result
==================  ==========================================================================
"""
