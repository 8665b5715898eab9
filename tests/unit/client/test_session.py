"""What single frames of a server do to a client's session: endings, refusals, tokens, and what asks nothing of it."""

from __future__ import annotations

import random
from typing import Any

import pytest
from pycrdt import Doc, Text

from ydoc_store.client.errors import ClientError, Deleted, EpochChanged, Refused, Unreadable
from ydoc_store.client.session import Session
from ydoc_store.yjs import hocuspocus as wire
from ydoc_store.yjs.awareness import AwarenessEntry, encode_awareness_entries
from ydoc_store.yjs.lib0 import encode_string
from ydoc_store.yjs.messages import (
    KEEPALIVE,
    SyncStep1,
    SyncStep2,
    Update,
    encode_awareness,
    encode_sync_step1,
    encode_sync_step2,
    encode_update,
)
from ydoc_store.yjs.walker import RESERVED_CLIENT_ID_MIN, marker_update

EMPTY_VECTOR, EMPTY_UPDATE = b"\0", b"\0\0"
MARKER = RESERVED_CLIENT_ID_MIN + 7
ACK, NAK = wire.encode_sync_status(accepted=True), wire.encode_sync_status(accepted=False)


class Script:
    """A session, and a server that says what it is told to."""

    def __init__(self, **how: Any) -> None:
        self.doc: Doc[Any] = how.pop("doc", None) or Doc()
        self.text = self.doc.get("text", type=Text)
        self.failures: list[BaseException] = []
        self.changes = 0
        self.session = Session(
            "notes", self.doc, wants_turn=lambda: None, changed=self._changed, failed=self.failures.append, **how
        )

    def _changed(self) -> None:
        self.changes += 1

    def hear(self, *messages: bytes) -> list[wire.Addressed | wire.Ping | wire.Pong]:
        """What it answers."""
        for message in messages:
            self.session.receive(encode_string("notes") + message, 0.0)
        return self.said()

    def said(self) -> list[wire.Addressed | wire.Ping | wire.Pong]:
        frames = list(self.session.outbox)
        self.session.outbox.clear()
        return [wire.decode_frame(frame, address_bytes_max=1_000) for frame in frames]

    def messages(self) -> list[Any]:
        return [frame.message for frame in self.said() if isinstance(frame, wire.Addressed)]

    def synced(self) -> Script:
        self.session.connected("a token")
        self.hear(wire.encode_granted(writes=True), encode_sync_step1(EMPTY_VECTOR), encode_sync_step2(EMPTY_UPDATE))
        self.hear(ACK)
        return self

    def type(self, words: str) -> list[Any]:
        self.text.insert(len(self.text), words)
        self.session.turn(0.0)
        return self.messages()


@pytest.fixture
def script() -> Script:
    return Script().synced()


def test_a_connection_begins_with_the_token_and_what_is_here() -> None:
    script = Script()
    script.session.connected("a token")
    token, step1 = script.messages()
    assert isinstance(token, wire.Token)
    assert token.token == "a token"
    assert token.answers_ping
    assert step1 == SyncStep1(script.doc.get_state())


def test_nothing_is_sent_before_the_server_has_said_what_it_has() -> None:
    script = Script()
    script.session.connected("a token")
    script.said()
    assert script.type("early") == []
    [answer] = script.hear(encode_sync_step1(EMPTY_VECTOR))
    assert isinstance(answer, wire.Addressed)
    assert isinstance(answer.message, SyncStep2)
    assert b"early" in answer.message.update


def test_a_session_is_over_for_good_once(script: Script) -> None:
    script.session.end(Deleted("first"))
    script.session.end(EpochChanged("second"))
    with pytest.raises(Deleted, match="first"):
        script.session.is_saved(0)
    assert script.type("more") == []
    assert script.hear(encode_update(EMPTY_UPDATE)) == []


