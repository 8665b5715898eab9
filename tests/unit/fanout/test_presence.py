"""Presence between nodes: cut to fit NOTIFY, put together again in any order, bounded whatever is lost."""

from __future__ import annotations

import base64
import itertools
import random

import pytest

from ydoc_store.fanout.presence import (
    BYTES_WAITING_MAX,
    MESSAGES_MAX,
    PresenceHint,
    PresenceOutbox,
    PresenceReader,
    presence_payloads,
)
from ydoc_store.yjs.awareness import AwarenessEntry


def hint(name: str, *entries: AwarenessEntry, asks: bool = False) -> PresenceHint:
    return PresenceHint("tenant", name, list(entries), asks)


def payloads(*hints: PresenceHint) -> list[str]:
    return list(presence_payloads("them", itertools.count(1), list(hints)))


def heard(texts: list[str], reader: PresenceReader | None = None) -> list[PresenceHint]:
    reader = reader or PresenceReader("us")
    return [told for text in texts for told in reader.read(text)[1]]


def merged(hints: list[PresenceHint]) -> dict[str, list[AwarenessEntry]]:
    found: dict[str, list[AwarenessEntry]] = {}
    for told in hints:
        found.setdefault(told.name, []).extend(told.entries)
    return found


def test_a_small_message_is_one_payload() -> None:
    told = hint("a/b", AwarenessEntry(1, 2, '{"name":"Bén 😀"}'), AwarenessEntry(3, 4, None))
    assert heard(payloads(told, hint("c", asks=True))) == [told, hint("c", asks=True)]
    assert len(payloads(told)) == 1


def test_large_states_are_cut_to_fit_and_found_whole_in_any_order() -> None:
    entries = [AwarenessEntry(number, 1, '"' * 16_000) for number in range(40)]
    texts = payloads(hint("a", *entries))
    assert all(len(text.encode()) <= 7_999 for text in texts)
    random.Random(5).shuffle(texts)
    found = merged(heard(texts, PresenceReader("us", messages_max=1_000)))["a"]
    assert sorted(found) == entries


def test_a_lost_part_loses_its_message_alone() -> None:
    entries = [AwarenessEntry(number, 1, "x" * 16_000) for number in range(20)]
    found = merged(heard(payloads(hint("a", *entries))[1:]))["a"]
    assert len(entries) > len(found) >= len(entries) - 3


def test_parts_that_never_become_whole_are_forgotten() -> None:
    reader = PresenceReader("us")
    for number in range(1_000):
        reader.read(f"them;1/2;{number};AAAA")
    assert len(reader._parts) <= MESSAGES_MAX + 1


def test_our_own_are_no_news() -> None:
    assert PresenceReader("them").read(payloads(hint("a", asks=True))[0]) == ("them", [])


@pytest.mark.parametrize(
    "payload",
    [
        "",
        "them",
        "them;1/1",
        "them;²/1;1;AAAA",
        "them;0/1;1;AAAA",
        "them;2/1;1;AAAA",
        "them;1/9999;1;A",
        "them;1/1;1;!",
    ],
)
def test_what_makes_no_sense_is_no_hint(payload: str) -> None:
    assert PresenceReader("us").read(payload)[1] == []


@pytest.mark.parametrize(
    "content",
    [b"1", b"[1]", b'[["t"]]', b'[[1,"n",true,[]]]', b'[["t","n",true,[[1,"2","{}"]]]]', b'[["t","n",true,[[1]]]]'],
)
def test_content_of_another_shape_is_no_hint(content: bytes) -> None:
    assert PresenceReader("us").read(f"them;1/1;1;{base64.b64encode(content).decode()}")[1] == []


def test_only_the_latest_of_each_client_waits_and_documents_are_bounded() -> None:
    outbox = PresenceOutbox(documents_max=2)
    for clock in range(100):
        outbox.add(hint("a", AwarenessEntry(1, clock, "{}")))
    outbox.add(hint("a", AwarenessEntry(2, 5, None), asks=True))
    assert outbox.add(hint("b", asks=True))
    assert not outbox.add(hint("c", asks=True))
    assert outbox.take() == [
        hint("a", AwarenessEntry(1, 99, "{}"), AwarenessEntry(2, 5, None), asks=True),
        hint("b", asks=True),
    ]
    assert outbox.take() == []


def test_ids_that_come_and_go_while_nobody_takes_are_bounded() -> None:
    """I15: Postgres may not answer for half a minute."""
    outbox = PresenceOutbox()
    state = "x" * 16_000
    kept = sum(outbox.add(PresenceHint("t", "n", [AwarenessEntry(i, 1, state)], asks=False)) for i in range(5_000))
    assert kept * len(state) <= BYTES_WAITING_MAX < (kept + 2) * (len(state) + 200)
    assert len(outbox.take()[0].entries) == kept
    assert outbox.add(PresenceHint("t", "n", [AwarenessEntry(1, 1, state)], asks=False))


def test_stateless_words_count_in_what_may_wait_while_postgres_does_not_answer() -> None:
    """I15: they go the way of presence, and nobody renews them: what is too much is dropped."""
    outbox = PresenceOutbox()
    said = [
        PresenceHint("tenant", "a", [], asks=False, words=("x" * 4_096,)) for _ in range(BYTES_WAITING_MAX // 2_048)
    ]
    taken = sum(map(outbox.add, said))
    assert 0 < taken * 4_096 <= BYTES_WAITING_MAX
    (told,) = outbox.take()
    assert len(told.words) == taken
    assert outbox.add(said[0])
