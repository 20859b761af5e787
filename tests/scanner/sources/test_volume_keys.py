from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from fleetscan.appliance.ground.errors import UsageError
from fleetscan.scanner.sources import SourceOptions, find_machines
from fleetscan.scanner.sources.inventory import inventory_machines
from fleetscan.scanner.sources.volume_keys import (
    KEY_LIMIT,
    KeySource,
    KeyUnavailableError,
    parse_key,
    read_keys,
)


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("all:file:/etc/key", KeySource("all", "file", "/etc/key")),
        ("all:file:key", KeySource("all", "file", "/base/key")),
        ("/dev/sda2:env:KEY", KeySource("/dev/sda2", "env", "KEY")),
        ("uuid:command:pass show a:b", KeySource("uuid", "command", "pass show a:b")),
    ],
)
def test_a_key_is_written_as_selector_kind_and_value(text: str, source: KeySource) -> None:
    assert parse_key(text, Path("/base")) == source


def test_a_source_tells_its_kind_and_a_digest_and_nothing_that_it_says() -> None:
    source = parse_key("all:command:vault -token=hunter2 read x", Path())
    digest = hashlib.sha256(b"all:command:vault -token=hunter2 read x").hexdigest()
    assert str(source) == f"from a command (sha256 of its text: {digest[:16]})"
    assert "hunter2" not in repr(source)


@pytest.mark.parametrize("text", ["", "all", "all:key:hunter2", ":file:x", "all:file:", "hunter2"])
def test_a_malformed_key_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(UsageError, match="not of the form") as caught:
        parse_key(text, Path())
    assert "hunter2" not in str(caught.value) + caught.value.hint


@pytest.mark.parametrize(
    ("content", "keys"),
    [
        (b"word", [b"word"]),
        (b"word\n", [b"word", b"word\n"]),
        (b"word\r\n", [b"word", b"word\r\n"]),
        (b"\0\n\xff", [b"\0\n\xff"]),
        (b"\n", [b"\n"]),
    ],
)
def test_a_file_is_tried_without_its_line_end_and_as_it_is(
    content: bytes, keys: list[bytes], tmp_path: Path
) -> None:
    (tmp_path / "key").write_bytes(content)
    source = parse_key("all:file:key", tmp_path)
    assert list(read_keys([source])) == [("all", key) for key in keys]


def test_a_variable_and_a_command_give_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "one")
    sources = [KeySource("a", "env", "SOME_KEY"), KeySource("b", "command", "printf 'two words'")]
    assert list(read_keys(sources)) == [("a", b"one"), ("b", b"two words")]


def test_a_command_is_not_given_to_a_shell(tmp_path: Path) -> None:
    list(read_keys([KeySource("a", "command", f"echo > {tmp_path}/file; true")]))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "source",
    [
        KeySource("a", "file", "/nonexistent/secret"),
        KeySource("a", "env", "NO_SUCH_SECRET"),
        KeySource("a", "command", "false secret"),
        KeySource("a", "command", "sh -c 'echo secret; exit 3'"),
        KeySource("a", "command", "no-such-program-secret"),
        KeySource("a", "command", "'secret"),
        KeySource("a", "command", "/nonexistent/secret\0"),
        KeySource("a", "file", "/dev/null"),
    ],
)
def test_a_key_that_cannot_be_read_says_why_and_nothing_of_its_text(source: KeySource) -> None:
    with pytest.raises(KeyUnavailableError, match="the key from a") as caught:
        list(read_keys([source]))
    assert "secret" not in str(caught.value).lower()
    assert source.value not in str(caught.value)


def test_a_key_has_a_limit(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"x" * (KEY_LIMIT + 1))
    with pytest.raises(KeyUnavailableError, match="longer than"):
        list(read_keys([parse_key("all:file:key", tmp_path)]))


def test_an_inventory_names_keys_beside_itself(tmp_path: Path) -> None:
    inventory = tmp_path / "fleet.yaml"
    inventory.write_text('- id: a\n  disks: [a.raw]\n  keys: ["all:file:a.key"]\n')
    (machine,) = inventory_machines(str(inventory))
    assert machine.keys == (KeySource("all", "file", str(tmp_path / "a.key")),)


def test_a_command_that_an_inventory_names_is_run_only_where_the_user_says_so(
    tmp_path: Path,
) -> None:
    inventory = tmp_path / "fleet.yaml"
    inventory.write_text('- id: a\n  disks: [a.raw]\n  keys:\n    - "all:command:cat a.key"\n')
    with pytest.raises(UsageError, match=r"fleet.yaml:4: .*'a'") as caught:
        find_machines([str(inventory)])
    assert "--allow-key-commands" in caught.value.hint
    assert "cat" not in str(caught.value)
    (machine,) = find_machines([str(inventory)], SourceOptions(key_commands=True))
    assert machine.keys == (KeySource("all", "command", "cat a.key"),)


def test_an_inventory_with_a_malformed_key_is_refused_by_its_line(tmp_path: Path) -> None:
    inventory = tmp_path / "fleet.yaml"
    inventory.write_text('- id: a\n  disks: [a.raw]\n  keys:\n    - "hunter2"\n')
    with pytest.raises(UsageError, match=r"fleet.yaml:4: .*not of the form") as caught:
        inventory_machines(str(inventory))
    assert "hunter2" not in str(caught.value)