@pytest.mark.parametrize(
    ("code", "ending"),
    [
        ("document_deleted", Deleted),
        ("epoch_changed", EpochChanged),
        ("forbidden", Refused),
        ("unauthenticated", Refused),
        ("too_large", Refused),
        ("something_new", Refused),
        ("", Refused),
    ],
)
def test_a_denial_ends_the_document_and_says_why(script: Script, code: str, ending: type[ClientError]) -> None:
    script.hear(wire.encode_denied("for a reason", code))
    with pytest.raises(ending, match="for a reason"):
        script.session.is_saved(0)


def test_a_denial_without_a_code_as_other_servers_send_it_is_a_refusal(script: Script) -> None:
    script.hear(bytes((wire.AUTH, wire.AUTH_DENIED)) + encode_string("permission-denied"))
    assert isinstance(script.session.ended, Refused)
    assert script.session.ended.code == "denied"


@pytest.mark.parametrize("code", ["server_full", "storage_unavailable", "draining", "limit_exceeded"])
def test_a_server_that_has_trouble_is_come_back_to(script: Script, code: str) -> None:
    script.hear(wire.encode_denied("busy", code))
    assert script.session.ended is None
    assert script.session.dropped == "busy"


@pytest.mark.parametrize("code", [4400, 4401, 4403, 4404, 4413, 1003, 1008, 1009])
def test_close_codes_that_would_repeat_end_the_document(script: Script, code: int) -> None:
    script.session.closed(code, "why")
    assert isinstance(script.session.ended, Refused)
    assert script.session.ended.code == f"closed_{code}"


@pytest.mark.parametrize("code", [1000, 1001, 1005, 1006, 1011, 1012, 1013, 4500])
def test_other_close_codes_mean_to_come_back(script: Script, code: int) -> None:
    script.session.closed(code, "")
    assert script.session.ended is None
    assert script.session.dropped is not None


def test_a_token_that_ended_on_its_way_is_asked_for_again_once_where_there_are_others() -> None:
    script = Script(has_other_tokens=True)
    script.session.connected("old")
    script.hear(wire.encode_denied("expired", "unauthenticated"))
    assert script.session.ended is None
    script.session.disconnected()
    script.session.connected("as old")
    script.hear(wire.encode_denied("expired", "unauthenticated"))
    assert isinstance(script.session.ended, Refused)


def test_the_next_token_is_shown_when_it_is_asked_for(script: Script) -> None:
    script.hear(wire.encode_token_wanted())
    assert script.session.token_wanted
    script.session.renew("the next")
    [token] = script.messages()
    assert isinstance(token, wire.Token)
    assert token.token == "the next"
    assert not script.session.token_wanted


def test_another_history_is_not_merged() -> None:
    script = Script()
    script.session.connected("")
    script.hear(encode_update(marker_update(MARKER)), encode_sync_step2(EMPTY_UPDATE))
    other: Doc[Any] = Doc(client_id=5)
    other.get("text", type=Text).insert(0, "doubled")
    other.apply_update(marker_update(MARKER + 1))
    script.hear(encode_update(other.get_update()))
    assert isinstance(script.session.ended, EpochChanged)
    assert str(script.text) == ""


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\x09\x09",
        encode_string("notes"),
        encode_string("notes") + b"\x00\x07",
        encode_string("notes") + b"\x00\x02\x05\x00",
        encode_string("notes") + b"\x08\x02",
        encode_string("notes") + b"\x08\x01\x01",
        encode_string("notes") + b"\x02\x05",
        encode_string("notes") + encode_sync_step1(b"\x01"),
        encode_string("notes") + encode_awareness(b"\x05"),
        b"a text frame",
    ],
)
def test_a_frame_that_cannot_be_read_costs_the_connection_and_not_the_document(script: Script, frame: bytes) -> None:
    script.session.receive(frame, 0.0)
    assert script.session.ended is None
    assert script.session.dropped is not None


@pytest.mark.parametrize("update", [b"\x01", bytes.fromhex("0100018c010001"), b"\x01\x01\x05\x00\x84\x05\x63\x01x\x00"])
def test_an_update_that_cannot_be_applied_ends_the_document_and_says_so(script: Script, update: bytes) -> None:
    script.hear(encode_update(update))
    assert isinstance(script.session.ended, Unreadable)


