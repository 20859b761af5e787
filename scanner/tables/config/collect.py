"""Settings of the programs whose configuration is read."""

from __future__ import annotations

from collections.abc import Iterator

from appliance.guest.root import Root
from scanner.schema import NotApplicable
from scanner.tables.config import sshd
from scanner.tables.config.spec import Setting

# The second is where openSUSE ships the defaults, which the first replaces as a whole.
_SSHD = ("/etc/ssh/sshd_config", "/usr/etc/ssh/sshd_config")


def collect(root: Root) -> Iterator[Setting]:
    """One row a setting, in the order in which its program reads them.

    Raises:
        NotApplicable: there is none of the files.
        ValueError: files include each other without end.
        OSError: a file cannot be read.
    """
    present = [path for path in _SSHD if root.exists(path)]
    if not present:
        raise NotApplicable("none of the files that are read is there")
    for position, line in enumerate(sshd.Reader(root).settings(present[0])):
        yield Setting(
            file=line.file, path=line.path, value=line.value, line=line.line, position=position
        )
