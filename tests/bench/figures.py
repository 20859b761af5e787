"""Figures as people and programs read them, and what they were measured on."""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path

from fleetscan.appliance import accelerator, built


@dataclass(frozen=True)
class Spread:
    """Several measurements of one thing, in its unit."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of at least one value."""
        return cls(statistics.median(values), min(values), max(values))

    def cells(self, digits: int = 2) -> list[str]:
        """Median, least and most as text."""
        return [f"{value:.{digits}f}" for value in (self.median, self.least, self.most)]


def chosen_accelerator() -> str:
    """What appliances run on here: kvm or tcg."""
    return accelerator.choose(built.find())


def host() -> str:
    """The machine in a few words: what figures depend on, and nothing that names it."""
    emulated = "software emulation" if chosen_accelerator() == "tcg" else "KVM"
    command = ["qemu-system-x86_64", "--version"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    version = re.search(r"version (\d+\.\d+)", text)
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores, {emulated}, QEMU {version[1] if version else 'unknown'}"


def write_json(path: Path, content: object) -> None:
    """Write figures, dataclasses included, as JSON."""
    path.write_text(json.dumps(content, indent=1, default=_plain) + "\n")


def _plain(value: object) -> object:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)
