"""Hooks for mkdocs: files outside of docs/ become pages of the site, and links lead to them.

Links in the documents are paths from file to file of the repository. On the site, the pages of
docs/ are at the root, beside the other files.
"""

import logging
import os
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
SHOWN = (
    *("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "CITATION.cff"),
    *("bench/NOTES.md", "bench/results/**/*.md", "bench/results/**/*.svg", "examples/*.py"),
)
"""Files outside of docs/ that are part of the site."""

_LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")


# griffe only reads the source, and warns of names in ``__all__`` that follow from declarations.
logging.getLogger("mkdocs.plugins.griffe").addFilter(
    lambda record: "Unsupported item in" not in record.getMessage()
)


def on_files(files: Files, config: Any) -> Files:
    """Add the files outside of docs/."""
    for pattern in SHOWN:
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Change links between files of the repository to the places of these files on the site."""
    here = page.file.src_uri
    outside = page.file.generated_by is not None
    folder = posixpath.dirname(here if outside else f"docs/{here}")

    def replaced(match: re.Match[str]) -> str:
        if re.match(r"[a-z]+:", match[2]):
            return match[0]
        target = posixpath.normpath(posixpath.join(folder, match[2])).removeprefix("docs/")
        if target == "examples":  # a folder, which has no page on the site
            target = "examples/mlp_digits.py"
        path = os.path.relpath(target, posixpath.dirname(here) or ".")
        return f"{match[1]}{Path(path).as_posix()}{match[3]}"

    fenced = re.split(r"(?ms)(^```.*?^```$)", markdown)
    fenced[::2] = [_LINK.sub(replaced, text) for text in fenced[::2]]
    return "".join(fenced)
