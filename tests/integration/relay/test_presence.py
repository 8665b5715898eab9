"""Presence on one node: who is shown to whom, whose it is, and when it goes (wire protocol, Both)."""

from __future__ import annotations

import time

from tests.nodes import Editor, Node, connect_raw, new_doc
from ydoc_store.yjs import messages
from ydoc_store.yjs.awareness import AwarenessEntry, encode_awareness_entries

ANN = '{"name":"Ann"}'
BEN = '{"name":"Ben"}'


async def two(node: Node) -> tuple[Editor, Editor]:
    return await Editor.open_synced(node.url("notes")), await Editor.open_synced(node.url("notes"))


async def asked(editor: Editor) -> dict[int, str | None]:
    """Who is here, as the server answers a question now: behind everything that was sent before."""
    before = len(editor.received(messages.Awareness))
    editor.presence.clear()
    await editor.say(b"\x03")
    await editor.until(lambda: len(editor.received(messages.Awareness)) > before)
    return {entry.client_id: entry.state_json for entry in editor.presence.values()}


async def test_presence_is_shown_to_the_others_and_to_who_joins(node: Node) -> None:
    ann, ben = await two(node)
    await ann.show(1, ANN)
    await ben.sees(ann.doc.client_id, ANN)
    late = await Editor.open_synced(node.url("notes"))
    await late.sees(ann.doc.client_id, ANN)
    assert ann.doc.client_id not in ann.presence
    for editor in (ann, ben, late):
        await editor.leave()


async def test_an_echo_goes_no_further(node: Node) -> None:
    ann, ben = await two(node)
    await ann.show(1, ANN)
    await ben.sees(ann.doc.client_id, ANN)
    for _ in range(5):
        await ben.show(1, ANN, client_id=ann.doc.client_id)
    await ben.show(1, BEN)
    await ann.sees(ben.doc.client_id, BEN)
    assert ann.doc.client_id not in ann.presence
    await ann.leave()
    await ben.leave()


async def test_leaving_takes_what_one_introduced_and_nothing_else(node: Node) -> None:
    ann, ben = await two(node)
    reader = await Editor.open_synced(node.url("notes"))
    await ann.show(1, ANN)
    await ben.show(5, BEN)
    await reader.sees(ben.doc.client_id, BEN)
    await ben.leave()
    await reader.sees(ben.doc.client_id, None)
    assert reader.presence[ben.doc.client_id].clock == 6
    assert await asked(reader) == {ann.doc.client_id: ANN}
    await ann.leave()
    await reader.leave()


async def test_a_newer_clock_on_a_new_socket_takes_over_and_the_old_one_says_nothing(node: Node) -> None:
    old, ben = await two(node)
    await old.show(1, ANN)
    await ben.sees(old.doc.client_id, ANN)
    new = await Editor.open_synced(node.url("notes"), new_doc())
    await new.show(2, BEN, client_id=old.doc.client_id)
    await ben.sees(old.doc.client_id, BEN)
    await old.vanish()
    while len(node.room("notes").members) > 2:
        await asked(ben)
    assert await asked(ben) == {old.doc.client_id: BEN}
    await new.leave()
    await ben.leave()


async def test_who_returns_with_the_clock_it_left_with_is_told_so(node: Node) -> None:
    ann, ben = await two(node)
    await ann.show(1, ANN)
    await ben.sees(ann.doc.client_id, ANN)
    await ann.leave()
    await ben.sees(ann.doc.client_id, None)
    again = await Editor.open_synced(node.url("notes"), ann.doc)
    await again.show(1, ANN)
    await again.sees(ann.doc.client_id, None)
    await again.show(again.presence[ann.doc.client_id].clock + 1, ANN)
    await ben.sees(ann.doc.client_id, ANN)
    await again.leave()
    await ben.leave()


async def test_what_is_not_renewed_in_time_goes(node: Node) -> None:
    ann, ben = await two(node)
    await ann.show(1, ANN)
    await ben.sees(ann.doc.client_id, ANN)
    node.service.rooms.attendance.expire(time.monotonic() + node.settings.awareness_timeout_s + 1)
    await ben.sees(ann.doc.client_id, None)
    await ann.sees(ann.doc.client_id, None)
    await ann.leave()
    await ben.leave()


async def test_a_client_that_woke_from_sleep_ends_nobody_elses_presence(node: Node) -> None:
    ann, ben = await two(node)
    await ann.show(3, ANN)
    await ben.sees(ann.doc.client_id, ANN)
    await ben.show(3, None, client_id=ann.doc.client_id)
    assert await asked(ben) == {ann.doc.client_id: ANN}
    await ann.leave()
    await ben.leave()


async def test_nothing_is_shown_before_the_step1(node: Node) -> None:
    ann = await Editor.open_synced(node.url("notes"))
    silent = await connect_raw(node.url("notes"))
    await ann.show(1, ANN)
    ben = await Editor.open_synced(node.url("notes"))
    await ben.sees(ann.doc.client_id, ANN)
    await silent.send(messages.encode_sync_step1(b"\0"))
    kinds = [type(messages.decode_message(await silent.recv())) for _ in range(3)]
    assert kinds == [messages.SyncStep1, messages.Awareness, messages.SyncStep2]
    await silent.close()
    await ann.leave()
    await ben.leave()


async def test_presence_sent_before_the_step1_counts(node: Node) -> None:
    ben = await Editor.open_synced(node.url("notes"))
    eager = await connect_raw(node.url("notes"))
    await eager.send(messages.encode_awareness(encode_awareness_entries([AwarenessEntry(7, 1, ANN)])))
    await ben.sees(7, ANN)
    await eager.close()
    await ben.sees(7, None)
    await ben.leave()


async def test_one_member_cannot_fill_the_room(node: Node) -> None:
    ann, ben = await two(node)
    for start in range(0, 400, 100):
        entries = [AwarenessEntry(number, 1, "{}") for number in range(start, start + 100)]
        await ann.say(messages.encode_awareness(encode_awareness_entries(entries)))
    await ann.show(1, ANN, client_id=1000)
    await ben.show(1, BEN)
    await ann.sees(ben.doc.client_id, BEN)
    assert len(node.room("notes").presence) == node.settings.awareness_entries_max + 1
    await ann.leave()
    await ben.leave()
