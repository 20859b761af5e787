"""Reading many small files for one table: what cannot be read is noted, the rest goes on.

Guest-safe: standard library only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from appliance.guest.root import Root

_PROBLEMS_NAMED = 10


class Reader:
    """Opens a root's files for a collector and keeps what was wrong with them.

    Args:
        root: the system.
        limit: the largest file that is read, in bytes.
    """

    def __init__(self, root: Root, limit: int = 1 << 20) -> None:
        self.root = root
        self._limit = limit
        self._problems: list[str] = []
        self._more = 0

    def note(self, problem: str) -> None:
        """Keep a problem for :meth:`finish`; of very many the first ones."""
        if len(self._problems) < _PROBLEMS_NAMED:
            self._problems.append(problem)
        else:
            self._more += 1

    def data(self, path: str) -> bytes | None:
        """A file's content; None for no file, or one that cannot be read, which is noted."""
        try:
            return self.root.read_bytes(path, self._limit)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            self.note(f"{path}: {error.strerror}")
            return None

    def text(self, path: str) -> str | None:
        """As :meth:`data`, as text; bytes that are not UTF-8 become surrogates."""
        data = self.data(path)
        return None if data is None else data.decode("utf-8", "surrogateescape")

    def finish(self) -> None:
        """Report what was noted; for the end of a collector.

        Raises:
            ValueError: something was.
        """
        if self._problems:
            more = [f"and {self._more} more"] if self._more else []
            raise ValueError("; ".join(self._problems + more))


def drop_ins(folders: Iterable[str], suffix: str, listdir: Callable[[str], list[str]]) -> list[str]:
    """Files of drop-in folders in the order in which they are read: by name alone.

    A name that several folders have counts in the first of them (systemd's tmpfiles.d(5),
    sysctl.d(5) and kmod's modprobe.d(5) agree on that); it may be a link to /dev/null.
    """
    paths: dict[str, str] = {}
    for folder in folders:
        for name in listdir(folder):
            if name.endswith(suffix):
                paths.setdefault(name, f"{folder}/{name}")
    return [paths[name] for name in sorted(paths)]
