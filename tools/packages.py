"""The picture of the packages, from the import contracts and the docstrings of the packages.

The layers come from the first contract of ``[tool.importlinter]`` in pyproject.toml, which CI
checks, and the texts from the first paragraph of each module's docstring.
"""

import ast
import textwrap
import tomllib
from collections.abc import Iterator
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
PICTURE = "docs/packages.svg"

_WIDTH, _GAP, _MARGIN = 880, 10, 10
_LINE, _NAME, _PADDING = 14, 18, 9
_STYLE = """\
rect { fill: #f3f7fc; stroke: #0b5cad; }
.public rect { fill: #fdf6e7; stroke: #b07d00; }
text { font: 11px sans-serif; fill: #222222; }
.name { font: bold 13px monospace; }"""


def picture() -> str:
    """The text of `PICTURE`."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    y, parts = _MARGIN, []
    for layer in layers:
        names = [name.strip() for name in layer.split("|")]
        width = (_WIDTH - 2 * _MARGIN - (len(names) - 1) * _GAP) // len(names)
        told = [textwrap.wrap(_summary(name), width // 6) for name in names]
        height = 2 * _PADDING + _NAME + _LINE * max(map(len, told))
        for k, (name, lines) in enumerate(zip(names, told, strict=True)):
            parts.extend(_box(name, lines, _MARGIN + k * (width + _GAP), y, width, height))
        y += height + _GAP
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" width="{_WIDTH}">\n'
        "<title>The packages of fastact: each imports those below it</title>\n"
        f"<style>\n{_STYLE}\n</style>\n"
        '<rect width="100%" height="100%" style="fill: white; stroke: none"/>'
    )
    return "\n".join([head, *parts, "</svg>"]) + "\n"


def _box(name: str, lines: list[str], x: int, y: int, width: int, height: int) -> Iterator[str]:
    last = name.rpartition(".")[2]
    public = "" if last.startswith("_") and last != "__main__" else ' class="public"'
    yield f'<g{public} transform="translate({x} {y})">'
    yield f'<rect width="{width}" height="{height}" rx="4"/>'
    yield f'<text class="name" x="{_PADDING}" y="{_PADDING + 13}">{escape(last)}</text>'
    for k, line in enumerate(lines):
        at = _PADDING + _NAME + _LINE * k + 11
        yield f'<text x="{_PADDING}" y="{at}">{escape(line)}</text>'
    yield "</g>"


def _summary(name: str) -> str:
    """The first paragraph of a module's docstring."""
    path = ROOT.joinpath(*name.split("."))
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    text = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
    return text.partition("\n\n")[0].replace("\n", " ").replace("``", "")
