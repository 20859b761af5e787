"""One row an SSH key."""

from __future__ import annotations

from typing import Literal

from fleetscan.appliance.ground.schema import IS_DIGEST, IS_PATH, U32, column, table


@table()
class SshKey:
    """SSH keys: authorized keys, host keys, and the keys of accounts.

    A key is identified by its public half; private keys are never stored.
    """

    kind: Literal["authorized", "host", "identity"] = column(
        "authorized: may log in as the account; host: the server's own key; identity: an "
        "account's own key."
    )
    file: str = column(
        "File from which the key is known.",
        example="/root/.ssh/authorized_keys",
        unredacted=IS_PATH,
    )
    line: U32 | None = column("Line of an authorized_keys file, from 1.", default=None)
    user: str | None = column("Account it belongs to; null for host keys.", example="root")
    type: str = column("Type, according to the key itself.", example="ssh-ed25519")
    bits: U32 | None = column("Size; null for types without one.", unit="bits")
    fingerprint: str = column(
        "SHA-256 of the public key, as ssh-keygen -l prints it.",
        example="SHA256:uNiVztksCsDhcc0u9e8BgrJXVGDcEfU9xSqQ4N3zZ0k",
        unredacted=IS_DIGEST,
    )
    comment: str | None = column("Comment; not kept for private keys.", example="alice@laptop")
    options: tuple[str, ...] = column(
        "Options of an authorized key; values of environment variables are redacted.",
        example='from="10.0.0.0/8"',
    )
    private: Literal["encrypted", "plain", "unknown"] | None = column(
        "Whether the private key beside it is encrypted; unknown for formats that fleetscan does "
        "not read; null if there is none.",
        default=None,
    )