@pytest.mark.parametrize(
    "message",
    [
        KEEPALIVE,
        wire.encode_stateless("words"),
        b"\x04\x00\x00",
        b"\x06\x01x",
        b"\x3f",
        wire.encode_granted(writes=False),
        ACK,
        encode_update(EMPTY_UPDATE),
    ],
)
def test_what_was_not_asked_for_disturbs_nothing(script: Script, message: bytes) -> None:
    assert script.hear(message) == []
    assert script.session.ended is None
    assert script.session.dropped is None
    assert len(script.type("on")) == 1


def test_any_bytes_at_all_raise_nothing() -> None:
    dice = random.Random(5)
    for number in range(3_000):
        if number % 100 == 0:
            script = Script()
            script.session.connected("")
        body = dice.randbytes(dice.randrange(12))
        script.session.receive(dice.choice([b"", encode_string("notes")]) + body, 0.0)


def test_changed_frames_raise_nothing() -> None:
    """What a server says, with bytes changed, cut and doubled: at worst the connection or the document is over."""
    dice = random.Random(6)
    other: Doc[Any] = Doc(client_id=5)
    other.get("text", type=Text).insert(0, "theirs")
    entry = AwarenessEntry(5, 1, '{"user":{"name":"Ben"}}')
    real = [
        encode_update(other.get_update()),
        encode_update(marker_update(MARKER)),
        encode_sync_step1(other.get_state()),
        encode_awareness(encode_awareness_entries([entry])),
        wire.encode_denied("no", "forbidden"),
        wire.encode_granted(writes=True),
        wire.encode_stateless("words"),
        ACK,
    ]
    for _ in range(2_000):
        script = Script()
        script.session.connected("")
        frame = bytearray(encode_string("notes") + dice.choice(real))
        for _ in range(dice.randrange(1, 4)):
            at = dice.randrange(len(frame))
            match dice.randrange(3):
                case 0:
                    frame[at] = dice.randrange(256)
                case 1:
                    del frame[at:]
                    frame += b"\0"
                case _:
                    frame[at:at] = frame[at : at + 3]
        script.session.receive(bytes(frame), 0.0)
        assert script.failures == []


def test_frames_about_another_document_are_not_for_this_one(script: Script) -> None:
    script.session.receive(encode_string("other") + wire.encode_denied("no", "forbidden"), 0.0)
    assert script.session.ended is None


def test_a_ping_is_answered(script: Script) -> None:
    script.session.receive(wire.PING, 0.0)
    assert script.said() == [wire.Pong()]


def test_a_second_question_of_the_server_is_answered_when_the_round_before_is_done(script: Script) -> None:
    [edit] = script.type("a")
    assert isinstance(edit, Update)
    assert script.hear(encode_sync_step1(EMPTY_VECTOR)) == []
    [answer] = script.hear(ACK)
    assert isinstance(answer, wire.Addressed)
    assert isinstance(answer.message, SyncStep2)
    assert script.session.is_saved(1)


def test_an_observer_that_fails_stops_neither_the_others_nor_the_document(script: Script) -> None:
    script.doc.observe(lambda _event: 1 / 0)  # type: ignore[arg-type, return-value]
    other: Doc[Any] = Doc(client_id=5)
    other.get("text", type=Text).insert(0, "theirs")
    script.hear(encode_update(other.get_update()))
    assert str(script.text) == "theirs"
    assert script.session.ended is None
    [failure] = script.failures
    assert isinstance(failure, ExceptionGroup)


def test_what_a_document_brings_along_is_not_called_saved_before_it_was_sent() -> None:
    doc: Doc[Any] = Doc()
    doc.get("text", type=Text).insert(0, "brought")
    script = Script(doc=doc)
    assert script.session.has_unsaved
    script.session.connected("")
    script.said()
    script.hear(wire.encode_granted(writes=True), encode_sync_step2(EMPTY_UPDATE))
    assert not script.session.is_saved(script.session.edits)
    [answer] = script.hear(encode_sync_step1(EMPTY_VECTOR))
    assert isinstance(answer, wire.Addressed)
    assert b"brought" in answer.message.update  # type: ignore[union-attr]
    script.hear(ACK)
    assert script.session.is_saved(script.session.edits)


