"""Who may do what over y-websocket: tokens, read-only members, expiry, revocation, tenants, and stamped presence."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from tests.nodes import Editor, Node, closed_at_once, count_stored, running_node
from tests.tokens import SECRET, token
from ydoc_store.rooms import session
from ydoc_store.storage.revocations import insert_revocation
from ydoc_store.yjs import messages


@pytest.fixture
async def node(database_url: str) -> AsyncIterator[Node]:
    async with running_node(database_url, jwt_secret=SECRET, poll_interval_s=0.1) as started:
        yield started


def url(node: Node, name: str, with_token: str) -> str:
    return f"{node.url(name)}?token={with_token}"


async def open_as(node: Node, name: str, actor: str = "ann", access: str = "write", **claims: Any) -> Editor:
    return await Editor.open_synced(url(node, name, token(actor, {"*": access}, **claims)))


async def test_without_a_token_nobody_gets_in(node: Node) -> None:
    assert await closed_at_once(node.url("notes")) == (4401, "a token is needed")


async def test_a_token_that_has_expired_or_was_forged_gets_nobody_in(node: Node) -> None:
    expired = token(exp=time.time() - 60)
    assert await closed_at_once(url(node, "notes", expired)) == (4401, "this token has expired")
    assert (await closed_at_once(url(node, "notes", token()[:-4] + "AAAA")))[0] == 4401


async def test_a_token_for_another_document_is_forbidden(node: Node) -> None:
    code, reason = await closed_at_once(url(node, "secret", token(documents={"notes/*": "write"})))
    assert (code, reason) == (4403, "this token grants nothing for this document")


async def test_nothing_is_loaded_for_who_may_not_read(node: Node) -> None:
    await closed_at_once(node.url("notes"))
    assert node.rooms_opened == []


async def test_a_token_in_the_subprotocol_or_the_header_is_as_good(node: Node) -> None:
    by_protocol = await Editor.open_synced(node.url("a"), subprotocols=["ydoc", f"ydoc.token.{token()}"])
    assert by_protocol.socket.subprotocol == "ydoc"
    await Editor.open_synced(node.url("a"), additional_headers={"Authorization": f"Bearer {token()}"})


async def test_the_actor_is_written_beside_the_updates_and_comes_from_the_token(node: Node) -> None:
    ann = await open_as(node, "notes", "ann")
    ben = await open_as(node, "notes", "ben")
    await ann.type("by Ann")
    await ben.shows("by Ann")
    await ben.type(", and Ben")
    await ann.shows("by Ann, and Ben")
    async with node.database.acquire() as connection:
        rows = await connection.fetch("SELECT u.actor FROM ydoc.updates AS u ORDER BY u.seq")
    assert [row[0] for row in rows] == ["ann", "ben"]


async def test_a_reader_sees_everything_shows_presence_and_changes_nothing(node: Node) -> None:
    """I17: neither structs nor deletes, those hidden in a Step2 included."""
    ann = await open_as(node, "notes", "ann")
    await ann.type("kept")
    reader = await open_as(node, "notes", "eve", "read")
    await reader.shows("kept")
    await reader.show(1)
    await ann.sees(reader.doc.client_id, '{"name":"Ann","user":{"id":"eve"}}')
    await reader.erase(0, 4)
    await reader.say(messages.encode_sync_step2(reader.doc.get_update()))
    await reader.type("written by a reader")
    await ann.type("!")
    await reader.until(lambda: "!" in reader.text)
    assert ann.text == "kept!"
    assert await count_stored(node.database, "notes") == 2
    assert node.count('ydoc_updates_total{dialect="y-websocket",result="read_only"}') == 3


async def test_an_open_socket_ends_with_its_token(node: Node) -> None:
    """I18: expiry takes effect on open sockets."""
    editor = await open_as(node, "notes", exp=time.time() + 1.5)
    assert await editor.closed() == (4401, "this token has expired")


async def test_a_clock_that_was_set_back_does_not_let_a_token_live_on(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I18: the timer was set by another clock than the one that it is judged by."""
    with monkeypatch.context() as ahead:
        clock = SimpleNamespace(time=lambda: time.time() + 3_600, monotonic=time.monotonic)
        ahead.setattr(session, "time", clock)
        editor = await open_as(node, "notes", exp=time.time() + 3)
    assert await editor.closed() == (4401, "this token has expired")


