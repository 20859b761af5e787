"""Processes of our own without pandas.

pyarrow imports it, where it is installed, the first time that it makes an array, to see whether it
was handed one of its objects: a third of a second and 35 MiB in every process, for nothing.
"""

from __future__ import annotations

import sys


class _NoPandas:
    """A finder of modules, as the import system asks them, to which there is no pandas."""

    @staticmethod
    def find_spec(name: str, *_: object) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("this process does without pandas", name=name)


def without_pandas() -> None:
    """Make imports of pandas fail from now on, in a process that runs only our code."""
    sys.meta_path.insert(0, _NoPandas)


def dask_setup(_worker: object) -> None:
    """Be a preload script of a Dask worker's."""
    without_pandas()
