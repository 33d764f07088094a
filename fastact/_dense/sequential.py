"""Stacks of dense layers, gated layers and activations."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import numpy as np

from fastact._declarations.declare import ufunc_of
from fastact._dense import layers
from fastact._dense.activated import Activated, ActivationLike, chosen
from fastact._dense.frozen import Frozen, again
from fastact._dense.layers import Dense, PackedLayer
from fastact._dense.weights import aligned
from fastact._parallel.counts import get_num_threads
from fastact._runtime.operands import as_array, common_type
from fastact._runtime.undisturbed import undisturbed

if TYPE_CHECKING:  # importing numpy.typing takes a hundredth of NumPy's import time
    from numpy.typing import ArrayLike, NDArray

__all__ = ["Sequential"]

Layer: TypeAlias = "PackedLayer | Sequential | np.ufunc | Activated"
Step = Callable[[np.ndarray, np.ndarray | None], np.ndarray | None]

# Rows go through all layers in blocks whose intermediate results take at most this size, so that
# they stay in the cache of a thread. A block has no fewer rows than this: with large weights, the
# weights would be read from memory too often.
_SCRATCH = 1 << 19  # bytes
_FEWEST_ROWS = 256

_KEPT = os.cpu_count() or 1  # sets of scratch buffers that a program keeps


class Sequential(Frozen):
    """A stack of layers, applied one after another.

    Parameters
    ----------
    layers : iterable
        :class:`Dense` and :class:`Gated` layers, and activations as for :func:`dense`. "identity"
        and None are left out. A `Sequential` is replaced by its layers, unless it is of a subclass
        that overrides ``__call__``. At least one layer has to be a `Dense` or a `Gated`.
    classes_ : array_like, optional
        The classes that the columns of the result stand for. They are stored, but not used.

    Attributes
    ----------
    layers : tuple
        `Dense` and `Gated` layers and activations in order, and any `Sequential` that overrides
        ``__call__``. An activation is a ufunc, or a function that passes its parameters to one.
        ``len``, iteration and indexing apply to them; a slice is a `Sequential`.
    in_features, out_features : int
        The number of columns of the input and of the result.
    dtype : dtype
        The common type of the layers, and the type of the result unless the input has a wider one.
    classes_ : ndarray or None
        As given.

    Raises
    ------
    ValueError
        For layers whose widths do not match, for anything else than layers, and as for
        :func:`dense`.
    TypeError
        If `layers` is not iterable, and as for :func:`dense`.
    AttributeError
        If an attribute of the stack is set or deleted.

    Notes
    -----
    The result has the same bits as calling the layers one by one, and the same guarantees. Many
    rows go through all layers in blocks that stay in cache. Intermediate results are written to
    buffers that are kept for the next call, up to half a megabyte (or 256 rows) for each thread
    that calls the stack at the same time.

    If a layer is of a subclass that overrides ``__call__``, all layers of the stack are called as
    ``layer(x)``, with all rows at once. Copies, pickles and slices of a subclass of `Sequential`
    are instances of that subclass, with the attributes that it added. They are made without calling
    its ``__init__``.

    Examples
    --------
    >>> import numpy as np, fastact as fa
    >>> hidden = fa.Dense([[1.0, -1.0], [1.0, -1.0]], b=[-0.5, 1.5], activation="step")
    >>> xor = fa.Sequential([hidden, fa.Dense([[1.0], [1.0]], b=[-1.5]), "step"])
    >>> xor
    Sequential(
        Dense(2 -> 2, step, float64),
        Dense(2 -> 1, identity, float64),
        step,
    )
    >>> xor([[0, 0], [0, 1], [1, 0], [1, 1]]).ravel()
    array([0., 1., 1., 0.])
    """

    __module__ = "fastact"  # for pickles, which stay valid if modules move inside the package

    layers: tuple[Layer, ...]
    in_features: int
    out_features: int
    dtype: np.dtype[Any]
    classes_: NDArray[Any] | None
    _head: tuple[int]
    _tail: tuple[int]
    _own_calls: bool  # whether a layer overrides __call__
    _compiled: dict[np.dtype, _Program]
    _general: dict[np.dtype, _Program]

    def __init__(
        self,
        layers: Iterable[PackedLayer | Sequential | Activated | ActivationLike],
        classes_: ArrayLike | None = None,
    ):
        stack = _flattened(layers)
        dense = [layer for layer in stack if isinstance(layer, PackedLayer | Sequential)]
        first, last = dense[0].in_features, dense[-1].out_features
        types = {f"layer {k}": layer for k, layer in enumerate(dense)}
        self._fix(
            layers=stack,
            in_features=first,
            out_features=last,
            dtype=common_type("Sequential", **types),
            classes_=None if classes_ is None else np.array(classes_),
            _head=(first,),
            _tail=(last,),
            _own_calls=any(map(_has_own_call, dense)),
            _compiled={},
            _general={},
        )

    @classmethod
    def from_sklearn(cls, estimator: Any) -> Sequential:
        """The layers of a fitted scikit-learn estimator or pipeline.

        Parameters
        ----------
        estimator : object
            One of the estimators below, or a Pipeline of StandardScaler, MinMaxScaler,
            MaxAbsScaler, RobustScaler, PCA, "passthrough" and None, with one of the estimators or
            another of these steps as the last. Pipelines may be nested. Networks may have an
            activation of :func:`fastact.sklearn.patched`. Weights are copied.

        Returns
        -------
        Sequential
            Its result has a column for each class or target:

            =====================================================  =================================
            LogisticRegression, LogisticRegressionCV,              result of ``predict_proba``
            MLPClassifier, SGDClassifier with log_loss
            Perceptron, RidgeClassifier, RidgeClassifierCV,        result of ``decision_function``
            LinearSVC, SGDClassifier with other losses
            LinearRegression, Ridge, RidgeCV, Lasso, LassoCV,      result of ``predict``
            ElasticNet, ElasticNetCV, SGDRegressor, LinearSVR,
            MLPRegressor
            StandardScaler, MinMaxScaler, MaxAbsScaler,            result of ``transform``
            RobustScaler, PCA
            =====================================================  =================================

            A single target has one column, too. With two classes, the columns of a decision
            function are the negated decision function and the decision function. Hence
            ``model.classes_[model(x).argmax(axis=-1)]`` are the predicted labels of every
            classifier except a multilabel one, which predicts the labels where
            ``model(x) > 0.5`` (a RidgeClassifier where ``model(x) > 0``). (An MLPClassifier that
            was fitted to a single class has two columns, which both stand for this class.)

        Notes
        -----
        Scalers and PCA become part of the layer after them. The weights of this layer are computed
        in float64 and rounded to the type of the estimator's weights once. If the mean of a column
        is much larger than its deviation, results have an error as if the elements of the column
        had a relative error of a few eps. PCA remains a layer of its own if this takes fewer
        products. A MinMaxScaler with ``clip=True`` is a layer of its own, which takes as many
        products as a square matrix.

        Raises
        ------
        TypeError
            For other estimators.
        ValueError
            For estimators that are not fitted, or that cannot be expressed as layers: logistic
            classifiers of several classes whose probabilities are quotients of sigmoids, and
            networks with exp as their last activation. The message names the step.

        Examples
        --------
        >>> import numpy as np, fastact as fa
        >>> from sklearn.linear_model import LogisticRegression
        >>> x = np.array([[-2.0], [-1.0], [1.0], [2.0]])
        >>> estimator = LogisticRegression().fit(x, [0, 0, 1, 1])
        >>> model = fa.Sequential.from_sklearn(estimator)
        >>> np.allclose(model(x), estimator.predict_proba(x))
        True
        >>> estimator.classes_[model(x).argmax(axis=-1)]
        array([0, 0, 1, 1])
        """
        from fastact._dense import from_sklearn

        return cls(*from_sklearn.stack(estimator))

    @classmethod
    def from_torch(cls, module: Any) -> Sequential:
        """The layers of a ``torch.nn.Sequential``.

        Parameters
        ----------
        module : torch.nn.Sequential
            May contain the modules below and other such Sequential modules. A single module of
            these is accepted as well. Weights are copied.

            - Linear, of float16, bfloat16 (with ml_dtypes), float32 or float64.
            - BatchNorm1d in evaluation mode, with running statistics.
            - ReLU, ReLU6, LeakyReLU, PReLU (with one weight or one for each column), Hardtanh,
              ELU(alpha=1), SELU, GELU, SiLU, Mish, Hardswish, Hardsigmoid, Sigmoid, LogSigmoid,
              Softplus(beta=1), Softsign, Tanh, Tanhshrink.
            - Softmax, LogSoftmax and Softmin with dim=-1 or dim=1.
            - LayerNorm and RMSNorm with a normalized_shape of one axis.
            - Dropout in evaluation mode, Identity, and Flatten with start_dim=1, which are left
              out.

        Returns
        -------
        Sequential
            It takes and returns rows: the last axis is that of features. The modules that treat
            the axis 1 do the same for inputs of two axes. The result of Flatten for inputs of more
            axes is that of the model for ``x.reshape(len(x), -1)``. After a Linear, PyTorch would
            join rows of such inputs; here, they are kept apart.

        Raises
        ------
        TypeError
            For other modules, and for weights that are not plain tensors of float16, bfloat16,
            float32 or float64. The message says where.
        ValueError
            For parameters that are not supported, weights that are sparse or without values (on
            the meta device), hooks (also those for all modules), a ``forward`` that was replaced,
            Dropout and BatchNorm1d in training mode, and RMSNorm with neither an eps nor a weight,
            whose type tells the default eps.
        ImportError
            For bfloat16 without ml_dtypes.

        Notes
        -----
        BatchNorm1d becomes part of the Linear before it, or else of that after it. The weights are
        computed in float64 and rounded to the type of Linear once. After LayerNorm, it becomes part
        of its weight and bias. Between two other activations, it is a layer of its own, which takes
        as many products as a square matrix. Hardtanh with other
        limits than -1 and 1, or 0 and 6, is scaled to these, and its results have an error of a few
        eps of the larger limit. Two Linear without an activation between them become one if that
        takes no more products. 16-bit formats are rounded once for each Linear with its activation.

        Examples
        --------
        >>> import numpy as np, fastact as fa
        >>> import torch
        >>> module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Sigmoid())
        >>> model = fa.Sequential.from_torch(module)
        >>> x = np.ones((5, 3), np.float32)
        >>> np.allclose(model(x), module(torch.from_numpy(x)).detach())
        True
        """
        from fastact._dense import from_torch

        return cls(from_torch.stack(module))

    @classmethod
    def from_keras(cls, model: Any) -> Sequential:
        """The layers of a Keras model.

        Parameters
        ----------
        model : keras.Sequential or keras.Model
            Built, of Keras 3, with any backend. A functional model must be a chain of layers from
            its only input to its only output. It may contain the layers below and other such
            models. Weights are copied.

            - Dense, BatchNormalization, Normalization, Rescaling.
            - LayerNormalization and RMSNormalization along the last axis.
            - ReLU, LeakyReLU, PReLU, ELU(alpha=1), Softmax, and Activation, by name or with a
              function of ``keras.activations``: celu, elu, gelu, hard_sigmoid, hard_silu,
              hard_tanh, leaky_relu, linear, log_sigmoid, log_softmax, mish, relu, relu6, selu,
              sigmoid, silu, softmax, softplus, softsign, squareplus, tanh, tanh_shrink. Dense
              accepts the same.
            - Dropout and noise, Identity, Flatten, and Reshape to one axis, which are left out.

        Returns
        -------
        Sequential
            Its result is that of ``model.predict``. It takes and returns rows: the last axis is
            that of features. The result of Flatten or Reshape for inputs of more axes is that of
            the model for ``x.reshape(len(x), -1)``.

        Raises
        ------
        TypeError
            For other layers, for functions that are not of ``keras.activations``, and for models of
            other classes. The message says where.
        ValueError
            For parameters that are not supported, layers that are called with ``training=True`` or
            several inputs, models that are not built, layers that are quantized, a ``call`` that
            was replaced, and normalization along another axis than the last.

        Notes
        -----
        The layers have the type of the variables. So a model with the policy "mixed_float16" is
        computed in float32, without the rounding of Keras to 16 bits between layers.

        BatchNormalization, Normalization and Rescaling become part of the Dense before them, or
        else of that after them, as :meth:`from_torch` describes. ReLU with a `max_value` other than
        6 is scaled to hard_tanh, and its results have an error of a few eps of `max_value`.

        Examples
        --------
        >>> import os
        >>> import numpy as np, fastact as fa
        >>> backend = os.environ.setdefault("KERAS_BACKEND", "numpy")
        >>> import keras
        >>> layers = [keras.Input((3,)), keras.layers.Dense(2, activation="silu")]
        >>> net = keras.Sequential(layers)
        >>> model = fa.Sequential.from_keras(net)
        >>> x = np.ones((5, 3), np.float32)
        >>> np.allclose(model(x), net.predict(x, verbose=0))
        True
        """
        from fastact._dense import from_keras

        return cls(from_keras.stack(model))

    @classmethod
    def from_onnx(cls, model: Any, output: str | None = None) -> Sequential:
        """The layers of an ONNX model.

        Parameters
        ----------
        model : str, path-like, bytes or onnx.ModelProto
            A path, the content of a file, or a model in memory. With a path, weights may be in
            other files. The model has one input, and the operators between it and the output form
            a chain. Weights are copied.

            - MatMul, Gemm (transA=0), and Add, Sub, Mul, Div and Neg with numbers for columns.
            - BatchNormalization in inference form, for an input of two axes.
            - Relu, LeakyRelu, PRelu, Elu(alpha=1), Celu, Selu, Gelu, Swish, Sigmoid, HardSigmoid,
              HardSwish, Mish, Softplus, Softsign, Tanh, Erf, Clip, and Max and Min with a number.
            - Softmax, LogSoftmax, LayerNormalization and RMSNormalization along the last axis.
            - Activations that are written as several operators: gelu with Erf or Tanh, silu with
              Sigmoid, mish, softplus, log_sigmoid, and others.
            - Scaler, LinearClassifier and LinearRegressor, and what scikit-learn's converter writes
              for two classes.
            - Dropout, Identity, Cast between floating-point types, Flatten, and Reshape, Squeeze
              and Unsqueeze that keep the columns. These are left out.

        output : str, optional
            The name of the output that is the result. By default, it is the only one of
            floating-point numbers, or of probabilities as dicts.

        Returns
        -------
        Sequential
            It takes and returns rows: the last axis is that of features. If the model flattens
            inputs of more axes, the result is that of the model for ``x.reshape(len(x), -1)``.
            `classes_` are those of the model, if they are as many as the columns.

        Raises
        ------
        TypeError
            For other operators, and constants and inputs that are no floating-point numbers. The
            message names the node.
        ValueError
            For a file that is no valid model, several inputs, an unknown `output`, operators older
            than version 7, attributes that are not supported, branches around layers, and weights
            that depend on the input.
        OSError
            For a path that cannot be read.
        ImportError
            Without the package onnx, which the extra "onnx" installs.

        Notes
        -----
        Scalings and BatchNormalization become parts of layers as in :meth:`from_torch`, and so do
        numbers by which Gemm multiplies. A layer has the type of its weights: a Cast before it or
        after it changes neither this nor the type of the result.

        Several operators count as an activation if their formula is that of the activation, with
        constants that differ by at most two eps of their type. Attributes are numbers of float32 in
        ONNX; 1/6, 0.01 and the constants of Selu are exact here. Clip with other limits than -1 and
        1, or 0 and 6, and HardSigmoid with other attributes than 1/6 and 1/2 have an error of a few
        eps of the larger limit. A limit of Clip that is the largest number of its type counts as
        none.

        Examples
        --------
        >>> import numpy as np, fastact as fa
        >>> import onnx
        >>> text = '''<ir_version: 10, opset_import: ["": 20]>
        ... graph (float[N, 2] x) => (float[N, 1] y)
        ... <float[2, 1] W = {1, 1}, float[1] b = {-0.5}>
        ... {h = MatMul(x, W) s = Add(h, b) y = Relu(s)}
        ... '''
        >>> fa.Sequential.from_onnx(onnx.parser.parse_model(text))
        Sequential(
            Dense(2 -> 1, relu, float32),
        )
        """
        from fastact._dense import from_onnx

        return cls(*from_onnx.stack(model, output))

    def __call__(self, x: ArrayLike, *, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Apply all layers to x of shape (..., in_features).

        Parameters
        ----------
        x : array_like, shape (..., in_features)
            One row or many, of any type and strides that :func:`dense` accepts.
        out : ndarray, shape (..., out_features), optional
            Array into which the result is written. It must not overlap `x` or itself.

        Returns
        -------
        ndarray, shape (..., out_features)
            `out`, or a new array of the common type of `x` and the layers.
        """
        if type(x) is np.ndarray:
            program = self._compiled.get(x.dtype)
            shape = x.shape
            if (
                program is not None
                and shape[-1:] == self._head
                and (
                    out is None
                    or (
                        type(out) is np.ndarray
                        and out.shape == shape[:-1] + self._tail
                        and out.dtype is program.dtype
                        and out.flags.writeable
                        and not np.may_share_memory(x, out)
                    )
                )
            ):
                y = program.run(x, out)
                if y is not None:
                    return y
        return self._carefully(as_array("Sequential", "x", x), out)

    def _carefully(self, x: np.ndarray, out: Any) -> np.ndarray:
        """The result for operands of any type and layout, or an error that says what is wrong."""
        layers.check_input("Sequential", x, (self.in_features, self.out_features))
        common_type("Sequential", x=x)
        if self._own_calls:
            return self._one_by_one(x, out)
        if x.dtype not in self._general:
            self._prepare(x.dtype)
        general = self._general[x.dtype]
        y = layers.output("Sequential", out, x, self.out_features, general.dtype)
        layers.check_overlap("Sequential", y, x=x)
        compiled = self._compiled.get(x.dtype)
        if y.dtype != general.dtype or compiled is None or compiled.run(x, y) is None:
            # The last step may be an activation, whose result NumPy casts to `out`.
            undisturbed(lambda: _run_parts(general, x, y))
        return y

    def _one_by_one(self, x: np.ndarray, out: Any) -> np.ndarray:
        """The result if a layer overrides ``__call__``, which may return anything."""
        found: Any = x
        for layer in self.layers:
            found = layer(found)
        if out is None:
            return found  # type: ignore[no-any-return] # an overridden call may return anything
        found = np.asarray(found)
        y = layers.output("Sequential", out, x, self.out_features, found.dtype)
        layers.check_overlap("Sequential", y, x=x)
        if found.shape != y.shape:
            raise ValueError(
                f"Sequential: layers must return shape {y.shape}, got {found.shape} from those "
                "that override __call__"
            )
        undisturbed(lambda: np.copyto(y, found, casting="same_kind"))
        return y

    def _prepare(self, dtype: np.dtype) -> None:
        """Make the programs for inputs of `dtype`."""
        empty, dtypes = np.empty((0, self.in_features), dtype), []
        for layer in self.layers:
            empty = layer(empty)
            dtypes.append(empty.dtype)
        if dtype.char in "fd" and all(dtype == other for other in dtypes):
            self._compiled[dtype] = _compiled_program(self.layers, dtype)
        self._general[dtype] = _general_program(self.layers, dtypes)

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)

    @overload
    def __getitem__(self, index: int) -> Layer: ...
    @overload
    def __getitem__(self, index: slice) -> Sequential: ...
    def __getitem__(self, index: int | slice) -> Layer | Sequential:
        if not isinstance(index, slice):
            return self.layers[index]
        part: Sequential = again(type(self), Sequential, self.layers[index])
        if state := self.__getstate__():
            part.__setstate__(state)
        return part

    def __repr__(self) -> str:
        shown = (
            layer if isinstance(layer, PackedLayer | Sequential) else _activated(layer)
            for layer in self.layers
        )
        lines = "".join(f"{layer},\n" for layer in shown).replace("\n", "\n    ")
        return f"{type(self).__name__}(\n    {lines[:-4]})"

    def __reduce__(self) -> tuple[Any, ...]:
        arguments = (self._named(), self.classes_)
        return again, (type(self), Sequential, *arguments), self.__getstate__()

    def _named(self) -> list[Any]:
        """The layers, with activations as names, and tuples of names and parameters."""
        return [
            layer if isinstance(layer, PackedLayer | Sequential) else _activated(layer).argument
            for layer in self.layers
        ]


