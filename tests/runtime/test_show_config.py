"""``show_config`` shows what ``python -m fastact info`` prints."""

import json

import pytest
from conftest import run_python

import fastact as fa
from fastact.__main__ import main


def test_show_config_prints_what_info_prints(capsys):
    assert fa.show_config() is None
    shown = capsys.readouterr().out
    main(["info"])
    assert shown == capsys.readouterr().out
    assert shown.startswith("versions\n")


def test_dicts_are_those_of_info(capsys):
    found = fa.show_config(mode="dicts")
    assert capsys.readouterr().out == ""
    main(["info", "--json"])
    assert found == json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("mode", ["json", "", None])
def test_other_modes_are_refused(mode):
    with pytest.raises(ValueError, match=f"mode must be 'stdout' or 'dicts', got {mode!r}"):
        fa.show_config(mode)


def test_show_config_is_imported_on_first_access():
    code = """
import sys, fastact as fa
name = "fastact._runtime.configuration"
print(name in sys.modules, "show_config" in dir(fa), "show_config" in fa.__all__)
fa.show_config
print(name in sys.modules)
"""
    assert run_python(code) == "False True True\nTrue\n"
