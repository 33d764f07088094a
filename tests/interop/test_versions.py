"""Which versions of other libraries give a warning."""

import warnings

import pytest

from fastact._interop.versions import warn_unless_tested


@pytest.mark.parametrize("version", ["1.5", "1.9.2", "1.9rc1", "1.5.dev0", "1.8+cpu", "1.6.1a"])
def test_tested_versions_give_no_warning(version):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_unless_tested("library", version, (1, 5), (1, 10))


@pytest.mark.parametrize("version", ["1.4.9", "1.10", "1.10rc1", "2.0", "0+unknown", "", "unknown"])
def test_other_versions_give_a_warning(version):
    message = rf"^library {version.replace('+', '.')} is outside the range .* 1\.5 to below 1\.10$"
    with pytest.warns(UserWarning, match=message):
        warn_unless_tested("library", version, (1, 5), (1, 10))
