from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules import source
from rules.model import Waiver
from rules.source import SourceError


def write(folder: Path, text: str) -> Path:
    path = folder / "file.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def problems(path: Path) -> list[str]:
    with pytest.raises(SourceError) as caught:
        source.read(path).parse(list[Waiver])
    return [f"{problem.line}: {problem.message}" for problem in caught.value.problems]


def test_every_problem_has_its_line(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "- rule: a\n  machine: '*'\n  justification: x\n  expires: 2027-01-01\n  until: never\n"
        "- rule: b\n  machine: '*'\n  expires: soon\n",
    )

    found = problems(path)

    assert found[0].startswith("5: until: ")
    assert found[1].startswith("6: justification: ")
    assert found[2].startswith("8: expires: ")


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    assert problems(write(tmp_path, "- rule: a\n  machine: b\n  rule: c\n")) == [
        "3: rule: stands here twice"
    ]


def test_aliases_are_refused(tmp_path: Path) -> None:
    bomb = "a: &a [x, x]\nb: &b [*a, *a]\n"

    assert problems(write(tmp_path, bomb)) == ["2: not YAML: aliases are not used here"]


def test_tags_that_make_objects_are_refused(tmp_path: Path) -> None:
    [problem] = problems(write(tmp_path, "- !!python/object/apply:os.getcwd []\n"))

    assert problem.startswith("1: not YAML")


def test_broken_yaml_names_its_line(tmp_path: Path) -> None:
    [problem] = problems(write(tmp_path, "- rule: a\n  machine: [\n"))

    assert problem.startswith("3: not YAML")


def test_an_empty_file_and_a_missing_one_are_problems(tmp_path: Path) -> None:
    assert problems(write(tmp_path, "# nothing\n")) == ["0: the file is empty"]
    [problem] = problems(tmp_path / "missing.yaml")
    assert "cannot be read" in problem


def test_a_part_keeps_its_lines(tmp_path: Path) -> None:
    part = source.read(write(tmp_path, "- {a: 1}\n-\n  b: 2\n")).part((1,))

    assert part.value == {"b": 2}
    assert part.lines == {(): 3, ("b",): 3}


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("yaml") / "file.yaml"
    path.write_bytes(data)

    problems: list[source.Problem] = []
    lines: dict[source.Location, int] = {}
    try:
        lines = source.read(path).lines
    except SourceError as error:
        problems = error.problems

    assert bool(problems) != (() in lines)
