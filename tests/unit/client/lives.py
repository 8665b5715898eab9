"""Clients' sessions and the server's own rooms in one process, joined by lines that carry frames when they are told to.

The server side is the real one down to its queues; commits land when the test says so. What a client sent and was
sent on a connection is lost with it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from random import Random
from typing import Any

from pycrdt import Doc, Text

from tests.unit.rooms.test_hocuspocus import Outlet, Talk, land, take
from ydoc_store.client.errors import ClientError
from ydoc_store.client.session import Session
from ydoc_store.errors import StorageBusy
from ydoc_store.rooms.hocuspocus import HocuspocusSocket
from ydoc_store.rooms.room import Room
from ydoc_store.yjs.merge import EMPTY_UPDATE, merge
from ydoc_store.yjs.walker import Walked, walk

NAME = "notes"


def patient_talk() -> Talk:
    """Only dice move frames here: a machine that stands still is no client that says nothing."""
    return Talk(handshake_timeout_s=86_400)


class Life:
    """One client over all its connections. `edits` is what it edited, each as the walker sees it."""

    def __init__(self, talk: Talk, client_id: int, token: str = "writes") -> None:
        self.talk = talk
        self.token = token
        self.doc: Doc[Any] = Doc(client_id=client_id)
        self.text = self.doc.get("text", type=Text)
        self.edits: list[Walked] = []
        self._is_editing = False
        self._observed = self.doc.observe(self._note)
        self.failures: list[BaseException] = []
        self.session = Session(
            NAME, self.doc, wants_turn=lambda: None, changed=lambda: None, failed=self.failures.append
        )
        self.socket: HocuspocusSocket | None = None
        self.outlet = Outlet()
        self.up: deque[bytes] = deque()
        self.heard = 0
        # It has not heard of the server that answers since a failover.
        self.is_unaware = False

    def _note(self, event: Any) -> None:
        if self._is_editing:
            self.edits.append(walk(event.update))

    def insert(self, at: int, words: str) -> None:
        self._is_editing = True
        self.text.insert(at, words)
        self._is_editing = False

    def erase(self, start: int, end: int) -> None:
        self._is_editing = True
        del self.text[start:end]
        self._is_editing = False

    def connect(self) -> None:
        self.socket, self.outlet = self.talk.connect()
        self.heard = 0
        self.session.connected(self.token)

    def turn(self) -> None:
        self.session.turn(0.0)
        self.up.extend(self.session.outbox)
        self.session.outbox.clear()

    def carry_up(self, most: int = 1_000) -> int:
        """Bring frames to the server, in order; how many."""
        carried = 0
        while self.socket is not None and self.up and carried < most and not self.outlet.is_held:
            self.socket.receive(self.up.popleft())
            carried += 1
        return carried

    def carry_down(self, most: int = 1_000) -> int:
        carried = 0
        while self.socket is not None and self.heard < len(self.outlet.sent) and carried < most:
            frame = self.outlet.sent[self.heard]
            self.heard += 1
            self.session.receive(frame, 0.0)
            carried += 1
        if self.socket is not None and self.heard == len(self.outlet.sent) and self.outlet.closed_by is not None:
            error = self.outlet.closed_by
            self.session.closed(error.close_code, str(error))
            self.cut()
        return carried

    def cut(self) -> None:
        """The connection is gone, with everything on its way."""
        if self.socket is not None:
            self.socket.closed()
            self.socket = None
            self.up.clear()
            self.session.disconnected()

    def saved_edits(self) -> int:
        """How many of its edits it may call saved, from the first on."""
        try:
            return next((count for count in range(len(self.edits), 0, -1) if self.session.is_saved(count)), 0)
        except ClientError:
            return 0


class World:
    """Some lives in one room, and dice."""

    def __init__(self, talk: Talk, dice: Random, lives: int = 2, *, fails_over: bool = False) -> None:
        self.talk = talk
        self.dice = dice
        self.fails_over = fails_over
        self.room: Room = talk.room(NAME)
        self.lives = [Life(talk, number + 1) for number in range(lives)]
        self.committed: list[bytes] = []

    def land(self) -> None:
        """What waited is committed."""
        taken = take(self.room)
        if taken:
            self.committed += [queued.update for queued in taken]
            land(self.room, self.room.head + len(taken))

    def refuse(self) -> None:
        """What waited was rolled back."""
        taken, queue = take(self.room), self.room.queue
        queue.in_flight = []
        if taken:
            self.room.refused(taken, StorageBusy("busy"))

    async def fail_over(self, lost: int) -> None:
        """A standby takes over that lacks so many of the last commits; whoever was connected is cut."""
        self.leave()
        await self.talk.rooms.stop()
        kept = self.committed[: max(0, len(self.committed) - lost)]
        self.talk, self.committed = patient_talk(), []
        self.room = self.talk.room(NAME)
        standby = Life(self.talk, 1_000)
        standby.doc.apply_update(merge(kept) if kept else EMPTY_UPDATE)
        standby.connect()
        while standby.session.has_unsaved:
            standby.turn()
            standby.carry_up()
            await asyncio.sleep(0)
            self.land()
            standby.carry_down()
        standby.cut()
        for life in self.lives:
            life.talk, life.is_unaware = self.talk, True

    async def step(self) -> None:
        life, dice = self.dice.choice(self.lives), self.dice
        length = len(life.text)
        match dice.randrange(12 + self.fails_over):
            case 0 | 1:
                life.insert(dice.randrange(length + 1), "abcdefgh"[: dice.randrange(1, 4)])
            case 2 if length:
                start = dice.randrange(length)
                life.erase(start, min(length, start + dice.randrange(1, 4)))
            case 3 | 4:
                life.turn()
            case 5 | 6:
                life.carry_up(dice.randrange(1, 4))
            case 7 | 8:
                life.carry_down(dice.randrange(1, 6))
            case 9:
                self.land()
            case 10:
                if dice.random() < 0.2:
                    self.refuse()
            case 11:
                if life.socket is None:
                    life.connect()
                elif dice.random() < 0.2:
                    life.cut()
            case 12 if self.fails_over and dice.random() < 0.2:
                await self.fail_over(dice.randrange(8))
        await asyncio.sleep(0)
        self.judge()

    def judge(self) -> None:
        """I1: whatever a client may call saved is in what was committed, by the server that it has heard of."""
        for life in self.lives:
            life.is_unaware = life.is_unaware and not life.session._has_answered
            if life.is_unaware:
                continue
            for edit in life.edits[: life.saved_edits()]:
                assert self.room.knowledge.covers(edit), f"client {life.doc.client_id} said saved too early"

    async def heal(self) -> None:
        """No more edits, no more trouble: everything is saved and the same everywhere after a few rounds."""
        for _ in range(60):
            for life in self.lives:
                if life.socket is None:
                    life.connect()
                life.turn()
                life.carry_up()
            await asyncio.sleep(0)
            self.land()
            for life in self.lives:
                life.carry_down()
            self.judge()
        for life in self.lives:
            assert life.session.ended is None, life.session.ended
            assert life.session.is_saved(life.session.edits)
            assert not life.session.has_unsaved
            assert str(life.text) == str(self.lives[0].text)
            assert life.failures == []

    def leave(self) -> None:
        """Nobody is connected any more."""
        for life in self.lives:
            life.cut()
        self.talk.socket.closed()
