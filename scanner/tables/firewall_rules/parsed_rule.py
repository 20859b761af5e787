"""What the parsers of firewall files give: a rule without its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Direction = Literal["in", "out", "forward"]
Action = Literal["allow", "deny", "reject", "log", "other"]
Kind = Literal["rule", "policy"]


@dataclass
class ParsedRule:
    """A rule, or a default policy; the columns of the table that bear these names."""

    chain: str | None
    direction: Direction | None
    action: Action
    text: str
    kind: Kind = "rule"
    protocol: str | None = None
    source: str | None = None
    destination: str | None = None
    port: str | None = None
    interface: str | None = None
