"""The WebSocket protocol's own machine, as every connection of ours wants it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

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
