"""The names that object files export their functions by, one for each kind."""

ENTRY = "loop"  # the function that every object file of a ufunc's loop is made for
ALONE = "loop_alone"  # the same without sharing its work among threads

RUN = "run"  # what converts a run of elements
WORDS = "words"  # the words of a loop that leaves the work to others

ROWS_CALLS = (
    "PyMem_RawMalloc",
    "PyMem_RawFree",
    "PyGILState_Ensure",
    "PyErr_NoMemory",
    "PyGILState_Release",
)
"""Functions of Python whose addresses the loop for rows has at the end of its `WORDS`."""
