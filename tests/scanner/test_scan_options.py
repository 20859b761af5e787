"""An option is one field: plan, wire, command line and reuse follow from it."""

from __future__ import annotations

import dataclasses
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast

import pytest
import typer
from typer.testing import CliRunner

from fleetscan.appliance.ground import wire
from fleetscan.appliance.ground.option import Option, from_wire, option, options_of
from fleetscan.appliance.ground.options import FactOptions
from fleetscan.appliance.guest import __main__ as agent
from fleetscan.appliance.guest.machine import DirectoryMachine
from fleetscan.scanner import tables
from fleetscan.scanner.cli.app import app
from fleetscan.scanner.cli.resume import Given, settings_of
from fleetscan.scanner.cli.scan_options import takes_options
from fleetscan.scanner.inspect import inspect_directory
from fleetscan.scanner.options import ScanOptions, decisive, from_plan, to_plan
from fleetscan.scanner.sources.volume_keys import KeySource
from fleetscan.scanner.store.staging import MemorySink

OPTIONS = options_of(ScanOptions)
NAMES = [one.name for one in OPTIONS]


@dataclass(frozen=True)
class MoreFacts(FactOptions):
    """The options with a made-up one, stated here and nowhere else."""

    colour: Literal["red", "blue"] = option("red", decides=True, help="The colour to look for.")
    shade: int = option(1, decides=False, metavar="N", minimum=1, help="How dark it may be.")


@dataclass(frozen=True)
class MoreOptions(ScanOptions):
    facts: MoreFacts = field(default_factory=MoreFacts)


BLUE = MoreOptions.of(colour="blue", shade=3)


# -- What each option must say ---------------------------------------------------------------


@pytest.mark.parametrize("one", OPTIONS, ids=NAMES)
def test_each_option_says_whether_it_decides_what_is_found_and_what_it_does(one: object) -> None:
    stated = cast(Option, one.option)  # type: ignore[attr-defined] # of options_of
    assert isinstance(stated.decides, bool)
    assert bool(stated.help) == bool(stated.commands)


def test_a_field_that_says_nothing_is_refused() -> None:
    @dataclass(frozen=True)
    class Silent(FactOptions):
        colour: str = "red"

    @dataclass(frozen=True)
    class Model(ScanOptions):
        facts: Silent = field(default_factory=Silent)

    Model.__annotations__["facts"] = Silent
    with pytest.raises(TypeError, match=r"Silent\.colour is not made by option"):
        options_of(Model)
    with pytest.raises(TypeError, match="decides"):
        option("red")  # type: ignore[call-arg] # what the test is about


def test_a_name_stands_once_in_the_model() -> None:
    @dataclass(frozen=True)
    class Twice(FactOptions):
        live: bool = option(default=False, decides=True)

    @dataclass(frozen=True)
    class Model(ScanOptions):
        facts: Twice = field(default_factory=Twice)

    Model.__annotations__["facts"] = Twice
    with pytest.raises(TypeError, match="live is also in facts"):
        options_of(Model)


def test_options_are_frozen_and_an_unknown_one_is_refused() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ScanOptions().facts.files = "none"  # type: ignore[misc] # what the test is about
    with pytest.raises(TypeError, match="no such scan option: colour"):
        ScanOptions.of(colour="red")


# -- A made-up option ------------------------------------------------------------------------


def test_the_plan_keeps_a_new_option() -> None:
    plan = to_plan(BLUE)
    assert plan["facts"]["colour"] == "blue"
    assert from_plan(plan, MoreOptions()) == BLUE
    with pytest.raises(ValueError, match="does not know"):
        from_plan(plan, ScanOptions())
    with pytest.raises(ValueError, match="red"):
        from_plan(to_plan(MoreOptions.of(colour="green")), MoreOptions())


def test_reuse_sees_a_new_option_that_decides_what_is_found() -> None:
    red, dark = to_plan(MoreOptions()), to_plan(MoreOptions.of(shade=9))
    assert decisive(to_plan(BLUE), MoreOptions) != decisive(red, MoreOptions)
    assert decisive(dark, MoreOptions) == decisive(red, MoreOptions)
    before_it_existed = decisive(to_plan(ScanOptions()), MoreOptions)
    assert before_it_existed != decisive(red, MoreOptions)


def test_a_new_option_goes_to_the_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: dict[str, object] = {}

    def call(self: object, op: str, *_: object, **arguments: object) -> object:
        sent.update({op: arguments["options"]} if op == "discover" else {})
        return {"protocol": wire.PROTOCOL}

    monkeypatch.setattr("fleetscan.scanner.inspect.LocalAppliance.call", call)
    inspect_directory(tmp_path, BLUE, MemorySink())
    assert sent == {"discover": dataclasses.asdict(BLUE.facts)}


def test_the_agent_takes_what_it_is_sent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(agent, "FactOptions", MoreFacts)
    ours, theirs = socket.socketpair()
    machine = DirectoryMachine(str(tmp_path))
    with ours, theirs:
        request = wire.encode_json(
            wire.FrameKind.REQUEST,
            {"op": "discover", "args": {"disks": [], "options": dataclasses.asdict(BLUE.facts)}},
        )
        ours.sendall(request)
        ours.shutdown(socket.SHUT_WR)
        agent.Operations(theirs, machine, tables).serve()
    (root,) = machine.roots
    assert root.options == BLUE.facts
    root.close()
    with pytest.raises(TypeError):
        from_wire(FactOptions, dataclasses.asdict(BLUE.facts))


def test_a_command_takes_a_new_option() -> None:
    own = typer.Typer(rich_markup_mode=None)
    got: list[ScanOptions] = []

    @own.command()
    @takes_options("scan", MoreOptions)
    def scan(*, name: str = "", options: MoreOptions) -> None:
        got.append(options)

    run = CliRunner().invoke
    assert run(own, ["--colour", "blue", "--shade", "3", "--name", "x"]).exit_code == 0
    assert got == [BLUE]
    assert run(own, ["--colour", "green"]).exit_code == 2
    assert run(own, ["--shade", "0"]).exit_code == 2
    assert "The colour to look" in run(own, ["--help"]).output


# -- Plans -----------------------------------------------------------------------------------


def test_a_plan_holds_no_secret_and_nothing_that_grants_anything() -> None:
    key = KeySource("all", "command", "vault -token=hunter2")
    options = ScanOptions.of(keys=(key, key), key_commands=True, allowed_directories=("/srv",))
    settings = settings_of(Given(["/images"], options))
    assert "hunter2" not in repr(settings)
    assert settings["options"]["secrets"] == {"keys": 2}
    assert "key_commands" not in settings["options"]["sources"]
    assert "confinement" not in settings["options"]["appliance"]
    resumed = from_plan(settings["options"], ScanOptions())
    assert (resumed.secrets.keys, resumed.sources.key_commands) == ((), False)


def test_every_option_that_holds_a_secret_is_only_counted() -> None:
    assert {one.name for one in OPTIONS if one.option.planned == "counted"} == {"keys"}
    assert {one.name for one in OPTIONS if one.group == "secrets"} == {"keys"}


# -- Commands --------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["scan", "inspect"])
def test_the_commands_have_the_options_that_the_model_gives_them(command: str) -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined] # click's group
    flags = {flag for parameter in commands[command].params for flag in parameter.opts}
    assert {one.flag for one in OPTIONS if command in one.option.commands} <= flags
    assert not {one.flag for one in OPTIONS if command not in one.option.commands} & flags
