# The types of the ufuncs for type checkers; at run time, all of them are numpy.ufunc.
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

_Array = TypeVar("_Array", bound=NDArray[Any])
_Float = TypeVar("_Float", bound=np.floating[Any])

# numpy.ufunc is final for type checkers; NumPy's own stubs subclass it in the same way.

class UnaryUfunc(np.ufunc):  # type: ignore[misc]
    @overload
    def __call__(self, x: ArrayLike, /, out: _Array | tuple[_Array], **kwargs: Any) -> _Array: ...
    @overload
    def __call__(self, x: NDArray[_Float], /, out: None = None) -> NDArray[_Float]: ...
    @overload
    def __call__(self, x: _Float, /, out: None = None) -> _Float: ...
    @overload
    def __call__(self, x: float, /, out: None = None) -> np.float64: ...
    @overload
    def __call__(self, x: ArrayLike, /, out: None = None, **kwargs: Any) -> Any: ...

class BinaryUfunc(np.ufunc):  # type: ignore[misc]
    @overload
    def __call__(
        self, x1: ArrayLike, x2: ArrayLike, /, out: _Array | tuple[_Array], **kwargs: Any
    ) -> _Array: ...
    @overload
    def __call__(
        self, x1: NDArray[_Float], x2: NDArray[_Float] | float, /, out: None = None
    ) -> NDArray[_Float]: ...
    @overload
    def __call__(self, x1: _Float, x2: _Float | float, /, out: None = None) -> _Float: ...
    @overload
    def __call__(self, x1: float, x2: float, /, out: None = None) -> np.float64: ...
    @overload
    def __call__(self, x1: ArrayLike, x2: ArrayLike, /, out: None = None, **kwargs: Any) -> Any: ...

class RowUfunc(np.ufunc):  # type: ignore[misc]
    @overload
    def __call__(self, x: ArrayLike, /, out: _Array | tuple[_Array], **kwargs: Any) -> _Array: ...
    @overload
    def __call__(
        self, x: NDArray[_Float], /, out: None = None, *, axis: int = -1
    ) -> NDArray[_Float]: ...
    @overload
    def __call__(self, x: ArrayLike, /, out: None = None, **kwargs: Any) -> Any: ...

class RowReductionUfunc(np.ufunc):  # type: ignore[misc]
    @overload
    def __call__(self, x: ArrayLike, /, out: _Array | tuple[_Array], **kwargs: Any) -> _Array: ...
    @overload
    def __call__(self, x: ArrayLike, /, out: None = None, **kwargs: Any) -> Any: ...

class NormalizationUfunc(np.ufunc):  # type: ignore[misc]
    @overload
    def __call__(self, *args: ArrayLike, out: _Array | tuple[_Array], **kwargs: Any) -> _Array: ...
    @overload
    def __call__(self, *args: ArrayLike, **kwargs: Any) -> NDArray[Any]: ...

class RowGradient(Protocol):
    def __call__(
        self, grad_output: ArrayLike, output: ArrayLike, axis: int = -1
    ) -> NDArray[Any]: ...

class RowGradientDeclarator(Protocol):
    def __call__(self, rule: Callable[[Any, Any, Any, Any], Any], /) -> RowGradient: ...

class ReductionGradient(Protocol):
    def __call__(
        self, grad_output: ArrayLike, input: ArrayLike, axis: int = -1
    ) -> NDArray[Any]: ...

class ReductionGradientDeclarator(Protocol):
    def __call__(self, rule: Callable[[Any, Any, Any, Any], Any], /) -> ReductionGradient: ...

class Declarator(Protocol):
    @overload
    def __call__(self, kernel: Callable[[Any], Any], /) -> UnaryUfunc: ...
    @overload
    def __call__(self, kernel: Callable[[Any, Any], Any], /) -> BinaryUfunc: ...

class ObjectiveUfunc(np.ufunc):  # type: ignore[misc]
    @overload
    def __call__(
        self, score: ArrayLike, label: ArrayLike, /, *, out: tuple[_Array, _Array], **kwargs: Any
    ) -> tuple[_Array, _Array]: ...
    @overload
    def __call__(
        self, score: NDArray[_Float], label: NDArray[_Float] | float, /, out: None = None
    ) -> tuple[NDArray[_Float], NDArray[_Float]]: ...
    @overload
    def __call__(self, score: float, label: float, /) -> tuple[np.float64, np.float64]: ...
    @overload
    def __call__(
        self, score: ArrayLike, label: ArrayLike, /, *args: Any, **kwargs: Any
    ) -> tuple[Any, Any]: ...

class ObjectiveDeclarator(Protocol):
    def __call__(self, kernel: Callable[[Any, Any], Any], /) -> ObjectiveUfunc: ...

class GradientsUfunc(np.ufunc):  # type: ignore[misc]
    def __call__(self, *args: ArrayLike, **kwargs: Any) -> tuple[Any, ...]: ...

class DerivativeDeclarator(Protocol):
    @overload
    def __call__(self, kernel: Callable[[Any, Any], Any], /) -> BinaryUfunc: ...
    @overload
    def __call__(self, kernel: Callable[[Any, Any, Any], Any], /) -> GradientsUfunc: ...
    @overload
    def __call__(self, kernel: Callable[[Any, Any, Any, Any], Any], /) -> GradientsUfunc: ...
