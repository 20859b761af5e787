"""One row a rule, machine and root on which the rule has ever failed: since when, until when."""

from __future__ import annotations

from fleetscan.appliance.ground.schema import Origin, Scope, Timestamp, column, table
from fleetscan.scanner.tables.results.spec import ResultState, Severity


@table(scope=Scope.MACHINE, origin=Origin.DERIVED)
class Failure:
    """Failures over all runs that were checked: first seen, failing since, fixed.

    Made from `history.results`, and found in the schema `history` alone. A waived result counts as
    a failure. A result without a verdict, such as unknown or error, neither begins nor ends one.
    Times are those at which runs began.
    """

    root: str | None = column("The root; null where no operating system was found.")
    pack: str = column("The rule's pack.", example="linux-baseline")
    rule_id: str = column("The rule.", example="accounts-without-password")
    title: str = column("What must hold, as the newest result says.")
    severity: Severity = column("How grave the failure is, as the newest result says.")
    state: ResultState = column("The newest result that is a verdict, or not applicable.")
    first_seen: Timestamp = column("The first run in which it failed.")
    failing_since: Timestamp | None = column(
        "The run in which the present failure began; null if it does not fail now."
    )
    last_seen: Timestamp = column("The last run in which it failed.")
    fixed: Timestamp | None = column(
        "The first run in which it no longer failed; null if it fails now."
    )
