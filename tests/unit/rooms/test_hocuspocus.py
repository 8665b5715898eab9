"""Many documents on one Hocuspocus socket: what waits, what is held, who is denied, and that nothing is left behind.

The same socket runs on real connections, rooms and providers in tests/interop/test_hocuspocus*.py.
"""

from __future__ import annotations

import asyncio
import random
import string
import time
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from pycrdt import Doc, Text

from tests.room import CREATED, Appender, Outlet, empty_room, land, take
from tests.waiting import until
from ydoc_store.auth.access import Access, Asked, Granted
from ydoc_store.auth.stateless import Stateless, Words
from ydoc_store.errors import DocumentDeleted, Forbidden, RoomDiscarded, Unauthenticated
from ydoc_store.metrics import Metrics
from ydoc_store.rooms import hocuspocus
from ydoc_store.rooms.admission import RoomLimits
from ydoc_store.rooms.heavy import INLINE_BYTES_MAX
from ydoc_store.rooms.hocuspocus import HocuspocusSocket
from ydoc_store.rooms.registry import Rooms
from ydoc_store.rooms.room import Room
from ydoc_store.settings import Settings
from ydoc_store.yjs import hocuspocus as wire
from ydoc_store.yjs.awareness import AwarenessEntry, encode_awareness_entries
from ydoc_store.yjs.lib0 import encode_string
from ydoc_store.yjs.merge import EMPTY_UPDATE
from ydoc_store.yjs.messages import KEEPALIVE, encode_awareness, encode_sync_step1, encode_sync_step2, encode_update
from ydoc_store.yjs.walker import UpdateLimits

WRITES = Granted("default", "ann", Access.WRITE)
READS = Granted("default", "ann", Access.READ)
NO_STATE = b"\x00"
STEP1 = encode_sync_step1(NO_STATE)
ACK, NAK = wire.encode_sync_status(accepted=True), wire.encode_sync_status(accepted=False)


class Talk:
    """A socket in rooms that are open already, and everything that its peer was sent."""

    def __init__(self, **settings: Any) -> None:
        self.settings = Settings.model_construct(**({"jwt_secret": "set", "keep_deleted": False} | settings))
        self.metrics = Metrics()
        self.appender = Appender()
        self.appender.events = SimpleNamespace()  # type: ignore[attr-defined] # the registry sets its handlers there
        limits = RoomLimits(UpdateLimits(), 2**20)
        self.rooms = Rooms(SimpleNamespace(), self.appender, self.settings, limits, self.metrics)  # type: ignore[arg-type] # no database is asked
        # What a token is worth; whatever is not here is refused.
        self.grants: dict[str, Granted | Exception] = {"writes": WRITES, "reads": READS}
        self.asked: list[Asked] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.taken_back = False
        self.brought = Asked("")
        self.socket, self.outlet = self.connect()

    def connect(self) -> tuple[HocuspocusSocket, Outlet]:
        outlet = Outlet()
        return HocuspocusSocket(self.rooms, outlet, self.brought, self._authorize, self._judge), outlet

    async def _authorize(self, asked: Asked) -> Granted:
        self.asked.append(asked)
        gate = self.gates.get(asked.token or "")
        if gate is not None:
            await gate.wait()
        found = self.grants.get(asked.token or "", Forbidden("this token grants nothing here"))
        if isinstance(found, Exception):
            raise found
        return found

    def _judge(self, granted: Granted, _name: str) -> None:
        if self.taken_back:
            raise Unauthenticated("this token was taken back")
        if granted.expires_at_s is not None and granted.expires_at_s <= time.time():
            raise Unauthenticated("this token has expired")

    def room(self, name: str) -> Room:
        """The open room of a document that exists."""
        key = ("default", name)
        if key not in self.rooms.rooms:
            room = empty_room(*key, self.appender, self.rooms.limits, self.metrics, self.rooms)
            self.rooms.rooms[key] = room
            room.adopt(CREATED)
        return self.rooms.rooms[key]

    def say(self, address: str, *messages: bytes) -> None:
        for message in messages:
            assert not self.outlet.is_held, "a held connection hands nothing over"
            self.socket.receive(encode_string(address) + message)

    async def open(self, address: str, token: str = "writes") -> Room:
        """The document, open and past its first sync."""
        room = self.room(wire.name_of(address))
        told = len(self.heard(address))
        self.say(address, auth(token), STEP1)
        # Granted, Step1, and what answers theirs.
        await until(lambda: len(self.heard(address)) >= told + 3)
        self.say(address, encode_sync_step2(EMPTY_UPDATE))
        assert self.heard(address)[-1] == ACK
        self.outlet.sent.clear()
        return room

    def heard(self, address: str) -> list[bytes]:
        """What came for this address, without it."""
        prefix = encode_string(address)
        return [frame[len(prefix) :] for frame in self.outlet.sent if frame.startswith(prefix)]

    def acks(self, address: str) -> list[bytes]:
        return [message for message in self.heard(address) if message in (ACK, NAK)]


