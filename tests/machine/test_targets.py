"""The processor that code is made for: detected, requested or unknown."""

import dataclasses
import json
import platform
import re
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np
import pytest
from conftest import assert_same, run_python, ufunc_for

import fastact
from fastact._compiler import host as host_module
from fastact._compiler import pipeline
from fastact._declarations.records import ACTIVATIONS
from fastact._machine.targets import ARCHITECTURES, BASELINES, LOWEST_BASELINES
from fastact._runtime import configuration

ON_X86 = platform.machine() in ("x86_64", "AMD64")
FEATURES = llvm.get_host_cpu_features()


HERE = host_module.levels()
ENDS = sorted({HERE[0], HERE[-1]})


def found(monkeypatch, features=FEATURES, triple=None, chosen=""):
    """The result of `host` on another machine."""

    def answer():
        if isinstance(features, Exception):
            raise features
        return llvm.FeatureMap(features)

    with monkeypatch.context() as patch:
        patch.setattr(llvm, "get_host_cpu_features", answer)
        if triple is not None:
            patch.setattr(llvm, "get_process_triple", lambda: triple)
        patch.setenv("FASTACT_CPU", chosen)
        return host_module.host.__wrapped__()


def test_levels_of_this_machine():
    assert HERE, "this machine runs none"
    if FEATURES.get("avx512f"):
        assert HERE[:3] == ["x86-64", "x86-64-v2", "x86-64-v3"]


@pytest.mark.parametrize("level", BASELINES)
def test_features_are_those_of_the_name(level):
    """LLVM knows every feature, and the fields of the target agree with them."""
    target = BASELINES[level]
    text = "define double @f(double %a, double %b) { %c = fadd double %a, %b\n ret double %c }"
    machine = pipeline.machine_of(target)
    module = llvm.parse_assembly(pipeline.for_target(text, target, str(machine.target_data)))
    machine.emit_object(module)  # LLVM reports features that it does not know on stderr
    if target.architecture == "x86_64":
        features = target.features.split(",")
        assert target.has_fma == ("+fma" in features)
        assert target.has_half == ("+f16c" in features)
        widest = 512 if "+avx512f" in features else 256 if "+avx2" in features else 128
        assert target.vector_bits == widest


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A cache for all levels."""
    return tmp_path_factory.mktemp("levels") / "cache"


@pytest.mark.parametrize("level", ENDS)
def test_code_is_made_for_the_requested_level(level, shared):
    """The next process that requests the same level loads the code from the shared cache."""
    code = """
import numpy as np, fastact as fa
from fastact._loading import cache
from fastact._compiler import host as host_module
half = np.linspace(-9, 9, 1001).astype("e")
exact = np.log1p(np.exp(half.astype("d"))).astype("e")
np.testing.assert_array_equal(fa.softplus(half), exact)
print(host_module.host().cpu, cache.compiled)
"""
    for compiled in (2, 0):  # the loop, and the direct call that every function has
        output = run_python(code, FASTACT_CPU=level, FASTACT_CACHE_DIR=str(shared))
        assert output == f"{BASELINES[level].cpu} {compiled}\n"


def test_native_is_the_default(monkeypatch):
    host = found(monkeypatch)
    assert host == found(monkeypatch, chosen="native") == found(monkeypatch, chosen=" ")
    assert (host.cpu, host.features) == (llvm.get_host_cpu_name(), FEATURES.flatten())


@pytest.mark.parametrize("name", ["x86-64-v5", "Native", "avx2", "x86-64-v3 v2", "\u0664"])
def test_other_names_are_refused_by_the_import(name):
    code = """
try:
    import fastact
except ValueError as error:
    print(ascii(str(error)))
