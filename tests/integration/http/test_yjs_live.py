"""Live reads over Durable Streams: long polls and event streams, and what ends them."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import time
from collections.abc import AsyncIterator

import httpx
from pycrdt import Doc, Text

from tests.integration.http.stream_copies import (
    WAIT_S,
    Copy,
    created,
    path_of,
    post,
    streaming,
    typed,
)
from tests.nodes import Editor, new_doc
from tests.sites import Site, running_site
from tests.tokens import SECRET, token
from tests.waiting import until
from ydoc_store.http import yjs_reading
from ydoc_store.http.tokens import Token
from ydoc_store.yjs.lib0 import join_frames


@contextlib.asynccontextmanager
async def readers_left(site: Site, count: int) -> AsyncIterator[None]:
    """At the block's end so many members are in the room, soon."""
    yield

    async def left() -> bool:
        room = site.service.rooms.rooms.get(("default", "notes"))
        return (len(room.members) if room is not None else 0) == count

    await until(left)


# Long polls


async def test_a_long_poll_waits_for_the_next_update(site: Site, client: httpx.AsyncClient) -> None:
    await created(client, typed("a"))
    copy = Copy()
    await copy.read(client)
    polling = asyncio.create_task(copy.read(client, live="long-poll"))
    async with readers_left(site, 0):
        await until(lambda: _members(site, 1))
        ann = await Editor.open_synced(site.url("notes"))
        await ann.type("b")
        answer = await polling
        assert (answer.status_code, answer.headers["stream-up-to-date"]) == (200, "true")
        assert (copy.text, copy.offset) == ("ab", str(Token(1, 2)))
        assert int(answer.headers["stream-cursor"]) > 0
        await ann.leave()


async def _members(site: Site, count: int) -> bool:
    room = site.service.rooms.rooms.get(("default", "notes"))
    return room is not None and len(room.members) == count


async def test_a_long_poll_in_vain_is_told_where_it_stands(database_url: str) -> None:
    async with running_site(database_url, long_poll_timeout_s=0.2) as site, site.client() as client:
        await created(client, typed("a"))
        for offset in ("now", str(Token(1, 1))):
            answer = await client.get(path_of(), params={"offset": offset, "live": "long-poll"})
            assert (answer.status_code, answer.content) == (204, b"")
            assert answer.headers["stream-next-offset"] == str(Token(1, 1))
            assert answer.headers["stream-up-to-date"] == "true"
            again = await client.get(
                path_of(), params={"offset": offset, "live": "long-poll", "cursor": answer.headers["stream-cursor"]}
            )
            assert int(again.headers["stream-cursor"]) > int(answer.headers["stream-cursor"])


async def test_a_poll_that_nobody_waits_for_any_more_ends(site: Site, client: httpx.AsyncClient) -> None:
    await created(client, typed("a"))
    async with readers_left(site, 0):
        polling = asyncio.create_task(client.get(path_of(), params={"offset": "now", "live": "long-poll"}))
        await until(lambda: _members(site, 1))
        polling.cancel()


# Event streams


async def test_an_event_stream_catches_up_and_then_brings_each_commit(site: Site, client: httpx.AsyncClient) -> None:
    await created(client, typed("a"))
    ann = await Editor.open_synced(site.url("notes"))
    async with readers_left(site, 1), streaming(client, offset="-1") as events:
        data, control = await events.next()
        copy = Copy()
        copy.take(data, control["streamNextOffset"])
        assert (copy.text, control["upToDate"], copy.offset) == ("a", True, str(Token(1, 1)))
        for letter in "bcde":
            await ann.type(letter)
        await copy.follow(events, "abcde")
        await post(client, typed("x", copy.doc))
        async with asyncio.timeout(WAIT_S):
            data, control = await events.next()
        # The writer's own update comes back to it: its provider waits for that.
        assert data
        assert control["streamNextOffset"] == str(Token(1, 6))


async def test_a_reader_of_an_empty_document_is_told_at_once_that_it_has_all(
    site: Site, client: httpx.AsyncClient
) -> None:
    await created(client)
    async with streaming(client, offset="now") as events:
        data, control = await events.next()
        assert (data, control["streamNextOffset"], control["upToDate"]) == (b"", str(Token(1, 0)), True)
        assert control["streamCursor"].isdecimal()
        await post(client, typed("a"))
        copy = Copy()
        await copy.follow(events, "a")


