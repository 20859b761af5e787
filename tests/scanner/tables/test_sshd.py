"""The OpenSSH server's settings: which of them decide, compared with the server itself."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetscan.appliance.guest.readers.reading import Reader
from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.config import collect, sshd_command
from fleetscan.scanner.tables.config.sshd import SshdLine, SshdReader, arguments
from fleetscan.scanner.tables.config.sshd_effect import SshLogin, in_force, matches
from tests.real_sshd import Question, answers

CONFIGURATIONS = 200
_LOGINS = {
    user: [
        f"user={user},host={host},addr={address}"
        for host in ("a.example.org", "elsewhere")
        for address in ("10.1.1.1", "172.16.0.1")
    ]
    for user in ("root", "backup")
}
_SETTINGS = {
    "permitrootlogin": ("prohibit-password", "yes", "no", "forced-commands-only"),
    "permitemptypasswords": ("no", "yes"),
    "maxauthtries": ("6", "3", "4", "5"),
}
"""Values, the first of which is the server's default."""

_CRITERIA = (
    *("all", "User root", "User backup", "User ro*,!backup", "User *,!root", "User !backup"),
    *("User=backup", 'User "root"', "Address 10.0.0.0/8", "Host *.example.org", "user r??t"),
    *("User root Address 10.0.0.0/8", "Host a.* User root", "Group root", "Group staff,!root"),
    *("User ROOT", "Address *", "User backup Host *.example.org", "Group !root,*"),
)


class Folder:
    """A folder of the host as a server's files."""

    def try_text(self, path: str) -> str | None:
        """A file's text."""
        return Path(path).read_text() if Path(path).is_file() else None

    def glob(self, directory: str, pattern: str = "*") -> list[str]:
        """Entries of a directory."""
        found = Path(directory).glob(pattern) if Path(directory).is_dir() else ()
        return sorted(map(str, found))


def _setting(pick: random.Random) -> str:
    name = pick.choice(list(_SETTINGS))
    value = pick.choice(_SETTINGS[name])
    spelled = pick.choice((name, name.upper(), f'"{name}"', f"  {name}"))
    quoted = pick.choice((value, f'"{value}"', f"'{value}'", f"{value} # {value}"))
    # After a quoted keyword "=" is part of the value, which the server then refuses.
    between = pick.choice((" ", "=", " = ", "  ", "\t") if '"' not in spelled else (" ", "\t"))
    return f"{spelled}{between}{quoted}"


def _lines(pick: random.Random, folder: Path, name: str, depth: int = 0) -> list[str]:
    lines = []
    for number in range(pick.randint(1, 7)):
        kind = pick.random()
        if kind < 0.55:
            lines.append(_setting(pick))
        elif kind < 0.85:
            lines.append(f"Match {pick.choice(_CRITERIA)}{pick.choice(('', ' # why'))}")
        elif depth < 2:
            inner = folder / f"{name}-{number}.d"
            for part in ("a", "b"):
                (inner / part).mkdir(parents=True)
                text = _lines(pick, folder, f"{name}-{number}{part}", depth + 1)
                (inner / part / "10.conf").write_text("\n".join(text) + "\n")
            lines.append(f"Include {inner}/{pick.choice(('*', '[ab]', 'b', '?'))}/*.conf")
    return lines


def _reachable(lines: Sequence[SshdLine], user: str, name: str) -> set[str]:
    flags = in_force(lines, SshLogin(user, (user,)))
    return {
        line.value for line, flag in zip(lines, flags, strict=True) if flag and line.name == name
    }


def test_the_settings_that_decide_are_those_of_the_server_itself(tmp_path: Path) -> None:
    pick = random.Random(22)  # noqa: S311 - the same configurations every time
    cases, questions = [], []
    for number in range(CONFIGURATIONS):
        config = tmp_path / f"config-{number}"
        config.write_text("\n".join(_lines(pick, tmp_path, str(number))) + "\n")
        option = pick.choice(((), (), ("-o", _setting(pick).strip())))
        lines = [*sshd_command.parse(list(option), "unit").lines]
        lines += SshdReader(Folder()).settings(str(config))
        lines += [SshdLine("default", 0, name, values[0]) for name, values in _SETTINGS.items()]
        for user, logins in _LOGINS.items():
            cases.append((config, lines, user))
            questions += [Question(config, login, option) for login in logins]
    (tmp_path / "sshd").mkdir()
    said = iter(answers(questions, tmp_path / "sshd"))
    exact = accepted = 0
    for config, lines, user in cases:
        told = [next(said) for _ in _LOGINS[user]]
        for name in _SETTINGS if None not in told else ():
            wanted = {_plain(one[name]) for one in told if one}
            got = _reachable(lines, user, name)
            assert wanted <= got, (config.read_text(), user, name)
            accepted += 1
            exact += wanted == got
    assert accepted > CONFIGURATIONS * 5, "the server refuses what this test generates"
    assert exact > accepted * 0.97, (
        f"{accepted - exact} of {accepted} name values that never decide"
    )


def _plain(value: str) -> str:
    return "prohibit-password" if value == "without-password" else value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a  b\tc", ["a", "b", "c"]),
        ("'a b' \"c d\" # e", ["a b", "c d"]),
        (r"a\ b \"c\" \d", ["a b", '"c"', r"\d"]),
        ("", []),
        ("'never ends", ["never ends"]),
    ],
)
def test_arguments_lose_their_quotes(text: str, words: list[str]) -> None:
    assert arguments(text) == words


def test_patterns_take_linear_time() -> None:
    assert not matches("a" * 500, "*a" * 500 + "b")
    assert matches("root", "!backup,r*t")


def test_thousands_of_blocks_are_compared_in_time() -> None:
    lines = [
        SshdLine("f", number, "maxauthtries", "1", (f"Address 10.0.{number}.* User u{number}",))
        for number in range(20_000)
    ]
    assert all(in_force(lines, SshLogin()))


@given(st.text(alphabet="matchincludeuserroot =\"'\\*!,#\n\t", max_size=200))
def test_any_text_gives_settings(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any-sshd-text"
    path.write_text(text)
    lines = list(SshdReader(Folder()).settings(str(path)))
    assert len(in_force(lines, SshLogin("root"))) == len(lines)


def test_globs_in_every_part_of_a_path_have_an_end(tmp_path: Path) -> None:
    for one in range(12):
        for other in range(12):
            (tmp_path / "etc/ssh" / f"{one}" / f"{other}" / "x").mkdir(parents=True)
            for last in range(12):
                (tmp_path / f"etc/ssh/{one}/{other}/{last}.conf").write_text("Include */*/*\n")
    (tmp_path / "etc/ssh/sshd_config").write_text("Include */*/*\n")
    with (
        Root("case", str(tmp_path)) as root,
        pytest.raises(Exception, match="files include each other without end"),
    ):
        list(collect.collect(root))


def test_a_server_without_units_takes_its_options_from_its_script(tmp_path: Path) -> None:
    (tmp_path / "etc/conf.d").mkdir(parents=True)
    (tmp_path / "etc/conf.d/sshd").write_text('SSHD_OPTS="-o PermitRootLogin=yes"\n')
    with Root("case", str(tmp_path)) as root:
        (command,) = sshd_command.commands(Reader(root))
    assert [(line.path, line.value) for line in command.lines] == [("permitrootlogin", "yes")]


def test_options_with_which_no_server_starts_are_none() -> None:
    assert sshd_command.parse(["-Z", "-o", "PermitRootLogin=yes"], "unit") == sshd_command.Command()