def auth(token: str, version: str | None = None) -> bytes:
    return bytes((wire.AUTH, wire.AUTH_TOKEN)) + encode_string(token) + (encode_string(version) if version else b"")


def denied(reason: str, code: str = "unauthenticated") -> list[bytes]:
    return [wire.encode_denied(reason, code), wire.encode_close(reason)]


def typed(client: int, *texts: str) -> list[bytes]:
    """One update for each, all by one editor."""
    doc: Doc[Any] = Doc(client_id=client)
    updates: list[bytes] = []
    observed = doc.observe(lambda event: updates.append(event.update))
    text = doc.get("text", type=Text)
    for piece in texts:
        text.insert(len(text), piece)
    doc.unobserve(observed)
    return updates


def large_text(seed: int = 0) -> str:
    return "".join(random.Random(seed).choices(string.ascii_letters, k=INLINE_BYTES_MAX + 1000))


@pytest.fixture
async def talking() -> AsyncIterator[Callable[..., Talk]]:
    talks: list[Talk] = []

    def make(**settings: Any) -> Talk:
        talks.append(Talk(**settings))
        return talks[-1]

    yield make
    for talk in talks:
        talk.socket.closed()
        await talk.rooms.stop()


Talking = Callable[..., Talk]


async def test_what_comes_before_the_token_waits_and_keeps_its_order(talking: Talking) -> None:
    talk = talking()
    room = talk.room("notes")
    updates = typed(1, *"abc")
    talk.say("notes", STEP1, *map(encode_update, updates))
    assert talk.outlet.sent == []
    talk.say("notes", auth("writes"))
    await until(lambda: len(room.queue.waiting) == 3)
    assert [queued.update for queued in room.queue.waiting] == updates
    assert talk.heard("notes")[0] == wire.encode_granted(writes=True)
    assert talk.asked[0].dialect == "hocuspocus"


@pytest.mark.parametrize("frames_max", [256, 2])
async def test_what_stands_behind_a_large_update_keeps_its_place_and_the_socket_goes_on(
    talking: Talking, frames_max: int
) -> None:
    """I4. However much stood there: more than what may wait holds the socket, and lets it go when it has gone."""
    talk = talking(token_queue_frames_max=frames_max)
    talk.gates["writes"] = asyncio.Event()
    room = talk.room("notes")
    updates = typed(1, "a", large_text(), *"bcdef")
    talk.socket.receive(encode_string("notes") + auth("writes"))
    await asyncio.sleep(0)
    for message in (STEP1, *map(encode_update, updates)):
        # One read of a socket may bring them all, before it can be held.
        talk.socket.receive(encode_string("notes") + message)
    assert talk.outlet.is_held == (frames_max == 2)
    talk.gates["writes"].set()
    await until(lambda: len(room.queue.waiting) == len(updates))
    assert [queued.update for queued in room.queue.waiting] == updates
    assert not talk.outlet.is_held
    talk.say("notes", encode_update(typed(2, "g")[0]))
    assert len(room.queue.waiting) == len(updates) + 1