async def test_commits_of_another_node_reach_streams_and_polls(
    site: Site, client: httpx.AsyncClient, database_url: str
) -> None:
    await created(client, typed("a"))
    async with (
        running_site(database_url) as elsewhere,
        elsewhere.client() as other,
        streaming(client, offset="-1") as events,
    ):
        polled, copy = Copy(str(Token(1, 1))), Copy()
        polling = asyncio.create_task(polled.read(client, live="long-poll"))
        await copy.follow(events, "a")
        await post(other, typed("b"))
        await polling
        assert polled.text == "b"
        async with asyncio.timeout(WAIT_S):
            while sorted(copy.text) != ["a", "b"]:
                data, control = await events.next()
                copy.take(data, control["streamNextOffset"])
        # Made elsewhere, and read here.
        await created(other, typed("x"), name="made-elsewhere")
        made = Copy()
        await made.read(client, name="made-elsewhere")
        assert made.text == "x"


async def test_readers_at_one_place_are_sent_one_encoded_event(site: Site, client: httpx.AsyncClient) -> None:
    await created(client, typed("a"))
    async with contextlib.AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(streaming(client, offset="-1")) for _ in range(20)]
        copies = [Copy() for _ in streams]
        doc: Doc[object] = new_doc()
        for word in ("b", "c", "d"):
            await post(client, typed(word, doc))
            expected = str(doc.get("text", type=Text))
            for copy, events in zip(copies, streams, strict=True):
                async with asyncio.timeout(WAIT_S):
                    while sorted(copy.text) != sorted("a" + expected):
                        data, control = await events.next()
                        copy.take(data, control["streamNextOffset"])
        room = site.room("notes")
        shared = yjs_reading.shared_events.find(room, room.head - 1)
        assert shared is not None
        assert shared[0] == room.head


async def test_a_long_event_comes_in_parts_that_each_decode(site: Site, client: httpx.AsyncClient) -> None:
    text = "".join(random.choices("abcdefgh ", k=300_000))
    await created(client, typed(text))
    async with streaming(client, offset="-1") as events:
        copy = Copy()
        await copy.follow(events, text)
    assert events.data_events > 5


async def test_a_silent_stream_is_kept_alive_and_ends_after_its_time(database_url: str) -> None:
    async with running_site(database_url, keepalive_interval_s=0.1, sse_close_s=1) as site, site.client() as client:
        await created(client, typed("a"))
        started_s = time.monotonic()
        async with readers_left(site, 0), streaming(client, offset="now") as events:
            await events.ended()
        assert 0.8 <= time.monotonic() - started_s < 20
        assert events.comments >= 3


async def test_a_stream_ends_with_its_document(site: Site, client: httpx.AsyncClient) -> None:
    await created(client, typed("a"))
    async with streaming(client, offset="now") as events:
        await events.next()
        assert (await client.delete(path_of())).status_code == 204
        await events.ended()
    gone = await client.get(path_of(), params={"offset": str(Token(1, 1)), "live": "sse"})
    assert gone.status_code == 404


async def test_what_waits_ends_when_the_process_stops(database_url: str) -> None:
    async with running_site(database_url) as site, site.client() as client:
        await created(client, typed("a"))
        async with streaming(client, offset="now") as events:
            await events.next()
            polling = asyncio.create_task(client.get(path_of(), params={"offset": "now", "live": "long-poll"}))
            await until(lambda: _members(site, 2))
            started_s = time.monotonic()
            stopping = asyncio.create_task(site.stop(drain_s=30))
            await events.ended()
            assert (await polling).status_code == 204
            assert time.monotonic() - started_s < 20
        await stopping


