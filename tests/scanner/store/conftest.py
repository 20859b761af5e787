from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def no_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forcing data to disk guards against power failures alone, and takes most of a test."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
