"""Which URLs name a facts directory in an object store, and the filesystem that serves it.

Credentials come from where pyarrow.fs finds them: the environment, the provider's files, or the
host's own role. A URL carries none, because URLs are stored in plans and shown in messages.
"""

from __future__ import annotations

import re
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, urlsplit

from fleetscan.appliance.ground.errors import UsageError
from fleetscan.appliance.host.printable import printable

Filesystem: TypeAlias = Any
"""A pyarrow.fs.FileSystem: pyarrow.fs takes a tenth of a second to import, and has no stubs."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")

_AZURE = frozenset(
    {"blob_storage_authority", "dfs_storage_authority", "credential_kind", "enable_tls"}
)
_OPTIONS = {
    "s3": frozenset({"region", "scheme", "endpoint_override"}),
    "gs": frozenset({"scheme", "endpoint_override", "retry_limit_seconds", "project_id"}),
    "gcs": frozenset({"scheme", "endpoint_override", "retry_limit_seconds", "project_id"}),
    "abfs": _AZURE,
    "abfss": _AZURE,
}
"""What a URL may say after its question mark, by scheme; none of it is secret.

Source: arrow/filesystem/{s3fs,gcsfs,azurefs}.cc, FromUri.
"""

_EXAMPLE = "a URL looks like s3://bucket/facts; gs:// and abfs:// work alike"


def is_url(text: str) -> bool:
    """Whether a text is a URL, of whatever scheme, and no path."""
    return _URL.match(text) is not None


def check_url(text: str) -> str:
    """The URL of a facts directory, in the one form that stands for it.

    Raises:
        UsageError: it has a scheme or an option that is not known, no bucket, or credentials.
    """
    scheme = text.partition("://")[0].lower()
    if scheme not in _OPTIONS:
        raise UsageError(
            f"--facts takes no URL of the scheme {printable(scheme, 60)}", hint=_EXAMPLE
        )
    try:
        parts = urlsplit(text)
        options = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError as error:
        raise UsageError(f"--facts: not a URL: {error}", hint=_EXAMPLE) from error
    _check_no_credentials(scheme, parts.netloc)
    unknown = {name for name, _ in options} - _OPTIONS[scheme]
    if unknown or parts.fragment:
        raise UsageError(
            f"--facts: a {scheme} URL takes no {printable(min(unknown, default='fragment'), 60)}",
            hint=f"it takes {', '.join(sorted(_OPTIONS[scheme]))}; "
            "credentials belong in the environment",
        )
    if not parts.netloc.strip("@"):
        raise UsageError("--facts: the URL names no bucket", hint=_EXAMPLE)
    path = "/".join(name for name in parts.path.split("/") if name)
    query = f"?{parts.query}" if parts.query else ""
    return f"{scheme}://{parts.netloc}/{path}".rstrip("/") + query


def _check_no_credentials(scheme: str, place: str) -> None:
    user = place.rpartition("@")[0]
    # Azure's form is container@account; with a colon it would be an account and its key.
    if ":" in user or (user and _OPTIONS[scheme] is not _AZURE):
        raise UsageError(
            "--facts: the URL contains credentials, which would be stored and shown",
            hint="give them by the environment, such as AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or by the provider's own files",
        )


def open_url(url: str) -> tuple[Filesystem, str]:
    """The filesystem that serves a URL, and the path of the facts directory in it.

    Raises:
        UsageError: pyarrow cannot serve it, or does not find the bucket.
    """
    import pyarrow as pa
    import pyarrow.fs

    filesystem: Filesystem = pyarrow.fs.FileSystem
    try:
        served, path = filesystem.from_uri(url)
    except (OSError, pa.ArrowException, ValueError) as error:
        raise unusable(url, error) from error
    return served, path.rstrip("/")


def unusable(url: str, error: Exception) -> UsageError:
    """The error of a place that cannot be used as a facts directory."""
    return UsageError(
        f"{url} cannot be used: {printable(str(error))}",
        hint="check that the bucket exists, that its credentials are in the environment, and that "
        "they allow listing, reading, writing and deleting",
    )
