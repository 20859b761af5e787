"""One row a file of a source that is no machine of its own, and machine that it belongs to."""

from __future__ import annotations

from typing import Literal

from fleetscan.appliance.ground.schema import Origin, Scope, column, table


@table(scope=Scope.MACHINE, origin=Origin.RUN)
class LeftOutRow:
    """Files of scanned folders that are not machines of their own, and why.

    A file has a row under each machine that it belongs to, so the number of its rows is the number
    of machines that are based on it. An image can be left out only because of images in its own
    folder that passed preflight. `fleetscan scan --bases scan` also scans images that others are
    based on.
    """

    path: str = column(
        "The file, under the path where it was found.", example="/srv/images/golden.qcow2"
    )
    why: Literal["base", "extent", "alias", "bundle", "unlisted"] = column(
        "base: other images of its folder are based on it; extent: it holds a part of a disk; "
        "alias: it is another name of an image; bundle: it is part of a Parallels bundle, which "
        "cannot be read; unlisted: it is in or below a folder whose machine.yaml does not "
        "list it."
    )
    named_by: str = column(
        "The file because of which it was left out: an image, a machine.yaml, or the descriptor "
        "of a bundle.",
        example="/srv/images/web01.qcow2",
    )