async def test_holding_and_pausing_are_each_documents_and_the_socket_is_read_when_nobody_asks_for_it(
    talking: Talking,
) -> None:
    talk = talking()
    rooms = [await talk.open(name) for name in ("first", "second")]
    first, second = (next(iter(room.members)).outlet for room in rooms)
    for hold, release, is_stopped in (
        ("hold_reading", "release_reading", lambda: talk.outlet.is_held),
        ("pause_reading", "resume_reading", lambda: not talk.outlet.is_reading),
    ):
        getattr(first, hold)()
        getattr(second, hold)()
        getattr(first, release)()
        assert is_stopped()
        getattr(second, release)()
        assert not is_stopped()


async def test_a_document_that_ends_while_it_holds_lets_the_socket_go_on(talking: Talking) -> None:
    talk = talking()
    first = await talk.open("first")
    await talk.open("second")
    member = next(iter(first.members))
    member.outlet.pause_reading()
    member.outlet.hold_reading()  # type: ignore[attr-defined] # a socket's outlet
    first.discard(DocumentDeleted("this document was deleted"))
    assert talk.outlet.is_reading
    assert not talk.outlet.is_held
    assert talk.heard("first")[-2:] == denied("this document was deleted", "document_deleted")
    # Late words of its member change nothing any more.
    member.outlet.pause_reading()
    member.close(DocumentDeleted("again"))
    assert talk.outlet.is_reading
    assert talk.heard("first")[-2:] == denied("this document was deleted", "document_deleted")
    assert talk.outlet.closed_by is None
    talk.say("second", encode_update(typed(1, "a")[0]))
    assert len(talk.room("second").queue.waiting) == 1


async def test_a_denied_document_drops_everything_until_it_is_allowed(talking: Talking) -> None:
    talk = talking()
    room = talk.room("notes")
    talk.say("notes", auth("unknown"), STEP1)
    await until(lambda: talk.heard("notes") != [])
    told = talk.heard("notes")
    assert told == denied("this token grants nothing here", "forbidden")
    talk.say("notes", STEP1, encode_update(typed(1, "a")[0]))
    assert talk.heard("notes") == told
    assert not room.members
    await talk.open("notes")
    assert room.members
    assert not room.queue.waiting
    assert talk.outlet.closed_by is None


async def test_what_was_left_is_acked_to_nobody_who_comes_back(talking: Talking) -> None:
    """I1: a client that leaves a document and returns counts anew; an ack from before would say "saved" too early."""
    talk = talking()
    room = await talk.open("notes")
    update = typed(1, "a")[0]
    talk.say("notes", encode_update(update))
    take(room)
    talk.say("notes", bytes((wire.CLOSE,)))
    assert not room.members
    await talk.open("notes")
    land(room, 1)
    assert talk.acks("notes") == []
    assert encode_update(update) in talk.heard("notes")
    talk.say("notes", encode_update(update))
    assert talk.acks("notes") == [ACK]


async def test_two_sessions_of_one_document_have_their_own_acks_and_each_others_presence(talking: Talking) -> None:
    talk = talking()
    room = await talk.open("notes\0left")
    await talk.open("notes\0right")
    assert len(room.members) == 2
    talk.say("notes\0left", encode_update(typed(1, "a")[0]))
    take(room)
    land(room, 1)
    assert talk.acks("notes\0left") == [ACK]
    assert talk.acks("notes\0right") == []
    shown = encode_awareness(encode_awareness_entries([AwarenessEntry(5, 1, '{"a":1}')]))
    talk.say("notes\0left", shown)
    assert talk.heard("notes\0right")[-1][0] == 1
    talk.say("notes\0left", bytes((wire.CLOSE,)))
    assert b"null" in talk.heard("notes\0right")[-1]
    assert len(room.members) == 1