async def test_what_waits_ends_with_its_token(database_url: str) -> None:
    """I18."""
    async with running_site(database_url, jwt_secret=SECRET) as site:
        async with site.client(token()) as client:
            await created(client, typed("a"))
        soon = token(exp=time.time() + 3)
        async with site.client(soon) as client, streaming(client, offset="now") as events:
            await events.next()
            polling = asyncio.create_task(client.get(path_of(), params={"offset": "now", "live": "long-poll"}))
            started_s = time.monotonic()
            await events.ended()
            refused = await polling
            assert time.monotonic() - started_s < 3 + 5 + 10
            assert (refused.status_code, refused.json()["error"]["code"]) == (401, "UNAUTHORIZED")
            again = await client.get(path_of(), params={"offset": "now"})
            assert again.status_code == 401


async def test_a_reader_that_takes_nothing_is_cut_and_holds_little(database_url: str) -> None:
    async with running_site(database_url, slow_member_s=1) as site, site.client() as client:
        # More than the kernel's own buffers take for both sides.
        text = "abcdefgh " * 1_000_000
        await created(client, typed(text))
        for params in (f"offset={Token(1, 0)}", f"offset={Token(1, 0)}&live=sse"):
            with socket.socket() as peer:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                peer.settimeout(0)
                loop = asyncio.get_running_loop()
                await loop.sock_connect(peer, ("127.0.0.1", site.port))
                request = f"GET {path_of()}?{params} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
                await loop.sock_sendall(peer, request.encode())
                assert (await loop.sock_recv(peer, 16)).startswith(b"HTTP/1.1 200")
                started_s = time.monotonic()
                await until(lambda: _members(site, 0))
                assert time.monotonic() - started_s >= 0.9
            assert site.service.rooms.first_sync.prepared.used == 0
        copy = Copy()
        await copy.read(client)
        assert copy.text == text


# Who may


async def test_the_door_is_the_sockets_own(database_url: str) -> None:
    async with running_site(database_url, jwt_secret=SECRET) as site:
        async with site.client(token(documents={"*": "admin"}, tenant="acme")) as admin:
            assert (await admin.put(path_of(service="acme"))).status_code == 201
            for service in ("default", "other"):
                refused = await admin.get(path_of(service=service))
                assert (refused.status_code, refused.json()["error"]["code"]) == (403, "FORBIDDEN")
            async with site.client(token(documents={"*": "read"}, tenant="acme")) as reader:
                path = path_of(service="acme")
                assert (await reader.put(path)).status_code == 200
                assert (await reader.get(path)).status_code == 200
                assert (await reader.put(path_of("new", "acme"))).status_code == 403
                assert (await reader.post(path, content=join_frames([typed("a")]))).status_code == 403
                assert (await reader.delete(path)).status_code == 403
                # Told 403 a stock provider would take the next epoch and send again, for ever.
                producer = {"Producer-Id": "p", "Producer-Epoch": "0", "Producer-Seq": "0"}
                told = await reader.post(path, content=join_frames([typed("a")]), headers=producer)
                assert (told.status_code, told.json()["error"]["code"]) == (401, "UNAUTHORIZED")
            async with site.client(token(documents={"*": "write"}, tenant="acme")) as writer:
                assert (await writer.post(path, content=join_frames([typed("a")]))).status_code == 204
                assert (await writer.delete(path)).status_code == 403
            assert (await admin.delete(path)).status_code == 204
        async with site.client() as nobody:
            refused = await nobody.get(path_of())
            assert (refused.status_code, refused.json()["error"]["code"]) == (401, "UNAUTHORIZED")
            assert refused.headers["www-authenticate"] == "Bearer"
            by_parameter = {"token": token(documents={"*": "read"}, tenant="acme")}
            assert (await nobody.head(path_of(service="acme"), params=by_parameter)).status_code == 404


async def test_a_page_reads_the_streams_headers(site: Site, client: httpx.AsyncClient) -> None:
    await created(client, typed("a"))
    answer = await client.get(path_of(), headers={"Origin": "http://localhost:5173"})
    assert answer.headers["access-control-allow-origin"] == "http://localhost:5173"
    exposed = answer.headers["access-control-expose-headers"]
    for name in ("stream-next-offset", "stream-up-to-date", "stream-cursor", "location", "etag", "producer-epoch"):
        assert name in exposed
    asked = {"Origin": "http://localhost:5173", "Access-Control-Request-Method": "PUT"}
    preflight = await client.options(path_of(), headers=asked)
    assert (preflight.status_code, "PUT" in preflight.headers["access-control-allow-methods"]) == (204, True)
