"""``fleetscan runs verify``: whether stored runs are what they were."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from fleetscan.scanner.cli import exits, output

if TYPE_CHECKING:
    from fleetscan.scanner.store.runs import Store
    from fleetscan.scanner.store.verify import Verified


def verify_runs(store: Store, run_id: str | None, output_format: output.Output) -> int:
    """Print what each run's parts are in comparison with its run file; the exit status."""
    from fleetscan.scanner.store import mirror

    mirror.fetch_runs(store.path)
    chosen = store.run_ids() if run_id is None else [run_id]
    found = [one for chosen_id in chosen for one in _verified(store, chosen_id)]
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


def _verified(store: Store, run_id: str) -> Iterator[Verified]:
    """What is found of a run; of a remote one, what is there now."""
    from fleetscan.scanner.store import mirror
    from fleetscan.scanner.store.remote import shown
    from fleetscan.scanner.store.verify import verify

    mirror.fetch_to_verify(store.path, run_id)
    for one in verify(store, run_id):
        told = (text.replace(str(store.path), shown(store.path)) for text in one.problems)
        yield replace(one, problems=tuple(told))
        if one.problems:
            mirror.forget(store.path, {run_id})
