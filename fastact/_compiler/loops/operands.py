"""Operands of an element-wise loop in LLVM IR, by the names of their pointers: x0, ..., y, ..."""


def inputs_and_outputs(operands: list[str]) -> tuple[list[str], list[str]]:
    """The names of both."""
    inputs = [p for p in operands if p.startswith("x")]
    return inputs, operands[len(inputs) :]


def pointers(operands: list[str], suffix: str = "") -> str:
    """Arguments or parameters."""
    return ", ".join(f"ptr %{p}{suffix}" for p in operands)


def strided(operands: list[str]) -> str:
    """The same with strides."""
    return ", ".join(f"ptr %{p}, i64 %{p}.stride" for p in operands)
