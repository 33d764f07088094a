"""The tests that ``.ci/emulated`` names exist: it runs them long after these."""

import re
import subprocess
import sys

from conftest import ROOT


def test_tests_on_emulated_processors_exist():
    script = (ROOT / ".ci/emulated").read_text(encoding="utf-8")
    named = re.findall(r"(?m)^tests/\S+\.py::.+$", script)
    assert len(named) > 10
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "-p", "no:xdist", *named], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(named) <= set(done.stdout.splitlines())
