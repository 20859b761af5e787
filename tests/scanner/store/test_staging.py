from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from fleetscan.appliance.ground.errors import StoreError
from fleetscan.scanner.store.staging import (
    MachineWriter,
    MemorySink,
    directory_name,
    staged_machine,
)
from tests.scanner.store.making import group_rows, machine_rows

MACHINE = "web/a.qcow2"
RUN = "20260131T020304Z-3f9a1c"


def write(machines: Path, groups: list[str], machine_id: str = MACHINE) -> None:
    with MachineWriter(machines, machine_id) as writer:
        writer.write("machines", machine_rows(machine_id, RUN))
        for name in groups:
            writer.write("groups", group_rows(machine_id, [name]))
        writer.commit({"seconds": 1.5})


def groups_of(machines: Path, machine_id: str = MACHINE) -> list[str]:
    staged = staged_machine(machines, machine_id)
    assert staged
    batches = list(staged.batches("groups"))
    return [row["name"] for batch in batches for row in batch.to_pylist()]


def test_committed_rows_are_found_in_the_order_they_were_written(tmp_path: Path) -> None:
    write(tmp_path, ["sudo", "adm", "video"])
    staged = staged_machine(tmp_path, MACHINE)
    assert staged
    assert staged.machine_id == MACHINE
    assert staged.rows == {"machines": 1, "groups": 3}
    assert staged.summary == {"seconds": 1.5}
    assert groups_of(tmp_path) == ["sudo", "adm", "video"]
    assert list(staged.batches("users")) == []


def test_a_machine_that_is_not_committed_leaves_nothing(tmp_path: Path) -> None:
    def write_some(outcome: type[BaseException] | None) -> None:
        with MachineWriter(tmp_path, MACHINE) as writer:
            writer.write("groups", group_rows(MACHINE, ["sudo"]))
            if outcome:
                raise outcome

    write_some(None)
    with pytest.raises(KeyboardInterrupt):
        write_some(KeyboardInterrupt)
    assert list(tmp_path.iterdir()) == []
    assert staged_machine(tmp_path, MACHINE) is None


def test_a_machine_appears_only_when_it_is_committed(tmp_path: Path) -> None:
    with MachineWriter(tmp_path, MACHINE) as writer:
        writer.write("machines", machine_rows(MACHINE, RUN))
        assert staged_machine(tmp_path, MACHINE) is None
        writer.commit({})
        assert staged_machine(tmp_path, MACHINE)


def test_a_machine_scanned_again_replaces_its_earlier_self(tmp_path: Path) -> None:
    write(tmp_path, ["old", "older"])
    first = staged_machine(tmp_path, MACHINE)
    write(tmp_path, ["new"])
    second = staged_machine(tmp_path, MACHINE)
    assert groups_of(tmp_path) == ["new"]
    assert first
    assert second
    assert first.commit != second.commit
    assert len(list(tmp_path.iterdir())) == 1


def test_a_failed_second_attempt_keeps_the_first(tmp_path: Path) -> None:
    write(tmp_path, ["old"])
    with MachineWriter(tmp_path, MACHINE) as writer:
        writer.write("groups", group_rows(MACHINE, ["new"]))
    assert groups_of(tmp_path) == ["old"]


def test_a_machine_without_its_own_row_cannot_be_committed(tmp_path: Path) -> None:
    with (
        MachineWriter(tmp_path, MACHINE) as writer,
        pytest.raises(StoreError, match="exactly one row"),
    ):
        writer.commit({})
    assert list(tmp_path.iterdir()) == []


def test_rows_of_another_table_are_refused(tmp_path: Path) -> None:
    with (
        MachineWriter(tmp_path, MACHINE) as writer,
        pytest.raises(StoreError, match="rows for users do not have"),
    ):
        writer.write("users", group_rows(MACHINE, ["sudo"]))


@pytest.mark.parametrize("damage", ["shorter", "gone", "no summary", "empty summary"])
def test_a_machine_torn_by_a_power_failure_is_not_finished(tmp_path: Path, damage: str) -> None:
    write(tmp_path, ["sudo"])
    directory = tmp_path / directory_name(MACHINE)
    stream, summary = directory / "groups.arrows", directory / "summary.json"
    match damage:
        case "shorter":
            stream.write_bytes(stream.read_bytes()[:-1])
        case "gone":
            stream.unlink()
        case "no summary":
            summary.unlink()
        case _:
            summary.write_bytes(b"")
    assert staged_machine(tmp_path, MACHINE) is None
    write(tmp_path, ["again"])
    assert groups_of(tmp_path) == ["again"]


def test_a_damaged_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    write(tmp_path, ["sudo"])
    stream = tmp_path / directory_name(MACHINE) / "groups.arrows"
    stream.write_bytes(b"\xff" * stream.stat().st_size)
    staged = staged_machine(tmp_path, MACHINE)
    assert staged
    with pytest.raises(StoreError, match=r"groups\.arrows") as caught:
        list(staged.batches("groups"))
    assert "resume the run" in caught.value.hint


def test_a_directory_that_cannot_be_made_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "machines").write_text("a file")
    with (
        pytest.raises(StoreError, match="creating"),
        MachineWriter(tmp_path / "machines", MACHINE),
    ):
        pass


@pytest.mark.parametrize("machine_id", ["a/../../b", "é\n\x00", "x" * 4000, ".", "a b'\""])
def test_any_machine_id_gives_one_safe_directory_name(tmp_path: Path, machine_id: str) -> None:
    name = directory_name(machine_id)
    assert len(name) <= 57
    assert Path(name).name == name
    assert name.replace("-", "").replace(".", "").replace("_", "").isalnum()
    write(tmp_path, ["sudo"], machine_id)
    assert groups_of(tmp_path, machine_id) == ["sudo"]


def test_machine_ids_that_look_alike_have_directories_of_their_own() -> None:
    assert directory_name("a/b") != directory_name("a_b")


def test_memory_keeps_every_table_it_was_given() -> None:
    sink = MemorySink()
    sink.write("groups", group_rows(MACHINE, ["sudo"]))
    sink.write("groups", group_rows(MACHINE, ["adm"]))
    assert sink.table("groups").column("name").to_pylist() == ["sudo", "adm"]
    assert sink.table("users").num_rows == 0
    assert list(sink.tables()) == ["groups"]
    assert isinstance(sink.tables()["groups"], pa.Table)
