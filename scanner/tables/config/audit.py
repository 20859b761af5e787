"""audit.rules(7): what auditctl is given at boot, an option and its arguments a line.

Source: auditctl(8) and augenrules(8) of audit 3.
"""

from __future__ import annotations

from collections.abc import Iterator

FOLDER, RULES = "/etc/audit/rules.d", "/etc/audit/audit.rules"
"""What augenrules gathers, and what it makes of them, which is loaded."""


def rules(text: str, malformed: list[int]) -> Iterator[tuple[int, str, str]]:
    """Line from 1, option, and the rest of the line, of each rule.

    Args:
        text: the file.
        malformed: gets the numbers of lines that begin with no option.
    """
    for number, line in enumerate(text.split("\n"), start=1):
        stripped = line.strip()
        if not stripped or stripped[0] == "#":
            continue
        option, _, arguments = stripped.partition(" ")
        if option[0] == "-":
            yield number, option, arguments.strip()
        else:
            malformed.append(number)
