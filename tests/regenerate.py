"""Writes every page anew that is made from something else: ``python -m tests.regenerate``.

With ``--check`` it writes nothing, lists the pages that are out of date, and exits with status 1 if
there are any.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from fleetscan.rules.load import load_packs
from fleetscan.rules.pack_reference import render_pack
from fleetscan.scanner import table_reference
from tests import package_description
from tests.conftest import PROJECT
from tests.scanner import command_reference, support_page

COMMAND = "python -m tests.regenerate"

Maker = Callable[[], str]


def pages() -> Mapping[Path, Maker]:
    """Every generated page with what makes its text."""
    return {
        PROJECT / "scanner" / "tables" / "README.md": table_reference.markdown,
        support_page.PAGE: support_page.markdown,
        command_reference.PAGE: command_reference.markdown,
        package_description.PAGE: package_description.markdown,
        **{pack.folder / "README.md": partial(render_pack, pack) for pack in load_packs()},
    }


def outdated(made: Mapping[Path, Maker]) -> list[Path]:
    """The pages whose text is not what it would be made today."""
    return [path for path, make in made.items() if not path.exists() or path.read_text() != make()]


def main(arguments: list[str]) -> int:
    """Write or check the pages and return the exit status."""
    if arguments not in ([], ["--check"]):
        sys.stderr.write(f"usage: {COMMAND} [--check]\n")
        return 64
    made = pages()
    found = outdated(made)
    for path in found:
        sys.stdout.write(f"{path.relative_to(PROJECT)}\n")
        if not arguments:
            path.write_text(made[path]())
    return 1 if arguments and found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