def _flattened(layers_: Any) -> tuple[Layer, ...]:
    """The layers, with stacks replaced by their layers; ValueError if widths do not match."""
    if isinstance(layers_, Sequential):
        layers_ = [layers_]
    if isinstance(layers_, str) or not hasattr(type(layers_), "__iter__"):
        raise TypeError(
            "Sequential: layers must be a list or another iterable of Dense, Gated, Sequential and "
            f"activations, got {layers_!r}"
        )
    stack: list[Layer] = []
    width = None
    for index, given in enumerate(layers_):
        inner = isinstance(given, Sequential) and not _has_own_call(given)
        for layer in given.layers if inner else [given]:
            if not isinstance(layer, PackedLayer | Sequential):
                what = f"layer {index} must be a Dense, a Gated, a Sequential or"
                activated = chosen("Sequential", layer, width, what)
                if activated is not None:
                    plain = not activated.parameters
                    stack.append(ufunc_of(activated.name) if plain else activated)
                continue
            if width not in (None, layer.in_features):
                raise ValueError(
                    f"Sequential: layer {index} must have {width} input features to match the "
                    f"layers before it, got {layer!r}"
                )
            width = layer.out_features
            stack.append(layer)
    if width is None:
        found = ", ".join(str(_activated(layer)) for layer in stack)
        raise ValueError(f"Sequential: layers must have at least one Dense or Gated, got [{found}]")
    for index, layer in enumerate(stack):
        if isinstance(layer, PackedLayer | Sequential):
            break
        chosen("Sequential", layer, _input_width(tuple(stack)), f"layer {index} must be")
    return tuple(stack)


