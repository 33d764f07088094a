"""Formulas of element-wise operations, and the activations that they are.

Exporters write many activations as several operations: gelu as a quotient, erf, a sum and two
products. A `Formula` is what such operations compute from an array `x`, as a polynomial of atoms.
An atom is `x` or a function of a formula. Products of sums are multiplied out, so that a formula
does not depend on the order of operations: x/2 * (1 + erf(x/a)) and (x * erf(x/a) + x) * 0.5 are
the same. `recognised` compares a formula with those that activations declare (`onnx_formulas`).

Coefficients are in float64. Two of them count as equal if they differ by at most two eps of the
narrowest type of the constants that they were computed from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from fastact._declarations.records import activations
from fastact._dense.folding import Activation, Part, Scaling

_MOST_TERMS = 8  # of a formula; those of activations have four at most
_HIGHEST_DEGREE = 4

_X = 0  # the number of the atom x

Terms = dict[tuple[int, ...], np.ndarray]
"""Coefficients, of shape () or (N,), of products of atoms; their numbers are sorted."""


class TooLarge(Exception):
    """A formula has more terms than any activation."""


class _Atom(NamedTuple):
    """A function of a formula; x has none."""

    function: str
    parameters: tuple[Any, ...] = ()
    of: Formula | None = None


class Formulas:
    """Formulas of one array, which share their atoms.

    As the module `m` of declared formulas, it has a function for each name: ``m.erf(x)``.
    """

    def __init__(self) -> None:
        self._atoms = [_Atom("x")]
        self.x = Formula(self, {(_X,): np.array(1.0)})

    def constant(self, value: Any, eps: float = 0.0) -> Formula:
        """A number, or one for each column, of a type with this eps."""
        return Formula(self, {(): np.asarray(value, np.float64)}, eps)

    def function(self, name: str, of: Formula, parameters: tuple[Any, ...] = ()) -> Formula:
        made = _Atom(name, parameters, of)
        known = (number for number, atom in enumerate(self._atoms) if _same(atom, made))
        number = next(known, len(self._atoms))
        if number == len(self._atoms):
            self._atoms.append(made)
        return Formula(self, {(number,): np.array(1.0)}, of.eps)

    def __getattr__(self, name: str) -> Callable[[Formula], Formula]:
        return lambda of: self.function(name, of)

    def atom(self, number: int) -> _Atom:
        return self._atoms[number]


class Formula:
    """A polynomial of atoms; a value with the operators of arithmetic.

    Parameters
    ----------
    formulas : Formulas
    terms : dict
        Those with a coefficient of 0 are left out.
    eps : float
        That of the narrowest type of the constants in it, 0 if there are none.
    """

    __array_ufunc__ = None  # arrays leave arithmetic with a formula to it

    def __init__(self, formulas: Formulas, terms: Terms, eps: float = 0.0):
        terms = {factors: c for factors, c in terms.items() if np.any(c)}
        if len(terms) > _MOST_TERMS or any(len(factors) > _HIGHEST_DEGREE for factors in terms):
            raise TooLarge
        self.formulas, self.terms, self.eps = formulas, terms, eps

    @property
    def number(self) -> np.ndarray | None:
        """The value of a constant formula."""
        return self.terms.get((), np.array(0.0)) if self.terms.keys() <= {()} else None

    def equals(self, other: Formula) -> bool:
        """Whether the terms are the same, and the coefficients within rounding errors."""
        within = 2 * max(self.eps, other.eps, float(np.finfo(np.float64).eps))
        return self.terms.keys() == other.terms.keys() and all(
            _close(c, other.terms[factors], within) for factors, c in self.terms.items()
        )

    def _given(self, other: Any) -> Formula:
        return other if isinstance(other, Formula) else self.formulas.constant(other)

    def __add__(self, other: Any) -> Formula:
        given = self._given(other)
        terms = dict(self.terms)
        for factors, c in given.terms.items():
            terms[factors] = terms.get(factors, 0.0) + c
        return Formula(self.formulas, terms, max(self.eps, given.eps))

    def __mul__(self, other: Any) -> Formula:
        given = self._given(other)
        terms: Terms = {}
        for first, c in self.terms.items():
            for second, d in given.terms.items():
                factors = tuple(sorted(first + second))
                terms[factors] = terms.get(factors, 0.0) + c * d
        return Formula(self.formulas, terms, max(self.eps, given.eps))

    def __neg__(self) -> Formula:
        return self * -1.0

    def __sub__(self, other: Any) -> Formula:
        return self + -self._given(other)

    def __truediv__(self, other: Any) -> Formula:
        given = self._given(other)
        number = given.number
        if number is not None:
            return self * self.formulas.constant(1 / number, given.eps)
        return self * self.formulas.function("reciprocal", given)

    def __pow__(self, power: int) -> Formula:
        found = self
        for _ in range(power - 1):
            found = found * self
        return found

    def __radd__(self, other: Any) -> Formula:
        return self._given(other) + self

    def __rmul__(self, other: Any) -> Formula:
        return self._given(other) * self

    def __rsub__(self, other: Any) -> Formula:
        return self._given(other) - self

    def __rtruediv__(self, other: Any) -> Formula:
        return self._given(other) / self


def _same(atom: _Atom, other: _Atom) -> bool:
    if atom.function != other.function or atom.of is None or other.of is None:
        return False
    pairs = zip(atom.parameters, other.parameters, strict=True)
    return all(np.array_equal(a, b) for a, b in pairs) and atom.of.equals(other.of)


def _close(a: np.ndarray, b: np.ndarray, within: float) -> bool:
    if a.shape and b.shape and a.shape != b.shape:
        return False
    return bool((abs(a - b) <= within * np.maximum(abs(a), abs(b))).all())


def applied(parts: list[Part], formula: Formula) -> Formula | None:
    """The formula of scalings and activations that follow; None if there are other parts."""
    for part in parts:
        if isinstance(part, Scaling):
            formula = formula * np.asarray(part.scale) + np.asarray(part.shift)
        elif isinstance(part, Activation):
            given = part.function if isinstance(part.function, tuple) else (part.function,)
            formula = formula.formulas.function(str(given[0]), formula, given[1:])
        else:
            return None
    return formula


def recognised(name: str, formula: Formula) -> list[Part] | None:
    """The parts, with this name, of which a formula is the result; None if it is of no others.

    It is that of an activation, or a scaling, or a single activation with scalings around it: with
    one before it only if the operators of ONNX have this activation.
    """
    scaling = _scaling(name, formula)
    if scaling is not None:
        return scaling
    for function, written in _declared(formula):
        if written.equals(formula):
            return [Activation(name, function)]
    found = _of_one_atom(name, formula)
    if found is not None:
        return found
    for function, written in _declared(formula):
        after = _scaling_of(name, written, formula)
        if after is not None:
            return [Activation(name, function), *after]
    return None


def _declared(formula: Formula) -> Iterator[tuple[Any, Formula]]:
    """The formulas that activations declare, with the values that parameters may have."""
    m, x = formula.formulas, formula.formulas.x
    for activation, declared in activations().items():
        for written in declared.onnx_formulas:
            count = len(getattr(declared, "parameters", ()))
            for values in _candidates(formula) if count else [()]:
                yield (activation, *values) if values else activation, written(m, x, *values)


def _of_one_atom(name: str, formula: Formula) -> list[Part] | None:
    """A formula as an activation between two scalings, if it has a single atom."""
    rest = {factors: c for factors, c in formula.terms.items() if factors}
    if len(rest) != 1:
        return None
    ((factors, scale),) = rest.items()
    atom = formula.formulas.atom(factors[0])
    if len(factors) > 1 or atom.function not in activations() or atom.of is None:
        return None
    before = _scaling(name, atom.of)
    if before is None:
        return None
    function = (atom.function, *atom.parameters) if atom.parameters else atom.function
    after = _scaled(name, scale, formula.terms.get((), np.array(0.0)))
    return [*before, Activation(name, function), *after]


def _scaling_of(name: str, written: Formula, formula: Formula) -> list[Part] | None:
    """The scaling of `written` that a formula is; None if it is something else."""
    first = next(iter(written.terms))
    if written.terms.keys() != formula.terms.keys() - {()}:
        return None
    scale = formula.terms[first] / written.terms[first]
    shift = formula.terms.get((), np.array(0.0))
    same = (written * formula.formulas.constant(scale) + shift).equals(formula)
    return _scaled(name, scale, shift) if same else None


def _scaling(name: str, formula: Formula) -> list[Part] | None:
    """A formula as at most one scaling of x; None if it is something else."""
    if not formula.terms.keys() <= {(), (_X,)} or (_X,) not in formula.terms:
        return None
    return _scaled(name, formula.terms[_X,], formula.terms.get((), np.array(0.0)))


def _scaled(name: str, scale: np.ndarray, shift: np.ndarray) -> list[Part]:
    does_nothing = bool((scale == 1).all()) and not shift.any()
    return [] if does_nothing else [Scaling(name, scale, shift)]


def _candidates(formula: Formula) -> Iterator[tuple[Any, ...]]:
    """Values that the parameter of an activation may have in a formula.

    They are the factors of x in it, and what is added within a function.
    """
    for factors, c in formula.terms.items():
        yield (-c,)
        for number in factors:
            of = formula.formulas.atom(number).of
            if of is not None and of.terms.keys() == {(_X,)}:
                yield (of.terms[_X,],)
            elif of is not None and () in of.terms:
                yield (of.terms[()],)
