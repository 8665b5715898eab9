"""The Idempotency-Key of a write: what has a repeat be done once, and another request under the same key be refused.

A key belongs to who sends it and to the document that is written. The request that it stands for is told by what is
done and by the body, byte for byte; conditions are no part of it, they may have been asked anew. Pure.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request

from ydoc_store.errors import InvalidRequest
from ydoc_store.storage.guards import Producer

KEY_CHARACTERS_MAX: Final = 255
"""Of an Idempotency-Key: a UUID has 36."""

_KEY: Final = re.compile(r'"([ !#-~]+)"|([!#-~](?:[ !#-~]*[!#-~])?)')
_FINGERPRINT_BITS: Final = 53
"""What the epoch of a producer holds."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key of one sender's."""

    producer_id: str

    def of(self, *parts: str | bytes) -> Producer:
        """The request that is these parts, in this order, as a producer of one update."""
        digest = hashlib.sha256()
        for part in parts:
            encoded = part.encode() if isinstance(part, str) else part
            digest.update(len(encoded).to_bytes(8) + encoded)
        fingerprint = int.from_bytes(digest.digest()[:8]) >> 64 - _FINGERPRINT_BITS
        return Producer(self.producer_id, fingerprint, 0, is_request=True)


def key_of(request: Request, actor: str | None) -> Key | None:
    """The key that a request brings, None where it brings none. Raises InvalidRequest."""
    headers = request.headers.getlist("Idempotency-Key")
    if len(headers) > 1:
        raise InvalidRequest(f"Idempotency-Key comes {len(headers)} times")
    return parse_key(headers[0], actor) if headers else None


def keyed(request: Request, actor: str | None, *parts: str) -> Producer | None:
    """The request that is these parts, where it brings a key. Raises InvalidRequest."""
    key = key_of(request, actor)
    return None if key is None else key.of(*parts)


def parse_key(text: str, actor: str | None) -> Key:
    """Raises InvalidRequest for a key that is none. It may stand in quotation marks, which are no part of it."""
    match = _KEY.fullmatch(text)
    found = match and (match[1] or match[2])
    if not found or len(found) > KEY_CHARACTERS_MAX:
        raise InvalidRequest(
            f'an idempotency key has 1 to {KEY_CHARACTERS_MAX} characters of printable ASCII, but for "'
        )
    digest = hashlib.sha256(f"{actor or ''}\0{found}".encode()).hexdigest()
    return Key(f"key:{digest}")
