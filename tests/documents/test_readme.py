"""The examples in the README and in docs/ run, and their links have targets."""

import re

import pytest
from conftest import ROOT, run_python

PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "bench/NOTES.md",
    *sorted((ROOT / "bench/results").rglob("*.md")),
]
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
IN_NEED_OF_OTHERS = {"docs/use-it-from.md"}  # libraries; tests/integration runs them


def examples(page):
    """The blocks of Python that are complete code, without ``...``."""
    blocks = re.findall(r"(?ms)^```python\n(.*?)^```$", page.read_text(encoding="utf-8"))
    return [block for block in blocks if "..." not in re.sub(r"#.*", "", block)]


SHOWN = [
    pytest.param(example, id=f"{name}-{k}")
    for name, page in zip(NAMES, PAGES, strict=True)
    if name not in IN_NEED_OF_OTHERS
    for k, example in enumerate(examples(page))
]


@pytest.mark.parametrize("example", SHOWN)
def test_examples_run(example):
    run_python(example)


def test_the_readme_has_an_example():
    assert examples(ROOT / "README.md")


def anchor(heading):
    """The anchor that GitHub and the documentation site give a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page):
    text = re.sub(r"(?ms)^```.*?^```$", "", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", text)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, name = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        if name:
            found = re.findall(r"(?m)^#+ (.+)$", there.read_text(encoding="utf-8"))
            assert name in map(anchor, found), target
