from __future__ import annotations

import copy
import inspect
import pickle

import pytest

from fleetscan.appliance.ground import errors
from fleetscan.appliance.ground.errors import (
    CommandError,
    DeadlineError,
    FleetscanError,
    GuestError,
    UsageError,
)

SAMPLES = [
    FleetscanError("what and why", hint="what to do"),
    UsageError("bad option"),
    errors.PreflightError("no image", hint="name another"),
    errors.LockedError("no key", hint="give one"),
    errors.ApplianceError("it stopped"),
    errors.ForeignFileError("it opened /etc/shadow", hint="see who writes"),
    GuestError("OSError", "no disk", "line 1"),
    errors.WireError("no frame"),
    DeadlineError("too long"),
    errors.RowError("bad row"),
    errors.StoreError("disk full"),
    CommandError("building", ["mmdebstrap", "a b"], 25, "out\n", "err\n", hint="see above"),
]


def test_there_is_a_sample_of_every_error() -> None:
    kinds = {kind for _, kind in inspect.getmembers(errors, inspect.isclass)}
    assert {type(sample) for sample in SAMPLES} == {
        kind for kind in kinds if issubclass(kind, Exception)
    }


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("through", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy])  # noqa: S301
def test_an_error_crosses_processes_with_all_it_carries(
    error: FleetscanError, through: object
) -> None:
    assert callable(through)
    again = through(error)
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)
    assert isinstance(again, FleetscanError)


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_may_be_raised_again_where_it_arrives(error: FleetscanError) -> None:
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    with pytest.raises(type(error)) as caught:
        raise again
    assert caught.value.hint == error.hint


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (UsageError("x"), ValueError),
        (DeadlineError("x"), TimeoutError),
        (errors.RowError("x"), ValueError),
    ],
)
def test_errors_are_the_natural_builtin_too(error: Exception, builtin: type[Exception]) -> None:
    assert isinstance(error, builtin)


def test_a_failed_command_is_told_with_arguments_status_and_both_outputs() -> None:
    error = CommandError("building", ["mmdebstrap", "a b"], 25, "the output\n", "the reason\n")
    assert str(error) == (
        "building failed with status 25: mmdebstrap 'a b'\nthe output\nthe reason"
    )
    assert (error.argv, error.returncode) == (("mmdebstrap", "a b"), 25)


def test_a_guests_traceback_is_kept_and_not_shown() -> None:
    error = GuestError("KeyError", "", "secret lines")
    assert str(error) == "KeyError"
    assert error.remote_traceback == "secret lines"


def test_an_error_in_one_line_has_its_hint_in_brackets() -> None:
    assert FleetscanError("no image", hint="name another").told == "no image (name another)"
    assert FleetscanError("no image").told == "no image"
