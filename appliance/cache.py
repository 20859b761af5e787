"""Where appliances and templates are kept, and that nobody else could have changed them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from fleetscan.appliance.ground.errors import ApplianceError
from fleetscan.appliance.host import trust

_OWN_CACHE = "set FLEETSCAN_CACHE to a directory of your own"


def cache_directory() -> Path:
    """Where appliances and templates are kept: FLEETSCAN_CACHE, else the user's cache."""
    if chosen := os.environ.get("FLEETSCAN_CACHE"):
        return Path(chosen).absolute()
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home.absolute() / "fleetscan"


@contextlib.contextmanager
def trusted(place: Path) -> Iterator[None]:
    """Use a directory of the cache only when nobody else can write to it.

    Raises:
        ApplianceError: other users could have changed it, or what the block finds in it.
    """
    try:
        trust.check_directory(place)
        yield
    except trust.UntrustedError as error:
        hint = f"{error.hint}; or {_OWN_CACHE}" if error.hint else _OWN_CACHE
        raise ApplianceError(f"the cache is not used: {error}", hint=hint) from error
