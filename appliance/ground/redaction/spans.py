"""Where in a text a secret begins and ends."""

from __future__ import annotations

import re

Span = tuple[int, int]
"""First position of a secret, and the one after its last."""

_OPENING = re.compile(r"\\{0,3}[\"']")
# Bare words of a shell continue after a quote, unless what the quote opened ends with it.
_BARE = re.compile(r"(?:[^\s\"']++|[\"'](?![\s,;:)}\]|]|\Z))*+")
# Where one setting of several ends that are written without blanks between: those of a mount, of
# a URL's query, of a connection string. A comma alone may be a part of a password.
_NEXT_SETTING = re.compile(r"[,;&](?=[A-Za-z_][\w.\-]{0,63}=)|[;&]\Z")

_SETTING_LIMIT = 256  # longer than passwords; what follows a longer one is taken for a part of it


def value_end(text: str, start: int, quote: str = "", known_end: int = -1) -> tuple[int, int, int]:
    """The span of a value that begins at a position, without quotes, and where its word ends.

    Args:
        text: the text.
        start: the position, before an opening quote where there is one.
        quote: the quote that was opened before; empty for none.
        known_end: where an earlier call found that the bare word around ``start`` ends.
    """
    if not quote and (opening := _OPENING.match(text, start)):
        quote, start = opening[0], opening.end()
    if quote:
        end = text.find(quote, start)
        end = len(text) if end < 0 else end
        return start, end, end
    if known_end <= start and (bare := _BARE.match(text, start)):
        known_end = bare.end()
    following = _NEXT_SETTING.search(text, start, min(known_end, start + _SETTING_LIMIT))
    return start, following.start() if following else known_end, known_end