async def test_a_decision_that_fails_has_the_client_come_back(talking: Talking) -> None:
    talk = talking()
    talk.grants["fails"] = RuntimeError("a bug")
    talk.room("notes")
    talk.say("notes", auth("fails"))
    await until(lambda: talk.outlet.closed_by is not None)
    assert talk.outlet.closed_by is not None
    assert not 4400 <= talk.outlet.closed_by.close_code <= 4499


async def test_nothing_is_left_when_the_socket_is_gone(talking: Talking) -> None:
    """I15."""
    talk = talking()
    talk.gates["slow"] = asyncio.Event()
    talk.grants["ends"] = Granted("default", "ann", Access.WRITE, expires_at_s=time.time() + 3600)
    room = await talk.open("first")
    talk.room("second")
    talk.say("second", auth("ends"))
    await until(lambda: bool(talk.heard("second")))
    talk.say("third", auth("slow"))
    talk.say("fourth", STEP1)
    timers = set(scheduled())
    talk.socket.closed()
    await until(lambda: not talk.rooms._tasks)
    assert not room.members
    assert timers
    assert not [timer for timer in timers if not timer.cancelled()]
    assert not talk.socket._documents


def scheduled() -> list[asyncio.TimerHandle]:
    """The loop's timers that lead to a Hocuspocus socket."""
    loop: Any = asyncio.get_running_loop()
    return [
        timer for timer in loop._scheduled if not timer.cancelled() and "hocuspocus" in repr(timer._callback).lower()
    ]


async def test_only_a_provider_of_version_4_is_pinged(talking: Talking) -> None:
    talk = talking()
    assert talk.socket.keepalive() is None
    await talk.open("notes")
    assert talk.socket.keepalive() == encode_string("notes") + KEEPALIVE
    talk.say("notes", auth("writes", "3.4.4"))
    await until(lambda: len(talk.asked) == 2)
    assert talk.socket.keepalive() == encode_string("notes") + KEEPALIVE
    talk.say("other", auth("writes", "4.8.0"))
    assert talk.socket.keepalive() == wire.PING
    talk.socket.receive(wire.PING)
    assert talk.outlet.sent[-1] == wire.PONG


async def test_what_a_socket_may_bring_before_its_tokens_is_bounded(talking: Talking) -> None:
    talk = talking(socket_documents_max=2, token_queue_bytes_max=50, token_queue_frames_max=3)
    talk.say("many", *[STEP1] * 3)
    assert talk.heard("many") == []
    talk.say("many", STEP1)
    assert talk.heard("many") == denied("too much was sent before a token")
    talk.say("large", encode_update(bytes(60)))
    assert talk.heard("large") == denied("too much was sent before a token")
    talk.say("third", auth("writes"))
    assert talk.heard("third") == denied("too many documents on one socket", "limit_exceeded")
    assert talk.outlet.closed_by is None


async def test_a_document_without_a_token_is_denied_when_its_time_is_over(talking: Talking) -> None:
    talk = talking(token_timeout_s=0.05)
    await talk.open("notes")
    talk.say("later", STEP1)
    await until(lambda: bool(talk.heard("later")))
    assert talk.heard("later") == denied("no token came in time")
    assert talk.outlet.closed_by is None


async def test_a_socket_that_says_nothing_is_closed(talking: Talking) -> None:
    talk = talking(token_timeout_s=0.05)
    await until(lambda: talk.outlet.closed_by is not None)
    assert isinstance(talk.outlet.closed_by, Unauthenticated)


async def test_a_refused_socket_stays_a_while_for_a_better_token(
    talking: Talking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hocuspocus, "REFUSED_STAYS_S", 0.3)
    talk = talking(token_timeout_s=0.05)
    began_s = time.monotonic()
    talk.say("notes", auth("unknown"))
    await until(lambda: talk.outlet.closed_by is not None)
    assert time.monotonic() - began_s >= 0.3


