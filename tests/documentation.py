"""What the documentation tells people to type, and where its links lead."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import PROJECT

_BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
_SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_COMMENT = re.compile(r"\s+# .*")
_LOOP = re.compile(r"^for .*?^done$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
_PROGRAMS = ("fleetscan", "bash", "python", "pip", "pipx", ".venv/bin/python", "dask", "openssl")


@dataclass(frozen=True)
class Written:
    """A piece of a page.

    Attributes:
        page: the page's path in the project.
        line: where it begins, from 1.
        text: the piece.
    """

    page: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"


def pages() -> list[str]:
    """Every page of the documentation; the change log tells of commands that were, too."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", "*.md"],
        cwd=PROJECT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return sorted(set(listed.stdout.split("\0")) - {"", "CHANGELOG.md"})


def blocks(page: str, *languages: str) -> Iterator[Written]:
    """The indented or fenced blocks of a page in these languages."""
    text = (PROJECT / page).read_text()
    for found in _BLOCK.finditer(text):
        if found[2] in languages:
            lines = [line.removeprefix(found[1]) for line in found[3].splitlines()]
            yield Written(page, _line(text, found.start()) + 1, "\n".join(lines))


def spans(page: str) -> Iterator[Written]:
    """What stands between single backquotes outside blocks."""
    text = _BLOCK.sub(lambda block: "\n" * block[0].count("\n"), (PROJECT / page).read_text())
    for found in _SPAN.finditer(text):
        yield Written(page, _line(text, found.start()), " ".join(found[1].split()))


def links(page: str) -> Iterator[Written]:
    """Where the links of a page lead."""
    text = _BLOCK.sub(lambda block: "\n" * block[0].count("\n"), (PROJECT / page).read_text())
    for found in _LINK.finditer(text):
        yield Written(page, _line(text, found.start()), found[1])


def commands() -> list[Written]:
    """Every command that a page tells people to type, each once a page."""
    found: dict[tuple[str, str], Written] = {}
    for page in pages():
        for one in (*_typed(page), *_named(page)):
            found.setdefault((page, one.text), one)
    return list(found.values())


def _typed(page: str) -> Iterator[Written]:
    """Commands of shell blocks: all of an ``sh`` block, and what follows a prompt."""
    for block in blocks(page, "sh"):
        yield from _joined(block, block.text)
    for block in blocks(page, "console"):
        lines = [line[2:] if line.startswith("$ ") else "" for line in block.text.splitlines()]
        yield from _joined(block, "\n".join(lines))


def _joined(block: Written, text: str) -> Iterator[Written]:
    """A script's commands; a loop is one."""
    text = re.sub(r"\\\n\s*", "", text)
    text = _LOOP.sub(lambda loop: loop[0].replace("do\n", "do ").replace("\n", "; "), text)
    for number, line in enumerate(text.splitlines()):
        command = _COMMENT.sub("", line).strip()
        if command and not command.startswith("#"):
            yield Written(block.page, block.line + number, command)


def _named(page: str) -> Iterator[Written]:
    """Commands with arguments in the middle of text; placeholders in brackets are left out."""
    for span in spans(page):
        words = span.text.split()
        if words[0] in _PROGRAMS and len(words) > 1:
            text = re.sub(r" \[[^\]]*\](\.\.\.)?", "", span.text)
            yield Written(page, span.line, text)


def words(command: str) -> list[str]:
    """The words of a command up to where another program or a file takes over."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars="|>;")
    lexer.whitespace_split = True
    found = []
    for word in lexer:
        if set(word) <= set("|>;"):
            break
        found.append(word)
    return found


def anchors(path: Path) -> set[str]:
    """The headings of a page as links name them."""
    text = _BLOCK.sub("", path.read_text())
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", title.lower()) for title in titles]
    return {title.strip().replace(" ", "-") for title in plain}


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1
