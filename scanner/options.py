"""How machines are inspected."""

from __future__ import annotations

from dataclasses import dataclass

from fleetscan.appliance.confinement import Wanted
from fleetscan.appliance.ground.options import FilesMode, PackagesMode
from fleetscan.scanner.sources.keys import KeySource
from fleetscan.scanner.tables.directory_usage.spec import DEPTH


@dataclass(frozen=True)
class InspectOptions:
    """How machines are inspected.

    Attributes:
        files: which directory entries the ``files`` table keeps.
        packages: where packages of languages are looked for.
        registry: keys that the ``registry`` table holds besides.
        usage_depth: how deep directories have a row in ``directory_usage``.
        deadline: seconds that one machine may take in all, not counting those in which its host
            made the template, as the first machine on it finds.
        live: read images that a running guest is using.
        allowed_directories: where backing files may lie, besides the top image's directory.
        memory_mib: memory of the appliance.
        run_id: the run that the facts are written to; empty outside of a run.
        keys: where keys for encrypted volumes of every machine come from.
        template: start from a clone of the host's template; else boot afresh.
        confinement: the layers that must hold before anything of an image is opened.
    """

    files: FilesMode = "all"
    packages: PackagesMode = "known"
    registry: tuple[str, ...] = ()
    usage_depth: int = DEPTH
    deadline: float = 900.0
    live: bool = False
    allowed_directories: tuple[str, ...] = ()
    memory_mib: int = 512
    run_id: str = ""
    template: bool = True
    keys: tuple[KeySource, ...] = ()
    confinement: Wanted = Wanted.LEAST
