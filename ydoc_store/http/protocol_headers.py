"""Headers of the Durable Streams protocols, read alike for streams and for documents. Pure.

Each of them says one thing, so one that comes twice is refused: what first and last say may differ, and whichever
were taken, a proxy or another client library would take the other.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Final

from ydoc_store.errors import InvalidRequest
from ydoc_store.storage.guards import PRODUCER_ID_BYTES_MAX, PRODUCER_NUMBER_MAX, Producer

PRODUCER_ID_BYTES_TAKEN_MAX: Final = 1024
"""The stock Yjs provider's is a path and a client id, and may be longer than what is kept: then its hash is kept."""

_PRODUCER: Final = (b"producer-id", b"producer-epoch", b"producer-seq")
_OURS: Final = (b"producer-", b"stream-", b"content-type")
_NUMBER: Final = re.compile(r"[0-9]{1,16}")

Headers = Mapping[bytes, bytes]
"""Names in lower case; those of the protocol came once."""


def read_headers(sent: Iterable[tuple[bytes, bytes]]) -> Headers:
    """The headers of a request by their names. Raises InvalidRequest where one of the protocol's came twice."""
    headers: dict[bytes, bytes] = {}
    for name, value in sent:
        if name in headers and name.startswith(_OURS):
            raise InvalidRequest(f"{name.decode('latin-1')} is given twice")
        headers[name] = value
    return headers


def read_text(headers: Headers, name: bytes) -> str | None:
    """A header's text, None where it is not there. Raises InvalidRequest for bytes that are no UTF-8."""
    value = headers.get(name)
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise InvalidRequest(f"{name.decode()} is UTF-8") from None


def read_closed(headers: Headers) -> bool:
    """Whether the request closes the stream."""
    return headers.get(b"stream-closed", b"").lower() == b"true"


def read_etags(headers: Headers) -> list[str]:
    """What a reader holds already, by If-None-Match. A proxy may have made a strong tag weak: read as the same."""
    return [tag.strip().removeprefix("W/") for tag in headers.get(b"if-none-match", b"").decode("latin-1").split(",")]


def read_producer(headers: Headers) -> Producer | None:
    """Who numbers this request, None where nobody does. Raises InvalidRequest: all three headers, or none."""
    identity, epoch, seq = (read_text(headers, name) for name in _PRODUCER)
    if identity is None and epoch is None and seq is None:
        return None
    if identity is None or epoch is None or seq is None:
        raise InvalidRequest("Producer-Id, Producer-Epoch and Producer-Seq come together, or none of them")
    return Producer(_kept(identity), _read_number(epoch, "Producer-Epoch"), _read_number(seq, "Producer-Seq"))


def _kept(identity: str) -> str:
    encoded = identity.encode()
    if len(encoded) > PRODUCER_ID_BYTES_TAKEN_MAX:
        raise InvalidRequest(f"Producer-Id has 1 to {PRODUCER_ID_BYTES_TAKEN_MAX} bytes")
    return identity if len(encoded) <= PRODUCER_ID_BYTES_MAX else "sha256:" + hashlib.sha256(encoded).hexdigest()


def _read_number(text: str, header: str) -> int:
    if _NUMBER.fullmatch(text) is None or int(text) > PRODUCER_NUMBER_MAX:
        raise InvalidRequest(f"{header} is no integer from 0 to 2^53 - 1")
    return int(text)
