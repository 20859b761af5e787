"""QEMU's enhanced disks (qed), which are recognised but not opened.

Layout: QEMU's docs/interop/qed_spec.rst.
"""

from __future__ import annotations

from fleetscan.scanner.preflight.disk_format import KnownFormat


class _Qed(KnownFormat):
    name = "qed"
    suffixes = (".qed",)
    magics = ((0, b"QED\0"),)


FORMAT = _Qed()
