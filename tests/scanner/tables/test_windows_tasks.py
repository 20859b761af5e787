"""Tasks of Windows' scheduler: what their parsers make of odd content."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from fleetscan.scanner.tables.scheduled_tasks import jobfile, taskxml, windows

CASE = Path(windows.__file__).parent / "cases" / "windows" / "tree" / "Windows"
JOB = (CASE / "Tasks" / "Disk Cleanup.job").read_bytes()
NAMESPACE = "{http://schemas.microsoft.com/windows/2004/02/mit/task}"


@pytest.mark.parametrize("name", ["Backup", "Watch", "Unregistered"])
def test_commands_and_accounts_are_those_that_another_parser_finds(name: str) -> None:
    content = (CASE / "System32" / "Tasks" / name).read_bytes()
    tree = etree.fromstring(content)
    task = taskxml.parse(content)
    texts = [
        element.text or ""
        for word in ("Command", "Arguments", "StartBoundary", "ClassId")
        for element in tree.iter(NAMESPACE + word)
    ]
    assert [text for text in texts if text not in task.command + task.schedule] == []
    accounts = {
        element.text
        for word in ("UserId", "GroupId")
        for element in tree.iterfind(f".//{NAMESPACE}Principal/{NAMESPACE}{word}")
    }
    assert task.user in accounts or not accounts


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"<Task>" * 40, "too many elements, or nested too deeply"),
        (b"<Task>" + b"<a/>" * 10_001 + b"</Task>", "too many elements, or nested too deeply"),
        (b"<!DOCTYPE Task SYSTEM 'file:///etc/passwd'><Task/>", "has a document type"),
        (b"<Other/>", "is not a task but 'Other'"),
        (b"", "is not XML: no element found: line 1, column 0"),
        (b'<?xml version="1.0" encoding="nonsense"?><Task/>', "is not XML: unknown encoding"),
    ],
)
def test_what_is_no_task_is_refused(content: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{problem}"):
        taskxml.parse(content)


def test_a_task_that_says_nothing_is_on_and_does_nothing() -> None:
    assert taskxml.parse(b"<Task/>") == taskxml.TaskFile(None, "", None, "", True, False)


@pytest.mark.parametrize(("parse", "sample"), [(jobfile.parse, JOB), (windows.command, b"\3\0")])
@given(data=st.data())
def test_damaged_content_is_refused_or_read(
    parse: Callable[[bytes], object], sample: bytes, data: st.DataObject
) -> None:
    content = bytearray(sample + data.draw(st.binary(max_size=40)))
    at = data.draw(st.integers(0, len(content) - 1))
    content[at : at + 2] = data.draw(st.binary(max_size=3))
    with contextlib.suppress(ValueError):
        parse(bytes(content))


@given(st.binary(max_size=60))
def test_times_of_any_content_are_read_or_none(data: bytes) -> None:
    windows.last_run(data)
