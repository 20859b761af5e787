"""``python -m fleetscan.scanner.cli`` is ``fleetscan``."""

from __future__ import annotations

from fleetscan.scanner.cli.main import main

main()
