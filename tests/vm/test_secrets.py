"""A disk full of secrets, on the whole way from the image to what is printed."""

from __future__ import annotations

from pathlib import Path

from fleetscan.appliance.ground.redaction import MARKER
from tests.scanner import secret_trees
from tests.vm.commands import inspect
from tests.vm.machines import image_of


def test_a_disk_full_of_secrets_tells_none_but_where_they_stand(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    secret_trees.linux(tree)
    found = inspect(image_of(tree, tmp_path / "disk.img", 32))
    assert secret_trees.MARK not in str(found.tables) + found.errors
    options = {row["path"]: row["options"] for row in found.rows("mountpoints")}
    sources = {row["path"]: row["source"] for row in found.rows("mountpoints")}
    assert f"user=dom/bob%{MARKER}" in options["/mnt/a"]
    assert f"password={MARKER}" in options["/mnt/b"]
    assert sources["/mnt/c"] == f"https://bob:{MARKER}@dav.example/"
    assert sources["/mnt/d"] == f"curlftpfs#{MARKER}@ftp.example"
    assert "credentials=/etc/cifs.credentials" in options["/mnt/e"]
    commands = [row["command"] for row in found.rows("scheduled_tasks")]
    assert f"mysqldump -p{MARKER} shop > /srv/shop.sql" in commands
