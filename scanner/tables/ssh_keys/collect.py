"""SSH keys of accounts and of the server."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from fleetscan.appliance.ground.reasons import reason
from fleetscan.appliance.ground.schema import NotApplicable
from fleetscan.appliance.guest.readers import colonfile
from fleetscan.appliance.guest.readers.reading import Reader
from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.config.sshd import SshdReader
from fleetscan.scanner.tables.ssh_keys import keys
from fleetscan.scanner.tables.ssh_keys.spec import SshKey

_SSHD_CONFIG = ("/etc/ssh/sshd_config", "/usr/etc/ssh/sshd_config")
_AUTHORIZED = (".ssh/authorized_keys", ".ssh/authorized_keys2")  # sshd_config(5)'s default
_HOST_KEYS = "/etc/ssh"
_DROPBEAR = "/etc/dropbear/authorized_keys"  # root's on OpenWrt
_ACCOUNTS = 10_000

Kind = Literal["host", "identity"]
State = Literal["encrypted", "plain", "unknown"]


def collect(root: Root) -> Iterator[SshKey]:
    """Keys that may log in, each account's own, then the server's.

    Raises:
        NotApplicable: there are neither accounts nor /etc/ssh.
        IncompleteError: a file could not be read or has malformed lines; raised after all rows.
    """
    reader = Reader(root)
    accounts = _accounts(reader)
    if not accounts and not root.exists(_HOST_KEYS):
        raise NotApplicable("neither accounts nor an SSH server")
    patterns = _authorized_patterns(reader)
    with root.lookups.watching() as lost:
        yield from _of_accounts(reader, accounts, patterns)
    if lost:
        reader.note(f"keys of accounts: {lost}", *lost.unread)
    yield from _authorized(reader, _DROPBEAR, "root")
    yield from _own(reader, _HOST_KEYS, "ssh_host_*key*", "host", None)
    reader.finish()


def _of_accounts(
    reader: Reader, accounts: Iterable[tuple[str, str]], patterns: Sequence[str]
) -> Iterator[SshKey]:
    """Keys that log in to accounts, and the accounts' own."""
    read: set[tuple[str, str]] = set()
    for user, home in accounts:
        for path in (_expand(pattern, user, home) for pattern in patterns):
            if (user, path) not in read:
                read.add((user, path))
                yield from _authorized(reader, path, user)
        if (user, home) not in read and reader.root.is_dir(posixpath.join(home, ".ssh")):
            read.add((user, home))
            yield from _own(reader, posixpath.join(home, ".ssh"), "id_*", "identity", user)


def _accounts(reader: Reader) -> list[tuple[str, str]]:
    """Names and homes of accounts whose home is a directory."""
    records = colonfile.records(reader.text("/etc/passwd") or "")
    found = [
        (fields[0], fields[5]) for _, fields in records if len(fields) > 5 and fields[5][:1] == "/"
    ]
    if len(found) > _ACCOUNTS:
        reader.note(f"/etc/passwd: only keys of the first {_ACCOUNTS} accounts are listed")
    with reader.root.lookups.watching() as lost:
        there = {home: reader.root.is_dir(home) for _, home in found[:_ACCOUNTS]}
    if lost:
        reader.note(f"homes {lost}", *lost.unread)
    return [(user, home) for user, home in found[:_ACCOUNTS] if there[home]]


def _authorized_patterns(reader: Reader) -> tuple[str, ...]:
    """Where the server looks for keys, as its configuration says outside conditions."""
    path = next(filter(reader.root.exists, _SSHD_CONFIG), None)
    if path is None:
        return _AUTHORIZED
    try:
        for line in SshdReader(reader.root).settings(path):
            if line.path == "authorizedkeysfile":
                return () if line.value.lower() == "none" else tuple(line.value.split())
    except (OSError, ValueError) as error:
        reader.note(f"{path}: {reason(error)}")
    return _AUTHORIZED


def _expand(pattern: str, user: str, home: str) -> str:
    # sshd_config(5), TOKENS: those that AuthorizedKeysFile takes and that files can answer.
    parts = pattern.split("%%")
    expanded = "%".join(part.replace("%h", home).replace("%u", user) for part in parts)
    return posixpath.join(home, expanded)


def _authorized(reader: Reader, path: str, user: str) -> Iterator[SshKey]:
    malformed: list[int] = []
    for entry in keys.authorized_keys(reader.text(path, path) or "", malformed):
        yield SshKey(
            kind="authorized",
            file=path,
            line=entry.line,
            user=user,
            type=entry.key.type,
            bits=entry.key.bits,
            fingerprint=entry.key.fingerprint,
            comment=entry.comment,
            options=entry.options,
        )
    if malformed:
        reader.note(colonfile.malformed(path, malformed), path)


def _own(
    reader: Reader, folder: str, pattern: str, kind: Kind, user: str | None
) -> Iterator[SshKey]:
    """Key pairs in a folder, read from the .pub file or else from the private key's plain part."""
    paths = filter(reader.root.is_file, reader.root.glob(folder, pattern))
    stems = dict.fromkeys(path.removesuffix(".pub") for path in paths)
    for stem in stems:
        if stem.endswith("-cert"):  # a certificate of the key beside it
            continue
        private, state = _private(reader, stem)
        public = _public(reader, f"{stem}.pub")
        key = public.key if public else private and private.key
        if key is None and private:
            reader.note(f"{stem}: the public key is missing", stem)
        if key:
            yield SshKey(
                kind=kind,
                file=f"{stem}.pub" if public else stem,
                user=user,
                type=key.type,
                bits=key.bits,
                fingerprint=key.fingerprint,
                comment=public.comment if public else None,
                options=(),
                private=state,
            )


def _public(reader: Reader, path: str) -> keys.AuthorizedKey | None:
    malformed: list[int] = []
    found = next(keys.authorized_keys(reader.text(path, path) or "", malformed), None)
    if malformed:
        reader.note(colonfile.malformed(path, malformed), path)
    return found


def _private(reader: Reader, path: str) -> tuple[keys.PrivateKey | None, State | None]:
    text = reader.text(path, path)
    if text is None:
        return None, None
    try:
        key = keys.private_key(text)
    except ValueError as error:
        reader.note(f"{path}: {error}", path)
        return None, "unknown"
    if key is None:
        return None, "unknown"
    return key, "encrypted" if key.encrypted else "plain"
