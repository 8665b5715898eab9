"""The Hocuspocus messages: an address, then what it is about; many documents share one socket.

The address is a document's name, or `name\0session` where a client keeps several editors of one document apart; it
is echoed as it came. Sync and awareness look as in the y-websocket dialect behind it, so its encoders are used.
Ping and Pong are frames of one byte without an address. Nothing here knows sessions or permissions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ydoc_store.errors import InvalidFrame
from ydoc_store.yjs.lib0 import Malformed, Reader, encode_string
from ydoc_store.yjs.messages import (
    AWARENESS,
    QUERY_AWARENESS,
    SYNC,
    Awareness,
    Message,
    QueryAwareness,
    Unknown,
    decode_sync,
)

AUTH: Final = 2
STATELESS: Final = 5
CLOSE: Final = 7
SYNC_STATUS: Final = 8

AUTH_TOKEN: Final = 0
AUTH_DENIED: Final = 1
AUTH_GRANTED: Final = 2

PING: Final = b"\x09"
PONG: Final = b"\x0a"

SESSION_SEPARATOR: Final = "\0"


@dataclass(frozen=True, slots=True)
class Token:
    """Who the client says it is, and of which release its provider is, where it tells."""

    token: str
    version: str | None

    @property
    def answers_ping(self) -> bool:
        """Whether its provider is of version 4 or newer: older ones take a Ping for a document's address."""
        major = (self.version or "").partition(".")[0]
        return major.isascii() and major.isdigit() and int(major) >= 4


@dataclass(frozen=True, slots=True)
class Stateless:
    """Words for the application, never stored."""

    payload: str


@dataclass(frozen=True, slots=True)
class Close:
    """The client leaves this document; the socket stays."""


@dataclass(frozen=True, slots=True)
class Ping:
    """The client asks whether we are there."""


@dataclass(frozen=True, slots=True)
class Pong:
    """The client answers our Ping."""


@dataclass(frozen=True, slots=True)
class Addressed:
    """A message about one document."""

    address: str
    message: Message | Token | Stateless | Close


def decode_frame(frame: bytes, *, address_bytes_max: int) -> Addressed | Ping | Pong:
    """The message of one frame. Raises `InvalidFrame` for one that is cut short, followed by bytes, or whose address
    is longer than `address_bytes_max`.

    The bytes behind an unknown type are not looked at; the types that servers send each other are among those.
    """
    if frame == PING:
        return Ping()
    if frame == PONG:
        return Pong()
    reader = Reader(frame)
    try:
        address = reader.string()
        kind = reader.uint()
        if len(address.encode()) > address_bytes_max:
            raise InvalidFrame(f"an address over {address_bytes_max} bytes")
        message = _decode(reader, kind)
    except Malformed as error:
        raise InvalidFrame(f"not a message: {error}") from error
    if not reader.done and not isinstance(message, Unknown):
        raise InvalidFrame(f"bytes behind the message at offset {reader.at}")
    return Addressed(address, message)


def _decode(reader: Reader, kind: int) -> Message | Token | Stateless | Close:
    if kind == SYNC:
        return decode_sync(reader)
    if kind == AWARENESS:
        return Awareness(reader.buf())
    if kind == QUERY_AWARENESS:
        return QueryAwareness()
    if kind == STATELESS:
        return Stateless(reader.string())
    if kind == CLOSE:
        return Close()
    if kind == AUTH:
        step = reader.uint()
        if step != AUTH_TOKEN:
            raise Malformed(f"an unknown auth step {step}")
        return Token(reader.string(), None if reader.done else reader.string())
    return Unknown(kind)


@dataclass(frozen=True, slots=True)
class TokenWanted:
    """The server asks for the next token, before the old one ends."""


@dataclass(frozen=True, slots=True)
class Denied:
    """The server sends nothing of this document. `code` is "" where the server is another product's."""

    reason: str
    code: str


@dataclass(frozen=True, slots=True)
class Entitled:
    """The token was accepted."""

    writes: bool


@dataclass(frozen=True, slots=True)
class Closed:
    """The server has detached this document; the socket stays."""

    reason: str


@dataclass(frozen=True, slots=True)
class SyncStatus:
    """The outcome of one Step2 or Update; accepted means that it is committed."""

    accepted: bool


ServerMessage = Message | TokenWanted | Denied | Entitled | Stateless | Closed | SyncStatus


def decode_from_server(frame: bytes, *, address: str) -> ServerMessage | Ping | Pong | None:
    """What a server's frame says about the document at `address`; None where it is about another.

    Raises `InvalidFrame` like `decode_frame`; the bytes behind an unknown type are not looked at.
    """
    if frame == PING:
        return Ping()
    if frame == PONG:
        return Pong()
    reader = Reader(frame)
    try:
        if reader.string() != address:
            return None
        message = _decode_from_server(reader, reader.uint())
    except Malformed as error:
        raise InvalidFrame(f"not a message: {error}") from error
    if not reader.done and not isinstance(message, Unknown):
        raise InvalidFrame(f"bytes behind the message at offset {reader.at}")
    return message


def _decode_from_server(reader: Reader, kind: int) -> ServerMessage:
    if kind == AUTH:
        step = reader.uint()
        if step == AUTH_TOKEN:
            return TokenWanted()
        if step == AUTH_DENIED:
            return Denied(reader.string(), "" if reader.done else reader.string())
        if step == AUTH_GRANTED:
            return Entitled(reader.string() == "read-write")
        raise Malformed(f"an unknown auth step {step}")
    if kind == SYNC_STATUS:
        status = reader.uint()
        if status > 1:
            raise Malformed(f"an unknown status {status}")
        return SyncStatus(status == 1)
    if kind == CLOSE:
        return Closed("" if reader.done else reader.string())
    # AUTH and CLOSE, which mean something else from a client, were read above.
    return _decode(reader, kind)  # type: ignore[return-value]


def name_of(address: str) -> str:
    """The document's name in an address."""
    return address.partition(SESSION_SEPARATOR)[0]


def encode_address(address: str) -> bytes:
    """What every frame about this document begins with."""
    return encode_string(address)


def encode_token(token: str, version: str) -> bytes:
    """Behind an address: who the client says it is, and of which release it is."""
    return bytes((AUTH, AUTH_TOKEN)) + encode_string(token) + encode_string(version)


def encode_leave() -> bytes:
    """Behind an address: the client leaves this document."""
    return bytes((CLOSE,))


def encode_granted(*, writes: bool) -> bytes:
    """Behind an address: the client may read, and write where `writes`."""
    return bytes((AUTH, AUTH_GRANTED)) + encode_string("read-write" if writes else "readonly")


def encode_denied(reason: str, code: str) -> bytes:
    """Behind an address: nothing of this document will be sent, and why; `code` tells programs, stock clients read
    no further than the reason."""
    return bytes((AUTH, AUTH_DENIED)) + encode_string(reason) + encode_string(code)


def encode_token_wanted() -> bytes:
    """Behind an address: the client's token is about to expire, and a new one is asked for."""
    return bytes((AUTH, AUTH_TOKEN))


def encode_stateless(payload: str) -> bytes:
    """Behind an address: words of the application."""
    return bytes((STATELESS,)) + encode_string(payload)


def encode_close(reason: str) -> bytes:
    """Behind an address: this document is over for this client; its socket stays."""
    return bytes((CLOSE,)) + encode_string(reason)


def encode_sync_status(*, accepted: bool) -> bytes:
    """Behind an address: the outcome of one Step2 or Update; accepted means that it is committed."""
    return bytes((SYNC_STATUS, accepted))
