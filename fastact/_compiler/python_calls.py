"""LLVM IR of functions that call those of Python, given their addresses as integers."""

GIL_IR = """
define i64 @save(i64 %function) {
  %call = inttoptr i64 %function to ptr
  %state = call i64 %call()
  ret i64 %state
}
define i64 @restore(i64 %function, i64 %state) {
  %call = inttoptr i64 %function to ptr
  call void %call(i64 %state)
  ret i64 0
}
"""
"""``PyEval_SaveThread`` and ``PyEval_RestoreThread``."""

REFERENCE_IR = """
define i64 @count(i64 %function, i64 %object) {
  %call = inttoptr i64 %function to ptr
  call void %call(i64 %object)
  ret i64 0
}
"""
"""``Py_IncRef`` or ``Py_DecRef``."""
