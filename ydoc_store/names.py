"""What a document may be called, and how a name is read from a URL: one rule for every adapter.

A name is 1 to 512 bytes of UTF-8 without control characters and without empty, `.` or `..` segments; it may hold
`/`. It is percent-decoded once and then compared byte for byte: nothing is normalised, so names that look alike
stay different documents. Refusals never repeat the name, because they become close reasons and log lines.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from ydoc_store.errors import InvalidName, UnknownPath

NAME_BYTES_MAX = 512
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# A segment that is empty, "." or ".."
_DOTS = re.compile(r"(?:\A|/)\.{0,2}(?:/|\Z)")
# Whose documents these are until identities tell tenants apart
DEFAULT_TENANT = "default"
# Where y-websocket clients find documents: ws://HOST:PORT/yjs/NAME
YJS_PREFIX = "/yjs/"
# Where Hocuspocus clients connect, whatever their documents: ws://HOST:PORT/hocuspocus
HOCUSPOCUS_PATH = "/hocuspocus"


def parse_name(raw: str) -> str:
    """`raw` itself if it is a document's name.

    Raises InvalidName, whose text fits into a WebSocket close reason.
    """
    try:
        size = len(raw.encode())
    except UnicodeEncodeError:
        raise InvalidName("a document name is UTF-8") from None
    if not 1 <= size <= NAME_BYTES_MAX:
        raise InvalidName(f"a document name has 1 to {NAME_BYTES_MAX} bytes, this one has {size}")
    if _CONTROL.search(raw) is not None:
        raise InvalidName("a document name holds no control characters")
    if _DOTS.search(raw) is not None:
        raise InvalidName("a document name has no empty, '.' or '..' segment")
    return raw


def name_from_raw_path(raw_path: bytes, prefix: bytes) -> str:
    """The document that an undecoded request target names, such as `/yjs/a%20b?x=1` under the prefix `/yjs/`.

    A `%` that begins no escape stands for itself, as in browsers: a stock client does not encode its room's name.
    Raises UnknownPath when the target is not under `prefix`, InvalidName when what follows is no name.
    """
    path = raw_path.partition(b"?")[0].partition(b"#")[0]
    if not path.startswith(prefix):
        raise UnknownPath(f"no document lives at this path: connect to {prefix.decode()}NAME")
    try:
        name = unquote_to_bytes(path[len(prefix) :]).decode()
    except UnicodeDecodeError:
        raise InvalidName("a document name is UTF-8") from None
    return parse_name(name)
