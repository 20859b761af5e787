from __future__ import annotations

import subprocess
from pathlib import Path

from fleetscan.scanner import preflight
from fleetscan.scanner.disk import Disk
from fleetscan.scanner.sources import find_machines


def test_a_vhd_is_known_by_the_suffix_that_qemu_gives_it(tmp_path: Path) -> None:
    image = tmp_path / "web.vpc"
    subprocess.run(["qemu-img", "create", "-q", "-f", "vpc", str(image), "4M"], check=True)
    (machine,) = find_machines([str(tmp_path)])
    assert machine.machine_id == "web.vpc"
    plan = preflight.examine(Disk(str(image)), preflight.DiskPolicy())
    assert plan.layers[0].format == "vhd"
