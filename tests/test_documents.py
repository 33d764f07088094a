"""What is written from the declarations is what they say now."""

from conftest import ROOT

from tools import stub


def test_the_stub_is_up_to_date():
    """``python -m tools.documents`` writes it."""
    assert (ROOT / stub.STUB).read_text(encoding="utf-8") == stub.stub()
