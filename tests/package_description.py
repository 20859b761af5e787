"""What a package index shows of fleetscan, scanner/DESCRIPTION.md, made from README.md.

An index shows the text by itself, so links into the repository would lead nowhere: the description
names the files instead. There is no address yet at which it could link to them.
"""

from __future__ import annotations

import re

from tests.conftest import PROJECT

README = PROJECT / "README.md"
PAGE = PROJECT / "scanner" / "DESCRIPTION.md"

_HEAD = "<!-- Made by `python -m tests.regenerate` from README.md; it has no links to files. -->\n"
_LINK = re.compile(r"\[([^\]]+)\]\((?![a-z]+:)([^)#\s]*)(#[^)\s]*)?\)")


def markdown() -> str:
    """README.md with the names of files where it has links to them."""
    return _HEAD + _LINK.sub(_name, README.read_text())


def _name(link: re.Match[str]) -> str:
    text, path = link[1], link[2]
    if not path or text.strip("`").rstrip("/") in path:
        return f"`{text}`" if path else text
    return f"{text} (`{path}`)"
