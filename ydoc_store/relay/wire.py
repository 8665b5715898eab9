"""The WebSocket protocol's own machine, as every connection of ours wants it, and messages made whole of frames."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from websockets.frames import Frame, Opcode
from websockets.server import ServerProtocol

from ydoc_store.relay.credentials import select_subprotocol

if TYPE_CHECKING:
    from websockets.typing import Subprotocol

# The library would describe every frame at debug level; ours says what an operator acts on.
_quiet = logging.getLogger("ydoc_store.relay.wire")
_quiet.setLevel(logging.CRITICAL)


def new_protocol(frame_bytes_max: int) -> ServerProtocol:
    """The sans-I/O machine of one connection, which refuses larger messages before they are here."""
    return ServerProtocol(subprotocols=None, select_subprotocol=_select, max_size=frame_bytes_max, logger=_quiet)


def _select(_protocol: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    return cast("Subprotocol | None", select_subprotocol(offered))


class Parts:
    """The frames of one message, until its last is here; the machine has judged their order and their size."""

    __slots__ = ("_parts", "is_text")

    def __init__(self) -> None:
        self._parts: bytearray | None = None
        self.is_text = False

    @property
    def held_bytes(self) -> int:
        """What of a message is here, while the rest is not."""
        return 0 if self._parts is None else len(self._parts)

    def take(self, frame: Frame) -> bytes | None:
        """The whole message, once this frame ends it; `is_text` tells of which kind."""
        opcode = frame.opcode
        if opcode is Opcode.BINARY or opcode is Opcode.TEXT:
            self.is_text = opcode is Opcode.TEXT
            if frame.fin:
                return bytes(frame.data)
            self._parts = bytearray(frame.data)
        elif opcode is Opcode.CONT and self._parts is not None:
            self._parts += frame.data
            if frame.fin:
                whole, self._parts = bytes(self._parts), None
                return whole
        return None
