"""``python -m scanner.cli`` is ``fleetscan``."""

from __future__ import annotations

from scanner.cli.main import main

main()
