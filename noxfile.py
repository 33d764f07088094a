#!/usr/bin/env -S uv run --script
# /// script
# dependencies = ["nox>=2024.10.9"]
# ///
"""Checks by name, each in a separate environment: ``python -m nox -s lint``.

``.ci/run`` has stages with the same names and commands, and runs all of them from scratch. Sessions
that need a POSIX shell (the README's commands, emulation, asv, other Pythons) call its stages.
"""

import sys

import nox

nox.needs_version = ">=2024.10.9"  # for groups of dependencies
nox.options.default_venv_backend = "venv"

PROJECT = nox.project.load_toml("pyproject.toml")
CONSTRAINTS = ("-c", "bench/constraints.txt")  # PyTorch's CPU build


def install(session: nox.Session, extra: str = "", *, group: str = "") -> None:
    """Install the package in place, with an extra and a group of dependencies."""
    session.install("-e", f".[{extra}]" if extra else ".")
    if group:
        session.install(*nox.project.dependency_groups(PROJECT, group))


def stage(session: nox.Session) -> None:
    """Run the stage of ``.ci/run`` that has the name of the session."""
    if sys.platform == "win32":
        session.skip("needs a POSIX shell")
    session.run(".ci/run", session.name, external=True)


@nox.session(venv_backend="none", default=False)
def readme(session: nox.Session) -> None:
    """Run the README's command for the main job."""
    stage(session)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests, or those that the arguments select."""
    install(session, "test")
    session.run("python", "-m", "pytest", "-n", "auto", *session.posargs)


@nox.session(default=False)
def levels(session: nox.Session) -> None:
    """Run the tests of compiled code for lower levels of this architecture."""
    install(session, "test")
    code = "from fastact._compiler import host; print(*host.levels())"
    found = session.run("python", "-c", code, silent=True) or ""
    for level in sorted({"x86-64-v2", "x86-64-v3"} & set(found.split())):
        chosen = ("-m", "functional and not exhaustive", "-k", "not x86-64")
        arguments = ("-q", "-n", "auto", *chosen, *session.posargs)
        session.run("python", "-m", "pytest", *arguments, env={"FASTACT_CPU": level})


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and common mistakes."""
    session.install(*nox.project.dependency_groups(PROJECT, "lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def imports(session: nox.Session) -> None:
    """Check the contracts on imports between packages."""
    install(session, group="lint")
    session.run("lint-imports", "--no-cache")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of the package, and of calls as users write them."""
    install(session, "test", group="types")
    session.run("mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation in site/ or the folder of the argument; warnings are errors."""
    install(session, "docs")
    session.run("mkdocs", "build", "--strict", "--site-dir", *(session.posargs or ["site"]))


@nox.session(default=False)
def integration(session: nox.Session) -> None:
    """Run the tests with other libraries."""
    session.install(*CONSTRAINTS, "-e", ".[integration]")
    arguments = ("-q", "-n", "auto", "-m", "integration", *session.posargs)
    session.run("python", "-m", "pytest", *arguments)


@nox.session(venv_backend="none", default=False)
def emulated(session: nox.Session) -> None:
    """Run tests on emulated processors."""
    stage(session)


@nox.session(venv_backend="none", default=False)
def asv(session: nox.Session) -> None:
    """Check that the benchmarks over the history are well-formed and run on this commit."""
    stage(session)


@nox.session(default=False)
def figures(session: nox.Session) -> None:
    """Check that the figures in the documents match the committed results."""
    install(session, "bench")
    session.run("python", "-m", "bench.readme")
    paths = ("README.md", "docs", ":(glob)bench/results/*/report.md")
    session.run("git", "diff", "--exit-code", "--stat", "--", *paths, external=True)


@nox.session(default=False)
def exhaustive(session: nox.Session) -> None:
    """Run the tests of all 2**32 inputs, and other long sweeps."""
    install(session, "test")
    arguments = ("-m", "exhaustive", "-q", "-n", "auto", "--dist", "worksteal", *session.posargs)
    session.run("python", "-m", "pytest", *arguments)


@nox.session(venv_backend="none", default=False)
def pythons(session: nox.Session) -> None:
    """Run tests with the other versions of Python on this machine."""
    stage(session)


if __name__ == "__main__":
    nox.main()
