"""One row a release of an operating system: when its security support ends."""

from __future__ import annotations

import datetime as dt

from fleetscan.appliance.ground.schema import Origin, Scope, column, table


@table(scope=Scope.FLEET, origin=Origin.DERIVED)
class ReleaseEnd:
    """When releases of operating systems stop getting security fixes.

    Reference data that comes with fleetscan; `rules/README.md` says where it is from. It goes with
    the columns `distro` and `version` of `operating_systems`.
    """

    distro: str = column(
        "As operating_systems.distro; for Windows its edition, as in the rules' README.",
        example="debian",
    )
    release: str = column("The version, or what it begins with up to a dot.", example="12")
    eol: dt.date = column("Last day of security support that needs no extra contract.")
    source: str = column("Who says so.", example="distro-info-data: debian")
    taken: dt.date = column("The day of the copy of the source that was read.")