async def test_a_revocation_reaches_open_sockets_of_every_node_within_five_seconds(
    node: Node, database_url: str
) -> None:
    """I18: a user, a document and a tenant."""
    async with running_node(database_url, jwt_secret=SECRET, poll_interval_s=0.1) as other:
        ann = [await open_as(where, "notes", "ann") for where in (node, other)]
        ben = await open_as(node, "notes", "ben")
        started_s = time.monotonic()
        later = datetime.fromtimestamp(time.time() + 1, UTC)
        await insert_revocation(node.database, "default", "user", "ann", later, lifetime_s_max=86_400)
        for editor in ann:
            assert await editor.closed() == (4401, "this access was revoked")
        assert time.monotonic() - started_s < 10, "5 s on a quiet machine"
        assert (await closed_at_once(url(other, "notes", token("ann")))) == (4401, "this access was revoked")
        await ben.type("stays")
        await insert_revocation(node.database, "default", "document", "notes", later, lifetime_s_max=86_400)
        assert await ben.closed() == (4401, "this access was revoked")
        await open_as(other, "else", "ben")
        # A token that was issued after it lets the same person in again.
        await Editor.open_synced(url(node, "notes", token("ann", iat=time.time() + 2)))


async def test_the_same_name_in_two_tenants_is_two_documents(node: Node) -> None:
    """I19."""
    here = await open_as(node, "notes", tenant="one")
    there = await open_as(node, "notes", tenant="two")
    await here.type("of one")
    await there.type("of two")
    await here.show(1)
    late = await open_as(node, "notes", tenant="one")
    await late.shows("of one")
    await late.sees(here.doc.client_id, '{"name":"Ann","user":{"id":"ann"}}')
    assert there.text == "of two"
    assert here.doc.client_id not in there.presence


async def test_the_server_says_who_somebody_is_and_leaves_their_colour_alone(node: Node) -> None:
    ann = await Editor.open_synced(url(node, "notes", token("ann", name="Ann A.")))
    ben = await open_as(node, "notes", "ben")
    await ann.show(1, '{"user":{"id":"ben","name":"Ben","color":"#30bced"},"cursor":null}')
    await ben.sees(ann.doc.client_id, '{"user":{"name":"Ann A.","color":"#30bced","id":"ann"},"cursor":null}')


async def test_nobody_shows_themselves_under_somebody_elses_client_id(node: Node) -> None:
    ann = await open_as(node, "notes", "ann")
    ben = await open_as(node, "notes", "ben")
    await ann.show(1)
    await ben.sees(ann.doc.client_id, '{"name":"Ann","user":{"id":"ann"}}')
    await ben.show(2, '{"name":"I am Ann"}', client_id=ann.doc.client_id)
    await ben.show(3, None, client_id=ann.doc.client_id)
    await ben.show(1)
    await ann.sees(ben.doc.client_id, '{"name":"Ann","user":{"id":"ben"}}')
    assert ann.doc.client_id not in ann.presence
    # The same person on a new socket, while the old one may be half open.
    again = await open_as(node, "notes", "ann")
    await again.show(5, '{"name":"again"}', client_id=ann.doc.client_id)
    await ben.sees(ann.doc.client_id, '{"name":"again","user":{"id":"ann"}}')


async def test_pages_of_another_origin_may_not_connect(node: Node) -> None:
    code, reason = await closed_at_once(url(node, "notes", token()), origin="https://evil.example")
    assert code == 4403
    assert "YDOC_ORIGINS" in reason
    await Editor.open_synced(url(node, "notes", token()), origin="http://localhost:3000")
