"""`/v1/stream` beyond what the protocol's suite asks: several nodes, whoever may, what is refused, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import httpx
import orjson
import pytest

from compactor.retention import Retention
from tests.sites import Site, running_site
from tests.tokens import SECRET, token
from tests.waiting import until
from ydoc_store.errors import RoomDiscarded
from ydoc_store.http.tokens import Token
from ydoc_store.rooms.budgets import Shares
from ydoc_store.streams.registry import PAGE_BYTES_MAX

Connection = asyncpg.Connection  # type: ignore[type-arg] # generic for type checkers only

TEXT = {"Content-Type": "text/plain"}
JSON = {"Content-Type": "application/json"}
WAIT_S = 60.0
NEXT = "Stream-Next-Offset"


@pytest.fixture
async def elsewhere(database_url: str) -> AsyncIterator[Site]:
    async with running_site(database_url) as started:
        yield started


class Events:
    """One reader of events: what it was sent, and where it stands."""

    def __init__(self, answer: httpx.Response):
        self._answer = answer
        self._blocks = self._read()
        self.data = b""
        self.control: dict[str, object] = {}
        self.comments = 0

    async def _read(self) -> AsyncIterator[bytes]:
        waiting = b""
        async for piece in self._answer.aiter_raw():
            *blocks, waiting = (waiting + piece).split(b"\n\n")
            for block in blocks:
                yield block

    async def until(self, what: str) -> None:
        """Read on until a control event says so; AssertionError where the stream ends before."""
        async with asyncio.timeout(WAIT_S):
            async for block in self._blocks:
                lines = [line.removeprefix(b"data:") for line in block.split(b"\n") if line.startswith(b"data:")]
                if block.startswith(b"event: data\n"):
                    self.data += b"\n".join(lines)
                elif block.startswith(b"event: control\n"):
                    self.control = orjson.loads(b"".join(lines))
                    if what in self.control:
                        return
                else:
                    assert block.startswith(b":")
                    self.comments += 1
            raise AssertionError(f"the stream ended without {what}")

    async def shows(self, data: bytes) -> None:
        while self.data != data:
            assert data.startswith(self.data)
            await self.until("streamNextOffset")

    async def ended(self) -> None:
        async with asyncio.timeout(WAIT_S):
            async for block in self._blocks:
                self.comments += block.startswith(b":")


@asynccontextmanager
async def events(client: httpx.AsyncClient, name: str, offset: str = "-1") -> AsyncIterator[Events]:
    url = f"/v1/stream/{name}?offset={offset}&live=sse"
    async with client.stream("GET", url) as answer:
        assert answer.status_code == 200, await answer.aread()
        yield Events(answer)


async def create(client: httpx.AsyncClient, name: str = "s", body: bytes = b"", **headers: str) -> str:
    answer = await client.put(f"/v1/stream/{name}", content=body, headers={**TEXT, **headers})
    assert answer.status_code == 201, answer.text
    return str(answer.headers[NEXT])


async def append(client: httpx.AsyncClient, body: bytes, name: str = "s", **headers: str) -> httpx.Response:
    answer = await client.post(f"/v1/stream/{name}", content=body, headers={**TEXT, **headers})
    assert answer.status_code in (200, 204), answer.text
    return answer


async def read(client: httpx.AsyncClient, name: str = "s", offset: str = "-1") -> bytes:
    """All of it, page by page."""
    whole = b""
    while True:
        answer = await client.get(f"/v1/stream/{name}", params={"offset": offset})
        assert answer.status_code == 200, answer.text
        whole += answer.content
        if "Stream-Up-To-Date" in answer.headers:
            return whole
        assert answer.headers[NEXT] > offset or offset == "-1"
        offset = answer.headers[NEXT]


# Several nodes


async def test_a_reader_on_another_node_is_given_what_is_committed_here(
    client: httpx.AsyncClient, elsewhere: Site
) -> None:
    end = await create(client)
    async with elsewhere.client() as other, events(other, "s", end) as reader:
        await reader.until("upToDate")
        polling = asyncio.create_task(other.get(f"/v1/stream/s?offset={end}&live=long-poll"))
        stream = elsewhere.service.rooms.streams._open["default", "s"]
        await until(lambda: stream.readers == 2)
        await append(client, b"one ")
        answer = await polling
        assert (answer.status_code, answer.content) == (200, b"one ")
        await append(client, b"two")
        await reader.shows(b"one two")
        assert await read(other) == b"one two"


async def test_a_hint_that_never_came_costs_a_poll_and_nothing_else(
    site: Site, client: httpx.AsyncClient, elsewhere: Site
) -> None:
    end = await create(client)
    async with elsewhere.client() as other, events(other, "s", end) as reader:
        await reader.until("upToDate")
        site.service.appender.hints_wanted = False
        site.service.fanout._listener.changed = lambda: None
        await append(client, b"unheard of")
        await reader.shows(b"unheard of")
        await append(client, b"", **{"Stream-Closed": "true"})
        await reader.until("streamClosed")


async def test_the_last_bytes_come_before_the_end_on_every_node(client: httpx.AsyncClient, elsewhere: Site) -> None:
    end = await create(client)
    async with elsewhere.client() as other, events(other, "s", end) as there, events(client, "s", end) as here:
        for reader in (there, here):
            await reader.until("upToDate")
        await append(client, b"last", **{"Stream-Closed": "true"})
        for reader in (there, here):
            await reader.until("streamClosed")
            assert reader.data == b"last"
            await reader.ended()


async def test_writers_of_two_nodes_are_in_one_order_for_everyone(client: httpx.AsyncClient, elsewhere: Site) -> None:
    end = await create(client)
    async with elsewhere.client() as other, events(other, "s", end) as there, events(client, "s", end) as here:

        async def write(writer: httpx.AsyncClient, letter: str) -> None:
            for number in range(20):
                await append(writer, f"{letter}{number:02} ".encode())

        await asyncio.gather(write(client, "a"), write(other, "b"))
        whole = await read(client)
        assert sorted(whole.split()) == sorted(f"{letter}{n:02}".encode() for letter in "ab" for n in range(20))
        await there.shows(whole)
        await here.shows(whole)


async def test_a_retry_that_reaches_two_nodes_at_once_is_stored_once(
    client: httpx.AsyncClient, elsewhere: Site
) -> None:
    await create(client)
    async with elsewhere.client() as other:
        for seq in range(10):
            numbered = {"Producer-Id": "p", "Producer-Epoch": "0", "Producer-Seq": str(seq)}
            answers = await asyncio.gather(
                *(append(writer, f"{seq} ".encode(), **numbered) for writer in (client, other))
            )
            assert sorted(answer.status_code for answer in answers) == [200, 204]
            assert len({answer.headers[NEXT] for answer in answers}) == 1
        assert await read(other) == b"0 1 2 3 4 5 6 7 8 9 "


async def test_a_stream_that_is_deleted_elsewhere_is_nobodys_any_more(
    site: Site, client: httpx.AsyncClient, elsewhere: Site, connection: Connection
) -> None:
    end = await create(client, body=b"old")
    async with elsewhere.client() as other:
        polling = asyncio.create_task(client.get(f"/v1/stream/s?offset={end}&live=long-poll"))
        async with events(client, "s") as reader:
            await reader.shows(b"old")
            assert (await other.delete("/v1/stream/s")).status_code == 204
            assert (await polling).status_code == 404
            await reader.ended()
        assert (await client.post("/v1/stream/s", content=b"late", headers=TEXT)).status_code == 404
        await create(other, body=b"new")
        answer = await client.get(f"/v1/stream/s?offset={end}")
        assert (answer.status_code, answer.json()["code"]) == (410, "epoch_changed")
        await append(client, b"er")
        assert await read(client) == await read(other) == b"newer"
        # What is remembered here of a name that began anew elsewhere is looked up once more.
        site.service.fanout._listener.changed = lambda: None
        elsewhere.service.appender.hints_wanted = False
        await connection.execute("UPDATE ydoc.documents SET deleted_at = now() WHERE replaced_at IS NULL")
        await create(other, body=b"third ")
        await append(client, b"time")
        assert await read(other) == b"third time"
        # Also where it is of another type now, by which an append is judged before it is stored.
        await connection.execute("UPDATE ydoc.documents SET deleted_at = now() WHERE replaced_at IS NULL")
        assert (await other.put("/v1/stream/s", headers=JSON, content=b"[1]")).status_code == 201
        assert (await client.post("/v1/stream/s", headers=JSON, content=b"[2]")).status_code == 204
        assert (await client.post("/v1/stream/s", headers=TEXT, content=b"3")).status_code == 409
        assert await read(other) == b"[1,2]"


async def test_one_of_many_that_create_a_stream_at_once_makes_it(client: httpx.AsyncClient, elsewhere: Site) -> None:
    async with elsewhere.client() as other:
        answers = await asyncio.gather(
            *(writer.put("/v1/stream/s", content=b"once", headers=TEXT) for writer in (client, other) * 5)
        )
        assert sorted(answer.status_code for answer in answers) == [200] * 9 + [201]
        assert await read(other) == b"once"


# What readers share, and what each of them holds


@pytest.mark.parametrize("body", [b"small", b"large" * 40_000])
async def test_readers_at_the_end_share_what_comes_and_at_most_a_read(
    client: httpx.AsyncClient, elsewhere: Site, body: bytes
) -> None:
    end = await create(client)
    streams = elsewhere.service.rooms.streams
    reads = 0
    read_page = streams.read_page

    def counted(*arguments: object) -> object:
        nonlocal reads
        reads += 1
        return read_page(*arguments)  # type: ignore[arg-type] # as it was called

    streams.read_page = counted  # type: ignore[method-assign, assignment] # to count
    async with httpx.AsyncClient(base_url=elsewhere.http_url, limits=httpx.Limits(), timeout=WAIT_S) as others:
        polls = [asyncio.create_task(others.get(f"/v1/stream/s?offset={end}&live=long-poll")) for _ in range(60)]
        await until(lambda: ("default", "s") in streams._open and streams._open["default", "s"].readers == 60)
        await append(client, body)
        for poll in polls:
            assert (await poll).content == body
    # What fits came with the hint. What does not is read once for everybody, and once more where a poll was first.
    assert reads == 0 if len(body) < 1_000 else 1 <= reads <= 2
    assert streams.recent_bytes == 0 or streams.recent_bytes <= len(body)


async def test_a_long_stream_is_read_in_pages_and_each_place_once(client: httpx.AsyncClient) -> None:
    await create(client)
    pieces = [bytes([65 + number]) * 70_000 for number in range(12)]
    for piece in pieces:
        await append(client, piece)
    first = await client.get("/v1/stream/s")
    assert "Stream-Up-To-Date" not in first.headers
    assert PAGE_BYTES_MAX - 70_000 <= len(first.content) <= PAGE_BYTES_MAX + 70_000
    assert await read(client) == b"".join(pieces)
    async with events(client, "s") as reader:
        await reader.shows(b"".join(pieces))


@pytest.mark.parametrize("live", ["", "&live=sse"])
async def test_slow_readers_of_large_pages_hold_no_more_than_they_may_together(
    site: Site, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, live: str
) -> None:
    """I15."""
    pages = Shares(3 * PAGE_BYTES_MAX, 60, 1)
    monkeypatch.setattr(site.service.rooms.streams, "_take", pages.take)
    await create(client)
    # More than the sockets between take on their own.
    body = b"x" * (15 * PAGE_BYTES_MAX)
    await append(client, body)
    async with contextlib.AsyncExitStack() as stack:
        slow = []
        for _ in range(6):
            narrow = socket.socket()
            narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            narrow.connect(("127.0.0.1", site.port))
            reader, writer = await asyncio.open_connection(sock=narrow, limit=1024)
            stack.callback(writer.close)
            writer.write(f"GET /v1/stream/s?offset=-1{live} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            slow.append(reader)
        assert b" 200 " in await slow[0].readline()
        await until(lambda: len(pages._waiting) == 5)
        assert pages.used == len(body)
        # Whoever waits at the end has no page to hold.
        assert (await client.head("/v1/stream/s")).status_code == 200
    await until(lambda: not pages.used and not pages._waiting)


async def test_who_waits_for_events_holds_nothing_of_what_it_was_given(
    site: Site, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = Shares(2**30, 60, 1)
    monkeypatch.setattr(site.service.rooms.streams, "_take", pages.take)
    await create(client)
    await append(client, b"x" * PAGE_BYTES_MAX)
    async with events(client, "s", "-1") as reader:
        await reader.shows(b"x" * PAGE_BYTES_MAX)
        await until(lambda: not pages.used)


async def test_a_place_within_a_row_of_the_log_is_a_place_like_any_other(
    site: Site, client: httpx.AsyncClient, database_url: str
) -> None:
    await create(client)
    connection = await asyncpg.connect(database_url)
    try:
        async with connection.transaction():
            # What queues meanwhile is one commit, and so one row.
            await append(client, b"0 ")
            await connection.execute("SELECT FROM ydoc.documents FOR UPDATE")
            queue = site.service.rooms.streams._open["default", "s"].queue
            first = asyncio.create_task(append(client, b"1 "))
            await until(lambda: bool(queue.in_flight))
            others = [asyncio.create_task(append(client, f"{number} ".encode())) for number in range(2, 6)]
            await until(lambda: len(queue.waiting) == 4)
        places = sorted([answer.headers[NEXT] for answer in await asyncio.gather(first, *others)])
        assert await connection.fetchval("SELECT count(*) FROM ydoc.updates") == 3
    finally:
        await connection.close()
    whole = await read(client)
    for number, place in enumerate(places, 2):
        assert await read(client, offset=place) == whole[number * 2 :]


async def test_a_stream_of_any_name_is_told_where_it_is(client: httpx.AsyncClient) -> None:
    for name in ("%E2%82%AC", "%C3%A9", "a%3Fb%20c"):
        made = await client.put(f"/v1/stream/{name}", headers=TEXT, content=b"x")
        assert made.status_code == 201
        assert made.headers["Location"].endswith(f"/v1/stream/{name}")
        assert (await client.get(made.headers["Location"])).content == b"x"


async def test_a_page_that_somebody_wrote_runs_nothing_in_this_servers_name(client: httpx.AsyncClient) -> None:
    await client.put("/v1/stream/p", headers={"Content-Type": "text/html"}, content=b"<script>1</script>")
    for path in ("/v1/stream/p", "/v1/stream/p?offset=-1&live=long-poll"):
        answer = await client.get(path)
        assert answer.content == b"<script>1</script>"
        assert answer.headers["Content-Security-Policy"].startswith("sandbox;")


async def test_events_keep_the_spaces_that_text_begins_with(client: httpx.AsyncClient) -> None:
    await create(client, body=b"  two\n one\nnone")
    async with client.stream("GET", "/v1/stream/s?offset=-1&live=sse") as answer:
        async for block in answer.aiter_text():
            assert block.startswith("event: data\ndata:   two\ndata:  one\ndata:none\n\n")
            break


async def test_a_quiet_event_stream_says_that_it_lives_and_ends_now_and_then(database_url: str) -> None:
    async with (
        running_site(database_url, keepalive_interval_s=0.05, sse_close_s=0.5) as site,
        site.client() as client,
    ):
        await create(client, body=b"a")
        async with events(client, "s") as reader:
            await reader.shows(b"a")
            await reader.ended()
        async with events(client, "s", str(reader.control["streamNextOffset"])) as again:
            await append(client, b"b")
            await again.shows(b"b")
        assert reader.comments


# Who may


@pytest.fixture
async def guarded(database_url: str) -> AsyncIterator[Site]:
    async with running_site(database_url, jwt_secret=SECRET) as started:
        yield started


async def test_the_door_is_the_documents_own_by_the_streams_name(guarded: Site) -> None:
    async with (
        guarded.client() as nobody,
        guarded.client(token(documents={"team/*": "read"})) as reader,
        guarded.client(token(documents={"team/*": "write"})) as writer,
        guarded.client(token(documents={"team/*": "admin"})) as admin,
        guarded.client(token(documents={"team/*": "admin"}, tenant="other")) as stranger,
    ):
        path = "/v1/stream/team/log"

        async def tries(client: httpx.AsyncClient) -> list[int]:
            put = await client.put(path, headers=TEXT)
            post = await client.post(path, headers=TEXT, content=b"x")
            live = await client.get(f"{path}?offset=now&live=sse") if put.status_code in (401, 403) else None
            got, head = await client.get(path), await client.head(path)
            answers = [put, post, got, head, *([live] if live and live.status_code == 401 else [])]
            return [answer.status_code for answer in answers]

        assert await tries(nobody) == [401] * 5
        assert await tries(writer) == [201, 204, 200, 200]
        assert (await reader.put(path, headers=TEXT)).status_code == 403
        assert (await reader.post(path, headers=TEXT, content=b"x")).status_code == 403
        assert (await reader.get(path)).content == b"x"
        assert (await reader.get("/v1/stream/private")).status_code == 403
        assert (await stranger.get(path)).status_code == 404
        assert (await writer.delete(path)).status_code == 403
        assert (await admin.delete(path)).status_code == 204


# What is refused


BAD = [
    ("PUT", "a//b", {}, b"", 400, "invalid_name"),
    ("PUT", "%2e%2e", {}, b"", 400, "invalid_name"),
    ("PUT", "%00", {}, b"", 400, "invalid_name"),
    ("PUT", "%ff", {}, b"", 400, "invalid_name"),
    ("PUT", "x" * 513, {}, b"", 400, "invalid_name"),
    ("PUT", "new", {"Content-Type": "nonsense"}, b"", 400, "invalid_request"),
    ("PUT", "new", {"Stream-TTL": "1.5"}, b"", 400, "invalid_request"),
    ("PUT", "new", JSON, b"{", 400, "invalid_request"),
    ("PUT", "s", JSON, b"", 409, "stream_differs"),
    ("POST", "s", TEXT, b"", 400, "invalid_request"),
    ("POST", "s", {}, b"x", 400, "invalid_request"),
    ("POST", "s", JSON, b"1", 409, "stream_differs"),
    ("POST", "nowhere", TEXT, b"x", 404, "no_such_stream"),
    ("POST", "s", TEXT | {"Producer-Id": "p"}, b"x", 400, "invalid_request"),
    ("POST", "s", TEXT | {"Producer-Id": "", "Producer-Epoch": "0", "Producer-Seq": "0"}, b"x", 400, "invalid_request"),
    (
        "POST",
        "s",
        TEXT | {"Producer-Id": "p" * 1025, "Producer-Epoch": "0", "Producer-Seq": "0"},
        b"x",
        400,
        "invalid_request",
    ),
    ("POST", "s", TEXT | {"Producer-Id": "p", "Producer-Epoch": "0", "Producer-Seq": "3"}, b"x", 409, "producer_gap"),
    ("POST", "s", TEXT | {"Stream-Seq": ""}, b"x", 400, "invalid_request"),
    ("POST", "s", TEXT, b"x" * 2_000, 413, "too_large"),
    ("POST", "closed", TEXT, b"x", 409, "stream_closed"),
    ("GET", "s?offset=", {}, b"", 400, "invalid_request"),
    ("GET", "s?offset=-1&offset=-1", {}, b"", 400, "invalid_request"),
    ("GET", "s?live=sse", {}, b"", 400, "invalid_request"),
    ("GET", "s?offset=-1&live=ever", {}, b"", 400, "invalid_request"),
    ("GET", "s?offset=-1&live=sse&cursor=x", {}, b"", 400, "invalid_request"),
    ("GET", f"s?offset={Token(7, 0)}", {}, b"", 410, "epoch_changed"),
    ("GET", f"s?offset={Token(1, 99)}", {}, b"", 410, "ahead_of_log"),
    ("GET", f"s?offset={Token(1, 99)}&live=sse", {}, b"", 410, "ahead_of_log"),
    ("DELETE", "nowhere", {}, b"", 404, "no_such_stream"),
    ("PATCH", "s", {}, b"", 405, "method_not_allowed"),
]


async def test_bad_input_is_told_with_a_code_and_stores_nothing(database_url: str, connection: Connection) -> None:
    counted = (
        "SELECT (SELECT count(*) FROM ydoc.documents), (SELECT count(*) FROM ydoc.updates),"
        " (SELECT count(*) FROM ydoc.producers)"
    )
    async with running_site(database_url, update_bytes_max=1024) as site, site.client() as client:
        await create(client, body=b"kept")
        await create(client, "closed", **{"Stream-Closed": "true"})
        before = tuple(await connection.fetchrow(counted) or ())
        for method, path, headers, body, status, code in BAD:
            # httpx would tidy a path up.
            url = httpx.URL(site.http_url).copy_with(raw_path=f"/v1/stream/{path}".encode())
            answer = await client.request(method, url, headers=headers, content=body)
            told = (answer.status_code, answer.json()["code"])
            assert told == (status, code), (method, path, headers, answer.text)
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers["x-content-type-options"] == "nosniff"
        assert tuple(await connection.fetchrow(counted) or ()) == before
        assert await read(client) == b"kept"


async def test_a_stream_takes_as_much_as_it_may_and_can_still_be_read_closed_and_deleted(database_url: str) -> None:
    async with running_site(database_url, stream_bytes_max=10) as site, site.client() as client:
        too_long = await client.put("/v1/stream/s", content=b"x" * 11, headers=TEXT)
        assert (too_long.status_code, too_long.json()["code"]) == (413, "stream_full")
        await create(client, body=b"12345")
        first = {"Producer-Id": "p", "Producer-Epoch": "0", "Producer-Seq": "0"}
        await append(client, b"678", **first)
        for headers in ({}, {"Stream-Closed": "true"}, {"Stream-Seq": "a"}, first | {"Producer-Seq": "1"}):
            full = await client.post("/v1/stream/s", content=b"9ab", headers=TEXT | headers)
            assert (full.status_code, full.json()["code"]) == (413, "stream_full"), headers
            assert "YDOC_STREAM_BYTES_MAX" in full.json()["detail"]
        assert (await append(client, b"678", **first)).status_code == 204
        await append(client, b"9a", **first | {"Producer-Seq": "1"})
        assert await read(client) == b"123456789a"
        assert (await client.post("/v1/stream/s", headers={"Stream-Closed": "true"})).status_code == 204
        assert (await client.delete("/v1/stream/s")).status_code == 204


async def test_of_many_that_come_at_once_those_are_stored_that_fit(
    database_url: str, client: httpx.AsyncClient, connection: Connection
) -> None:
    """Whether they met in one commit or not, and on two nodes: no room is left unused, and none is used twice."""
    await create(client)
    async with (
        running_site(database_url, stream_bytes_max=100) as one,
        running_site(database_url, stream_bytes_max=100) as two,
        one.client() as here,
        two.client() as there,
    ):
        answers = await asyncio.gather(
            *((here, there)[number % 2].post("/v1/stream/s", content=b"x" * 7, headers=TEXT) for number in range(60))
        )
        assert sorted(answer.status_code for answer in answers) == [204] * 14 + [413] * 46
        assert await read(here) == b"x" * 98
        assert {answer.json()["code"] for answer in answers if answer.status_code == 413} == {"stream_full"}
        await append(there, b"yy")
        assert await connection.fetchval("SELECT accepted_bytes FROM ydoc.documents") == 100


TWICE = [
    ("Producer-Id", "p", "q"),
    ("Producer-Epoch", "0", "1"),
    ("Producer-Seq", "0", "1"),
    ("Producer-Seq", "0", "0"),
    ("Content-Type", "text/plain", "application/octet-stream"),
    ("Stream-Seq", "a", "b"),
    ("Stream-Closed", "false", "true"),
]


@pytest.mark.parametrize("path", ["/v1/stream/s", "/v1/yjs/default/docs/s"])
async def test_a_header_that_comes_twice_is_refused_alike_for_streams_and_for_documents(
    client: httpx.AsyncClient, path: str
) -> None:
    assert (await client.put(path, headers=TEXT if "stream" in path else {})).status_code == 201
    for name, first, second in TWICE:
        producer = {"Producer-Id": "p", "Producer-Epoch": "0", "Producer-Seq": "0"}
        sent = [(key, value) for key, value in producer.items() if key != name]
        answer = await client.post(path, headers=[*sent, (name, first), (name, second)], content=b"\2\0\0")
        assert answer.status_code == 400, (name, answer.text)
        assert f"{name.lower()} is given twice" in answer.text
    assert (await client.get(path)).content == b""


# How it ends


async def test_a_read_only_server_reads_and_stores_nothing(database_url: str, client: httpx.AsyncClient) -> None:
    await create(client, body=b"there", **{"Stream-TTL": "100"})
    async with running_site(database_url, read_only=True) as standby, standby.client() as reader:
        assert await read(reader) == b"there"
        for answer in (
            await reader.post("/v1/stream/s", content=b"x", headers=TEXT),
            await reader.put("/v1/stream/new", headers=TEXT),
            await reader.delete("/v1/stream/s"),
        ):
            assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable")


async def test_whoever_waits_is_answered_when_the_process_stops(site: Site, client: httpx.AsyncClient) -> None:
    end = await create(client)
    polling = asyncio.create_task(client.get(f"/v1/stream/s?offset={end}&live=long-poll"))
    async with events(client, "s", end) as reader:
        await reader.until("upToDate")
        stream = site.service.rooms.streams._open["default", "s"]
        await until(lambda: stream.readers == 2)
        site.phase.draining()
        await reader.ended()
        assert (await polling).status_code == 204


async def test_readers_come_back_when_the_databases_connection_was_lost(site: Site, client: httpx.AsyncClient) -> None:
    end = await create(client)
    async with events(client, "s", end) as reader:
        await reader.until("upToDate")
        site.service.rooms.discard_all(RoomDiscarded("a test"))
        await reader.ended()
    assert site.service.rooms.streams.ids == []
    await append(client, b"after")
    assert await read(client, offset=end) == b"after"


async def test_a_stream_of_another_database_is_not_written_to(
    site: Site, client: httpx.AsyncClient, connection: Connection
) -> None:
    await create(client, body=b"a")
    await connection.execute("UPDATE ydoc.documents SET marker = marker # 1")
    assert (await client.post("/v1/stream/s", content=b"b", headers=TEXT)).status_code == 503
    assert await read(client) == b"a"
    await append(client, b"b")
    assert await read(client) == b"ab"


async def test_a_reader_that_has_seen_more_than_the_database_holds_is_told_and_asks_no_more(
    database_url: str, connection: Connection
) -> None:
    async with running_site(database_url, long_poll_timeout_s=0.2) as site, site.client() as client:
        await create(client, body=b"a")
        end = (await append(client, b"b")).headers[NEXT]
        async with events(client, "s", end) as reader:
            await reader.until("upToDate")
            await connection.execute("UPDATE ydoc.documents SET head = 1, accepted_rows = 1")
            await connection.execute("DELETE FROM ydoc.updates WHERE seq = 2")
            await reader.ended()
        assert (await client.get(f"/v1/stream/s?offset={end}")).status_code == 410
        assert (await client.get(f"/v1/stream/s?offset={Token(1, 1)}&live=long-poll")).status_code == 204
        await append(client, b"c")
        assert await read(client) == b"ac"


async def test_a_hole_in_the_log_is_told_and_never_an_empty_stream(
    client: httpx.AsyncClient, connection: Connection
) -> None:
    await create(client, body=b"a")
    await append(client, b"b")
    await connection.execute("DELETE FROM ydoc.updates WHERE seq = 1")
    answer = await client.get("/v1/stream/s")
    assert (answer.status_code, answer.json()["code"]) == (500, "corrupt_document")


async def test_what_is_deleted_or_expired_is_purged_and_a_name_begins_anew(
    site: Site, client: httpx.AsyncClient, connection: Connection
) -> None:
    await create(client, "kept", b"k")
    await create(client, "lives", b"l", **{"Stream-TTL": "3600"})
    await create(client, "deleted", b"d")
    await create(client, "expired", b"e", **{"Stream-TTL": "3600"})
    await client.delete("/v1/stream/deleted")
    await connection.execute(
        "UPDATE ydoc.streams SET used_at = now() - interval '2 hours' WHERE document_id ="
        " (SELECT id FROM ydoc.documents WHERE name = 'expired')"
    )
    dropped = await Retention(site.database, history_days=7, bases_min=1).drop_some()
    assert dropped.streams == 2
    left = "SELECT d.name FROM ydoc.updates AS u JOIN ydoc.documents AS d ON d.id = u.document_id ORDER BY d.name"
    assert [row[0] for row in await connection.fetch(left)] == ["kept", "lives"]
    assert (await Retention(site.database, history_days=7, bases_min=1).drop_some()).streams == 0
    for name in ("deleted", "expired"):
        assert (await client.get(f"/v1/stream/{name}")).status_code == 404
        assert re.match("0{15}2_", await create(client, name, b"again"))
        assert await read(client, name) == b"again"


async def test_a_use_that_comes_while_a_stream_is_found_dead_keeps_it(
    site: Site, client: httpx.AsyncClient, connection: Connection
) -> None:
    await create(client, body=b"a", **{"Stream-TTL": "3600"})
    await connection.execute("UPDATE ydoc.streams SET used_at = now() - interval '2 hours'")
    async with connection.transaction():
        # A use that began in time and is not committed yet.
        await connection.execute("UPDATE ydoc.streams SET used_at = now()")
        purging = asyncio.create_task(Retention(site.database, history_days=7, bases_min=1).drop_some())
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )

        async def is_waiting() -> bool:
            return bool(await connection.fetchval(waiting))

        await until(is_waiting)
    assert (await purging).streams == 0
    assert await read(client) == b"a"
