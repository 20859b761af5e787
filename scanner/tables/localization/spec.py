"""One row a system: its time zone, locale and keyboard."""

from __future__ import annotations

from typing import Literal

from fleetscan.appliance.ground.schema import column, table


@table()
class Localization:
    """Time zone, locale and keyboard of a Unix system, as they are set for all of its users.

    Logs of machines in different time zones do not line up, and a clock that keeps local time is
    wrong for an hour twice a year.
    """

    timezone: str | None = column(
        "Time zone by its IANA name; null if it has none or is not set, which means UTC.",
        example="Europe/Berlin",
    )
    hardware_clock: Literal["utc", "local"] | None = column(
        "Time that the hardware clock keeps; null if the system does not say, which means UTC."
    )
    locale: str | None = column("Locale (LANG); null if it is not set.", example="en_US.UTF-8")
    keymap: str | None = column(
        "Keyboard of the console, or of the whole system on Debian; null if it is not set.",
        example="de-nodeadkeys",
    )
