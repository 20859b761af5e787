"""What errors say to people."""

from __future__ import annotations

import ast
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

import pytest

from fleetscan.appliance.ground.reasons import in_words, reason

PROJECT = Path(__file__).resolve().parents[3]
GUEST = [*PROJECT.glob("appliance/guest/**/*.py"), *PROJECT.glob("scanner/tables/**/*.py")]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.EBADMSG, os.strerror(errno.EBADMSG)), "damaged: a checksum does not match"),
        (OSError(errno.EUCLEAN, os.strerror(errno.EUCLEAN), "/x"), "structure needs cleaning"),
        (OSError(errno.EUCLEAN, "unknown type of file"), "unknown type of file"),
        (OSError(errno.ENOENT, os.strerror(errno.ENOENT), b"/caf\xe9"), "No such file"),
        (OSError("mdadm ended with status 1"), "mdadm ended with status 1"),
        (ValueError("why"), "why"),
        (MemoryError(), "MemoryError"),
        (OSError(), "OSError"),
    ],
)
def test_an_error_is_told_in_words_and_without_its_number(error: Exception, told: str) -> None:
    assert told in reason(error)
    assert told in in_words(error)
    assert "Errno" not in in_words(error)


def test_the_file_is_told_where_the_error_has_one() -> None:
    assert in_words(OSError(errno.EACCES, "no", "/a")) == "/a: no"
    assert in_words(OSError(errno.EACCES, "no", b"/a\xff")) == "/a\udcff: no"
    assert in_words(OSError(errno.EACCES, "no")) == "no"
    assert reason(OSError(errno.EACCES, "no", "/a")) == "no"


def _bare(tree: ast.AST) -> Iterator[int]:
    """Lines where an OSError is put into a text as Python does it, with its number."""
    for handler in ast.walk(tree):
        if not isinstance(handler, ast.ExceptHandler) or handler.type is None:
            continue
        if "OSError" not in {node.id for node in ast.walk(handler.type) if _is_name(node)}:
            continue
        for node in ast.walk(handler):
            value = node.value if isinstance(node, ast.FormattedValue) else None
            if isinstance(node, ast.Call) and _is_name(node.func) and node.func.id == "str":
                value = node.args[0]
            if value is not None and _is_name(value) and value.id == handler.name:
                yield value.lineno


def _is_name(node: ast.AST) -> TypeGuard[ast.Name]:
    return isinstance(node, ast.Name)


def test_what_users_see_of_a_guests_errors_goes_through_words() -> None:
    for path in GUEST:
        text = path.read_text()
        assert "error.strerror" not in text, path
        assert list(_bare(ast.parse(text))) == [], path
