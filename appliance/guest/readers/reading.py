"""Reading many small files for one table: what cannot be read is noted, and the rest is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from fleetscan.appliance.ground.problems import Problems
from fleetscan.appliance.ground.reasons import reason
from fleetscan.appliance.guest.root import Root


class Reader(Problems):
    """Opens a root's files for a collector and notes what is wrong with them.

    Args:
        root: the system.
        limit: the largest file that is read, in bytes.
    """

    def __init__(self, root: Root, limit: int = 1 << 20) -> None:
        super().__init__()
        self.root = root
        self._limit = limit

    def data(self, path: str, *rows_of: str) -> bytes | None:
        """A file's content; None for no file, or one that cannot be read, which is noted.

        Args:
            path: the file.
            rows_of: the files whose rows are all that its content gives; none when it may give
                of more, such as where other files are.
        """
        if not self.root.lookups.lacks:
            return self._data(path, rows_of)
        with self.root.lookups.watching() as lost:
            data = self._data(path, rows_of)
            if lost:
                self.note(f"{path}: {lost}", *rows_of)
        return data

    def _data(self, path: str, rows_of: tuple[str, ...]) -> bytes | None:
        try:
            return self.root.read_bytes(path, self._limit)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            self.note(f"{path}: {reason(error)}", *rows_of)
            return None

    def text(self, path: str, *rows_of: str) -> str | None:
        """As :meth:`data`, as text; bytes that are not UTF-8 become surrogates."""
        data = self.data(path, *rows_of)
        return None if data is None else data.decode("utf-8", "surrogateescape")


def drop_ins(folders: Iterable[str], suffix: str, listdir: Callable[[str], list[str]]) -> list[str]:
    """Files of drop-in folders in the order in which they are read: only by name.

    A name that several folders have counts in the first of them (systemd's tmpfiles.d(5),
    sysctl.d(5) and kmod's modprobe.d(5) agree on that); it may be a link to /dev/null.
    """
    paths: dict[str, str] = {}
    for folder in folders:
        for name in listdir(folder):
            if name.endswith(suffix):
                paths.setdefault(name, f"{folder}/{name}")
    return [paths[name] for name in sorted(paths)]
