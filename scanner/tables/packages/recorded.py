"""Numbers as package databases record them."""

from __future__ import annotations

LATEST = 1 << 37
"""Seconds since 1970 below which a recorded time counts; in the year 6325."""


def number(text: str | None, largest: int = (1 << 63) - 1) -> int | None:
    """A non-negative decimal number; None for anything else or beyond ``largest``."""
    if not text or not text.isascii() or not text.isdigit() or len(text) > 19:
        return None
    value = int(text)
    return value if value <= largest else None
