"""The order in which a room delivers, whatever the order in which commits become known; and what it lets in.

The same room runs on the real appender in tests/integration/relay and tests/integration/fanout.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
from pycrdt import Doc, Text

from tests.room import CREATED, MARKER, Appender, Outlet, empty_room, land, take
from ydoc_store.errors import AheadOfLog, CommitUnknown, Draining, StorageBusy, TooLarge, YdocError
from ydoc_store.metrics import Metrics
from ydoc_store.rooms import joined as joined_module
from ydoc_store.rooms.admission import RoomLimits
from ydoc_store.rooms.delivering import LIVE_BYTES_MAX
from ydoc_store.rooms.member import READ_ONLY, RESUME_BELOW_BYTES, Member
from ydoc_store.rooms.room import Room
from ydoc_store.storage.append_batch import Created
from ydoc_store.storage.appender import QueuedUpdate
from ydoc_store.storage.lane import QUEUED_OVERHEAD_BYTES
from ydoc_store.yjs.awareness import AwarenessEntry
from ydoc_store.yjs.messages import Update, decode_message, encode_sync_step1, encode_sync_step2, encode_update
from ydoc_store.yjs.walker import UpdateLimits, marker_update


class AckingDialect:
    name = "acking"
    step1 = staticmethod(encode_sync_step1)
    step2 = staticmethod(encode_sync_step2)
    update = staticmethod(encode_update)

    @staticmethod
    def awareness(payload: bytes) -> bytes:
        return payload

    @staticmethod
    def ack(*, accepted: bool) -> bytes:
        return b"ack" if accepted else b"nak"

    @staticmethod
    def denied(reason: str) -> bytes:
        return reason.encode()


DIALECT = AckingDialect()


class Keeper:
    def __init__(self) -> None:
        self.asked: list[str] = []

    def catch_up(self, _room: Room) -> None:
        self.asked.append("catch up")

    def follow(self, member: Member, seq: int) -> None:
        member.is_live = False
        self.asked.append(f"follow from {seq}")

    def identified(self, _room: Room) -> None:
        self.asked.append("identified")

    def discarded(self, _room: Room) -> None:
        self.asked.append("discarded")

    def audited(self, _room: Room, _member: Member, what: str, seq: int | None) -> None:
        self.asked.append(f"audited: {what} at {seq}")


class Scene:
    """A room with two live members, and the updates of one document typed letter by letter."""

    def __init__(self, limits: UpdateLimits | None = None) -> None:
        self.keeper = Keeper()
        self.metrics = Metrics()
        room_limits = RoomLimits(limits or UpdateLimits(), 2**20)
        self.room = empty_room("t", "n", Appender(), room_limits, self.metrics, self.keeper)
        self.ann, self.ben = self.enter(), self.enter()
        doc: Doc[Any] = Doc(client_id=1)
        self.updates: list[bytes] = []
        self._observed = doc.observe(lambda event: self.updates.append(event.update))
        self.text = doc.get("text", type=Text)
        for letter in "abcdefgh":
            self.text.insert(len(self.text), letter)

    def enter(self) -> Member:
        member = Member(self.room, Outlet(), DIALECT, self.metrics.dialect("acking"))
        self.room.enter(member)
        member.is_live = True
        return member

    def take(self) -> list[QueuedUpdate]:
        return take(self.room)

    def commit(self, head: int, created: Created | None = None) -> None:
        if not self.room.queue.in_flight:
            self.take()
        land(self.room, head, created)

    def exist(self) -> None:
        self.room.adopt(CREATED)
        for member in (self.ann, self.ben):
            sent(member).clear()


def sent(member: Member) -> list[bytes]:
    outlet = member.outlet
    assert isinstance(outlet, Outlet)
    return outlet.sent


def closed_by(member: Member) -> YdocError | None:
    outlet = member.outlet
    assert isinstance(outlet, Outlet)
    return outlet.closed_by


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_nothing_is_acked_shown_or_known_before_the_commit(scene: Scene) -> None:
    scene.room.submit(scene.ann, scene.updates[0])
    before = scene.room.state_vector()
    scene.take()
    assert sent(scene.ann) == sent(scene.ben) == []
    scene.commit(1, CREATED)
    assert scene.room.state_vector() != before
    assert sent(scene.ann) == [encode_update(marker_update(MARKER)), b"ack"]
    assert sent(scene.ben) == [encode_update(marker_update(MARKER)), encode_update(scene.updates[0])]


def test_several_updates_of_one_commit_are_one_frame_and_their_writer_is_left_out(scene: Scene) -> None:
    scene.exist()
    for update in scene.updates[:3]:
        scene.room.submit(scene.ann, update)
    scene.commit(3)
    assert sent(scene.ann) == [b"ack"] * 3
    assert len(sent(scene.ben)) == 1


def test_a_commit_ahead_of_the_head_waits_and_the_log_is_asked(scene: Scene) -> None:
    scene.exist()
    scene.room.submit(scene.ann, scene.updates[2])
    scene.commit(3)
    assert sent(scene.ann) == [b"ack"], "stored is stored"
    assert sent(scene.ben) == []
    assert scene.room.head == 0
    assert scene.keeper.asked[-1] == "catch up"
    scene.room.arrived_from_elsewhere(1, 2, scene.updates[:2])
    assert scene.room.head == 3
    assert sent(scene.ben)[-1] == encode_update(scene.updates[2])
    assert not scene.room.has_gap


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_whatever_the_order_and_overlap_of_hints_delivery_is_in_seq_order(scene: Scene, order: tuple[int, ...]) -> None:
    scene.exist()
    runs = [(1, 2), (2, 4), (4, 6)]
    for place in order:
        first, last = runs[place]
        scene.room.arrived_from_elsewhere(first, last, scene.updates[first - 1 : last])
        scene.room.arrived_from_elsewhere(first, last, scene.updates[first - 1 : last])
    for first, last in runs:
        scene.room.arrived_from_elsewhere(first, last, scene.updates[first - 1 : last])
    assert scene.room.head == 6
    reader: Doc[Any] = Doc()
    for frame in sent(scene.ben):
        reader.apply_update(frame[3:] if frame[2] < 0x80 else frame[4:])
        assert str(reader.get("text", type=Text)) == "abcdefgh"[: len(str(reader.get("text", type=Text)))]
    assert str(reader.get("text", type=Text)) == "abcdef"


def test_what_is_known_is_acked_and_not_queued(scene: Scene) -> None:
    scene.exist()
    scene.room.submit(scene.ann, scene.updates[0])
    scene.room.submit(scene.ben, scene.updates[0])
    assert len(scene.room.queue.waiting) == 2, "an ack never rests on what is in flight"
    scene.commit(2)
    sent(scene.ben).clear()
    scene.room.submit(scene.ben, scene.updates[0])
    assert sent(scene.ben) == [b"ack"]
    assert not scene.room.queue.waiting
    assert scene.ben.counts.nothing_new == 1


def test_a_read_only_room_queues_nothing_tells_why_once_and_sends_nobody_away(scene: Scene) -> None:
    """I4: nothing of a member is acked behind what was declined."""
    scene.exist()
    scene.room.submit(scene.ann, scene.updates[0])
    scene.commit(1)
    sent(scene.ann).clear()
    sent(scene.ben).clear()
    scene.room.limits = replace(scene.room.limits, read_only=True)
    for update in scene.updates[:3]:
        scene.room.submit(scene.ann, update)
    assert sent(scene.ann) == [b"ack", b"nak", READ_ONLY.encode(), b"nak"], "what is stored is acked all the same"
    assert sent(scene.ben) == []
    assert not scene.room.queue.waiting
    assert closed_by(scene.ann) is None
    assert (scene.ann.counts.read_only, scene.ann.counts.refused) == (2, 0)


@pytest.mark.parametrize("error", [StorageBusy("busy"), TooLarge("full"), Draining("stopping")], ids=repr)
def test_a_refusal_that_is_known_fences_its_senders_and_what_they_queued_behind(scene: Scene, error: YdocError) -> None:
    scene.exist()
    scene.room.submit(scene.ann, scene.updates[0])
    taken = scene.take()
    scene.room.submit(scene.ann, scene.updates[1])
    scene.room.submit(scene.ben, scene.updates[2])
    scene.room.queue.in_flight = []
    scene.room.refused(taken, error)
    assert closed_by(scene.ann) is error
    assert closed_by(scene.ben) is None
    assert [queued.sender for queued in scene.room.queue.waiting] == [scene.ben]
    assert scene.room.closed_by is None
    assert b"ack" not in sent(scene.ann)


def test_an_unknown_outcome_discards_the_room_and_nothing_waits_any_more(scene: Scene) -> None:
    scene.exist()
    scene.room.submit(scene.ann, scene.updates[0])
    taken = scene.take()
    scene.room.submit(scene.ben, scene.updates[1])
    scene.room.refused(taken, CommitUnknown("lost"))
    assert closed_by(scene.ann) is not None
    assert closed_by(scene.ben) is not None
    assert scene.keeper.asked[-1] == "discarded"
    assert not scene.room.queue.waiting
    assert scene.room.appender.queued_bytes == len(scene.updates[0]) + QUEUED_OVERHEAD_BYTES


def test_a_discarded_room_takes_nothing_more_and_its_late_commits_ack_nobody(scene: Scene) -> None:
    scene.exist()
    scene.room.submit(scene.ann, scene.updates[0])
    scene.take()
    scene.room.discard(CommitUnknown("lost"))
    scene.room.cache.clear()
    assert scene.room.queue.is_abandoned
    scene.commit(1)
    scene.room.arrived_from_elsewhere(2, 2, scene.updates[1:2])
    assert sent(scene.ann) == []
    assert scene.room.cache.budget.used_bytes == 0
    assert scene.ann.unsettled_bytes == 0


def test_a_delete_of_what_nobody_sent_is_ahead_of_the_log_and_one_of_what_is_in_flight_is_not(scene: Scene) -> None:
    scene.exist()
    del scene.text[0:1]
    erased = scene.updates[-1]
    with pytest.raises(AheadOfLog):
        scene.room.submit(scene.ben, erased)
    scene.room.submit(scene.ann, scene.updates[0])
    scene.take()
    scene.room.submit(scene.ann, erased)
    scene.room.submit(scene.ann, scene.updates[1])
    del scene.text[0:1]
    scene.room.submit(scene.ann, scene.updates[-1])
    assert len(scene.room.queue.waiting) == 3


def test_in_flight_knowledge_ends_with_the_flight_and_with_a_fence(scene: Scene) -> None:
    scene.exist()
    del scene.text[0:1]
    scene.room.submit(scene.ann, scene.updates[0])
    scene.room.submit(scene.ann, scene.updates[-1])
    scene.room.fence(scene.ann, StorageBusy("busy"))
    with pytest.raises(AheadOfLog):
        scene.room.submit(scene.ben, scene.updates[-1])


def test_reading_pauses_with_much_in_flight_and_goes_on_when_it_is_settled(scene: Scene) -> None:
    scene.exist()
    scene.room.limits = RoomLimits(UpdateLimits(), 2**20, member_unsettled_bytes_max=10)
    scene.room.submit(scene.ann, scene.updates[0])
    outlet = scene.ann.outlet
    assert isinstance(outlet, Outlet)
    assert not outlet.is_reading
    scene.commit(1)
    assert outlet.is_reading
    assert scene.ann.unsettled_bytes == 0 <= RESUME_BELOW_BYTES


def test_a_large_update_is_followed_at_the_members_own_pace(scene: Scene) -> None:
    scene.exist()
    scene.text.insert(0, "x" * (LIVE_BYTES_MAX + 1))
    scene.room.arrived_from_elsewhere(1, 1, [scene.updates[-1]])
    assert scene.keeper.asked[-2:] == ["follow from 0"] * 2
    assert sent(scene.ben) == []


def test_a_members_closing_while_it_is_told_disturbs_nobody(scene: Scene) -> None:
    scene.exist()
    carol = scene.enter()
    outlet = scene.ben.outlet
    assert isinstance(outlet, Outlet)
    outlet.write = lambda _encoded: scene.room.leave(scene.ben)  # type: ignore[method-assign]
    scene.room.arrived_from_elsewhere(1, 1, scene.updates[:1])
    assert sent(carol) == [encode_update(scene.updates[0])]
    assert scene.ben not in scene.room.members


def test_a_delivery_is_timed_only_when_it_happened(scene: Scene) -> None:
    scene.exist()
    scene.room.submit(scene.ann, scene.updates[1])
    scene.commit(2)
    assert sum(scene.metrics.deliver_seconds._counts) == 0
    scene.room.arrived_from_elsewhere(1, 1, scene.updates[:1])
    scene.room.submit(scene.ann, scene.updates[2])
    scene.commit(3)
    assert sum(scene.metrics.deliver_seconds._counts) == 1


def test_a_commit_of_large_updates_is_not_joined_in_the_event_loop_and_reaches_everyone(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.exist()
    monkeypatch.setattr(joined_module, "JOINED_BYTES_MAX", 100)
    doc: Doc[Any] = Doc(client_id=9)
    updates: list[bytes] = []
    subscription = doc.observe(lambda event: updates.append(event.update))
    text = doc.get("text", type=Text)
    for piece in ("a", "b", "c" * 200, "d", "e"):
        text.insert(len(text), piece)
    for update in updates:
        scene.room.submit(scene.ann, update)
    scene.commit(len(updates))
    doc.unobserve(subscription)
    frames = sent(scene.ben)
    assert frames[1] == encode_update(updates[2])
    assert len(frames) == 3
    reader: Doc[Any] = Doc()
    for frame in frames:
        message = decode_message(frame)
        assert isinstance(message, Update)
        reader.apply_update(message.update)
    assert str(reader.get("text", type=Text)) == "ab" + "c" * 200 + "de"


def test_a_run_without_content_for_a_client_that_is_live_elsewhere_is_accepted_and_audited(scene: Scene) -> None:
    """An editor that loads from a browser's storage sends these honestly; one that lies erases what is typed there."""
    scene.exist()
    scene.room.presence.hear(scene.ben, [AwarenessEntry(1, 1, "{}")], 0.0)
    for update in scene.updates[:3]:
        scene.room.submit(scene.ben, update)
    scene.commit(3)
    known, to_come, deleted = b"\x00\x00\x02", b"\x03\x00\x05", b"\x08\x81\x01\x07\x05"
    expected = []
    for head, (member, run, is_audited) in enumerate(
        [(scene.ann, to_come, True), (scene.ben, deleted, False), (scene.ann, b"\x0d\x00\x01", True)], 4
    ):
        scene.room.submit(member, b"\x01\x01\x01" + run + b"\x00")
        scene.commit(head)
        expected += [f"audited: blank run at {head}"] * is_audited
        assert [asked for asked in scene.keeper.asked if asked.startswith("audited")] == expected
    scene.room.submit(scene.ann, b"\x01\x01\x01" + known + b"\x00")
    assert not scene.room.queue.waiting, "what is known is nothing new"
    scene.room.submit(scene.ann, b"\x01\x01\x09\x00\x00\x01\x00")
    scene.commit(7)
    assert [asked for asked in scene.keeper.asked if asked.startswith("audited")] == expected, "nobody is 9"


