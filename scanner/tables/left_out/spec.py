"""One row a file of a source that is no machine of its own, and machine that it belongs to."""

from __future__ import annotations

from typing import Literal

from scanner.schema import Origin, Scope, column, table


@table(scope=Scope.MACHINE, origin=Origin.RUN)
class LeftOut:
    """Files of scanned folders that are no machines of their own, and because of whom.

    A file stands under each machine that it belongs to, so that as many machines as have a row for
    it are based on it. Only images in its own folder can leave an image out, and only those that
    passed preflight; `fleetscan scan --bases scan` scans those that others are based on as well.
    """

    path: str = column("The file, as it was found.", example="/srv/images/golden.qcow2")
    why: Literal["base", "extent", "alias", "bundle", "unlisted"] = column(
        "base: other images of its folder are based on it; extent: it holds a part of a disk; "
        "alias: it is another name of an image; bundle: it is part of a Parallels bundle, which "
        "cannot be read; unlisted: it lies in or below a folder whose machine.yaml does not "
        "list it."
    )
    named_by: str = column(
        "The file on whose word it was left out: an image, a machine.yaml, or the descriptor of a "
        "bundle.",
        example="/srv/images/web01.qcow2",
    )
