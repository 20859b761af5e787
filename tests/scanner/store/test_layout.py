from __future__ import annotations

import datetime as dt

from fleetscan.scanner.store import layout


def test_runs_of_one_second_sort_in_the_order_in_which_they_began() -> None:
    begun = [dt.datetime(2026, 1, 31, 2, 3, 4, 250 * number, dt.UTC) for number in range(4000)]
    ids = [layout.new_run_id(when) for when in begun]

    assert ids == sorted(ids)
    assert all(map(layout.is_run_id, ids))
