"""An extension of griffe for the API reference: docstrings of ufuncs, and roles as code.

A declaration makes each ufunc, or the derivative of a function of rows, and its docstring when the
package is imported. griffe only reads the source and does not see them, so they are taken from the
imported package.
"""

import inspect
import re
from typing import Any

import griffe
import numpy as np

import fastact

_ROLE = re.compile(r":(?:func|class|data|meth|mod):`~?([\w.]+)`")


class UfuncsAndRoles(griffe.Extension):
    """Add the docstrings of declared functions, and turn roles into code."""

    def on_function(self, *, func: griffe.Function, **kwargs: Any) -> None:
        made = getattr(fastact, func.name, None)
        if not func.path.startswith("fastact._functions."):
            return
        if isinstance(made, np.ufunc):
            self._describe(func, made)
        elif made is not None:  # the derivative of a function of rows, declared by a rule
            parameters = inspect.signature(made).parameters.values()
            func.parameters = griffe.Parameters(*map(_parameter, parameters))
            text = _ROLE.sub(r"`\1`", made.__doc__)
            func.docstring = griffe.Docstring(text, parent=func, parser=griffe.Parser.numpy)

    def on_attribute(self, *, attr: griffe.Attribute, **kwargs: Any) -> None:
        made = getattr(fastact, attr.name, None)
        if isinstance(made, np.ufunc) and attr.path.startswith("fastact._functions."):
            self._describe(attr, made)

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring:
            obj.docstring.value = _ROLE.sub(r"`\1`", obj.docstring.value)

    def _describe(self, thing: griffe.Function | griffe.Attribute, made: np.ufunc) -> None:
        signature, _, text = made.__doc__.partition("\n\n")
        thing.docstring = griffe.Docstring(
            f"```python\n{signature}\n```\n\n{text}",
            parent=thing,
            parser=griffe.Parser.numpy,
            parser_options={"warnings": False},  # a ufunc has more parameters than its kernel
        )


def _parameter(found: inspect.Parameter) -> griffe.Parameter:
    default = None if found.default is found.empty else repr(found.default)
    kind = griffe.ParameterKind(found.kind.description)
    return griffe.Parameter(found.name, kind=kind, default=default)
