"""The last step of a kernel, which rounds to odd in the 16-bit formats."""

import pytest

from fastact._compiler import frontend
from fastact._kernels import vocabulary
from fastact._kernels.vocabulary import last_muladd, last_signed_muladd


def unsigned(a, b, c):
    return last_muladd(a, b, c)


def signed(a, b, c):
    return last_signed_muladd(a, b, c)


@pytest.mark.parametrize("helper", [unsigned, signed])
def test_last_step_in_a_helper_is_refused(helper, monkeypatch):
    """Numba would compile it once, in the way of the format that comes first."""
    monkeypatch.setattr(vocabulary, "SCALAR_FUNCTIONS", [helper])
    with pytest.raises(
        TypeError, match=f"muladd must be called in a kernel, not in {helper.__name__}"
    ):
        frontend.register_vocabulary.__wrapped__()


def test_no_helper_has_a_last_step():
    frontend.register_vocabulary()
