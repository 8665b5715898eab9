"""The socket transport: WebSocket connections carried into rooms. The only importer of `websockets`.

No Yjs knowledge lives here: frames go to a session as bytes, and what a session sends comes back as bytes.
"""

from __future__ import annotations

from ydoc_store.relay.service import RelayService, websocket_protocol

__all__ = ["RelayService", "websocket_protocol"]
