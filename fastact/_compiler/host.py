"""The machine this process runs on, as LLVM sees it."""

import ctypes
import functools
import os
from collections.abc import Mapping
from dataclasses import replace

import llvmlite.binding as llvm

from fastact._machine import cpu
from fastact._machine.targets import BASELINES, LOWEST_BASELINES, Target, architecture_of, target_of


@functools.cache
def host() -> Target:
    """Return this machine, as LLVM sees it, or the baseline that ``FASTACT_CPU`` names.

    Raises
    ------
    RuntimeError
        If the architecture is not supported, or the process is not 64-bit.
    ValueError
        If this machine lacks features of that baseline.
    """
    triple = llvm.get_process_triple()
    architecture = architecture_of(triple)
    if architecture not in LOWEST_BASELINES or ctypes.sizeof(ctypes.c_void_p) != 8:
        raise RuntimeError(
            f"fastact makes machine code for 64-bit processes on {' and '.join(LOWEST_BASELINES)}, "
            f"got {triple}"
        )
    features = _features()
    chosen = cpu.chosen(os.environ)
    if chosen != cpu.NATIVE:
        return replace(_level(chosen, architecture, features), triple=triple)
    if not any(features.values()):
        # The processor's name would promise LLVM features that nothing has confirmed.
        return replace(LOWEST_BASELINES[architecture], triple=triple)
    return target_of(triple, llvm.get_host_cpu_name(), features)


def _features() -> "llvm.FeatureMap":
    """The features of this processor; none if LLVM does not know them."""
    try:
        return llvm.get_host_cpu_features()
    except RuntimeError:
        return llvm.FeatureMap()


def levels() -> list[str]:
    """Return the baselines that this machine can run, the lowest first."""
    architecture = architecture_of(llvm.get_process_triple())
    features = _features()
    return [
        level
        for level, target in BASELINES.items()
        if target.architecture == architecture and not _lacks(target, features)
    ]


def _level(name: str, architecture: str, features: Mapping[str, bool]) -> Target:
    """The baseline called `name`; ValueError if this machine cannot run its code."""
    usable, target = levels(), BASELINES[name]
    if name not in usable:
        other = target.architecture != architecture
        why = (
            f"it is {architecture}" if other else f"it lacks {', '.join(_lacks(target, features))}"
        )
        raise ValueError(
            f"{cpu.VARIABLE} must be one of {', '.join((cpu.NATIVE, *usable))} on this "
            f"processor, got {name!r} ({why})"
        )
    return target


def _lacks(target: Target, features: Mapping[str, bool]) -> list[str]:
    if target is LOWEST_BASELINES.get(target.architecture):
        return []
    wanted = (feature.removeprefix("+") for feature in target.features.split(","))
    return [feature for feature in wanted if not features.get(feature)]
