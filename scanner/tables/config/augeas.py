"""The part of libaugeas that turns a file's text into settings.

Augeas' own Python binding has no aug_print(3), without which every setting costs two calls. The
handle never sees the scanned system: texts are handed in, and its root is an empty directory.

Sources: augeas.h of Augeas 1.14 (functions, flags); ``print_one`` and ``escape`` in its augeas.c
and internal.c (the form that aug_print gives a tree).
"""

from __future__ import annotations

import ctypes
import functools
import re
from collections.abc import Iterator

_LIBRARY = "libaugeas.so.0"
_NO_LOAD, _NO_MODULE_AUTOLOAD = 1 << 5, 1 << 6
_EMPTY_ROOT = b"/var/empty"

_TEXT, _TREE = b"/text", b"/tree"
_PRINTED = re.compile(
    rb'^/tree/(?P<path>(?:\\.|[^\\\n])+?)(?: = "(?P<value>(?:\\.|[^"\\\n])*)")?$', re.MULTILINE
)
_ESCAPED = re.compile(rb"\\([0-7]{3}|.)")
_ESCAPES = {
    b"a": b"\a",
    b"b": b"\b",
    b"t": b"\t",
    b"n": b"\n",
    b"v": b"\v",
    b"f": b"\f",
    b"r": b"\r",
}


class LensError(ValueError):
    """A lens does not fit a text."""


class Augeas:
    """One Augeas handle; lenses are compiled as they are first used.

    Raises:
        OSError: libaugeas is not installed.
    """

    def __init__(self) -> None:
        self._lib = ctypes.CDLL(_LIBRARY)
        self._libc = ctypes.CDLL(None)
        self._lib.aug_init.restype = ctypes.c_void_p
        self._libc.open_memstream.restype = ctypes.c_void_p
        flags = _NO_LOAD | _NO_MODULE_AUTOLOAD
        self._handle = ctypes.c_void_p(self._lib.aug_init(_EMPTY_ROOT, None, flags))
        if not self._handle:
            raise OSError("Augeas cannot be initialized")

    def parse(self, lens: str, text: str) -> Iterator[tuple[str, str | None]]:
        """Paths and values that a lens gives for a file's text, in its order.

        Args:
            lens: the lens, such as ``Sudoers.lns``.
            text: the file's content.

        Raises:
            LensError: the lens does not fit the text, or the text holds NUL.
        """
        if "\0" in text:
            raise LensError("it contains NUL bytes")
        self._lib.aug_rm(self._handle, _TREE)
        self._lib.aug_set(self._handle, _TEXT, text.encode("utf-8", "surrogateescape"))
        if self._lib.aug_text_store(self._handle, lens.encode(), _TEXT, _TREE) != 0:
            raise LensError(self._reason())
        for match in _PRINTED.finditer(self._print(_TREE + b"/*")):
            value = match["value"]
            yield _text(match["path"]), None if value is None else _text(_unescaped(value))

    def _reason(self) -> str:
        line, message = (
            self._get(b"/augeas/text/tree/error/" + name) for name in (b"line", b"message")
        )
        return f"line {line}: {message}" if line else message or "its lens does not fit"

    def _get(self, path: bytes) -> str | None:
        value = ctypes.c_char_p()
        self._lib.aug_get(self._handle, path, ctypes.byref(value))
        return None if value.value is None else _text(value.value)

    def _print(self, path: bytes) -> bytes:
        """What aug_print writes."""
        data, size = ctypes.c_void_p(), ctypes.c_size_t()
        stream = ctypes.c_void_p(self._libc.open_memstream(ctypes.byref(data), ctypes.byref(size)))
        if not stream:
            raise OSError("out of memory")
        self._lib.aug_print(self._handle, stream, path)
        self._libc.fclose(stream)
        try:
            return ctypes.string_at(data, size.value)
        finally:
            self._libc.free(data)


@functools.cache
def handle() -> Augeas:
    """The one handle of a process."""
    return Augeas()


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _unescaped(value: bytes) -> bytes:
    return _ESCAPED.sub(_meant, value) if b"\\" in value else value


def _meant(match: re.Match[bytes]) -> bytes:
    letters = match[1]
    return bytes([int(letters, 8) & 0xFF]) if len(letters) > 1 else _ESCAPES.get(letters, letters)
