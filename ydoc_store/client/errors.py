"""What can end a document on this side, or keep an edit from being stored; one small tree for those who catch.

None of them is the server's own error: those travel as a code and a reason, which `of_denial` and `of_close` turn
into these, or into None where coming back later helps.
"""

from __future__ import annotations


class ClientError(Exception):
    """Whatever `ydoc_store.client` raises on purpose."""


class Refused(ClientError):
    """The server takes this not, and would not the next time: no permission, a bad token or name, too large.

    `code` tells which, in the server's words for programs (`forbidden`, `unauthenticated`, `too_large`, …); it is
    `read_only` for edits of somebody who may only read.
    """

    def __init__(self, reason: str, code: str) -> None:
        # Both are its arguments, or it could not leave a process of a pool.
        super().__init__(reason, code)
        self.reason = reason
        self.code = code

    def __str__(self) -> str:
        return self.reason


class Deleted(ClientError):
    """The document was deleted. What is here is a last copy, connected to nothing."""


class EpochChanged(ClientError):
    """The document was recreated, repaired or restored: this copy is of another history, and was not merged.

    Open the document anew; what of this copy is to stay has to be written again, as content.
    """


class Unreadable(ClientError):
    """The server sent what cannot be applied here. Nothing was applied since."""


class Unavailable(ClientError, TimeoutError):
    """The deadline has passed without an answer; the message says what stood in the way. Edits are kept, and sent on
    as long as the document is open: whether they are stored is not known yet."""


_DELETED = {"document_deleted"}
_EPOCH_CHANGED = {"epoch_changed"}
# Denials that a stock client takes for the end, because it knows no others. Those of a full or failing server pass.
_PASSING = {
    "ahead_of_log",
    "auth_unavailable",
    "commit_unknown",
    "corrupt_document",
    "draining",
    "limit_exceeded",
    "room_discarded",
    "server_failed",
    "server_full",
    "slow_member",
    "storage_busy",
    "storage_unavailable",
    "token_ended",
}
# What RFC 6455 has for peers that do not understand each other, or sent too much: it would repeat for ever.
_MISUNDERSTOOD = (1002, 1003, 1007, 1008, 1009, 1010)


def of_denial(reason: str, code: str) -> ClientError | None:
    """What a denial with this reason and code comes to; None: come back later."""
    if code in _PASSING:
        return None
    if code in _DELETED:
        return Deleted(reason)
    if code in _EPOCH_CHANGED:
        return EpochChanged(reason)
    return Refused(reason, code or "denied")


def of_close(code: int, reason: str) -> ClientError | None:
    """What the close code of a socket comes to; None: come back later.

    What ends a document is told by a denial. A socket that is closed for good is at a wrong URL, or was sent what it
    does not take.
    """
    if 4400 <= code <= 4499 or code in _MISUNDERSTOOD:
        return Refused(reason or f"the connection was closed with {code}", f"closed_{code}")
    return None
