"""Every error that fleetscan raises on purpose, rooted in one class.

An error says what was being done, why it failed and, as its *hint*, what the user can do.
Errors about one machine are caught where that machine's row is written; only the CLI exits.
"""

from __future__ import annotations

import errno
import shlex
from collections.abc import Sequence

_NOT_ALLOWED = "use an account that has permission, or another directory"
_FULL = "free some space there, or use another directory"
ADVICE = {
    errno.EACCES: _NOT_ALLOWED,
    errno.EPERM: _NOT_ALLOWED,
    errno.EROFS: "the filesystem is mounted read-only: use another directory",
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
}
"""What the user can do when the system refuses something, by its error number."""


class FleetscanError(Exception):
    """Something fleetscan could not do, with what the user can do about it.

    Args:
        message: what was being done and why it failed, in one line.
        hint: what the user can do, in one line; empty when there is nothing.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    @property
    def told(self) -> str:
        """The message and, in brackets, the hint: for where both stand in one line."""
        return f"{self} ({self.hint})" if self.hint else str(self)

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross process borders between worker and coordinator with all they carry.
        return (_rebuild, (type(self), str(self), dict(self.__dict__)))


def _rebuild(kind: type[FleetscanError], message: str, state: dict[str, object]) -> FleetscanError:
    error = kind.__new__(kind)
    Exception.__init__(error, message)
    error.__dict__.update(state)
    return error


class UsageError(FleetscanError, ValueError):
    """Bad input of the user's own: options, inventory or rule files (exit code 64)."""


class PreflightError(FleetscanError):
    """A disk file that cannot or must not be opened: unreadable, malformed, out of bounds.

    Attributes:
        identity: fingerprint of the file, where nothing but its content is the reason, so that the
            same file will not be opened later either; None otherwise.
    """

    identity: str | None = None


class LockedError(FleetscanError):
    """An encrypted disk image that none of the keys given opens."""


class ApplianceError(FleetscanError):
    """The appliance could not be built, found, started or talked to."""


class ForeignFileError(ApplianceError):
    """QEMU opened a file that it was not given, as an image named it; its machine ends here."""


class GuestError(ApplianceError):
    """The agent reported an error of its own.

    Args:
        name: the exception's class name inside the guest.
        message: its text.
        remote_traceback: the guest's traceback; for logs, never for tables.
        unread: files whose rows are all that lacks, as the guest says; None when more may.
    """

    def __init__(
        self,
        name: str,
        message: str,
        remote_traceback: str = "",
        unread: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__(f"{name}: {message}" if message else name)
        self.name = name
        self.remote_traceback = remote_traceback
        self.unread = unread


class WireError(ApplianceError):
    """The guest sent something that the wire's rules forbid; its machine ends here."""


class DeadlineError(ApplianceError, TimeoutError):
    """Something did not finish in the time it was given."""


class RowError(FleetscanError, ValueError):
    """Rows from the guest do not fit their table's schema or limits."""


class StoreError(FleetscanError):
    """The fact store is missing, damaged or not writable."""


class CommandError(FleetscanError):
    """A helper command failed.

    Args:
        doing: what the command was for.
        argv: its arguments.
        returncode: its exit status; negative for a signal.
        stdout, stderr: what it printed, already shortened.
        reason: why it failed, when its exit status does not say.
    """

    def __init__(
        self,
        doing: str,
        argv: Sequence[str],
        returncode: int,
        stdout: str = "",
        stderr: str = "",
        *,
        reason: str = "",
        hint: str = "",
    ) -> None:
        why = f": {reason}" if reason else f" with status {returncode}"
        lines = [f"{doing} failed{why}: {shlex.join(argv)}"]
        lines += [text.strip() for text in (stdout, stderr) if text.strip()]
        super().__init__("\n".join(lines), hint=hint)
        self.argv = tuple(argv)
        self.returncode = returncode
        self.stdout = stdout
        self.stderr = stderr
        self._reason = reason

    @property
    def in_short(self) -> str:
        """Why it failed, in one line: with its last words, where it ended by itself."""
        words = (self.stderr.strip() or self.stdout.strip()).splitlines()
        ended = f"{self.argv[0]} ended with {self.returncode}"
        return self._reason or f"{ended}: {words[-1] if words else 'no output'}"
