"""The names of what object files export, one for each kind."""

ENTRY = "loop"  # the main function of an object file
ALONE = "loop_alone"  # the same, which does not share its work among threads

SETTING = "setting"
"""The words by which code finds its threads: the address of the process's ``POOL_FIELDS``;
picoseconds for a unit of work; the same if the caches do not hold the operands; and the number of
units from which that is so."""

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

CALL_WORDS = (
    "call",  # NumPy's vectorcallfunc
    "ndarray",  # the type
    "out",  # the interned str
    "PyArray_NewLikeArray",
    "PyEval_SaveThread",
    "PyEval_RestoreThread",
    "Py_IncRef",
)
"""What the first `WORDS` of a direct call are the addresses of."""

DTYPES = 16
"""The dtypes that a direct call has room for."""

LAYER_WORDS = (
    "packed",  # the function of a layer: (plan, x, out) -> DONE or REFUSED
    "plan",
    "depth",
    "columns",
    "dtype",
    "ndarray",  # the type
    "None",
    "PyArray_NewFromDescr",
    "PyEval_SaveThread",
    "PyEval_RestoreThread",
    "Py_IncRef",
    "Py_DecRef",
)
"""The words, mostly addresses, that a call of a layer reads from the object that it is bound to."""
