"""The Python client: a pycrdt document that stays in sync with a server, for agents, jobs, notebooks and tests.

    from ydoc_store.client import connect

    async with connect("ws://127.0.0.1:1234/hocuspocus", "team/notes", token=token) as document:
        text = document.ydoc.get("content", type=Text)
        text += "Hello"
        await document.saved(timeout_s=10)

`saved` means what it means everywhere here: Postgres has committed it. Importing this imports nothing of the server.
"""

from __future__ import annotations

from ydoc_store.client.blocking import BlockingDocument, BlockingPresence, connect_sync
from ydoc_store.client.connection import Token
from ydoc_store.client.document import Document, PresenceOfAll, connect
from ydoc_store.client.errors import ClientError, Deleted, EpochChanged, Refused, Unavailable, Unreadable

__all__ = [
    "BlockingDocument",
    "BlockingPresence",
    "ClientError",
    "Deleted",
    "Document",
    "EpochChanged",
    "PresenceOfAll",
    "Refused",
    "Token",
    "Unavailable",
    "Unreadable",
    "connect",
    "connect_sync",
]
