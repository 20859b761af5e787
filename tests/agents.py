"""Other agents in the place of ours."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import pytest

from fleetscan.appliance import initrd


@contextlib.contextmanager
def agent_of(files: Mapping[str, bytes]) -> Iterator[None]:
    """Every appliance that is booted meanwhile has these files for its agent."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(initrd, "agent_files", lambda: dict(files))
        _forget()
        try:
            yield
        finally:
            _forget()


def _forget() -> None:
    initrd.agent_archive.cache_clear()
    initrd.agent_id.cache_clear()
