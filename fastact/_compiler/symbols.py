"""The names of what object files export, one for each kind."""

ENTRY = "loop"  # the main function of an object file
ALONE = "loop_alone"  # the same, which does not share its work among threads

RUN = "run"  # the function that converts a run of elements
WORDS = "words"  # int64: the addresses and sizes that a loop for mixed types uses

ROWS_CALLS = (
    "PyMem_RawMalloc",
    "PyMem_RawFree",
    "PyGILState_Ensure",
    "PyErr_NoMemory",
    "PyGILState_Release",
)
"""Functions of Python whose addresses are the last `WORDS` of the loop for rows."""
