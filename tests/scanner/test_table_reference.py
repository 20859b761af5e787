from __future__ import annotations

from fleetscan.scanner import table_reference
from fleetscan.scanner.tables import load_tables


def test_every_column_has_its_line() -> None:
    text = table_reference.markdown()
    for table in load_tables().values():
        section = text.split(f"\n## {table.name}\n")[1].split("\n## ")[0]
        for column in table.columns:
            assert f"\n| `{column.name}` | " in section
            assert column.description.replace("|", "\\|") in section
