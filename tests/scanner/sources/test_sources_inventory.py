from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetscan.appliance.ground.errors import UsageError
from fleetscan.scanner.disk import Disk
from fleetscan.scanner.sources import find_machines
from fleetscan.scanner.sources.inventory import inventory_machines

YAML = """\
machines:
  - id: web01
    disks:
      - /srv/web01.qcow2
  - id: db01
    disks:
      - {path: db/os.img, format: raw}
      - db/data.qcow2
"""


def write(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def expected(folder: Path) -> list[tuple[str, tuple[Disk, ...]]]:
    return [
        ("web01", (Disk("/srv/web01.qcow2"),)),
        ("db01", (Disk(f"{folder}/db/os.img", "raw"), Disk(f"{folder}/db/data.qcow2"))),
    ]


def found(source: str) -> list[tuple[str, tuple[Disk, ...]]]:
    return [(machine.machine_id, machine.disks) for machine in find_machines([source])]


def test_yaml_lists_machines_with_paths_relative_to_the_file(tmp_path: Path) -> None:
    assert found(write(tmp_path, "fleet.yaml", YAML)) == expected(tmp_path)


def test_a_bare_list_of_machines_will_do(tmp_path: Path) -> None:
    text = YAML.removeprefix("machines:\n")
    assert found(write(tmp_path, "fleet.yml", text)) == expected(tmp_path)


def test_json_says_the_same(tmp_path: Path) -> None:
    text = json.dumps(
        [
            {"id": "web01", "disks": ["/srv/web01.qcow2"]},
            {"id": "db01", "disks": [{"path": "db/os.img", "format": "raw"}, "db/data.qcow2"]},
        ]
    )
    assert found(write(tmp_path, "fleet.json", text)) == expected(tmp_path)


def test_csv_says_the_same_with_a_line_for_each_disk(tmp_path: Path) -> None:
    text = "id,path,format\nweb01,/srv/web01.qcow2,\ndb01,db/os.img,raw\ndb01,db/data.qcow2,\n"
    assert found(write(tmp_path, "fleet.csv", text)) == expected(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.yaml", "machines:\n- id: a\n  disks: [x]\n- id: b\n", r"a\.yaml:4: .*disks"),
        ("a.yaml", "- id: a\n  disks: [x]\n- id: b\n  disks: []\n", r"a\.yaml:4: .*disks"),
        (
            "a.yaml",
            "- id: a\n  disks:\n  - path: x\n    format: qed\n",
            r"a\.yaml:4: .*disks\.0\.format",
        ),
        ("a.yaml", "- id: [\n", r"a\.yaml:\d: not YAML"),
        ("a.yaml", "just text", r"a\.yaml:1: machines"),
        ("a.yaml", "- id: 'a\\x00'\n  disks: [x]\n- {}", r"a\.yaml:3"),
        ("a.json", '[\n\t{"id": "a",\n\t "disks": 3}\n]', r"a\.json:3: .*disks"),
        ("a.json", "[\n{]", r"a\.json:2: not JSON"),
        ("a.csv", "id,path\na,x\nb,\n", r"a\.csv:3: "),
        ("a.csv", "id,path,format\na,x,raw\na,y,qed\n", r"a\.csv:3: .*format"),
        ("a.csv", "name;disk\n", r"a\.csv:1: the columns"),
        ("a.csv", "id,path\na,x,raw\n", r"a\.csv:2: .*extra"),
        ("a.csv", "id,path\na\n", r"a\.csv:2: .*path"),
        ("a.csv", "", r"a\.csv:1: the columns"),
    ],
)
def test_mistakes_are_named_with_file_and_line(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        inventory_machines(write(tmp_path, name, text))


BOMB = "- &a x\n- &m {id: a, disks: [" + "*a," * 2000 + "]}\n" + "- *m\n" * 2000


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.yaml", BOMB, r"a\.yaml:2: not YAML: aliases are not used here"),
        ("a.yaml", "- id: a\n  id: b\n  disks: [x]\n", r"a\.yaml:2: id: stands here twice"),
        ("a.yaml", "\n- " + "[" * 100_000, r"a\.yaml:2: not YAML: nested more than 32 deep"),
        ("a.yaml", "\n" + "- " * 100_000, r"a\.yaml:2: not YAML: nested more than 32 deep"),
        ("a.yaml", "- id: a\n  ? [b]\n  : c\n", r"a\.yaml:2: a key must be a single value"),
        ("a.yaml", "- id: 2026-02-30\n", r"a\.yaml:1: not YAML: no timestamp"),
        ("a.yaml", "- id: a\n- id: \a\n", r"a\.yaml:2: not YAML"),
        ("a.json", "[\n" + "[" * 200_000 + "]" * 200_000 + "]", r"a\.json:2: .*nested too deep"),
        ("a.json", "[" + "1" * 5000 + "]", r"a\.json: not JSON: "),
    ],
)
def test_what_takes_long_to_read_is_refused_at_once(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    begun = time.process_time()
    with pytest.raises(UsageError, match=message):
        inventory_machines(write(tmp_path, name, text))
    assert time.process_time() - begun < 10


def test_text_that_is_not_utf8_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"id,path\ncaf\xe9,x\n")
    with pytest.raises(UsageError, match=r"a\.csv:2: not UTF-8"):
        inventory_machines(str(tmp_path / "a.csv"))


def test_the_same_id_twice_is_refused(tmp_path: Path) -> None:
    text = "- {id: a, disks: [x]}\n- {id: a, disks: [y]}\n"
    with pytest.raises(UsageError, match="two machines have the id 'a', twice in"):
        find_machines([write(tmp_path, "a.yaml", text)])


@settings(max_examples=150, deadline=None)
@given(text=st.text(max_size=60), suffix=st.sampled_from(["yaml", "json", "csv"]))
def test_any_text_is_machines_or_bad_usage(
    tmp_path_factory: pytest.TempPathFactory, text: str, suffix: str
) -> None:
    path = tmp_path_factory.getbasetemp() / f"any.{suffix}"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with contextlib.suppress(UsageError):
        assert isinstance(inventory_machines(str(path)), list)
