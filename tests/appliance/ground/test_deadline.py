from __future__ import annotations

import time

import pytest

from fleetscan.appliance.ground.deadline import Deadline
from fleetscan.appliance.ground.errors import DeadlineError


def test_what_is_left_is_positive_and_shrinks() -> None:
    deadline = Deadline(5, "the work")
    first = deadline.left()
    time.sleep(0.01)
    assert 0 < deadline.left() < first <= 5


@pytest.mark.parametrize("seconds", [0, -1, 0.001])
def test_when_none_is_left_it_says_what_did_not_finish(seconds: float) -> None:
    deadline = Deadline(seconds, "the work")
    time.sleep(0.002)
    with pytest.raises(DeadlineError, match=f"the work did not finish within {seconds:g} s"):
        deadline.left()


def test_a_missed_deadline_is_a_timeout_to_others() -> None:
    assert isinstance(Deadline(1, "x").missed(), TimeoutError)


def test_a_part_ends_when_it_must_or_when_the_whole_does() -> None:
    whole = Deadline(5, "the whole")
    assert whole.within(60, "a long part") is whole
    part = whole.within(1, "a short part")
    assert part.left() <= 1
    assert "a short part did not finish within 1 s" in str(part.missed())


def test_no_part_of_a_missed_deadline_begins() -> None:
    whole = Deadline(0, "the whole")
    with pytest.raises(DeadlineError, match="the whole"):
        whole.within(1, "a part")