"""
    expected = (
        "FASTACT_CPU must be one of native, x86-64, x86-64-v2, x86-64-v3, x86-64-v4, aarch64, "
        f"got {name!r}"
    )
    output = run_python(code, FASTACT_CPU=name, PYTHONIOENCODING="utf-8")
    assert output == f"{expected!a}\n"


@pytest.mark.skipif(not ON_X86, reason="levels of x86-64")
def test_levels_that_the_machine_lacks_are_refused(monkeypatch):
    without = dict(FEATURES) | {"avx2": False, "avx512f": False}
    expected = (
        r"^FASTACT_CPU must be one of native, x86-64, x86-64-v2 on this processor, "
        r"got 'x86-64-v3' \(it lacks avx2\b"
    )
    with pytest.raises(ValueError, match=expected):
        found(monkeypatch, without, chosen="x86-64-v3")
    with pytest.raises(ValueError, match=r"got 'x86-64-v4' \(it lacks avx2, .*avx512f"):
        found(monkeypatch, without, chosen="x86-64-v4")
    with pytest.raises(ValueError, match=r"got 'aarch64' \(it is x86_64\)"):
        found(monkeypatch, chosen="aarch64")
    assert found(monkeypatch, without, chosen="x86-64-v2").cpu == "x86-64-v2"


@pytest.mark.skipif(not ON_X86, reason="levels of x86-64")
def test_levels_that_the_machine_lacks_are_refused_in_a_call():
    """An unknown processor has the first level, and the call raises the error."""
    code = """
import llvmlite.binding
llvmlite.binding.get_host_cpu_features = llvmlite.binding.FeatureMap
import numpy as np, fastact as fa
try:
    fa.dense(np.ones((2, 3)), np.ones((3, 4)), np.ones(4))
except ValueError as error:
    print(error)
