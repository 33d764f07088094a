"""Operands of an element-wise loop in LLVM IR, named by their pointers: x0, ..., y, ..."""


def inputs_and_outputs(operands: list[str]) -> tuple[list[str], list[str]]:
    """The names of the inputs and those of the outputs."""
    inputs = [p for p in operands if p.startswith("x")]
    return inputs, operands[len(inputs) :]


def pointers(operands: list[str], suffix: str = "") -> str:
    """The pointers, as arguments or parameters."""
    return ", ".join(f"ptr %{p}{suffix}" for p in operands)


def strided(operands: list[str]) -> str:
    """The pointers and strides, as arguments or parameters."""
    return ", ".join(f"ptr %{p}, i64 %{p}.stride" for p in operands)
