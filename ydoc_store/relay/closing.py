"""What a close frame says. Pure.

A peer is told what it can act on. What went wrong between us and the database is for the log: it may hold
addresses and names.
"""

from __future__ import annotations

from ydoc_store.errors import CommitUnknown, StorageBusy, StorageUnavailable, YdocError

# How long a peer may take to answer our close frame before the socket is cut.
CLOSE_TIMEOUT_S = 5.0
# RFC 6455: a close frame carries at most 125 bytes, two of them the code.
CLOSE_REASON_BYTES_MAX = 123

_FOR_PEERS: dict[type[YdocError], str] = {
    StorageUnavailable: "the database is away: try again later",
    StorageBusy: "the database is busy: try again later",
    CommitUnknown: "it is not known what was stored: sync again",
}


def reason_for(error: YdocError) -> str:
    """The reason of a close frame, cut between characters to what fits."""
    words = _FOR_PEERS.get(type(error)) or str(error)
    return words.encode(errors="replace")[:CLOSE_REASON_BYTES_MAX].decode(errors="ignore")
