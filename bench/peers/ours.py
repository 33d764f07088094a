"""This package: its ufuncs, the fast tier, and dense layers with weights packed once or never."""

import functools

import fastact
from fastact._declarations.declare import ufunc_of
from fastact._declarations.records import ACTIVATIONS, FAST, along_rows

from .base import Library, into

DENSE = ("relu", "sigmoid")
"""Activations whose dense layers are compared; for others only the cost of the ufunc differs."""


def load(threads: int) -> Library:
    _use(threads)
    ufuncs = {name: getattr(fastact, name) for name in ACTIVATIONS}
    rows = {name: getattr(fastact, name) for name in along_rows()}
    arrays = {name: into(ufunc) for name, ufunc in (ufuncs | rows).items()}
    return Library(fastact.__version__, arrays, ufuncs, _dense(_packed))


def load_unpacked(threads: int) -> Library:
    _use(threads)
    return Library(fastact.__version__, dense=_dense(_unpacked))


def load_fast(threads: int) -> Library:
    _use(threads)
    ufuncs = {declared.of: ufunc_of(name) for name, declared in FAST.items()}
    arrays = {name: into(ufunc) for name, ufunc in ufuncs.items()}
    return Library(fastact.__version__, arrays, ufuncs)


def _use(threads: int) -> None:
    if hasattr(fastact, "set_num_threads"):
        fastact.set_num_threads(threads)


def _dense(factory) -> dict:
    return {name: functools.partial(factory, name) for name in DENSE}


def _packed(activation, inputs, out):
    x, weights, bias = inputs
    return functools.partial(fastact.Dense(weights, bias, activation), x, out=out)


def _unpacked(activation, inputs, out):
    x, weights, bias = inputs
    return functools.partial(fastact.dense, x, weights, bias, activation, out=out)
