"""Facts in Python, with the semantics of ``fleetscan query``.

>>> import fleetscan.facts
>>> with fleetscan.facts.open("facts") as facts:  # doctest: +SKIP
...     facts["packages"].pandas()

Installed as ``fleetscan.facts``.
"""

from __future__ import annotations

from fleetscan.scanner.fact_access import Facts, FactTable, open_facts

open = open_facts  # noqa: A001 - as a module's own open reads: fleetscan.facts.open

__all__ = ["FactTable", "Facts", "open"]
