"""What a person sees of a fleet at work: bars on a terminal, a line now and then elsewhere.

Everything here goes to standard error. Machine ids are foreign text: they are made printable,
and never read as markup.
"""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from fleetscan.appliance.host.printable import printable
from fleetscan.scanner.fleet_events import FleetEvent, MachineStarted
from fleetscan.scanner.scan_state import MachineSummary

_LINE_SECONDS = 30.0
"""How often a line is printed where there is no terminal."""

_SHOWN_RUNNING = 8
_NAME_LENGTH = 60


class FleetProgress:
    """Shows a fleet's progress while its block lasts; hand :meth:`__call__` to ``scan_fleet``.

    Args:
        total: machines to scan.
        console: where to, usually standard error.
        quiet: show nothing.
    """

    def __init__(self, total: int, console: Console, *, quiet: bool = False) -> None:
        self._total = total
        self._console = console
        self._quiet = quiet
        self._begun = time.monotonic()
        self._last_line = self._begun
        self._running: dict[str, float] = {}
        self._done = 0
        self._failed = 0
        self._bars = Progress(
            TextColumn("scanning"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            console=console,
        )
        self._bar = self._bars.add_task("", total=total, state="")
        self._live = Live(
            console=console, get_renderable=self._picture, refresh_per_second=4, transient=True
        )

    def __enter__(self) -> FleetProgress:
        if self._on_terminal():
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._on_terminal():
            self._live.stop()

    def __call__(self, event: FleetEvent) -> None:
        """Take an event of the fleet."""
        if isinstance(event, MachineStarted):
            self._running[event.machine_id] = time.monotonic()
        else:
            self._finish(event.summary)

    def _finish(self, summary: MachineSummary) -> None:
        self._running.pop(summary.machine_id, None)
        self._done += 1
        self._failed += summary.outcome == "failed"
        self._bars.update(self._bar, completed=self._done, state=self._state())
        if not self._quiet and not self._on_terminal():
            now = time.monotonic()
            if now - self._last_line >= _LINE_SECONDS or self._done == self._total:
                self._last_line = now
                line = f"{self._done} of {self._total} machines, {self._state()}"
                self._console.print(Text(line), soft_wrap=True)

    def _on_terminal(self) -> bool:
        return self._console.is_terminal and not self._quiet

    def _state(self) -> str:
        """Failures and the time still needed, as text."""
        left = (time.monotonic() - self._begun) / self._done * (self._total - self._done)
        eta = f", about {duration(left)} left" if self._done < self._total else ""
        return f"{self._failed} failed{eta}"

    def _picture(self) -> Table:
        grid = Table.grid()
        grid.add_row(self._bars)
        now = time.monotonic()
        for machine_id, begun in list(self._running.items())[:_SHOWN_RUNNING]:
            name = printable(machine_id, _NAME_LENGTH)
            grid.add_row(Text(f"  {name}  {now - begun:.0f} s", style="dim"))
        if len(self._running) > _SHOWN_RUNNING:
            grid.add_row(Text(f"  and {len(self._running) - _SHOWN_RUNNING} more", style="dim"))
        return grid


def duration(seconds: float) -> str:
    """A time span in words.

    >>> duration(7.25), duration(150), duration(7500)
    ('7.2 s', '2 min 30 s', '2 h 5 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
