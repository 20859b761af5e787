"""One row a rule, machine and root: what the rule found there."""

from __future__ import annotations

import datetime as dt

from fleetscan.appliance.ground.schema import U64, Choice, Origin, Scope, Timestamp, column, table


class Severity(Choice):
    """How grave it is that a rule fails, the gravest first."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"
    INFO = "info"


class ResultState(Choice):
    """What a rule found, with those first that somebody has to look at.

    XCCDF 1.2's results (NISTIR 7275 r4, table 26, without ``fixed``), and ``waived``.
    """

    FAIL = "fail"
    ERROR = "error"
    UNKNOWN = "unknown"
    NOTCHECKED = "notchecked"
    WAIVED = "waived"
    PASS = "pass"  # noqa: S105 - a state, no password
    INFORMATIONAL = "informational"
    NOTAPPLICABLE = "notapplicable"
    NOTSELECTED = "notselected"


DECIDED = (ResultState.PASS, ResultState.FAIL, ResultState.WAIVED)
"""States that are a verdict; the pass rate is a share of these. A waived check has failed."""

UNDECIDED = (ResultState.ERROR, ResultState.UNKNOWN, ResultState.NOTCHECKED)
"""States of checks that should have had a verdict and have none; never part of the pass rate."""


@table(scope=Scope.MACHINE, origin=Origin.DERIVED)
class Result:
    """What each rule found on each machine and operating system.

    `fleetscan check` writes these rows, a file a pack: to check a run again replaces the results of
    the packs that are checked, and leaves those of others. A machine that failed, or on which no
    operating system was found, has one row in all, with state `error`, `rule_id` `machine-readable`
    and `pack` `fleetscan`: which rules would be about it is not known.
    """

    root: str | None = column(
        "The root that was judged; null where no operating system was found.",
    )
    pack: str = column("The rule's pack.", example="linux-baseline")
    pack_version: str | None = column("The pack's version, if it states one.", example="0.1.0")
    rule_id: str = column("The rule.", example="accounts-without-password")
    rule_digest: str = column(
        "Digest of the rule and the site's parameters: where it differs, so did what was judged."
    )
    title: str = column("What must hold.")
    severity: Severity = column("How grave a failure is.")
    state: ResultState = column("What the rule found; the rules' README defines the states.")
    violations: U64 = column("Offending rows, all of them counted.")
    evidence: tuple[str, ...] = column(
        "The first of the offending rows as JSON objects.",
        example='{"name": "root", "uid": 0}',
    )
    message: str | None = column(
        "Why the state is neither pass nor a plain fail.",
    )
    checked: Timestamp = column("The time of evaluation; expiry and end of life are judged at it.")
    waiver_justification: str | None = column(
        "Why the failure is accepted, or was until the waiver expired.",
    )
    waiver_expires: dt.date | None = column("The last day on which the waiver counts.")
