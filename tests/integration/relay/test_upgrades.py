"""Which sockets are let in, and what the others are told: always a close code, since a browser sees no HTTP status."""

from __future__ import annotations

import asyncio

import pytest

from tests.nodes import Editor, Node, closed_at_once, connect_raw, running_node


async def test_another_path_is_closed_with_the_right_url(node: Node) -> None:
    code, reason = await closed_at_once(f"ws://127.0.0.1:{node.port}/notes")
    assert code == 4404
    assert f"ws://127.0.0.1:{node.port}/yjs/NAME" in reason


@pytest.mark.parametrize("path", ["", "a//b", "..", "a/%2e%2e/b", "a%00b", "%ff", "x" * 513])
async def test_a_name_outside_the_rule_is_closed_for_good(node: Node, path: str) -> None:
    code, _ = await closed_at_once(node.url(path))
    assert code == 4400


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://example.com"},
        {"Origin": "null"},
        {"X-Forwarded-For": "10.0.0.1"},
        {"Forwarded": "for=10.0.0.1"},
    ],
    ids=str,
)
async def test_a_request_from_elsewhere_is_told_the_settings(node: Node, headers: dict[str, str]) -> None:
    code, reason = await closed_at_once(node.url("notes"), additional_headers=headers)
    assert code == 4403
    assert "YDOC_JWT_SECRET" in reason


async def test_an_offered_subprotocol_is_selected(node: Node) -> None:
    socket = await connect_raw(node.url("notes"), subprotocols=["yjs", "other"])
    assert socket.subprotocol == "yjs"
    await socket.close()


async def test_one_socket_too_many_is_told_to_come_back(database_url: str) -> None:
    async with running_node(database_url, connections_max=2) as node:
        first = await Editor.open_synced(node.url("a"))
        second = await Editor.open_synced(node.url("b"))
        code, reason = await closed_at_once(node.url("c"))
        assert code == 1013
        assert "YDOC_CONNECTIONS_MAX" in reason
        await first.leave()
        third = await Editor.open_synced(node.url("c"))
        await second.leave()
        await third.leave()


async def test_what_is_no_upgrade_ends_that_connection(node: Node) -> None:
    for request in (b"GET /yjs/a HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\x16\x03\x01 no HTTP\r\n\r\n"):
        reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
        writer.write(request)
        assert not (await reader.read()).startswith(b"HTTP/1.1 101")
        writer.close()
        await writer.wait_closed()
    assert not node.service.relay.connections


async def test_who_comes_while_a_document_loads_shares_the_load(node: Node) -> None:
    editors = await asyncio.gather(*(Editor.open_synced(node.url("notes")) for _ in range(20)))
    assert len(node.rooms_opened) == 1
    for editor in editors:
        await editor.leave()


async def test_rooms_of_unknown_names_do_not_outlive_their_connections(node: Node) -> None:
    for number in range(30):
        editor = await Editor.open_synced(node.url(f"nothing/{number}"))
        room = node.room(f"nothing/{number}")
        await editor.leave()
        await node.room_closed(room)
    assert not node.service.rooms.rooms
