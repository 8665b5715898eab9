"""Between an editor and a node: two links that keep their order, and the node's end of them, a `SocketOutlet`.

The node's end pauses, holds and closes as `relay/connection` does, without bytes of the WebSocket protocol. Every
frame is shown to the oracle as it is handed to the session, and as it is written. Who speaks is in `editor` and
`nodes`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.simulation.loop import SimulatedLoop
from tests.simulation.weather import Storm
from ydoc_store.errors import SlowMember, YdocError
from ydoc_store.rooms.ywebsocket import YWebsocketSession

if TYPE_CHECKING:
    from tests.simulation.editor import Editor
    from tests.simulation.nodes import Node
    from tests.simulation.oracle import Oracle

ABNORMAL = 1006


@dataclass(frozen=True, slots=True)
class Closed:
    """The last thing on a link."""

    code: int
    reason: str = ""


Item = bytes | Closed


class Link:
    """One direction: everything arrives in order, each after a delay of its own, in the receiver's context."""

    def __init__(self, loop: SimulatedLoop, weather: Storm, receive: Callable[[Item], None], context: Context) -> None:
        self._loop = loop
        self._weather = weather
        self._receive = receive
        self._context = context
        self._waiting: deque[Item] = deque()
        self._last_s = 0.0
        self._is_cut = False

    def send(self, item: Item) -> None:
        if not self._is_cut:
            self._waiting.append(item)
            self._last_s = max(self._loop.time() + self._weather.delay_s(), self._last_s)
            self._loop.call_at(self._last_s, self._arrive, context=self._context)

    def _arrive(self) -> None:
        if self._waiting:
            self._receive(self._waiting.popleft())

    def cut(self, share_kept: float) -> None:
        """Nothing more is sent; of what is under way the first part still arrives."""
        self._is_cut = True
        kept = int(len(self._waiting) * share_kept)
        while len(self._waiting) > kept:
            self._waiting.pop()


class Socket:
    """One connection, from the editor's opening it to the node's end of its session."""

    def __init__(self, number: int, node: Node, editor: Editor, oracle: Oracle) -> None:
        self.id = f"socket {number}"
        self.node = node
        self.editor = editor
        self.name = editor.name
        self.session: YWebsocketSession | None = None
        self.is_closing = False
        self.proof = oracle.proof_for(self)
        self._oracle = oracle
        self._weather = node.weather
        self._has_ended = False
        self._paused_for: set[str] = {"opening"}
        self._inbox: deque[Item] = deque()
        loop = node.loop
        self.to_node = Link(loop, node.weather, self._arrived, node.context)
        self.to_editor = Link(loop, node.weather, lambda item: editor.receive(self, item), editor.context)
        loop.call_later(node.weather.delay_s(), node.accept, self, context=node.context)

    # The node's end: frames in

    def begin(self, session: YWebsocketSession) -> None:
        self.session = session
        self._resume("opening")

    def _arrived(self, item: Item) -> None:
        if isinstance(item, Closed):
            self.is_closing = True
            self.ended()
        else:
            self._inbox.append(item)
            self._hand_over()

    def _hand_over(self) -> None:
        while self._inbox and not self._paused_for and not self.is_closing and self.session is not None:
            frame = self._inbox.popleft()
            assert isinstance(frame, bytes)
            self.proof.handed_over(frame)
            self.session.receive(frame)

    def _resume(self, reason: str) -> None:
        self._paused_for.discard(reason)
        self._hand_over()

    def pause_reading(self) -> None:
        self._paused_for.add("member")

    def resume_reading(self) -> None:
        # The transport reads on later: an outlet never calls back before it returns.
        self.node.loop.call_soon(self._resume, "member")

    def rest_reading(self, seconds: float) -> None:
        self._paused_for.add("resting")
        self.node.loop.call_later(seconds, self._resume, "resting")

    def hold_reading(self) -> None:
        self._paused_for.add("holding")

    def release_reading(self) -> None:
        self._resume("holding")

    def stop_reading(self) -> None:
        self._paused_for.add("draining")

    # The node's end: frames out

    def encode(self, message: bytes) -> bytes:
        return message

    def write(self, encoded: bytes) -> None:
        if not self.is_closing:
            self._oracle.written(self, encoded)
            self.to_editor.send(encoded)
            if self._weather.happens(self._weather.rates.slow_member):
                self.close(SlowMember("simulated: too far behind"))

    async def write_paced(self, encoded: bytes) -> bool:
        self.write(encoded)
        await asyncio.sleep(self._weather.delay_s())
        return not self.is_closing

    def close(self, error: YdocError) -> None:
        if not self.is_closing:
            self.is_closing = True
            self._inbox.clear()
            self.to_editor.send(Closed(error.close_code, str(error)))
            self.node.loop.call_later(self._weather.delay_s(), self.ended, context=self.node.context)

    def ended(self) -> None:
        """The socket is gone, as the node sees it."""
        if not self._has_ended:
            self._has_ended = self.is_closing = True
            self.node.sockets.pop(self, None)
            session, self.session = self.session, None
            if session is not None:
                session.closed()

    # From outside

    def leave(self) -> None:
        """The editor closes; what it sent before arrives before."""
        self.to_node.send(Closed(1000))

    def vanish(self, share_kept: float, noticed_after_s: float) -> None:
        """The editor's side is gone without a word; the node notices later."""
        self.to_node.cut(share_kept)
        self.to_editor.cut(0)
        self.node.loop.call_later(noticed_after_s, self.ended, context=self.node.context)

    def node_died(self, share_kept: float) -> None:
        self.is_closing = self._has_ended = True
        self.session = None
        self._inbox.clear()
        self.to_editor.cut(share_kept)
        self.node.loop.call_later(self._weather.delay_s(), self.editor.lost, self, context=self.editor.context)
