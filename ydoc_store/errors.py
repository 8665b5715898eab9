"""One error tree, split by whose fault it is.

Every leaf knows the WebSocket close code and the HTTP status with which it is told, and the exit code of the
command line. Nothing here imports anything of ours; adapters translate, they never invent codes of their own.
Close codes 4400 to 4499 stop a stock y-websocket client for good, every other code makes it come back
(wire protocol, dialect A), so a refusal that would repeat for ever is a 44xx and a passing trouble is not.
"""

from __future__ import annotations

import re
from typing import ClassVar

_BEFORE_A_CAPITAL = re.compile(r"(?<=.)(?=[A-Z])")


class YdocError(Exception):
    """Whatever this product raises on purpose. The message is meant for the person who has to act."""

    close_code: ClassVar[int] = 1011
    http_status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1
    # What a program is told that has to tell one error from another: the name of the class, and so never changed.
    code: ClassVar[str] = "ydoc_error"

    def __init_subclass__(cls) -> None:
        cls.code = _BEFORE_A_CAPITAL.sub("_", cls.__name__).lower()


# The sender's fault: the same bytes will be refused again.


class ClientFault(YdocError):
    """The peer sent something that we refuse; nothing of it was stored."""

    close_code = 1008
    http_status = 400
    exit_code = 5


class InvalidFrame(ClientFault):
    """A frame that is no message of its dialect."""


class TextFrame(InvalidFrame):
    """A text frame where only binary frames are spoken."""

    close_code = 1003


class InvalidRequest(ClientFault):
    """A body or a parameter of HTTP that is not what the path takes."""


class InvalidUpdate(ClientFault):
    """Bytes that are no Yjs v1 update within the limits: a client would send them again at every reconnect."""

    close_code = 4400


class InvalidName(ClientFault):
    """A document name outside the rule; a browser cannot see an HTTP 400, so sockets are closed with 4400."""

    close_code = 4400


class TooLarge(ClientFault):
    """An update, or a document, over its size. 1009 would make y-websocket reconnect for ever."""

    close_code = 4413
    http_status = 413


class UnknownPath(ClientFault):
    """No document lives under this URL."""

    close_code = 4404
    http_status = 404


class Unauthenticated(ClientFault):
    close_code = 4401
    http_status = 401


class TokenEnded(ClientFault):
    """A token has expired, and its client may have another: it is to come back with that."""

    close_code = 1012
    http_status = 401


class Forbidden(ClientFault):
    close_code = 4403
    http_status = 403


class NoSuchDocument(ClientFault):
    """Nothing was ever accepted under this name."""

    close_code = 4404
    http_status = 404
    exit_code = 4


class DocumentDeleted(ClientFault):
    """The document has a tombstone; it stays deleted until someone recreates it."""

    close_code = 4404
    http_status = 410
    exit_code = 4


class DocumentRenamed(ClientFault):
    """The document is found under another name from now on. Who comes back to this one comes to another document."""

    close_code = 4404
    http_status = 404


class NotAcceptable(ClientFault):
    """What was asked for does not come in any form that the reader takes."""

    http_status = 406


class UnsupportedMediaType(ClientFault):
    """A body of a kind that this path does not take."""

    http_status = 415


class WrongState(ClientFault):
    """What was asked for does not fit the state that the document is in; nothing was changed."""

    http_status = 409


class EpochChanged(ClientFault):
    """The peer holds another history of this document: it must reload, never merge."""

    close_code = 4409
    http_status = 409


class CursorExpired(ClientFault):
    """A place in the change feed behind which something may be missing: its reader must begin again."""

    http_status = 410


class AheadOfLog(ClientFault):
    """A delete of content that this log has never seen: the peer must sync again and bring that content."""

    close_code = 1012
    http_status = 409


class SlowMember(ClientFault):
    """A reader that took no byte for too long, or whose outbox is over its cap."""

    close_code = 1013


class LimitExceeded(ClientFault):
    """More than an address may at once; it may again in a moment, so nobody is sent away for good."""

    close_code = 1013
    http_status = 429


# What the guard of an append says: each leaves the document, and everyone else's updates, as they were.


