#!/usr/bin/env -S uv run --script
# /// script
# dependencies = ["nox>=2024.10.9"]
# ///
"""Checks by name, each in an environment of its own: ``python -m nox -s lint``.

``.ci/run`` has stages of the same names and commands, and runs all of them from nothing. What needs
a POSIX shell (the README's commands, emulation, asv, other Pythons) is a call of such a stage.
"""

import sys

import nox

nox.needs_version = ">=2024.10.9"  # for groups of dependencies
nox.options.default_venv_backend = "venv"

PROJECT = nox.project.load_toml("pyproject.toml")
CONSTRAINTS = ("-c", "bench/constraints.txt")  # PyTorch's CPU build


def install(session: nox.Session, extra: str = "", *, group: str = "") -> None:
    """The package in place, with an extra or a group of dependencies."""
    session.install("-e", f".[{extra}]" if extra else ".")
    if group:
        session.install(*nox.project.dependency_groups(PROJECT, group))


def stage(session: nox.Session) -> None:
    """The stage of ``.ci/run`` that has the name of the session."""
    if sys.platform == "win32":
        session.skip("needs a POSIX shell")
    session.run(".ci/run", session.name, external=True)


@nox.session(venv_backend="none", default=False)
def readme(session: nox.Session) -> None:
    """The command of the README for the main job."""
    stage(session)


@nox.session
def tests(session: nox.Session) -> None:
    """The tests; arguments choose some."""
    install(session, "test")
    session.run("python", "-m", "pytest", "-n", "auto", *session.posargs)


@nox.session(default=False)
def levels(session: nox.Session) -> None:
    """The tests of compiled code, for lesser processors of this architecture."""
    install(session, "test")
    code = "from fastact._compiler import host; print(*host.levels())"
    found = session.run("python", "-c", code, silent=True) or ""
    for level in sorted({"x86-64-v2", "x86-64-v3"} & set(found.split())):
        chosen = ("-m", "functional and not exhaustive", "-k", "not x86-64")
        arguments = ("-q", "-n", "auto", *chosen, *session.posargs)
        session.run("python", "-m", "pytest", *arguments, env={"FASTACT_CPU": level})


@nox.session
def lint(session: nox.Session) -> None:
    """Style and common mistakes."""
    session.install(*nox.project.dependency_groups(PROJECT, "lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def imports(session: nox.Session) -> None:
    """The contracts on imports between packages."""
    install(session, group="lint")
    session.run("lint-imports", "--no-cache")


@nox.session
def types(session: nox.Session) -> None:
    """The types that users see, and those of the package as far as they are checked."""
    install(session, "test", group="types")
    session.run("mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation as a site, in site/ or where an argument says; warnings are errors."""
    install(session, "docs")
    session.run("mkdocs", "build", "--strict", "--site-dir", *(session.posargs or ["site"]))


@nox.session(default=False)
def integration(session: nox.Session) -> None:
    """The tests with other libraries."""
    session.install(*CONSTRAINTS, "-e", ".[integration]")
    arguments = ("-q", "-n", "auto", "-m", "integration", *session.posargs)
    session.run("python", "-m", "pytest", *arguments)


@nox.session(venv_backend="none", default=False)
def emulated(session: nox.Session) -> None:
    """Tests on processors that are not here."""
    stage(session)


@nox.session(venv_backend="none", default=False)
def asv(session: nox.Session) -> None:
    """The benchmarks over the history are well-formed, and run on this commit."""
    stage(session)


@nox.session(default=False)
def figures(session: nox.Session) -> None:
    """The figures of the documents are those of the committed results."""
    install(session, "bench")
    session.run("python", "-m", "bench.readme")
    paths = ("README.md", "docs", ":(glob)bench/results/*/report.md")
    session.run("git", "diff", "--exit-code", "--stat", "--", *paths, external=True)


@nox.session(default=False)
def exhaustive(session: nox.Session) -> None:
    """Every one of 2**32 inputs, and other long sweeps."""
    install(session, "test")
    arguments = ("-m", "exhaustive", "-q", "-n", "auto", "--dist", "worksteal", *session.posargs)
    session.run("python", "-m", "pytest", *arguments)


@nox.session(venv_backend="none", default=False)
def pythons(session: nox.Session) -> None:
    """Tests with the other Pythons that are found here."""
    stage(session)


if __name__ == "__main__":
    nox.main()
