"""Presence under other names: apart from each other and from rooms, bounded, told to other nodes, forgotten in time."""

from __future__ import annotations

import pytest

from ydoc_store.errors import ServerFull
from ydoc_store.fanout.presence import PresenceHint
from ydoc_store.rooms import named_presence
from ydoc_store.rooms.named_presence import (
    LIFE_S,
    STREAMS_OF_A_DOCUMENT_MAX,
    NamedPresences,
    StreamName,
    is_named,
)
from ydoc_store.rooms.presence import Guest, Presence
from ydoc_store.yjs.awareness import AwarenessEntry

MODS = StreamName("default", "notes", 1, "mods")
HAL = AwarenessEntry(1, 1, "{}")


class Nodes:
    """Two nodes that hear each other, and how often somebody was woken on the second."""

    def __init__(self) -> None:
        self.here, self.there = (NamedPresences(lambda: Presence(10), 30) for _ in range(2))
        self.hints: list[PresenceHint] = []
        self.here.tell = self._from_here
        self.there.tell = lambda hint: self.here.heard("there", hint, 0)

    def _from_here(self, hint: PresenceHint) -> None:
        self.hints.append(hint)
        self.there.heard("here", hint, 0)

    def shows(self, entry: AwarenessEntry, now_s: float = 0) -> None:
        stream = self.here.create(MODS, now_s)
        self.here.changed(MODS, stream.presence.hear(Guest(None, entry.client_id), [entry], now_s).fresh)


def test_what_is_shown_under_a_name_is_shown_on_other_nodes_under_that_name() -> None:
    nodes = Nodes()
    nodes.shows(HAL)
    stream = nodes.there.find(MODS)
    assert stream is not None
    assert stream.presence.current() == [HAL]
    assert nodes.there.find(StreamName("default", "notes", 1, "others")) is None
    assert nodes.there.find(StreamName("default", "notes", 2, "mods")) is None


def test_its_hints_are_never_taken_for_a_rooms() -> None:
    nodes = Nodes()
    nodes.shows(HAL)
    assert nodes.hints
    assert all(is_named(hint) for hint in nodes.hints)
    assert not is_named(PresenceHint("default", "notes", [], asks=False))
    for name in ("notes\0x\0mods", "notes\0\0mods", "notes\0001", "\0\0"):
        nodes.there.heard("here", PresenceHint("other", name, [HAL], asks=False), 0)
    assert nodes.there.find(MODS) is not None


def test_a_node_that_comes_later_hears_who_is_there() -> None:
    nodes = Nodes()
    nodes.shows(HAL)
    nodes.there.delete(MODS)
    nodes.there.create(MODS, 0)
    stream = nodes.there.find(MODS)
    assert stream is not None
    assert stream.presence.current() == [HAL]


def test_who_reads_is_woken_by_changes_and_by_the_end() -> None:
    nodes = Nodes()
    nodes.shows(HAL)
    stream = nodes.there.find(MODS)
    assert stream is not None
    woken: list[bool] = []
    stream.wakers[lambda: woken.append(stream.is_over)] = None
    nodes.shows(HAL._replace(clock=2))
    nodes.there.delete(MODS)
    assert woken == [False, True]
    assert not nodes.there.delete(MODS)


def test_it_is_forgotten_an_hour_after_its_last_words_and_its_people_before() -> None:
    nodes = Nodes()
    nodes.shows(HAL)
    nodes.shows(HAL._replace(clock=2), 100)
    nodes.here.expire(131)
    stream = nodes.here.find(MODS)
    assert stream is not None
    assert stream.presence.current() == []
    nodes.here.expire(100 + LIFE_S - 1)
    assert nodes.here.find(MODS) is not None
    nodes.here.expire(100 + LIFE_S)
    assert nodes.here.find(MODS) is None


def test_a_document_takes_its_streams_along() -> None:
    nodes = Nodes()
    other = StreamName("default", "notes2", 1, "mods")
    nodes.here.create(other, 0)
    nodes.shows(HAL)
    nodes.here.delete_all_of("default", "notes")
    assert nodes.here.find(MODS) is None
    assert nodes.here.find(other) is not None


def test_histories_that_are_over_take_no_place() -> None:
    nodes = Nodes()
    for epoch in range(1, STREAMS_OF_A_DOCUMENT_MAX + 2):
        nodes.here.create(StreamName("default", "notes", epoch, "mods"), 0)
    assert nodes.here.find(MODS) is None
    assert nodes.there.find(StreamName("default", "notes", epoch, "mods")) is not None


def test_there_are_only_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = Nodes()
    for number in range(STREAMS_OF_A_DOCUMENT_MAX):
        nodes.here.create(StreamName("default", "notes", 1, f"{number}"), 0)
    with pytest.raises(ServerFull):
        nodes.here.create(MODS, 0)
    # A node that has no room for what it hears of leaves it.
    nodes.there.delete_all_of("default", "notes")
    monkeypatch.setattr(named_presence, "STREAMS_MAX", 0)
    nodes.there.heard("here", PresenceHint("default", "notes\0001\0mods", [HAL], asks=True), 0)
    assert nodes.there.find(MODS) is None


def test_one_tenant_leaves_the_others_their_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(named_presence, "STREAMS_OF_A_TENANT_MAX", 5)
    nodes = Nodes()
    for number in range(5):
        nodes.here.create(StreamName("greedy", f"notes{number}", 1, "mods"), 0)
    with pytest.raises(ServerFull, match="tenant"):
        nodes.here.create(StreamName("greedy", "more", 1, "mods"), 0)
    # Nor by telling another node of it.
    nodes.there.heard("here", PresenceHint("greedy", "more\0001\0mods", [HAL], asks=False), 0)
    assert nodes.there.find(StreamName("greedy", "more", 1, "mods")) is None
    assert nodes.here.create(MODS, 0) is nodes.here.find(MODS)
    # What it has may be used on, and what ends makes room: a document's end, a time-out, a new epoch.
    nodes.here.create(StreamName("greedy", "notes0", 1, "mods"), 10)
    nodes.here.delete_all_of("greedy", "notes1")
    nodes.here.create(StreamName("greedy", "more", 1, "mods"), 10)
    nodes.here.create(StreamName("greedy", "notes2", 2, "mods"), 10)
    nodes.here.expire(LIFE_S)
    for name in ("another", "and another"):
        nodes.here.create(StreamName("greedy", name, 1, "mods"), LIFE_S)
    with pytest.raises(ServerFull):
        nodes.here.create(StreamName("greedy", "one too many", 1, "mods"), LIFE_S)
    nodes.here.expire(3 * LIFE_S)
    assert not nodes.here._of_tenant
    assert not nodes.here._of_document