def test_a_delete_of_what_never_came_is_for_importers_alone_and_capped(scene: Scene) -> None:
    scene.exist()
    ahead = b"\x00\x01\x01\x01\x05\x0a"
    with pytest.raises(AheadOfLog):
        scene.room.submit(scene.ann, ahead)
    scene.ann.deletes_ahead_left = 15
    scene.room.submit(scene.ann, ahead)
    assert (scene.ann.deletes_ahead_left, scene.keeper.asked[-1]) == (5, "audited: delete ahead at None")
    with pytest.raises(AheadOfLog):
        scene.room.submit(scene.ann, b"\x00\x01\x01\x01\x14\x06")
    assert scene.ann.deletes_ahead_left == 5


def test_over_its_cap_nothing_more_may_wait_but_a_late_predecessor_comes_in(scene: Scene) -> None:
    scene.exist()
    scene.room.limits = replace(scene.room.limits, pending_units_max=2)
    for update in scene.updates[1:4]:
        scene.room.submit(scene.ann, update)
    scene.commit(3)
    with pytest.raises(AheadOfLog, match="too much waits"):
        scene.room.submit(scene.ben, scene.updates[5])
    scene.room.submit(scene.ben, scene.updates[0])
    scene.room.submit(scene.ben, scene.updates[4])
    assert len(scene.take()) == 2, "what is in flight counts as there"
    scene.commit(5)
    scene.room.submit(scene.ben, scene.updates[6])
    scene.commit(6)
