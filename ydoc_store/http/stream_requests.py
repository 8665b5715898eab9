"""What requests of the Durable Streams base protocol may say: headers and bodies as values. Pure.

Whatever cannot be right is refused here, before anything is looked up or stored. JSON streams hold their messages
with commas between them, as the elements of one array: what a body brings is the inside of its array, byte for byte.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final
from urllib.parse import parse_qsl

import orjson

from ydoc_store.errors import InvalidRequest
from ydoc_store.http.protocol_headers import Headers, read_text
from ydoc_store.http.tokens import Sentinel, SnapshotAt, Token, parse_offset
from ydoc_store.storage.streams import StreamSettings, media_type_of

PREFIX: Final = "/v1/stream/"
JSON: Final = "application/json"
DEFAULT_TYPE: Final = "application/octet-stream"
CONTENT_TYPE_CHARACTERS_MAX: Final = 256
TTL_S_MAX: Final = 2**31 - 1
"""68 years; one that is to live longer has none."""
# What a fork is asked for with, and under which names subscriptions would live.
FORK_HEADERS: Final = frozenset((b"stream-forked-from", b"stream-fork-offset", b"stream-fork-sub-offset"))
RESERVED_SEGMENT: Final = "__ds"

_CONTENT_TYPE: Final = re.compile(r"[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+[ \t]*(;[\x20-\x7e\t]*)?")
_TTL: Final = re.compile(r"0|[1-9][0-9]{0,9}")
_MOMENT: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)


def read_content_type(headers: Headers) -> str | None:
    """The type of a body, None where none is given. Raises InvalidRequest for what is none."""
    text = (read_text(headers, b"content-type") or "").strip()
    if not text:
        return None
    if len(text) > CONTENT_TYPE_CHARACTERS_MAX or _CONTENT_TYPE.fullmatch(text) is None:
        raise InvalidRequest("Content-Type is none, such as text/plain")
    return text


def read_settings(headers: Headers) -> StreamSettings:
    """What a stream is to be created with. Raises InvalidRequest."""
    ttl, moment = read_text(headers, b"stream-ttl"), read_text(headers, b"stream-expires-at")
    if ttl is not None and moment is not None:
        raise InvalidRequest("a stream has a Stream-TTL or a Stream-Expires-At, not both")
    content_type = read_content_type(headers) or DEFAULT_TYPE
    if ttl is not None:
        if _TTL.fullmatch(ttl) is None or int(ttl) > TTL_S_MAX:
            raise InvalidRequest(f"Stream-TTL is a whole number of seconds from 0 to {TTL_S_MAX}, such as 3600")
        return StreamSettings(content_type, ttl_s=int(ttl))
    if moment is not None:
        return StreamSettings(content_type, expires_at=_read_moment(moment), expires_text=moment)
    return StreamSettings(content_type)


def _read_moment(text: str) -> datetime:
    try:
        if _MOMENT.fullmatch(text) is not None:
            # Python takes six digits of a second, and no leap second.
            moment = datetime.fromisoformat(re.sub(r"(\.[0-9]{6})[0-9]+", r"\1", text.upper()))
            return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        # Also what is another year, and none that can be written down, in UTC.
        pass
    raise InvalidRequest("Stream-Expires-At is a moment of RFC 3339, such as 2030-01-01T00:00:00Z")


def read_parameters(query: bytes, *names: str) -> list[str | None]:
    """The values of these parameters, None where one is not given. Raises InvalidRequest where one is given twice."""
    given = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    found: list[str | None] = []
    for name in names:
        values = [value for key, value in given if key == name]
        if len(values) > 1:
            raise InvalidRequest(f"{name!r} is given twice")
        found.append(values[0] if values else None)
    return found


def read_offset(text: str | None) -> Token | Sentinel:
    """Where a reader of a stream stands, its beginning where it does not say. Raises InvalidRequest."""
    if text is None:
        return Sentinel.BEGINNING
    offset = parse_offset(text)
    if isinstance(offset, SnapshotAt) or offset is Sentinel.SNAPSHOT:
        raise InvalidRequest("a stream of bytes has no snapshot: its offset is -1, now, or a Stream-Next-Offset")
    return offset


def flatten_json(body: bytes, *, may_be_empty: bool = False) -> bytes:
    """The messages of a body, with commas between them: the elements of an array, or the one value that it is.

    What was written stays as it was written. An empty array gives b"" where it `may_be_empty`. Raises InvalidRequest
    for what is no JSON, and for an empty array elsewhere.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise InvalidRequest("the body is no JSON") from None
    inner = body.strip(b" \t\r\n")
    if not isinstance(value, list):
        return inner
    if not value and not may_be_empty:
        raise InvalidRequest("an empty array has nothing to append")
    return inner[1:-1].strip(b" \t\r\n")


def is_json(media_type: str) -> bool:
    return media_type == JSON


def is_text(media_type: str) -> bool:
    """Whether events of this stream are its text as it is; everything else goes as base64."""
    return media_type == JSON or media_type.startswith("text/")


def same_type(content_type: str, media_type: str) -> bool:
    return media_type_of(content_type) == media_type
