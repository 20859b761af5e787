from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fleetscan.appliance.ground.errors import UsageError
from fleetscan.rules.load import load_config, load_packs, load_waivers

RULE = """
- id: {id}
  title: Something holds
  severity: high
  rationale: It matters.
  remediation: Do it.
  violations: SELECT machine_id, root FROM users WHERE uid > $limit
  parameters: {{limit: 5}}
"""


def make_pack(folder: Path, **files: str) -> Path:
    pack = folder / "some-pack"
    pack.mkdir()
    (pack / "pack.yaml").write_text("title: Some pack\ndescription: For tests.\n")
    for name, text in files.items():
        (pack / f"{name}.yaml").write_text(text)
    return pack


def error_of(folder: Path) -> str:
    with pytest.raises(UsageError) as caught:
        load_packs([folder])
    return str(caught.value)


def test_a_pack_is_a_folder_of_rules_in_order_of_their_ids(tmp_path: Path) -> None:
    folder = make_pack(tmp_path, b=RULE.format(id="second"), a=RULE.format(id="third"), c="")
    (folder / "c.yaml").write_text(RULE.format(id="first").replace("- id", "  id", 1))

    [pack] = load_packs([folder])

    assert pack.name == "some-pack"
    assert [rule.id for rule in pack.rules] == ["first", "second", "third"]


def test_without_a_choice_all_packs_are_loaded() -> None:
    assert "linux-baseline" in [pack.name for pack in load_packs()]
    assert [pack.name for pack in load_packs(["linux-baseline"])] == ["linux-baseline"]


def test_an_unknown_pack_lists_those_there_are() -> None:
    with pytest.raises(UsageError) as caught:
        load_packs(["no-such-pack"])

    assert "linux-baseline" in caught.value.hint


def test_all_problems_of_all_files_are_told_at_once(tmp_path: Path) -> None:
    folder = make_pack(
        tmp_path,
        a=RULE.format(id="Bad_Id").replace("high", "grave"),
        b=RULE.format(id="fine").replace("SELECT", "COPY"),
        c="- [",
    )

    message = error_of(folder)

    assert message.startswith("4 problems:")
    assert f"{folder}/a.yaml:2: id: " in message
    assert f"{folder}/a.yaml:4: severity: " in message
    assert f"{folder}/b.yaml:7: violations: " in message
    assert f"{folder}/c.yaml:1: not YAML" in message


def test_an_id_is_taken_once(tmp_path: Path) -> None:
    folder = make_pack(tmp_path, a=RULE.format(id="one"), b=RULE.format(id="one"))

    assert f"{folder}/b.yaml:2: id: one is taken by {folder}/a.yaml:2" in error_of(folder)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  parameters: {limit: 5}\n", "", "parameters lack a default: limit"),
        ("{limit: 5}", "{limit: 5, other: 6}", "parameters are not used: other"),
        ("{limit: 5}", "{limit: 5, today: 6}", "the name today is taken"),
        ("{limit: 5}", "{limit: 5}\n  empty_ok: [files]", "not read: files"),
        ("{limit: 5}", "{limit: 5}\n  extra: 1", "extra"),
        ("{limit: 5}", "{limit: 5}\n  check: {user: {names: [a], present: true}}", "either"),
        ("{limit: 5}", "{limit: 5}\n  applies_to: distro =", "applies_to"),
        ("uid > $limit", "uid > ?", "parameters need names"),
    ],
)
def test_what_does_not_hold_together_is_refused(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    text = RULE.format(id="one")
    assert old in text

    assert message in error_of(make_pack(tmp_path, a=text.replace(old, new)))


def test_a_folder_without_description_is_no_pack(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither a pack nor a folder"):
        load_packs([tmp_path])


def test_waivers_need_a_reason_and_an_end(tmp_path: Path) -> None:
    path = tmp_path / "waivers.yaml"
    path.write_text(
        "- {rule: a, machine: '*'}\n- {rule: b, machine: c, justification: d, expires: 1}\n"
    )

    with pytest.raises(UsageError) as caught:
        load_waivers(path)

    assert f"{path}:1: justification: Field required" in str(caught.value)
    assert f"{path}:1: expires: Field required" in str(caught.value)
    assert f"{path}:2: expires: " in str(caught.value)


def test_a_configuration_may_only_set_what_there_is(tmp_path: Path) -> None:
    packs = load_packs([make_pack(tmp_path, a=RULE.format(id="one"))])
    path = tmp_path / "config.yaml"
    path.write_text("parameters:\n  one:\n    limit: many\n    other: 1\n  two: {limit: 1}\n")

    with pytest.raises(UsageError) as caught:
        load_config(path, packs)

    message = str(caught.value)
    assert f"{path}:3: limit must be of the type of its default, 5" in message
    assert f"{path}:4: one has no parameter other" in message
    assert f"{path}:5: no rule two" in message


def test_a_configuration_sets_parameters(tmp_path: Path) -> None:
    packs = load_packs([make_pack(tmp_path, a=RULE.format(id="one"))])
    path = tmp_path / "config.yaml"
    path.write_text("deselect: ['t*']\nparameters: {one: {limit: 9}}\n")

    config = load_config(path, packs)

    assert config.parameters == {"one": {"limit": 9}}
    assert config.selects(packs[0].rules[0])


@pytest.mark.parametrize(
    ("name", "load"),
    [
        ("waivers.yaml", load_waivers),
        ("config.yaml", lambda path: load_config(path, ())),
        ("pack.yaml", lambda path: load_packs([path.parent])),
        ("rules.yaml", lambda path: load_packs([path.parent])),
    ],
)
def test_a_deep_file_of_any_kind_is_a_usage_error_with_its_line(
    tmp_path: Path, name: str, load: Callable[[Path], object]
) -> None:
    path = make_pack(tmp_path) / name
    path.write_text("a:\n  b:\n    " + "[" * 50_000)
    with pytest.raises(UsageError, match=rf"{name}:3: not YAML: nested more than 32 deep"):
        load(path)