class ConditionFailed(ClientFault):
    """The document is not at the head that the writer asked for; `head` is where it is."""

    http_status = 412

    def __init__(self, head: int):
        super().__init__(f"this document is at {head}, not where your condition has it")
        self.head = head


class KeyReused(ClientFault):
    """The key of a request came with another request before; nothing of this one was done."""

    http_status = 422


class ProducerStale(ClientFault):
    """A producer of this id has begun a later epoch: this one is a leftover and writes nothing more."""

    http_status = 403

    def __init__(self, current_epoch: int):
        super().__init__(f"this producer goes on in epoch {current_epoch}")
        self.current_epoch = current_epoch


class ProducerGap(ClientFault):
    """A producer's update came before the one that it follows, or the producer is not known any more."""

    http_status = 409

    def __init__(self, expected: int, received: int):
        super().__init__(f"this producer's next update is {expected}, not {received}")
        self.expected = expected
        self.received = received


class NoSuchStream(ClientFault):
    """No stream of this name is alive: none was created, or it was deleted, or its time is over."""

    http_status = 404
    exit_code = 4


class NameReserved(ClientFault):
    """A stream of this name would never be found, because something of the server's own stands there."""

    http_status = 409


class StreamDiffers(ClientFault):
    """A stream of this name is there and was created otherwise, or holds another type than is brought."""

    http_status = 409


class StreamFull(ClientFault):
    """A stream holds as many bytes as it may; it can still be read, closed and deleted."""

    http_status = 413


class StreamSeqStale(ClientFault):
    """A writer's own sequence did not rise."""

    http_status = 409


class StreamClosed(ClientFault):
    """A stream that was closed takes nothing more; it can still be read. `head` is where it ends."""

    http_status = 409

    def __init__(self, head: int):
        super().__init__("this stream is closed")
        self.head = head


# Our side's trouble: the same bytes may be accepted later.


class ServerFault(YdocError):
    close_code = 1013
    http_status = 503
    exit_code = 3


class StorageUnavailable(ServerFault):
    """Postgres cannot be reached, or did not answer in time. Nothing was accepted."""


class StorageBusy(ServerFault):
    """A lock or statement time-out, a serialisation failure: known to have been rolled back."""


class AuthUnavailable(ServerFault):
    """Whoever knows who may do what cannot be asked now. Nobody is let in, and nobody is sent away for good."""


class CommitUnknown(ServerFault):
    """The COMMIT's outcome is not known. It is never retried blindly: the members sync again instead."""

    close_code = 1012


class RoomDiscarded(ServerFault):
    """What this room remembered can no longer be trusted; members come back and load it anew."""

    close_code = 1012


class Draining(ServerFault):
    """This process is stopping; another one, or its successor, takes the connection."""

    close_code = 1001


class ServerFull(ServerFault):
    """This process holds as much as it may, or this document has as many members; a later try, or another node, may
    do."""


class ServerFailed(ServerFault):
    """An error of our own that nobody foresaw; the log has it. Members come back and load anew."""

    close_code = 1011
    http_status = 500
    exit_code = 1


class CorruptDocument(ServerFault):
    """The stored log does not hold together (a hole, a wrong end). It is never opened as an empty document."""

    close_code = 1011
    http_status = 500
    exit_code = 1


# The operator's to mend.


class OperatorFault(YdocError):
    exit_code = 2


class SettingInvalid(OperatorFault):
    """A setting that is unknown, out of range, or unsafe together with another one."""


class SchemaMismatch(OperatorFault):
    """The database's schema is older or newer than this release can work on, or a migration file was edited."""


class BackupRefused(OperatorFault):
    """A backup that cannot be made there, or that cannot be restored; nothing was changed."""

    exit_code = 5


class SourceUnreadable(OperatorFault):
    """The store that documents are to come from cannot be read; what came before stays."""

    exit_code = 3


class LibraryMissing(OperatorFault):
    """What was asked for needs an optional library, which the message names."""


class EmbeddedPostgresFailed(OperatorFault):
    """The Postgres of our own could not be started; the message says why and what to do."""

    exit_code = 3
