"""Every snippet of docs/use-it-from.md runs, each section in a new process."""

import re

import pytest
from conftest import ROOT, run_python

pytestmark = pytest.mark.integration

PAGE = (ROOT / "docs" / "use-it-from.md").read_text(encoding="utf-8")
SECTIONS = dict(
    section.split("\n", 1) for section in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]
)


def snippet(section):
    """Return the fenced blocks of Python, joined."""
    return "\n".join(re.findall(r"(?ms)^```python\n(.*?)^```$", section))


@pytest.mark.parametrize("name", SECTIONS)
def test_section_runs(name):
    code = snippet(SECTIONS[name])
    assert "fastact" in code
    run_python(code)


def test_no_block_is_left_out():
    assert sum(map(len, map(snippet, SECTIONS.values()))) > 0
    fences = len(re.findall(r"(?m)^```", PAGE))
    run = sum(len(re.findall(r"(?ms)^```python\n.*?^```$", text)) for text in SECTIONS.values())
    assert fences == 2 * run
