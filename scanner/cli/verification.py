"""``fleetscan runs verify``: whether stored runs are what they were."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from fleetscan.scanner.cli import exits, output

if TYPE_CHECKING:
    from fleetscan.scanner.store.runs import Store


def verify_runs(store: Store, run_id: str | None, output_format: output.Output) -> int:
    """Print what each run's parts are in comparison with its run file; the exit status."""
    from fleetscan.scanner.store.verify import verify

    found = list(verify(store, run_id))
    is_sound = not any(one.problems for one in found)
    if output_format is output.Output.JSON:
        output.json_object({"ok": is_sound, "runs": [asdict(one) for one in found]})
    else:
        rows = [
            (one.run_id, one.files, one.bytes, "damaged" if one.problems else "ok") for one in found
        ]
        output.table(("run", "files", "bytes", ""), rows)
        for one in found:
            for problem in one.problems:
                output.line(f"{one.run_id}: {problem}")
            if one.unproven:
                output.line(f"{one.run_id}: {one.unproven} files have no checksum to compare with")
    return exits.FINE if is_sound else exits.FAILED
