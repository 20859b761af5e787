"""The rule reference: Markdown made from the packs, so that it cannot drift from them."""

from __future__ import annotations

from collections.abc import Iterator

from fleetscan.rules.model import Pack, Rule


def render_pack(pack: Pack) -> str:
    """A pack's README.md: a table of its rules, then each in full."""
    return "\n".join(_pack_lines(pack)) + "\n"


def _pack_lines(pack: Pack) -> Iterator[str]:
    yield f"# {pack.info.title}"
    yield ""
    yield pack.info.description.strip()
    yield ""
    if pack.info.version:
        yield f"Version {pack.info.version}."
        yield ""
    if pack.info.applies_to:
        yield f"For systems where `{pack.info.applies_to}`; not applicable to others."
        yield ""
    yield "Made by `python -m tests.regenerate` from the rule files."
    yield ""
    yield "| rule | severity | what must hold |"
    yield "| --- | --- | --- |"
    for rule in _by_severity(pack):
        yield f"| [{rule.id}](#{rule.id}) | {rule.severity} | {_cell(rule.title)} |"
    for rule in pack.rules:
        yield ""
        yield from _rule_lines(rule)


def _by_severity(pack: Pack) -> list[Rule]:
    return sorted(pack.rules, key=lambda rule: (rule.severity.rank, rule.id))


def _rule_lines(rule: Rule) -> Iterator[str]:
    yield f"## {rule.id}"
    yield ""
    yield f"**{rule.title}.** Severity {rule.severity}{_kinds(rule)}."
    yield ""
    yield rule.rationale
    yield ""
    if rule.failing:
        yield f"*Where it fails:* {rule.failing}."
        yield ""
    yield f"*What to do:* {rule.remediation}"
    yield ""
    yield f"* reads {', '.join(f'`{name}`' for name in sorted(rule.compile().tables))}"
    if rule.applies_to:
        yield f"* applies where `{' '.join(rule.applies_to.split())}`"
    if rule.absent:
        yield f"* where there is none of what it is about: {rule.absent}"
    for name, value in sorted(rule.parameters.items()):
        yield f"* parameter `{name}`, default {_value(value)}"
    for catalogue, entries in sorted(rule.references.items()):
        yield f"* {catalogue}: {'; '.join(entries)}"


def _kinds(rule: Rule) -> str:
    kinds = ["informational"] * rule.informational + ["compares the whole fleet"] * rule.fleet
    return "".join(f", {kind}" for kind in kinds)


def _value(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(f"`{item}`" for item in value) or "empty"
    return f"`{value}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
