"""Local groups, from group(5) and gshadow(5)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fleetscan.appliance.ground.problems import Problems
from fleetscan.appliance.ground.reasons import reason
from fleetscan.appliance.ground.schema import NotApplicable
from fleetscan.appliance.guest.readers import colonfile
from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.groups import windows
from fleetscan.scanner.tables.groups.spec import Group

GROUP = "/etc/group"
GSHADOW = "/etc/gshadow"


def collect(root: Root) -> Iterator[Group]:
    """One row an entry of /etc/group, or a local group of Windows.

    Raises:
        NotApplicable: there is no /etc/group.
        OSError: /etc/group cannot be read.
        IncompleteError: malformed entries, or no reading /etc/gshadow; raised after all rows.
    """
    if root.windows:
        yield from windows.collect(root)
        return
    text = root.try_text(GROUP)
    if text is None:
        raise NotApplicable(f"no {GROUP}")
    problems = Problems()
    administrators: dict[str, tuple[str, ...]] = {}
    try:
        administrators = parse_gshadow(root.try_text(GSHADOW) or "", problems)
    except OSError as error:
        problems.note(f"{GSHADOW}: {reason(error)}")
    yield from parse_group(text, administrators, problems)
    problems.finish()


def parse_group(
    text: str, administrators: Mapping[str, tuple[str, ...]], problems: Problems
) -> Iterator[Group]:
    """Rows of group(5) text, in its order.

    Args:
        text: the file's content.
        administrators: those of each group that has any, from gshadow(5).
        problems: gets a message when entries are malformed.
    """
    problems.extend(colonfile.damage(GROUP, text, colons=3))
    malformed = []
    for number, fields in colonfile.records(text):
        # glibc takes a group without its last field for one without members.
        if not 3 <= len(fields) <= 4 or not fields[0] or not colonfile.is_id(fields[2]):
            malformed.append(number)
            continue
        yield Group(
            name=fields[0],
            gid=int(fields[2]),
            members=_names(fields[3]) if len(fields) > 3 else (),
            administrators=administrators.get(fields[0], ()),
        )
    if malformed:
        problems.note(colonfile.malformed(GROUP, malformed))


def parse_gshadow(text: str, problems: Problems) -> dict[str, tuple[str, ...]]:
    """Administrators of each group in gshadow(5) text; the first entry of a name counts.

    Args:
        text: the file's content.
        problems: gets a message when entries are malformed.
    """
    administrators: dict[str, tuple[str, ...]] = {}
    malformed = []
    for number, fields in colonfile.records(text):
        if len(fields) != 4 or not fields[0]:
            malformed.append(number)
            continue
        administrators.setdefault(fields[0], _names(fields[2]))
    if malformed:
        problems.note(colonfile.malformed(GSHADOW, malformed))
    return administrators


def _names(field: str) -> tuple[str, ...]:
    return tuple(name for part in field.split(",") if (name := part.strip()))
