"""A bucket on this host: moto's S3, served on loopback while a test runs."""

from __future__ import annotations

import logging
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow.fs
import pytest
from moto.server import ThreadedMotoServer

_fs: Any = pyarrow.fs  # pyarrow's stubs differ from version to version


@dataclass(frozen=True)
class Bucket:
    """An empty bucket.

    Attributes:
        place: host and port of the server.
        filesystem: another client of it.
    """

    place: str
    filesystem: Any

    def url(self, path: str = "bucket/facts") -> str:
        """What names a folder in it on the command line."""
        return f"s3://{path}?endpoint_override={self.place}&scheme=http&region=us-east-1"

    def names(self) -> set[str]:
        """Its files below the folder ``facts``."""
        selector = _fs.FileSelector("bucket/facts", recursive=True, allow_not_found=True)
        found = self.filesystem.get_file_info(selector)
        return {one.path.removeprefix("bucket/facts/") for one in found if one.is_file}

    def read(self, name: str) -> bytes:
        """The content of one of these."""
        with self.filesystem.open_input_stream(f"bucket/facts/{name}") as stream:
            return bytes(stream.read())

    def write(self, name: str, content: bytes) -> None:
        """Replace one of these."""
        with self.filesystem.open_output_stream(f"bucket/facts/{name}") as stream:
            stream.write(content)


@contextmanager
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """A bucket, and credentials for it in the environment."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        place = f"{host}:{port}"
        filesystem = _fs.S3FileSystem(
            endpoint_override=place, scheme="http", region="us-east-1", allow_bucket_creation=True
        )
        # What moto holds outlives its server.
        urllib.request.urlopen(f"http://{place}/moto-api/reset", data=b"").close()
        filesystem.create_dir("bucket")
        yield Bucket(place, filesystem)
    finally:
        server.stop()