async def test_a_provider_that_sends_no_token_is_let_in_where_nobody_needs_one(talking: Talking) -> None:
    """Version 2 sends none where its application has none."""
    talk = talking(jwt_secret=None)
    talk.grants[""] = WRITES
    talk.room("notes")
    talk.say("notes", STEP1)
    await until(lambda: len(talk.heard("notes")) >= 3)
    assert talk.heard("notes")[0] == wire.encode_granted(writes=True)


async def test_a_provider_that_sends_no_token_is_judged_by_what_its_upgrade_brought(talking: Talking) -> None:
    talk = talking(token_timeout_s=0.05)
    talk.brought = Asked("", cookie="session=1")
    talk.grants[""] = WRITES
    talk.socket, talk.outlet = talk.connect()
    talk.room("notes")
    talk.say("notes", STEP1)
    await until(lambda: len(talk.heard("notes")) >= 3)
    assert talk.asked[-1].cookie == "session=1"
    assert talk.outlet.closed_by is None


async def test_a_downgrade_reaches_what_is_queued_already(talking: Talking) -> None:
    talk = talking()
    room = await talk.open("notes")
    updates = typed(1, *"abcd")
    talk.say("notes", encode_update(updates[0]))
    take(room)
    talk.say("notes", *map(encode_update, updates[1:3]), auth("reads"))
    await until(lambda: wire.encode_granted(writes=False) in talk.heard("notes"))
    assert talk.acks("notes") == [NAK, NAK]
    talk.say("notes", encode_update(updates[3]))
    assert not room.queue.waiting
    land(room, 1)
    # What was on its way to the database before is stored, and said to be.
    assert talk.acks("notes") == [NAK, NAK, NAK, ACK]


async def test_a_token_that_is_refused_takes_what_is_queued_along(talking: Talking) -> None:
    talk = talking()
    room = await talk.open("notes")
    talk.say("notes", encode_update(typed(1, "a")[0]), auth("unknown"))
    await until(lambda: talk.heard("notes")[-2:] == denied("this token grants nothing here", "forbidden"))
    assert not room.queue.waiting
    assert talk.acks("notes") == []


async def test_the_newest_token_says_what_holds(talking: Talking) -> None:
    talk = talking()
    room = await talk.open("notes")
    talk.gates["writes"] = asyncio.Event()
    talk.say("notes", auth("writes"), auth("unknown"), auth("reads"))
    talk.gates["writes"].set()
    await until(lambda: wire.encode_granted(writes=False) in talk.heard("notes"))
    talk.say("notes", encode_update(typed(1, "a")[0]))
    assert not room.queue.waiting
    assert [asked.token for asked in talk.asked] == ["writes", "writes", "reads"]


async def test_what_is_taken_back_while_a_document_loads_opens_nothing(talking: Talking) -> None:
    """I18."""
    talk = talking()
    room = talk.room("notes")
    talk.gates["writes"] = asyncio.Event()
    talk.say("notes", auth("writes"), STEP1)
    await until(lambda: bool(talk.asked))
    talk.taken_back = True
    talk.socket.review()
    talk.gates["writes"].set()
    await until(lambda: bool(talk.heard("notes")))
    assert talk.heard("notes") == denied("this token was taken back")
    assert not room.members


