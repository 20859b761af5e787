"""Package URLs of every kind of package, as the reference implementation reads them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from packageurl import PackageURL

from fleetscan.appliance.ground.encoding import encode_rows
from fleetscan.appliance.ground.options import FactOptions
from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables import load_collector
from fleetscan.scanner.tables.packages.spec import Manager
from tests.scanner.tables.run_case import REPOSITORY
from tests.scanner.tables.test_packages_languages import MODULES, archive, pom, program

Rows = list[dict[str, Any]]  # Any: JSON values

CASES = REPOSITORY / "scanner" / "tables" / "packages" / "cases"
REGISTERED = {
    "apk": "apk",
    "dpkg": "deb",
    "gem": "gem",
    "go": "golang",
    "java": "maven",
    "npm": "npm",
    "pacman": "alpm",
    "python": "pypi",
    "rpm": "rpm",
}
"""Types that the specification has for managers; packages of all others are generic."""


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """Rows of every manager's cases, and of those that have none."""
    found = [
        json.loads(line)
        for path in sorted(CASES.glob("*/expected.jsonl"))
        for line in path.read_text().splitlines()
    ]
    return [*found, *_further(tmp_path_factory.mktemp("tree"))]


def _further(top: Path) -> Iterator[dict[str, Any]]:
    (top / "var/log/packages").mkdir(parents=True)
    (top / "var/log/packages/aaa_base-15.0-x86_64-3").touch()
    (top / "a.jar").write_bytes(archive(pom("org.example", "a", "1.0")))
    (top / "commons-io-2.11.0.jar").write_bytes(archive({"A.class": ""}))
    (top / "tool").write_bytes(program(MODULES))
    (top / "tool").chmod(0o755)
    with Root("r", str(top), options=FactOptions(packages="all")) as root:
        yield from map(json.loads, encode_rows(load_collector("packages")(root)))


@pytest.mark.parametrize("manager", get_args(Manager))
def test_package_urls_are_as_another_implementation_writes_them(rows: Rows, manager: str) -> None:
    own = [row for row in rows if row["manager"] == manager]
    assert own
    for row in own:
        if "%E9" in row["purl"]:
            continue  # a byte that is not UTF-8, which no reader of text gives back
        read = PackageURL.from_string(row["purl"])
        assert read.to_string() == row["purl"]
        assert read.name.replace("_", "-") in row["name"].replace("_", "-").lower() + row["name"]
        if row["name"] != "commons-io":  # Maven's packages have a group, which no file name tells
            assert read.type == REGISTERED.get(manager, "generic")
        stated = "" if row["version"] == "(devel)" else row["version"]
        assert stated.endswith(read.version or "")
