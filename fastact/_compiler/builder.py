"""LLVM IR from structured Python: integers with operators, loops, conditions.

It is for code that handles addresses and counts, which Numba takes much longer to compile
(bench/NOTES.md). Variables are stack slots, which LLVM's passes turn into registers.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from llvmlite import ir

I64 = ir.IntType(64)


class Integer:
    """An int64 or a truth value in the function being built."""

    def __init__(self, function: "Function", value: ir.Value):
        self.function, self.value = function, value

    def _operate(self, operation: str, other: "Integer | int") -> "Integer":
        builder = self.function.builder
        return Integer(
            self.function, getattr(builder, operation)(self.value, self.function.value(other))
        )

    def __add__(self, other: "Integer | int") -> "Integer":
        return self._operate("add", other)

    def __sub__(self, other: "Integer | int") -> "Integer":
        return self._operate("sub", other)

    def __mul__(self, other: "Integer | int") -> "Integer":
        return self._operate("mul", other)

    def __floordiv__(self, other: "Integer | int") -> "Integer":
        """For operands that are not negative."""
        return self._operate("udiv", other)

    def __mod__(self, other: "Integer | int") -> "Integer":
        """For operands that are not negative."""
        return self._operate("urem", other)

    def __and__(self, other: "Integer | int") -> "Integer":
        return self._operate("and_", other)

    def __or__(self, other: "Integer | int") -> "Integer":
        return self._operate("or_", other)

    __radd__, __rmul__ = __add__, __mul__

    def _compare(self, operator: str, other: "Integer | int") -> "Integer":
        value = self.function.builder.icmp_signed(operator, self.value, self.function.value(other))
        return Integer(self.function, value)

    def __lt__(self, other: "Integer | int") -> "Integer":
        return self._compare("<", other)

    def __gt__(self, other: "Integer | int") -> "Integer":
        return self._compare(">", other)

    def __ge__(self, other: "Integer | int") -> "Integer":
        return self._compare(">=", other)

    def equals(self, other: "Integer | int") -> "Integer":
        return self._compare("==", other)

    def differs(self, other: "Integer | int") -> "Integer":
        return self._compare("!=", other)


class Variable:
    """An int64 that can be assigned to."""

    def __init__(self, function: "Function", initial: "Integer | int"):
        self.function = function
        with function.builder.goto_entry_block():
            self.slot = function.builder.alloca(I64)
        self.set(initial)

    def get(self) -> Integer:
        return Integer(self.function, self.function.builder.load(self.slot))

    def set(self, value: "Integer | int") -> None:
        self.function.builder.store(self.function.value(value), self.slot)


class Function:
    """A function with int64 arguments and an int64 result."""

    def __init__(self, module: ir.Module, name: str, *parameters: str):
        kind = ir.FunctionType(I64, [I64] * len(parameters))
        self.module = module
        self.function = ir.Function(module, kind, name)
        self.builder = ir.IRBuilder(self.function.append_basic_block("entry"))
        for argument, parameter in zip(self.function.args, parameters, strict=True):
            argument.name = parameter

    @property
    def arguments(self) -> list[Integer]:
        return [Integer(self, argument) for argument in self.function.args]

    def value(self, number: Integer | int) -> ir.Value:
        return number.value if isinstance(number, Integer) else ir.Constant(I64, number)

    def constant(self, number: int) -> Integer:
        return Integer(self, ir.Constant(I64, number))

    def variable(self, initial: Integer | int) -> Variable:
        return Variable(self, initial)

    def load(self, address: Integer, kind: ir.Type = I64) -> Integer:
        """The integer of type `kind` at `address`, sign-extended to an int64."""
        pointer = self.builder.inttoptr(address.value, kind.as_pointer())
        loaded = self.builder.load(pointer)
        return Integer(self, loaded if kind == I64 else self.builder.sext(loaded, I64))

    def store(self, address: Integer, value: Integer | int) -> None:
        pointer = self.builder.inttoptr(address.value, I64.as_pointer())
        self.builder.store(self.value(value), pointer)

    def exchange(self, address: Integer, before: int, after: int) -> Integer:
        """Atomically store `after` at `address` if `before` is there: 1 if it was, otherwise 0."""
        pointer = self.builder.inttoptr(address.value, I64.as_pointer())
        numbers = self.value(before), self.value(after)
        pair = self.builder.cmpxchg(pointer, *numbers, "seq_cst", "seq_cst")
        return Integer(self, self.builder.zext(self.builder.extract_value(pair, 1), I64))

    def array(self, length: int) -> Integer:
        """The address of `length` int64, which exist until the function returns."""
        with self.builder.goto_entry_block():
            return Integer(self, self.builder.ptrtoint(self.builder.alloca(I64, length), I64))

    def copy(
        self,
        source: Integer,
        sink: Integer,
        kind: ir.Type,
        align: int,
        order: Sequence[int] | None = None,
    ) -> None:
        """Move a value of type `kind`, or a vector in another order, to another address."""
        pointers = [self.builder.inttoptr(at.value, kind.as_pointer()) for at in (source, sink)]
        value = self.builder.load(pointers[0], align=align)
        if order is not None:
            places = ir.Constant(ir.VectorType(ir.IntType(32), len(order)), list(order))
            value = self.builder.shuffle_vector(value, value, places)
        self.builder.store(value, pointers[1], align=align)

    def select(self, condition: Integer, yes: Integer | int, no: Integer | int) -> Integer:
        value = self.builder.select(condition.value, self.value(yes), self.value(no))
        return Integer(self, value)

    def minimum(self, a: Integer, b: Integer | int) -> Integer:
        return self.select(a < b, a, b)

    def maximum(self, a: Integer, b: Integer | int) -> Integer:
        return self.select(a > b, a, b)

    def call(self, callee: "Function | str", *arguments: Integer | int) -> Integer:
        """Call a function of this module or, by its name, one that is linked later."""
        if isinstance(callee, str):
            function = self._linked(callee, len(arguments))
        else:
            function = callee.function
        return Integer(self, self.builder.call(function, [self.value(a) for a in arguments]))

    def address_of(self, name: str, arity: int) -> Integer:
        """The address of a function that is linked later."""
        return Integer(self, self.builder.ptrtoint(self._linked(name, arity), I64))

    def _linked(self, name: str, arity: int) -> ir.Function:
        kind = ir.FunctionType(I64, [I64] * arity)
        return self.module.globals.get(name) or ir.Function(self.module, kind, name)

    def return_(self, value: Integer | int) -> None:
        self.builder.ret(self.value(value))

    @contextmanager
    def when(self, condition: Integer) -> Iterator[None]:
        with self.builder.if_then(condition.value):
            yield

    @contextmanager
    def loop(
        self,
        stop: Integer,
        step: Integer | int = 1,
        start: Integer | int = 0,
        at_least_once: bool = False,
    ) -> Iterator[Integer]:
        """Loop over `start`, `start + step`, ... below `stop`."""
        counter = self.variable(start)
        body, after = (self.function.append_basic_block(name) for name in ("body", "after"))
        builder = self.builder
        if at_least_once:
            builder.branch(body)
        else:
            builder.cbranch((counter.get() < stop).value, body, after)
        builder.position_at_end(body)
        index = counter.get()
        yield index
        counter.set(index + step)
        builder.cbranch((counter.get() < stop).value, body, after)
        builder.position_at_end(after)