@pytest.mark.parametrize("answers", [False, True])
async def test_who_does_not_answer_the_question_for_a_new_token_is_sent_to_come_back_with_one(
    talking: Talking, monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    """Providers of version 2 do not know the question, and take a denial for the end."""
    monkeypatch.setattr(hocuspocus, "TOKEN_AHEAD_S", 3600)
    talk = talking()
    talk.grants["ends"] = Granted("default", "ann", Access.WRITE, expires_at_s=time.time() + 0.3)
    room = talk.room("notes")
    talk.say("notes", auth("ends"))
    await until(lambda: wire.encode_token_wanted() in talk.heard("notes"))
    if answers:
        talk.say("notes", auth("writes"))
        await until(lambda: talk.heard("notes").count(wire.encode_granted(writes=True)) == 2)
        assert not scheduled() or talk.outlet.closed_by is None
        assert room.members
    else:
        await until(lambda: talk.outlet.closed_by is not None)
        assert talk.outlet.closed_by is not None
        assert talk.outlet.closed_by.close_code == 1012
        assert wire.encode_denied("this token has expired", "token_ended") not in talk.heard("notes")


async def test_what_was_typed_without_a_connection_is_saved_when_all_of_it_is(talking: Talking) -> None:
    """I1: a stock provider sends it letter by letter between its Step1 and its Step2, and has forgotten to count it."""
    talk = talking()
    room = await talk.open("notes")
    doc: Doc[Any] = Doc(client_id=1)
    letters: list[bytes] = []
    observed = doc.observe(lambda event: letters.append(event.update))
    text = doc.get("text", type=Text)
    for letter in "abc":
        text.insert(len(text), letter)
    talk.say("notes", encode_sync_step1(doc.get_state()), *map(encode_update, letters))
    take(room)
    land(room, 3)
    assert talk.acks("notes") == []
    # Typed since, and counted; a delete does not tell when it was made.
    text.insert(3, "d")
    del text[0:1]
    doc.unobserve(observed)
    talk.say("notes", *map(encode_update, letters[3:]), encode_sync_step2(doc.get_update()))
    take(room)
    assert talk.acks("notes") == []
    land(room, 6)
    assert talk.acks("notes") == [ACK] * 3
    talk.say("notes", encode_update(letters[0]))
    assert talk.acks("notes") == [ACK] * 4


async def test_a_forced_sync_is_saved_when_what_was_on_its_way_is(talking: Talking) -> None:
    """I1: a stock provider begins to count anew; acks from before would count for what is not stored yet."""
    talk = talking()
    room = await talk.open("notes")
    first, second = typed(1, "a", "b")
    talk.say("notes", encode_update(first))
    take(room)
    talk.say("notes", encode_update(second), STEP1)
    land(room, 1)
    assert talk.acks("notes") == []
    talk.say("notes", encode_sync_step2(second))
    take(room)
    land(room, 3)
    assert talk.acks("notes") == [ACK]


async def test_a_reader_who_may_write_later_syncs_again_and_brings_what_was_refused(talking: Talking) -> None:
    talk = talking()
    room = talk.room("notes")
    update, later = typed(1, "a", "b")
    talk.say("notes", auth("reads"), STEP1)
    await until(lambda: len(talk.heard("notes")) >= 3)
    talk.say("notes", encode_sync_step2(update))
    assert talk.acks("notes") == [NAK]
    talk.say("notes", auth("writes"))
    await until(lambda: wire.encode_granted(writes=True) in talk.heard("notes"))
    # A stock client would go on with `later` alone, which follows what is not stored.
    assert isinstance(talk.outlet.closed_by, RoomDiscarded)
    talk.say("notes", encode_update(later))
    assert not room.queue.waiting
    assert talk.acks("notes") == [NAK]


async def test_words_go_to_the_application_a_writers_to_the_others_and_long_ones_nowhere(talking: Talking) -> None:
    talk = talking(stateless_bytes_max=10, stateless_relay=True)
    heard: list[Words] = []

    async def hear(words: Words) -> None:
        heard.append(words)

    talk.rooms.stateless = Stateless(hear, talk.metrics.ignored)
    await talk.open("notes\0writer")
    await talk.open("notes\0reader", "reads")
    await talk.open("notes\0other")
    talk.say("notes\0reader", wire.encode_stateless("from below"))
    talk.say("notes\0writer", wire.encode_stateless("x" * 11), wire.encode_stateless("to all"))
    await until(lambda: len(heard) == 2)
    assert [words.payload for words in heard] == ["from below", "to all"]
    for session in ("reader", "other"):
        assert talk.heard(f"notes\0{session}")[-1:] == [wire.encode_stateless("to all")]
    assert talk.heard("notes\0writer") == []
