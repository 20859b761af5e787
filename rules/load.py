"""Finding and reading packs, waivers and configuration, all problems reported together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from fleetscan.appliance.ground.errors import UsageError
from fleetscan.rules import source
from fleetscan.rules.model import Config, Pack, PackInfo, Rule, Waiver
from fleetscan.rules.source import Problem, SourceError

PACKS = Path(__file__).parent / "packs"
"""Where the packs lie that come with fleetscan."""


def load_packs(sources: Sequence[str | Path] = ()) -> tuple[Pack, ...]:
    """Read packs.

    Args:
        sources: names of packs that come with fleetscan, or folders; empty for all that come
            with it.

    Raises:
        UsageError: some file is wrong; every problem of every file, with file and line.
    """
    folders = [_folder(item) for item in sources] or sorted(
        path.parent for path in PACKS.glob("*/pack.yaml")
    )
    problems: list[Problem] = []
    packs = [_load_pack(folder, problems) for folder in folders]
    problems += _name_problems(packs)
    if problems:
        raise source.usage_error(problems)
    return tuple(pack for pack, _ in packs if pack)


def load_waivers(path: Path) -> tuple[Waiver, ...]:
    """Read a waiver file: a list of waivers.

    Raises:
        UsageError: it is wrong; every problem with its line.
    """
    try:
        return tuple(source.read(path).parse(list[Waiver]))
    except SourceError as error:
        raise source.usage_error(error.problems) from error


def load_config(path: Path, packs: Iterable[Pack]) -> Config:
    """Read a site's configuration of some packs.

    Raises:
        UsageError: it is wrong, or names rules or parameters that the packs do not have.
    """
    try:
        document = source.read(path)
        config = document.parse(Config)
        if problems := _config_problems(document, config, packs):
            raise SourceError(problems)
    except SourceError as error:
        raise source.usage_error(error.problems) from error
    return config


def _config_problems(
    document: source.Document, config: Config, packs: Iterable[Pack]
) -> list[Problem]:
    rules = {rule.id: rule for pack in packs for rule in pack.rules}
    problems = []
    for rule_id, values in config.parameters.items():
        if rule_id not in rules:
            problems.append(document.problem(("parameters", rule_id), f"no rule {rule_id}"))
            continue
        defaults = rules[rule_id].parameters
        for name, value in values.items():
            if name not in defaults:
                message = f"{rule_id} has no parameter {name}"
            elif type(value) is not type(defaults[name]):
                message = f"{name} must be of the type of its default, {defaults[name]!r}"
            else:
                continue
            problems.append(document.problem(("parameters", rule_id, name), message))
    return problems


def _folder(item: str | Path) -> Path:
    for folder in (Path(item), PACKS / item):
        if (folder / "pack.yaml").is_file():
            return folder
    known = sorted(path.parent.name for path in PACKS.glob("*/pack.yaml"))
    raise UsageError(
        f"{item} is neither a pack nor a folder with a pack.yaml",
        hint=f"packs that come with fleetscan: {', '.join(known)}",
    )


_Located = tuple[Rule, Problem]
"""A rule, and a problem without message that tells where it stands."""


def _load_pack(folder: Path, problems: list[Problem]) -> tuple[Pack | None, list[_Located]]:
    info: PackInfo | None = None
    located: list[_Located] = []
    for path in sorted(folder.glob("*.yaml")):
        try:
            if path.name == "pack.yaml":
                info = source.read(path).parse(PackInfo)
            else:
                located += _load_rules(source.read(path), problems)
        except SourceError as error:
            problems += error.problems
    if info is None:
        return None, located
    rules = tuple(sorted((rule for rule, _ in located), key=lambda rule: rule.id))
    return Pack(folder.resolve().name, folder, info, rules), located


def _load_rules(document: source.Document, problems: list[Problem]) -> list[_Located]:
    found = []
    for part in document.items():
        try:
            found.append((part.parse(Rule), part.problem(("id",), "")))
        except SourceError as error:
            problems += error.problems
    return found


def _name_problems(packs: Iterable[tuple[Pack | None, list[_Located]]]) -> list[Problem]:
    first: dict[str, Problem] = {}
    problems = []
    for _, located in packs:
        for rule, place in located:
            if rule.id in first:
                message = f"id: {rule.id} is taken by {first[rule.id].path}:{first[rule.id].line}"
                problems.append(Problem(place.path, place.line, message))
            first.setdefault(rule.id, place)
    return problems
