from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetscan.rules import source
from fleetscan.rules.model import Waiver
from fleetscan.rules.source import SourceError


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


def test_items_keep_their_lines(tmp_path: Path) -> None:
    document = source.read(write(tmp_path, "- {a: 1}\n-\n  b: [2,\n    3]\n"))
    first, second = document.items()

    assert (first.value, first.lines) == ({"a": 1}, {(): 1, ("a",): 1})
    assert second.value == {"b": [2, 3]}
    assert second.lines == {(): 3, ("b",): 3, ("b", 0): 3, ("b", 1): 4}
    assert first.items() == [first]


# -- Attacks ---------------------------------------------------------------------------------

DEEP = {
    "flow lists": "[" * 100_000,
    "flow mappings": "{a: " * 100_000,
    "lists": "- " * 100_000,
    "mappings": "".join(" " * depth + "a:\n" for depth in range(1000)),
    "keys": "? " * 100_000,
    "under aliases' names": "".join(f"a{depth}: &a{depth}\n" + " " * depth for depth in range(99)),
}


@pytest.mark.parametrize("text", DEEP.values(), ids=DEEP)
def test_what_is_nested_too_deep_names_its_line(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, f"# a comment\n{text}")

    [problem] = problems(path)

    line = int(problem.partition(":")[0])
    assert 2 <= line <= 40
    assert "nested more than 32 deep" in problem or "not YAML" in problem


def test_what_people_write_is_not_too_deep(tmp_path: Path) -> None:
    text = "[" * 31 + "1" + "]" * 31

    assert source.read(write(tmp_path, text)).lines[(0,) * 31] == 1


@pytest.mark.parametrize(
    "value",
    [
        "2026-02-30",
        "2026-13-01T00:00:00Z",
        "9" * 5000,
        "!!int x",
        "!!float x",
        "!!bool x",
        "!!timestamp x",
        "!!binary x",
        "!!null [x]",
    ],
)
def test_a_value_that_is_not_what_it_looks_like_names_its_line(tmp_path: Path, value: str) -> None:
    [problem] = problems(write(tmp_path, f"- rule: a\n  expires: {value}\n"))

    assert problem.startswith("2: not YAML: ")
    assert len(problem) < 300


@pytest.mark.parametrize("key", ["[a, b]", "{a: b}", "[[[]]]"])
def test_a_key_that_is_no_single_value_is_refused(tmp_path: Path, key: str) -> None:
    assert problems(write(tmp_path, f"- ? {key}\n  : 1\n")) == ["1: a key must be a single value"]


def test_a_long_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "long.yaml"
    with path.open("wb") as stream:
        stream.truncate(1 << 40)

    assert problems(path) == ["0: is larger than 2 MiB"]
    assert problems(Path("/dev/zero")) == ["0: is larger than 2 MiB"]


def test_a_list_is_taken_apart_in_time_that_follows_its_length(tmp_path: Path) -> None:
    document = source.Document(tmp_path, [1] * 200_000, {(n,): n for n in range(200_000)})
    begun = time.monotonic()

    assert len(document.items()) == 200_000
    assert time.monotonic() - begun < 10


def test_of_many_problems_the_first_are_reported(tmp_path: Path) -> None:
    found = [source.Problem(tmp_path, line, "wrong") for line in range(1, 100_001)]

    lines = str(source.usage_error(found)).splitlines()

    assert (lines[0], len(lines), lines[-1]) == ("100000 problems:", 102, "and 99900 more")


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
