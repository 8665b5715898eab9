"""One document's talk with the server, over as many connections as it takes: frames in, frames out, and what is saved.

What is edited leaves in rounds: the next one is sent when the last is acknowledged, and holds everything edited
since. So an ack is never taken for another's: the server acks at once what it knows already, ahead of what still
waits for its commit. On each connection nothing is sent before the server has said what it has; the answer to that is
the first round, and holds all that was edited meanwhile. Sans-I/O: a shell moves the frames and hands in the time.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pycrdt import Doc

from ydoc_store.client.errors import ClientError, EpochChanged, Refused, Unavailable, Unreadable, of_close, of_denial
from ydoc_store.client.presence import Presence
from ydoc_store.client.replica import CLIENTS_MAX, Replica
from ydoc_store.errors import InvalidFrame, InvalidUpdate
from ydoc_store.yjs import hocuspocus as wire
from ydoc_store.yjs.awareness import decode_awareness, encode_awareness_entries
from ydoc_store.yjs.join import join
from ydoc_store.yjs.lib0 import NESTING_MAX
from ydoc_store.yjs.messages import (
    Awareness,
    QueryAwareness,
    SyncStep1,
    SyncStep2,
    Update,
    encode_awareness,
    encode_sync_step1,
    encode_sync_step2,
    encode_update,
)
from ydoc_store.yjs.ranges import decode_state_vector
from ydoc_store.yjs.split import split

# Providers of version 4 and newer are kept alive with Ping; the rest tells an operator who is there.
VERSION = "4.ydoc-store"
# A quarter of what the server's default takes from a connection in a second.
PIECE_BYTES_MAX = 1024 * 1024
AWARENESS_BYTES_MAX = 64 * 1024 * 1024
READ_ONLY = "you may only read this document, or the server takes nothing for now: what was edited is not stored"


@dataclass(slots=True)
class _Round:
    """What is on its way: everything up to the edit with this number, in so many frames without an answer yet."""

    through: int
    unanswered: int


class Session:
    """`wants_turn` is called when there may be something to send, `changed` when something that is waited for may be
    here, `failed` with what an observer of the document raised.

    `edits` counts local edits. `ended` says why the document is over for good; `dropped`, why this connection is;
    `is_left`, that nobody will connect again. An edit may be noted from another thread; everything else is of one.
    """

    def __init__(
        self,
        name: str,
        ydoc: Doc[Any],
        *,
        wants_turn: Callable[[], None],
        changed: Callable[[], None],
        failed: Callable[[BaseException], None],
        has_other_tokens: bool = False,
    ) -> None:
        self._prefix = wire.encode_address(name)
        self._name = name
        self._wants_turn = wants_turn
        self._changed = changed
        self._has_other_tokens = has_other_tokens
        self._was_turned_away = False
        self.replica = Replica(ydoc, self._edited, failed)
        self.presence = Presence(ydoc.client_id, changed)
        self.outbox: deque[bytes] = deque()
        # What a document brings along is not known to be stored.
        self.edits = int(self.replica.has_content)
        self._noting = threading.Lock()
        self.ended: ClientError | None = None
        self.is_left = False
        self.dropped: str | None = None
        self.is_connected = False
        self.is_synced = False
        self.was_synced = False
        self.may_write: bool | None = None
        self.token_wanted = False
        # Up to which edit everything is committed; -1 until the server has said so once.
        self._saved = -1
        self._is_refused = False
        self._round: _Round | None = None
        self._their_vector: bytes | None = None
        self._has_answered = False
        self._unsent: list[bytes] = []

    # What is saved

    def is_saved(self, through: int) -> bool:
        """Whether the server has committed every edit up to number `through`. Raises what makes that impossible."""
        if self.ended is not None:
            raise self.ended.with_traceback(None)
        if self._saved >= through:
            return True
        if self._is_refused:
            raise Refused(READ_ONLY, "read_only")
        if self.is_left:
            raise Unavailable("this document was left, and what was edited last is not known to be stored")
        return False

    @property
    def has_unsaved(self) -> bool:
        """Whether something was edited of which the server has not said yet that it is committed."""
        return self._saved < self.edits and self.edits > 0

    def _edited(self, update: bytes) -> None:
        with self._noting:
            self.edits += 1
            if self._has_answered:
                self._unsent.append(update)
        self._wants_turn()

    # A connection

    def connected(self, token: str) -> None:
        """Begin on a new connection."""
        self.is_connected = True
        self.dropped = None
        self.token_wanted = False
        self._is_refused = False
        self.presence.connected()
        self.renew(token)
        self._say(encode_sync_step1(self.replica.state_vector()))

    def renew(self, token: str) -> None:
        """Show a token: the first, or the next one."""
        self.token_wanted = False
        self._say(wire.encode_token(token, VERSION))

    def disconnected(self) -> None:
        """The connection is gone, and with it whatever was on its way: the next one begins with all that is unsaved."""
        self.is_connected = self.is_synced = self.token_wanted = False
        self._round = self._their_vector = None
        with self._noting:
            self._has_answered = False
            self._unsent.clear()
        self.outbox.clear()
        self.presence.disconnected()
        self._changed()

    def closed(self, code: int, reason: str) -> None:
        """The server, or the library, has closed the socket."""
        error = of_close(code, reason)
        if error is not None:
            self.end(error)
        elif self.dropped is None:
            self.dropped = reason or f"the connection was closed with {code}"

    def leave(self) -> None:
        """Say goodbye."""
        self.presence.show(None)
        self.turn(0.0)
        self._say(wire.encode_leave())

    def left(self) -> None:
        """Nobody connects again; whoever waits is told."""
        self.is_left = True
        self.disconnected()

    def end(self, error: ClientError) -> None:
        """This document is over on this side; the first reason stays."""
        if self.ended is None:
            self.ended = error
            self._changed()

    def _drop(self, why: str) -> None:
        self.dropped = self.dropped or why

    # What goes out

    def tick(self, now_s: float) -> None:
        """As time passes: presence is renewed, and forgotten. To be called every few seconds."""
        self.presence.expire(now_s)
        self.turn(now_s)

    def turn(self, now_s: float) -> None:
        """Send what there is to send. To be called once after each turn of whoever edits."""
        if not self.is_connected or self.ended is not None:
            return
        entries = self.presence.to_tell(now_s)
        if entries:
            self._say(encode_awareness(encode_awareness_entries(entries)))
        if self._round is not None:
            return
        if self._their_vector is not None:
            # Not half a transaction: its end, or the next tick, comes here again.
            if not self.replica.is_in_transaction:
                self._answer(self._their_vector)
        elif self._unsent and not self._is_refused:
            self._send_edits()

    def _answer(self, their_vector: bytes) -> None:
        self._their_vector = None
        if self.edits and not self._has_answered:
            # A failover or a restored backup may have lost what was called saved, and of deletes no vector tells:
            # with this round it is there again.
            self._saved = -1
        with self._noting:
            self._has_answered = True
            self._unsent.clear()
            through = self.edits
        # Read behind that count: what another thread edits from here on may be in it, and is sent once more.
        try:
            first, *others = _pieces(self.replica.beyond(their_vector))
        except InvalidUpdate as error:
            self.end(Unreadable(f"this document cannot be read for sending: {error}"))
            return
        self._begin(through, [encode_sync_step2(first), *map(encode_update, others)])

    def _send_edits(self) -> None:
        with self._noting:
            updates, self._unsent = self._unsent, []
            through = self.edits
        try:
            pieces = _pieces(join(updates))
        except InvalidUpdate:
            # What our own parsers refuse the server will, and it says why.
            pieces = updates
        self._begin(through, [encode_update(piece) for piece in pieces])

    def _begin(self, through: int, messages: list[bytes]) -> None:
        self._round = _Round(through, len(messages))
        for message in messages:
            self._say(message)

    def _say(self, message: bytes) -> None:
        self.outbox.append(self._prefix + message)

    # What comes in

    def receive(self, frame: bytes, now_s: float) -> None:
        """Act on one frame. What cannot be read ends the connection, what cannot be applied the document."""
        if self.ended is not None or not self.is_connected:
            return
        try:
            message = wire.decode_from_server(frame, address=self._name)
            if isinstance(message, Update | SyncStep2):
                self.replica.apply(message.update)
                if isinstance(message, SyncStep2):
                    self.is_synced = self.was_synced = True
                    self._was_turned_away = False
                self._changed()
            elif message is not None:
                self._act_on_other(message, now_s)
            self.turn(now_s)
        except InvalidFrame as error:
            self._drop(f"the server sent {error}")
        except (EpochChanged, Unreadable) as error:
            self.end(error)

    def _act_on_other(self, message: wire.ServerMessage | wire.Ping | wire.Pong, now_s: float) -> None:
        if isinstance(message, wire.SyncStatus):
            self._answered(accepted=message.accepted)
        elif isinstance(message, SyncStep1):
            # Native code is to be asked about it.
            decode_state_vector(message.state_vector, clients_max=CLIENTS_MAX)
            self._their_vector = message.state_vector
        elif isinstance(message, Awareness):
            entries = decode_awareness(
                message.payload, entries_max=100_000, bytes_max=AWARENESS_BYTES_MAX, json_depth_max=NESTING_MAX + 2
            )
            self.presence.hear(entries, now_s)
        elif isinstance(message, QueryAwareness):
            self.presence.connected()
        elif isinstance(message, wire.Entitled):
            self.may_write = message.writes
            if self._is_refused and message.writes:
                self._drop("what was refused may be written now: it is brought with a new sync")
            self._changed()
        elif isinstance(message, wire.TokenWanted):
            self.token_wanted = True
            self._changed()
        elif isinstance(message, wire.Denied):
            self._denied(message)
        elif isinstance(message, wire.Closed):
            self._drop(message.reason or "the server closed this document")
        elif isinstance(message, wire.Ping):
            self.outbox.append(wire.PONG)
        # Whatever else there is asks nothing of this side.

    def _answered(self, *, accepted: bool) -> None:
        if self._round is None:
            return
        if not accepted:
            # Nothing behind it is accepted either, until a new sync.
            self._is_refused = True
        self._round.unanswered -= 1
        if self._round.unanswered == 0:
            if not self._is_refused:
                self._saved = self._round.through
            self._round = None
        self._changed()

    def _denied(self, denied: wire.Denied) -> None:
        error = of_denial(denied.reason, denied.code)
        may_ask_again = self._has_other_tokens and not self._was_turned_away
        if denied.code == "unauthenticated" and may_ask_again:
            # The token may have ended on its way here.
            self._was_turned_away = True
            error = None
        if error is None:
            self._drop(denied.reason)
        else:
            self.end(error)


def _pieces(update: bytes) -> list[bytes]:
    return split(update, PIECE_BYTES_MAX)