"""
    expected = "FASTACT_CPU must be one of native, x86-64 on this processor, got 'x86-64-v2' (it "
    assert run_python(code, FASTACT_CPU="x86-64-v2").startswith(expected)


def test_info_shows_the_requested_level(monkeypatch):
    monkeypatch.setenv("FASTACT_CPU", "")
    assert configuration.collect()["code"]["FASTACT_CPU"] == "native"
    for level in ENDS:
        code = "from fastact.__main__ import main; main(['info', '--json'])"
        report = json.loads(run_python(code, FASTACT_CPU=level))
        section = report["code"]
        assert section["FASTACT_CPU"] == level == report["environment"]["FASTACT_CPU"]
        assert section["processor"] == BASELINES[level].cpu
        assert section["vector bits"] == BASELINES[level].vector_bits
        assert section["fused multiply-add"] == BASELINES[level].has_fma


# Unknown processors and architectures.


@pytest.mark.parametrize("features", [{}, {"avx2": False}, RuntimeError("failed")], ids=str)
@pytest.mark.parametrize("name", ["x86_64", "aarch64"])
def test_an_unknown_processor_gets_code_that_all_can_run(monkeypatch, features, name):
    monkeypatch.setattr(llvm, "get_host_cpu_name", lambda: "znver9")
    triple = f"{name}-pc-linux-gnu"
    target = found(monkeypatch, features, triple)
    certain = LOWEST_BASELINES[name]
    assert target.triple == triple
    assert (target.cpu, target.features) == (certain.cpu, certain.features)
    assert (target.vector_bits, target.has_fma, target.has_half) == (
        (128, False, False) if name == "x86_64" else (128, True, True)
    )


@pytest.mark.skipif(not ON_X86, reason="runs code for x86-64")
def test_code_for_an_unknown_processor_gives_the_same_bits():
    """relu and step round at most once; the first level has no fma, F16C or SSE 4."""
    for name, types in (("relu", "efd"), ("step", "efd")):
        function = ufunc_for(ACTIVATIONS[name].kernel, LOWEST_BASELINES["x86_64"], types)
        for dtype in types:
            x = np.linspace(-3, 3, 1001).astype(dtype)
            assert_same(function(x), getattr(fastact, name)(x))


@pytest.mark.parametrize(
    "triple",
    [
        *("i686-pc-linux-gnu", "armv7l-unknown-linux-gnueabihf", "aarch64_be-unknown-linux-gnu"),
        *("arm64_32-apple-watchos", "powerpc64le-unknown-linux-gnu", "s390x-ibm-linux-gnu"),
        *(
            "riscv64-unknown-linux-gnu",
            "loongarch64-unknown-linux-gnu",
            "wasm32-unknown-emscripten",
        ),
    ],
)
def test_other_architectures_are_refused(monkeypatch, triple):
    expected = (
        "fastact makes machine code for 64-bit processes on x86_64 and aarch64, got " + triple
    )
    with pytest.raises(RuntimeError, match=f"^{expected}$"):
        found(monkeypatch, {"fma": True}, triple)


@pytest.mark.parametrize(
    ("triple", "architecture"),
    [
        *(("arm64-apple-darwin24.1.0", "aarch64"), ("arm64e-apple-ios", "aarch64")),
        *(("amd64-unknown-freebsd", "x86_64"), ("x86_64h-apple-macosx", "x86_64")),
    ],
)
def test_architectures_have_several_names(monkeypatch, triple, architecture):
    target = found(monkeypatch, {"neon": True, "sse2": True}, triple)
    assert target.architecture == architecture
    assert target.instructions is ARCHITECTURES[architecture]


# Facts about targets are in one file.

ELSEWHERE = {
    "_declarations/sources.py": {"avx-512"},  # docstrings say where tables are used
    "_dense/safetensors.py": {"bf16"},  # a type in files
}
"""Names that belong to one architecture, in the other files that may contain them."""

OPERATIONS = {"fma"}
"""Features named after an operation that all targets can do."""


def of_one_architecture():
    """Every name that belongs to one architecture: levels, features, and intrinsics of LLVM."""
    names = {"x86", "arm", "avx-512"}
    for architecture in ARCHITECTURES.values():
        names |= {architecture.name, *architecture.aliases, *architecture.reported}
        names |= {name for needs in architecture.vectors.values() for name in needs.features}
        names |= set(re.findall(r"@llvm\.([\w.]+)", repr(architecture)))
    for level, target in BASELINES.items():
        names |= {level, *(feature[1:] for feature in target.features.split(","))}
    return names - OPERATIONS


def test_nothing_else_in_the_package_names_an_architecture():
    """A target can therefore be added as one entry."""
    names = of_one_architecture()
    assert {"aarch64", "avx512f", "neon", "x86-64-v2", "x86.sse2.pause"} <= names
    pattern = re.compile(rf"(?i)(?<![\w-])({'|'.join(map(re.escape, names))})(?![\w-])")
    package = Path(fastact.__file__).parent
    for path in package.rglob("*.py"):
        place = path.relative_to(package).as_posix()
        if place != "_machine/targets.py":
            found = {name.lower() for name in pattern.findall(path.read_text("utf-8"))}
            assert found == ELSEWHERE.get(place, set()), place


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_architecture_is_complete(architecture):
    """Its vectors are in order, and LLVM compiles its instructions without calls."""
    facts, least = ARCHITECTURES[architecture], LOWEST_BASELINES[architecture]
    assert list(facts.vectors) == sorted(facts.vectors, reverse=True)
    assert least.instructions is facts
    for operation in filter(None, (facts.pause, facts.fence)):
        text = f"{operation.declaration}\ndefine void @f() {{\n{operation.call}\nret void\n}}"
        machine = pipeline.machine_of(least)
        code = machine.emit_assembly(pipeline.parse(text, least, machine))
        assert "call" not in code and "\tb" not in code
    for bits, vectors in facts.vectors.items():
        if vectors.lookup is not None:
            assert vectors.lookup.lanes * 32 == bits


def test_a_shuffle_needs_its_feature():
    """A processor may have the widest vectors without it."""
    there = {
        level: target.shuffle and target.shuffle.feature for level, target in BASELINES.items()
    }
    assert there == dict.fromkeys(BASELINES) | {"x86-64-v3": "avx2", "x86-64-v4": "avx512bw"}
    full = BASELINES["x86-64-v4"]
    assert (
        dataclasses.replace(full, features=full.features.replace("+avx512bw,", "")).shuffle is None
    )
