"""``fleetscan rules``: what rules there are, what one says, and whether they hold their cases."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fleetscan.appliance.ground.errors import UsageError
from fleetscan.scanner.cli import exits, output
from fleetscan.scanner.cli.app import app
from fleetscan.scanner.cli.options import OutputFormat, Packs, Verbose, examples

if TYPE_CHECKING:
    from fleetscan.rules.model import Pack, Rule

_log = logging.getLogger(__name__)

rules = typer.Typer(help="List, show and test rules.", no_args_is_help=True)
app.add_typer(rules, name="rules")


@rules.command("list", epilog=examples("fleetscan rules list --pack linux-baseline"))
def list_rules(
    pack: Packs = None,
    output_format: OutputFormat = output.Output.TEXT,
    verbose: Verbose = 0,
) -> int:
    """List the rules of packs."""
    from fleetscan.rules.load import load_packs

    packs = load_packs(pack or ())
    if output_format is output.Output.JSON:
        output.json_object([_as_json(one, rule) for one in packs for rule in one.rules])
    else:
        rows = [(one.name, r.id, r.severity, r.title) for one in packs for r in one.rules]
        output.table(("pack", "rule", "severity", "title"), rows)
    return exits.FINE


@rules.command(epilog=examples("fleetscan rules show accounts-only-root-uid-zero"))
def show(
    rule_id: Annotated[str, typer.Argument(metavar="RULE")],
    pack: Packs = None,
    output_format: OutputFormat = output.Output.TEXT,
    verbose: Verbose = 0,
) -> int:
    """Show what a rule requires, why, and what to do if it fails."""
    from fleetscan.rules.load import load_packs

    for one in load_packs(pack or ()):
        for rule in one.rules:
            if rule.id == rule_id:
                if output_format is output.Output.JSON:
                    output.json_object(_as_json(one, rule))
                else:
                    _print_rule(one, rule)
                return exits.FINE
    raise UsageError(f"there is no rule {rule_id!r}", hint="`fleetscan rules list` lists them")


def _as_json(pack: Pack, rule: Rule) -> dict[str, Any]:  # Any: JSON, as pydantic makes it
    return {"pack": pack.name, **rule.model_dump(mode="json", exclude_none=True)}


def _print_rule(pack: Pack, rule: Rule) -> None:
    output.line(f"{rule.id} ({rule.severity}, {pack.name}): {rule.title}")
    parts = {"why": rule.rationale, "what to do": rule.remediation}
    if rule.applies_to:
        parts["applies to"] = rule.applies_to
    parts |= {name: ", ".join(entries) for name, entries in rule.references.items()}
    parts["violations"] = rule.compile().violations.sql
    for name, text in parts.items():
        output.heading(name)
        for line in text.splitlines():
            output.line(f"  {line}")


@rules.command("test", epilog=examples("fleetscan rules test --pack ./our-rules"))
def run_tests(
    pack: Packs = None,
    output_format: OutputFormat = output.Output.TEXT,
    verbose: Verbose = 0,
) -> int:
    """Run the rules' own cases.

    Cases that do not get the states they expect are listed. Rules that do not say what the absence
    of what they are about means, or have no case for it, are warned about.
    """
    from fleetscan.rules import lint
    from fleetscan.rules.cases import run_cases
    from fleetscan.rules.load import load_packs

    packs = load_packs(pack or ())
    outcomes = run_cases(packs)
    failed = [outcome for outcome in outcomes if not outcome.passed]
    refused = False
    for one_pack in packs:
        for text in lint.missing(one_pack, outcomes):
            _log.warning("%s: %s", one_pack.name, text)
            refused = refused or lint.is_own(one_pack)
    if output_format is output.Output.JSON:
        output.json_object([asdict(outcome) for outcome in outcomes])
    else:
        for one in failed:
            output.line(f"{one.path}:{one.line}: {one.rule_id}: {one.name}: {one.problem}")
        output.line(f"{len(outcomes) - len(failed)} of {len(outcomes)} cases passed")
    return exits.FAILED if failed or refused else exits.FINE