def _activated(layer: Layer) -> Activated:
    """The activation that is a layer of a stack."""
    return chosen("Sequential", layer)  # type: ignore[return-value] # no identity in a stack


def _has_own_call(layer: PackedLayer | Sequential) -> bool:
    """Whether its class overrides ``__call__``, and may return other results."""
    ours = (Dense.__call__, PackedLayer.__call__, Sequential.__call__)
    return type(layer).__call__ not in ours


class _Program:
    """A sequence of steps, with buffers between them.

    Parameters
    ----------
    steps : list of (function, int, dtype)
        ``function(x, y)`` writes and returns y, a new array if that is None, or returns None
        before it writes anything. The other two are the width and the type of y.
    """

    def __init__(self, steps: list[tuple[Step, int, np.dtype]]):
        self._steps = steps
        _, self._width, self.dtype = steps[-1]
        between = [width * dtype.itemsize for _, width, dtype in steps[:-1]]
        # Two buffers, which the steps write to and read from alternately.
        self._row_bytes = [max(between[turn::2], default=0) for turn in range(2)]
        row = sum(self._row_bytes)
        self._most = max(_FEWEST_ROWS, _SCRATCH // row) if row else sys.maxsize
        self._free: list[_Scratch] = []

    def run(self, x: np.ndarray, y: np.ndarray | None) -> np.ndarray | None:
        """Compute y of shape (..., N) from x of shape (..., K); None if refused, y unchanged."""
        # Another thread, or a signal handler in this one, gets other buffers.
        try:
            scratch = self._free.pop()
        except IndexError:
            scratch = _Scratch(self._steps, self._row_bytes)
        if x.shape[:-1] == scratch.lead:
            found = scratch.run(x, y)
        else:
            found = self._run_blocks(scratch, x, y)
        if len(self._free) < _KEPT:
            self._free.append(scratch)
        return found

    def _run_blocks(
        self, scratch: _Scratch, x: np.ndarray, y: np.ndarray | None
    ) -> np.ndarray | None:
        lead = x.shape[:-1]
        rows = math.prod(lead)
        most = self._most * get_num_threads()  # threads share every block
        if len(lead) < 2 and rows <= most:
            scratch.fit(lead)
            return scratch.run(x, y)
        found = np.empty((*lead, self._width), self.dtype) if y is None else y
        flat = found
        if len(lead) > 1:
            try:
                x = x.reshape((rows, x.shape[-1]), copy=False)
                flat = found.reshape((rows, found.shape[-1]), copy=False)
            except ValueError:  # not without a copy
                return None
        for start in range(0, rows or 1, most):
            part = x[start : start + most]
            scratch.fit(part.shape[:1])
            # Operands that are refused are refused in the first block.
            if scratch.run(part, flat[start : start + most]) is None:
                return None
        return found


class _Scratch:
    """Buffers for the intermediate results of a program, for one thread at a time."""

    def __init__(self, steps: list[tuple[Step, int, np.dtype]], row_bytes: list[int]):
        self._steps, self._row_bytes = steps, row_bytes
        self._last = steps[-1][0]
        self._rows = -1
        self.lead: tuple[int, ...] | None = None

    def run(self, x: np.ndarray, y: np.ndarray | None) -> np.ndarray | None:
        """Run all steps for x, whose shape is `lead` and one more axis."""
        for step, between in self._inner:
            if step(x, between) is None:
                return None
            x = between
        return self._last(x, y)

    def fit(self, lead: tuple[int, ...]) -> None:
        """Shape the buffers as `lead` and one more axis."""
        if lead == self.lead:
            return
        rows = math.prod(lead)
        if rows > self._rows:
            self._buffers = [aligned((rows, size), np.dtype(np.uint8)) for size in self._row_bytes]
            self._rows = rows
        self._inner = []
        for k, (step, width, dtype) in enumerate(self._steps[:-1]):
            flat = self._buffers[k % 2].ravel()[: rows * width * dtype.itemsize]
            self._inner.append((step, flat.view(dtype).reshape(*lead, width)))
        self.lead = lead


def _compiled_program(stack: tuple[Layer, ...], dtype: np.dtype) -> _Program:
    """The program that computes in `dtype`, with activations fused into the layers before them."""
    steps: list[tuple[Step, int, np.dtype]] = []
    fusible, width = None, _input_width(stack)
    for layer in stack:
        if isinstance(layer, PackedLayer):
            weights, width = layer._packed_as(dtype), layer.out_features
            plain = isinstance(layer, Dense) and layer._activated is None
            fusible = weights if plain else None
            steps.append((weights.call, width, dtype))
        elif fusible is not None:
            steps[-1] = (fusible.bound(_activated(layer)), width, dtype)
            fusible = None
        else:
            steps.append((_call(layer), width, dtype))
    return _Program(steps)


def _general_program(stack: tuple[Layer, ...], dtypes: list[np.dtype]) -> _Program:
    """The program that calls the layers themselves, which accept any operands."""
    steps: list[tuple[Step, int, np.dtype]] = []
    width = _input_width(stack)
    for layer, dtype in zip(stack, dtypes, strict=True):
        if isinstance(layer, PackedLayer):
            width = layer.out_features
        steps.append((_call(layer), width, dtype))
    return _Program(steps)


def _input_width(stack: tuple[Layer, ...]) -> int:
    return next(layer.in_features for layer in stack if isinstance(layer, PackedLayer | Sequential))


def _call(layer: Layer) -> Step:
    def step(x: np.ndarray, y: np.ndarray | None) -> np.ndarray:
        return layer(x, out=y)

    return step


def _run_parts(program: _Program, x: np.ndarray, y: np.ndarray) -> None:
    """Run `program`, for each part along the first axes if these cannot be merged."""
    if program.run(x, y) is None:
        for x_part, y_part in zip(x, y, strict=True):
            _run_parts(program, x_part, y_part)
