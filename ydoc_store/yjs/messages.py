"""The y-websocket messages: what a frame says, and how to say it.

One message a frame, strictly decoded; the update, state vector or awareness payload inside is handed on as raw
bytes, for the walker, ranges.py and awareness.py to judge. Dialects that put an address before the message reuse
`decode_sync` and the encoders behind their own prefix. Nothing here knows sessions or permissions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ydoc_store.errors import InvalidFrame
from ydoc_store.yjs.lib0 import Malformed, Reader, encode_buf, encode_string

SYNC: Final = 0
AWARENESS: Final = 1
PERMISSION: Final = 2
QUERY_AWARENESS: Final = 3

SYNC_STEP_1: Final = 0
SYNC_STEP_2: Final = 1
UPDATE: Final = 2

KEEPALIVE: Final = b"\x01\x01\x00"
"""Awareness of nobody: stock clients drop a socket that has been silent for 30 s, and pings do not count."""


@dataclass(frozen=True, slots=True)
class SyncStep1:
    """What the peer holds, as an encoded state vector; it asks for the rest."""

    state_vector: bytes


@dataclass(frozen=True, slots=True)
class SyncStep2:
    """The answer to a sync step 1."""

    update: bytes


@dataclass(frozen=True, slots=True)
class Update:
    """A change as it happened."""

    update: bytes


@dataclass(frozen=True, slots=True)
class Awareness:
    """Presence entries, still encoded."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class QueryAwareness:
    """The peer asks for the presence of all."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """A message whose type means nothing from a client in this dialect; to be counted and ignored."""

    type: int


SyncMessage = SyncStep1 | SyncStep2 | Update
Message = SyncMessage | Awareness | QueryAwareness | Unknown


def decode_message(frame: bytes) -> Message:
    """The message of a y-websocket frame. Raises `InvalidFrame` for one that is cut short or followed by bytes.

    The bytes behind an unknown type are not looked at.
    """
    # Nearly every frame is an update shorter than 128 bytes: judged here without a reader.
    if frame[:2] == b"\x00\x02" and len(frame) > 2 and frame[2] == len(frame) - 3 < 0x80:
        return Update(frame[3:])
    reader = Reader(frame)
    try:
        kind = reader.uint()
        message: Message
        if kind == SYNC:
            message = decode_sync(reader)
        elif kind == AWARENESS:
            message = Awareness(reader.buf())
        elif kind == QUERY_AWARENESS:
            message = QueryAwareness()
        else:
            return Unknown(kind)
    except Malformed as error:
        raise InvalidFrame(f"not a message: {error}") from error
    if not reader.done:
        raise InvalidFrame(f"bytes behind the message at offset {reader.at}")
    return message


def decode_sync(reader: Reader) -> SyncMessage:
    """Reads the payload of a sync message, from its step on; what follows it is the caller's to judge.

    Raises `Malformed`, for an unknown step too.
    """
    step = reader.uint()
    if step == UPDATE:
        return Update(reader.buf())
    if step == SYNC_STEP_2:
        return SyncStep2(reader.buf())
    if step == SYNC_STEP_1:
        return SyncStep1(reader.buf())
    raise Malformed(f"an unknown sync step {step}")


def encode_sync_step1(state_vector: bytes) -> bytes:
    """The frame that tells what we hold and asks for the rest."""
    return b"\x00\x00" + encode_buf(state_vector)


def encode_sync_step2(update: bytes) -> bytes:
    """The frame that answers a sync step 1."""
    return b"\x00\x01" + encode_buf(update)


def encode_update(update: bytes) -> bytes:
    """The frame of a change as it happened."""
    return b"\x00\x02" + encode_buf(update)


def encode_awareness(payload: bytes) -> bytes:
    """The frame of encoded presence entries."""
    return b"\x01" + encode_buf(payload)


def encode_permission_denied(reason: str) -> bytes:
    """The frame that says why nothing will be sent; stock clients log it."""
    return b"\x02\x00" + encode_string(reason)
