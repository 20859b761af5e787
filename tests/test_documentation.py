"""What the documentation names exists; tests/vm/test_documented_commands.py runs its commands."""

from __future__ import annotations

import re

import pytest

from tests import documentation
from tests.conftest import PROJECT
from tests.documentation import Written
from tests.scanner import command_reference

COMMANDS = dict(command_reference.commands())
GROUPS = {"fleetscan", "fleetscan rules", "fleetscan appliance"}
OPTIONS = {option for command in COMMANDS.values() for option in command_reference.options(command)}
PAGES = documentation.pages()

OTHERS = {
    "CONTRIBUTING.md": {"--strict"},  # mypy's
    # Dask, Podman, systemd
    "examples/README.md": {"--memory-limit", "--security-opt", "--now"},
    "appliance/README.md": {"--memory-limit"},  # Dask's
    "reports/README.md": {"--stream"},  # jq's
    "rules/packs/linux-baseline/README.md": {"--comment"},  # iptables', in a pattern
    "scanner/tables/README.md": {"--token"},  # an example of a secret
}
"""Options of other programs, where no command around them says whose they are."""

OURS = re.compile(r"fleetscan(?= [a-z])")


def used(one: Written) -> tuple[str, list[str]]:
    """The command that a text names, and the options that it gives to it."""
    words = documentation.words(one.text)
    path = words[0]
    for word in words[1:]:
        if f"{path} {word}" not in {*COMMANDS, *GROUPS}:
            break
        path = f"{path} {word}"
    given = [word.partition("=")[0] for word in words if re.match(r"--?[a-zA-Z]", word)]
    return path, given


def unknown(one: Written) -> list[str]:
    """What a text that begins with ``fleetscan`` uses and the command line lacks."""
    path, given = used(one)
    if path in GROUPS:
        return [one.text] if re.match(rf"{path} [a-z]", one.text) else []
    known = command_reference.options(COMMANDS[path])
    return [option for option in given if option not in known and not re.fullmatch("-v+", option)]


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_their_options_exist(page: str) -> None:
    texts = [one for one in documentation.commands() if one.page == page]
    texts += documentation.spans(page)
    ours = [one for one in texts if OURS.match(one.text)]
    assert {str(one): unknown(one) for one in ours if unknown(one)} == {}


@pytest.mark.parametrize("page", PAGES)
def test_options_named_by_themselves_exist(page: str) -> None:
    known = OPTIONS | OTHERS.get(page, set()) | options_of_scripts(page)
    named = [
        (str(span), option)
        for span in documentation.spans(page)
        if not OURS.match(span.text) and span.text.split()[0] not in documentation._PROGRAMS
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", span.text)
    ]
    assert [one for one in named if one[1] not in known] == []


def options_of_scripts(page: str) -> set[str]:
    """Options that scripts and modules beside the page take."""
    folder = (PROJECT / page).parent
    sources = [*folder.glob("*.sh"), *folder.glob("*.py")] if folder != PROJECT else []
    return {word for path in sources for word in re.findall(r"--[a-z][a-z-]*", path.read_text())}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    dead = []
    for link in documentation.links(page):
        path, _, anchor = link.text.partition("#")
        if "://" in path:
            continue
        target = (PROJECT / page).parent / path if path else PROJECT / page
        heading = not anchor or anchor in documentation.anchors(target)
        if not (target.exists() and heading):
            dead.append(str(link))
    assert dead == []


@pytest.mark.parametrize(
    "text", ["fleetscan scna x", "fleetscan scan x --fials all", "fleetscan rules lst"]
)
def test_what_does_not_exist_is_noticed(text: str) -> None:
    assert unknown(Written("README.md", 1, text))
