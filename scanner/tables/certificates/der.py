"""A reader of DER, limited to what certificates need.

Source: ITU-T X.690 (02/2021), sections 8 and 10. Every element is checked to lie within the one
that holds it, and no depth is followed but what the caller asks for.
"""

from __future__ import annotations

from typing import NamedTuple

BOOLEAN, OID, UTC_TIME, BMP_STRING, SET = 0x01, 0x06, 0x17, 0x1E, 0x31

_ELEMENTS = 10_000  # of one element; certificates have some dozens
_LONG_FORM, _LENGTH_BYTES = 0x80, 4


class DerError(ValueError):
    """Bytes are not the DER that they should be."""


class DerElement(NamedTuple):
    """One element: its tag, its content, and where in the data it ends."""

    tag: int
    content: bytes
    end: int

    def children(self) -> list[DerElement]:
        """The elements of the content.

        Raises:
            DerError: the content is not made of elements.
        """
        found = []
        at, end = 0, len(self.content)
        while at < end:
            element = first(self.content, at)
            at = element.end
            found.append(element)
            if len(found) > _ELEMENTS:
                raise DerError("too many elements")
        return found


def first(data: bytes, at: int = 0) -> DerElement:
    """The element that begins at a place.

    Raises:
        DerError: none does, or it goes beyond the data.
    """
    if at + 2 > len(data) or data[at] & 0x1F == 0x1F:  # tags beyond 30 do not occur
        raise DerError("cut off, or an unknown tag")
    length, start = data[at + 1], at + 2
    if length & _LONG_FORM:
        size = length & ~_LONG_FORM
        if not 0 < size <= _LENGTH_BYTES or start + size > len(data):
            raise DerError("not a valid DER length")
        length, start = int.from_bytes(data[start : start + size], "big"), start + size
    end = start + length
    if end > len(data):
        raise DerError("cut off")
    return DerElement(data[at], data[start:end], end)


def oid(content: bytes) -> str:
    """An object identifier's content in dots."""
    if not content or len(content) > 64:  # the longest registered ones have half of that
        raise DerError("not an object identifier")
    numbers, value = [], 0
    for byte in content:
        value = value << 7 | byte & 0x7F
        if not byte & 0x80:
            numbers.append(value)
            value = 0
    head = min(numbers[0] // 40, 2) if numbers else 0
    tail = [numbers[0] - 40 * head, *numbers[1:]] if numbers else []
    return ".".join(map(str, [head, *tail]))


def text(element: DerElement) -> str:
    """A string element's text; bytes that do not fit its encoding become surrogates."""
    if element.tag == BMP_STRING:
        return element.content.decode("utf-16-be", "replace")
    return element.content.decode("utf-8", "surrogateescape")
