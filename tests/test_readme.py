"""What the README shows runs."""

import re
from pathlib import Path

from conftest import run_python

README = Path(__file__).parents[1] / "README.md"


def test_examples_run():
    examples = re.findall(r"(?ms)^```python\n(.*?)^```$", README.read_text(encoding="utf-8"))
    assert examples
    for example in examples:
        if "..." not in re.sub(r"#.*", "", example):  # an outline, not code
            run_python(example)
