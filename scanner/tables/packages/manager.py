"""Package managers: one module each in ``managers/``, found by listing that folder."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from fleetscan.appliance.ground.problems import Problems
from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.packages.purl import Distribution
from fleetscan.scanner.tables.packages.spec import Package


class PackageManager(Protocol):
    """What a manager's module offers."""

    def is_present(self, root: Root, /) -> bool:
        """Whether the root has its database."""

    def collect(
        self, root: Root, distribution: Distribution, problems: Problems, /
    ) -> Iterator[Package]:
        """One row a package; what makes rows be missing is noted in the problems."""


@functools.cache
def load_managers() -> tuple[PackageManager, ...]:
    """All package managers, by name."""
    folder = Path(__file__).with_name("managers")
    return tuple(map(_load, sorted(path.stem for path in folder.glob("[!_]*.py"))))


def _load(name: str) -> PackageManager:
    module: Any = importlib.import_module(f"fleetscan.scanner.tables.packages.managers.{name}")
    return module  # type: ignore[no-any-return] # a module of that folder has these functions
