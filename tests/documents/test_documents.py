"""Generated files are up to date."""

import re

import pytest
from conftest import ROOT

from tools import packages, stub


@pytest.mark.parametrize("path", stub.STUBS)
def test_stubs_are_up_to_date(path):
    """``python -m tools.documents`` writes it."""
    assert (ROOT / path).read_text(encoding="utf-8") == stub.STUBS[path]()


def test_the_picture_of_the_packages_is_up_to_date():
    """``python -m tools.documents`` draws it."""
    assert (ROOT / packages.PICTURE).read_text(encoding="utf-8") == packages.picture()


def test_every_package_is_in_the_picture():
    shown = re.findall(r'<text class="name"[^>]*>(\w+)</text>', packages.picture())
    there = {p.stem for p in (ROOT / "fastact").iterdir() if (p / "__init__.py").exists()}
    there |= {p.stem for p in (ROOT / "fastact").glob("*.py")} - {"__init__"}
    assert set(shown) == there
