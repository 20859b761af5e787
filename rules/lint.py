"""What a pack's author forgot, although its rules can be evaluated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fleetscan.rules.cases import CaseOutcome
from fleetscan.rules.load import PACKS
from fleetscan.rules.model import Pack, Rule
from fleetscan.scanner.tables.results.spec import ResultState


def is_own(pack: Pack) -> bool:
    """Whether a pack comes with fleetscan, which takes what is missing for an error."""
    return pack.folder.resolve().parent == PACKS.resolve()


def missing(pack: Pack, outcomes: Sequence[CaseOutcome]) -> Iterator[str]:
    """What a pack's rules do not say, or have no case for.

    Args:
        pack: the pack.
        outcomes: of its cases.
    """
    for rule in pack.rules:
        if rule.absent is None:
            yield f"{rule.id}: absent is not stated: is it pass, fail, notapplicable or unknown?"
        elif not _has_case(rule, [one for one in outcomes if one.rule_id == rule.id]):
            yield f"{rule.id}: no case with absent: true shows that it is {rule.absent}"


def _has_case(rule: Rule, outcomes: Sequence[CaseOutcome]) -> bool:
    wanted = rule.absent or ResultState.PASS
    if rule.informational and wanted is ResultState.FAIL:
        wanted = ResultState.INFORMATIONAL
    return any(one.absent and set(one.states) == {wanted} for one in outcomes)
