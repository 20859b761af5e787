from __future__ import annotations

from pathlib import Path

from fleetscan.scanner import reference, tables
from fleetscan.scanner.tables import load_tables


def test_the_reference_beside_the_tables_is_the_one_that_their_specs_give() -> None:
    readme = Path(tables.__file__).parent / "README.md"
    assert readme.read_text() == reference.markdown(), (
        "run: fleetscan tables --markdown > scanner/tables/README.md"
    )


def test_every_column_has_its_line() -> None:
    text = reference.markdown()
    for table in load_tables().values():
        section = text.split(f"\n## {table.name}\n")[1].split("\n## ")[0]
        for column in table.columns:
            assert f"\n| `{column.name}` | " in section
            assert column.description.replace("|", "\\|") in section
