"""An editor: a pycrdt document, presence, and y-websocket's way of connecting, syncing and coming back.

What it does of itself is to answer, to reconnect and to renew its presence. When it types, leaves or crashes is
thrown by the world. Every edit is told to the oracle before it is sent. In one thing it is more patient than a stock
client: with content that the server may not have, it sends no update ahead of its Step2. The log would hold that
update without its predecessors, which is allowed, and yrs, unlike Yjs, shows such content.
"""

from __future__ import annotations

from contextvars import copy_context
from random import Random
from typing import TYPE_CHECKING, Any

from pycrdt import Doc, Text, TransactionEvent

from tests.simulation.awareness import StockAwareness
from tests.simulation.loop import OWNER
from tests.simulation.network import ABNORMAL, Closed, Item, Socket
from tests.simulation.oracle import ACK, marker_in
from ydoc_store.yjs.awareness import AwarenessEntry, decode_awareness, encode_awareness_entries
from ydoc_store.yjs.messages import (
    Awareness,
    SyncStep1,
    SyncStep2,
    Unknown,
    Update,
    decode_message,
    encode_awareness,
    encode_sync_step1,
    encode_sync_step2,
    encode_update,
)
from ydoc_store.yjs.ranges import decode_state_vector

if TYPE_CHECKING:
    from tests.simulation.world import World

BACKOFF_S_MAX = 2.5
AWARENESS_CHECK_S = 3.0
LETTERS = "abcdefghijklmnopqrstuvwxyz"


class Editor:
    """One browser tab with one document open. `stopped_by` is the close code that it does not come back from."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.dice: Random = world.dice
        self.context = copy_context()
        self.context.run(OWNER.set, self)
        self.socket: Socket | None = None
        self.is_gone = False
        self.acks = 0
        self._waiting: list[bytes] = []
        self._is_applying = False
        self._may_send = False
        self._open_tab()
        world.loop.call_later(AWARENESS_CHECK_S, self._tick, context=self.context)

    def reload(self) -> None:
        """A new tab: nothing is remembered."""
        self.forget()
        self._open_tab()

    def forget(self) -> None:
        """End its document, which holds its observers where no garbage collector looks, and all that they know with
        them: this whole world."""
        self.doc.unobserve(self._observed)

    def _open_tab(self) -> None:
        self.client_id = self.world.new_client_id()
        self.doc: Doc[Any] = Doc(client_id=self.client_id)
        self.text = self.doc.get("text", type=Text)
        self.is_synced = False
        self.stopped_by: int | None = None
        self._observed = self.doc.observe(self._noted)
        self.awareness = StockAwareness(self.client_id, self._tell_presence, self.world.loop.time())

    def __repr__(self) -> str:
        return f"editor {self.client_id}"

    @property
    def state(self) -> dict[int, int]:
        vector = decode_state_vector(self.doc.get_state(), clients_max=10_000)
        # yrs also names whoever it has nothing of.
        return {client: clock for client, clock in vector.items() if clock}

    # Editing

    def _noted(self, event: TransactionEvent) -> None:
        if not self._is_applying:
            self._waiting.append(event.update)

    def _send_edits(self) -> None:
        updates, self._waiting = self._waiting, []
        marker = marker_in(self.state)
        for update in updates:
            self.world.oracle.edited(update, marker)
            if self._may_send:
                self._say(encode_update(update))

    def type(self) -> None:
        length = self.dice.randrange(1, 4)
        letter = LETTERS[self.client_id % len(LETTERS)]
        self.text.insert(self.dice.randrange(len(self.text) + 1), letter * length)
        self._send_edits()

    def erase(self) -> None:
        if len(self.text):
            start = self.dice.randrange(len(self.text))
            del self.text[start : min(len(self.text), start + self.dice.randrange(1, 5))]
            self._send_edits()

    def whisper(self, other: Editor) -> None:
        """Tabs of one browser tell each other directly; the other sends on what it heard."""
        mine, theirs = marker_in(self.state), marker_in(other.state)
        if mine is None or theirs is None or mine == theirs:
            other.doc.apply_update(self.doc.get_update(other.doc.get_state()))
            other._send_edits()

    # The connection

    def _say(self, frame: bytes) -> None:
        if self.socket is not None:
            self.socket.to_node.send(frame)

    def connect(self) -> None:
        node = self.world.some_node()
        if self.socket is None and self.stopped_by is None and not self.is_gone:
            if node is None:
                self._come_back()
                return
            self.socket = self.world.open_socket(node, self)
            self._may_send = not self.state
            self.say_step1()
            self.awareness.connected()

    def say_step1(self) -> None:
        self._say(encode_sync_step1(self.doc.get_state()))

    def _come_back(self) -> None:
        delay_s = BACKOFF_S_MAX * self.dice.random()
        self.world.loop.call_later(delay_s, self.connect, context=self.context)

    def lost(self, socket: Socket) -> None:
        self.receive(socket, Closed(ABNORMAL))

    def _disconnected(self) -> None:
        self.socket = None
        self.is_synced = False
        self.awareness.disconnected()

    def leave(self, *, for_good: bool = False) -> None:
        self.is_gone = self.is_gone or for_good
        if self.socket is not None:
            self.socket.leave()
            self._disconnected()

    def vanish(self) -> None:
        if self.socket is not None:
            self.socket.vanish(self.dice.random(), noticed_after_s=5 * self.dice.random() ** 2)
            self._disconnected()

    # Hearing

    def receive(self, socket: Socket, item: Item) -> None:
        if socket is not self.socket:
            return
        if isinstance(item, Closed):
            self._disconnected()
            if 4400 <= item.code < 4500:
                self.stopped_by = item.code
            else:
                self._come_back()
        elif item == ACK:
            self.acks += 1
        else:
            self._take(item)

    def _take(self, frame: bytes) -> None:
        message = decode_message(frame)
        if isinstance(message, SyncStep1):
            self._say(encode_sync_step2(self.doc.get_update(message.state_vector)))
            self._may_send = True
        elif isinstance(message, Update | SyncStep2):
            self._is_applying = True
            self.doc.apply_update(message.update)
            self._is_applying = False
            self.world.oracle.applied(self, message.update, self.state)
            self.is_synced = self.is_synced or isinstance(message, SyncStep2)
        elif isinstance(message, Awareness):
            entries = decode_awareness(message.payload, entries_max=10_000, bytes_max=2**24, json_depth_max=64)
            self.awareness.hear(entries, self.world.loop.time())
        else:
            assert not isinstance(message, Unknown), f"{self} was sent {frame!r}"

    # Presence

    def show(self) -> None:
        self.awareness.show(f'{{"cursor":{self.dice.randrange(100)}}}', self.world.loop.time())

    def _tell_presence(self, entries: list[AwarenessEntry]) -> None:
        self._say(encode_awareness(encode_awareness_entries(entries)))

    def _tick(self) -> None:
        if not self.is_gone:
            self.awareness.tick(self.world.loop.time())
            self.world.loop.call_later(AWARENESS_CHECK_S, self._tick, context=self.context)
