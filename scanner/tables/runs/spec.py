"""One row a run: what it was."""

from __future__ import annotations

from fleetscan.appliance.ground.schema import U64, Origin, Scope, Timestamp, column, table


@table(scope=Scope.FLEET, origin=Origin.DERIVED)
class RunRow:
    """The runs of the facts directory.

    The view shows the run that the other views show, and `history.runs` all visible runs.
    """

    run_id: str = column("The run; ids sort by time.", example="20260131T020304Z-3f9a1c")
    started: Timestamp = column("When it began.")
    finished: Timestamp = column("When it became visible.")
    interrupted: bool = column("Whether it was published before all of its machines were finished.")
    version: str = column("The version of fleetscan that finished it.", example="0.1.0")
    machines: U64 = column("Machines planned.")
    ok: U64 = column("Machines whose outcome is ok.")
    partial: U64 = column("Machines whose outcome is partial.")
    failed: U64 = column("Machines whose outcome is failed.")
