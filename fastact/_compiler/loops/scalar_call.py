"""LLVM IR that calls a scalar function of the front end."""

from fastact._compiler.pipeline import ScalarIR


def scalar_call_ir(name: str, scalar: ScalarIR, compute: str, arity: int, results: int) -> str:
    """@NAME: call the scalar function, and return an array of its results."""
    kind = f"[{results} x {compute}]"
    values = ", ".join(f"{compute} %v{i}" for i in range(arity))
    return f"""
declare i32 @{scalar.symbol}(ptr, ptr, {", ".join([compute] * arity)})
define internal {kind} @{name}({values}) alwaysinline {{
  %r = alloca {kind}
  %status = call i32 @{scalar.symbol}(ptr %r, ptr null, {values})
  %v = load {kind}, ptr %r
  ret {kind} %v
}}"""


def single_result_ir(name: str, function: str, compute: str, arity: int) -> str:
    """@NAME: call @FUNCTION of :func:`scalar_call_ir`, and return its only result."""
    values = ", ".join(f"{compute} %v{i}" for i in range(arity))
    return f"""
define {compute} @{name}({values}) {{
  %results = call [1 x {compute}] @{function}({values})
  %v = extractvalue [1 x {compute}] %results, 0
  ret {compute} %v
}}"""


def stored_results_ir(name: str, function: str, compute: str, arity: int, results: int) -> str:
    """@NAME: call @FUNCTION of :func:`scalar_call_ir`, and store its results at addresses."""
    values = [f"{compute} %v{i}" for i in range(arity)]
    addresses = [f"ptr %p{k}" for k in range(results)]
    kind = f"[{results} x {compute}]"
    stores = "".join(
        f"""
  %r{k} = extractvalue {kind} %results, {k}
  store {compute} %r{k}, ptr %p{k}"""
        for k in range(results)
    )
    return f"""
define void @{name}({", ".join([*values, *addresses])}) {{
  %results = call {kind} @{function}({", ".join(values)}){stores}
  ret void
}}"""