def test_edits_in_one_transaction_are_one_update(script: Script) -> None:
    with script.doc.transaction():
        script.text.insert(0, "a")
        script.text.insert(1, "b")
        assert script.session.replica.is_in_transaction
    assert script.session.edits == 1
    assert not script.session.replica.is_in_transaction


def test_what_comes_during_a_transaction_is_applied_and_its_edits_are_sent(script: Script) -> None:
    other: Doc[Any] = Doc(client_id=5)
    other.get("text", type=Text).insert(0, "theirs")
    with script.doc.transaction():
        script.text.insert(0, "mine ")
        script.hear(encode_update(other.get_update()))
    assert script.session.edits == 1
    script.session.turn(0.0)
    [sent] = script.messages()
    other.apply_update(sent.update)
    assert str(other.get("text", type=Text)) == str(script.text)
    assert str(script.text) in ("mine theirs", "theirsmine ")


def test_what_a_failover_has_lost_is_not_called_saved_until_it_is_back(script: Script) -> None:
    """I1: the server that answers now lacks what another one had acknowledged."""
    script.type("a")
    script.hear(ACK)
    assert script.session.is_saved(1)
    script.session.disconnected()
    assert script.session.is_saved(1)
    script.session.connected("a token")
    script.said()
    [answer] = script.hear(encode_sync_step1(EMPTY_VECTOR))
    assert isinstance(answer, wire.Addressed)
    assert isinstance(answer.message, SyncStep2)
    assert not script.session.is_saved(1)
    assert script.session.has_unsaved
    script.hear(ACK)
    assert script.session.is_saved(1)


def test_what_was_called_saved_is_so_without_a_connection_and_again_with_the_next_sync(script: Script) -> None:
    script.type("a")
    script.hear(ACK)
    script.session.disconnected()
    assert script.session.is_saved(1)
    script.session.connected("a token")
    assert script.session.is_saved(1)
    # The server has all content; whether it has all deletes, its ack says.
    script.hear(encode_sync_step1(script.doc.get_state()))
    assert not script.session.is_saved(1)
    script.hear(ACK)
    assert script.session.is_saved(1)
    assert not script.session.has_unsaved


def test_a_reader_who_has_more_than_the_server_has_edited_nothing_that_could_be_lost(script: Script) -> None:
    other: Doc[Any] = Doc(client_id=5)
    other.get("text", type=Text).insert(0, "theirs")
    script.hear(encode_update(other.get_update()))
    script.session.disconnected()
    script.session.connected("a token")
    script.hear(wire.encode_granted(writes=False), encode_sync_step1(EMPTY_VECTOR), NAK)
    assert script.session.is_saved(0)


def test_whoever_may_write_at_last_brings_what_was_refused(script: Script) -> None:
    script.hear(wire.encode_granted(writes=False))
    script.type("a")
    script.hear(NAK)
    with pytest.raises(Refused):
        script.session.is_saved(1)
    # A new token on the same connection.
    script.hear(wire.encode_granted(writes=True))
    assert script.session.ended is None
    assert "may be written now" in str(script.session.dropped)
    script.session.disconnected()
    script.session.connected("a token")
    script.said()
    [answer] = script.hear(encode_sync_step1(EMPTY_VECTOR))
    assert b"a" in answer.message.update  # type: ignore[union-attr]


def test_half_a_transaction_is_not_sent(script: Script) -> None:
    """One that stays open over turns of the loop, as `async with` allows."""
    script.session.disconnected()
    script.session.connected("a token")
    with script.doc.transaction():
        script.text.insert(0, "a")
        script.said()
        assert script.hear(encode_sync_step1(EMPTY_VECTOR)) == []
        script.text.insert(1, "b")
    script.session.turn(0.0)
    [answer] = script.messages()
    assert b"ab" in answer.update or (b"a" in answer.update and b"b" in answer.update)
