"""Documents over Durable Streams: created, appended to, read from any offset, deleted and begun anew."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

import httpx
import orjson

from tests.integration.http.stream_copies import Copy, created, path_of, post, typed
from tests.nodes import Editor, count_stored, new_doc
from tests.sites import Site, running_site
from tests.waiting import until
from ydoc_store.http.tokens import SnapshotAt, Token
from ydoc_store.http.yjs_reading import framed
from ydoc_store.yjs.lib0 import join_frames
from ydoc_store.yjs.walker import RESERVED_CLIENT_ID_MIN, marker_update

Compact = Callable[..., Awaitable[int]]


async def test_a_put_creates_an_empty_document_and_a_second_one_finds_it(site: Site, client: httpx.AsyncClient) -> None:
    assert (await client.head(path_of())).status_code == 404
    first = await client.put(path_of(), headers={"Content-Type": "application/octet-stream"})
    assert (first.status_code, first.headers["stream-next-offset"]) == (201, str(Token(1, 0)))
    assert first.headers["location"] == path_of()
    again = await client.put(path_of())
    assert (again.status_code, again.headers["stream-next-offset"]) == (200, str(Token(1, 0)))
    head = await client.head(path_of())
    assert (head.status_code, head.headers["stream-next-offset"]) == (200, str(Token(1, 0)))
    read = await client.get(path_of(), params={"offset": "-1"})
    assert (read.status_code, read.content, read.headers["stream-up-to-date"]) == (200, b"", "true")


async def test_many_who_create_one_document_at_once_create_it_once(site: Site, client: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(*(client.put(path_of()) for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [200] * 19 + [201]


async def test_an_editor_who_comes_to_a_document_that_was_made_empty_edits_it(
    site: Site, client: httpx.AsyncClient
) -> None:
    waiting = await Editor.open_synced(site.url("notes"))
    await created(client)
    marker = site.room("notes").marker
    ann = await Editor.open_synced(site.url("notes"))
    await ann.type("hello")
    await waiting.shows("hello")
    assert site.room("notes").marker == marker
    copy = Copy()
    await copy.read(client)
    assert copy.text == "hello"
    assert await count_stored(site.database, "notes") == 1


async def test_what_is_posted_is_stored_shown_to_editors_and_read_back(site: Site, client: httpx.AsyncClient) -> None:
    await created(client)
    ann = await Editor.open_synced(site.url("notes"))
    doc = new_doc()
    posted = await post(client, typed("b", doc))
    assert (posted.status_code, posted.headers["stream-next-offset"]) == (204, str(Token(1, 1)))
    await ann.shows("b")
    await ann.type("a")
    copy = Copy(posted.headers["stream-next-offset"])
    answer = await copy.read(client, live="long-poll")
    assert answer.headers["stream-up-to-date"] == "true"
    copy = Copy()
    await copy.read(client)
    assert copy.text == "ba"
    assert copy.offset == str(Token(1, 2))


async def test_frames_of_one_body_are_one_update_in_the_log(site: Site, client: httpx.AsyncClient) -> None:
    await created(client)
    doc = new_doc()
    posted = await post(client, *(typed(word, doc) for word in "edcba"))
    assert posted.headers["stream-next-offset"] == str(Token(1, 1))
    copy = Copy()
    await copy.read(client)
    assert copy.text == "abcde"


async def test_what_holds_nothing_new_is_answered_and_not_stored(site: Site, client: httpx.AsyncClient) -> None:
    update = typed("hello")
    await created(client, update)
    again = await post(client, update)
    assert (again.status_code, again.headers["stream-next-offset"]) == (204, str(Token(1, 1)))
    assert await count_stored(site.database, "notes") == 1


async def test_an_update_is_refused_before_a_put(site: Site, client: httpx.AsyncClient) -> None:
    refused = await post(client, typed("hello"))
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "DOCUMENT_NOT_FOUND")
    assert refused.json()["error"]["reason"] == "no_such_document"
    async with site.database.acquire() as connection:
        assert await connection.fetchval("SELECT count(*) FROM ydoc.documents") == 0


async def test_the_epochs_marker_comes_first(site: Site, client: httpx.AsyncClient, compacted: Compact) -> None:
    """I10."""
    await created(client, typed("hello"))
    marker = site.room("notes").marker
    assert marker is not None
    whole = await client.get(path_of())
    assert whole.content.startswith(b"".join(framed([marker_update(marker)])))
    await compacted()
    for offset in ("-1", str(SnapshotAt(Token(1, 1)))):
        copy = Copy()
        answer = await client.get(path_of(), params={"offset": offset})
        copy.take(answer.content if offset == "-1" else join_frames([answer.content]), "")
        editor = await Editor.open_synced(site.url("notes"), copy.doc)
        assert editor.close_code is None


# Snapshots and offsets


async def test_a_snapshot_is_found_read_raw_and_continued_behind(
    site: Site, client: httpx.AsyncClient, compacted: Compact
) -> None:
    await created(client, typed("b"))
    none = await client.get(path_of(), params={"offset": "snapshot"})
    assert (none.status_code, none.headers["cache-control"]) == (307, "private, max-age=5")
    assert none.headers["location"] == path_of() + "?offset=-1"
    through_seq = await compacted()
    found = await client.get(path_of(), params={"offset": "snapshot", "token": "kept"})
    assert found.status_code == 307
    named = str(SnapshotAt(Token(1, through_seq)))
    assert found.headers["location"] == f"{path_of()}?token=kept&offset={named}"
    read = await client.get(path_of(), params={"offset": named})
    assert read.status_code == 200
    assert read.headers["stream-next-offset"] == str(Token(1, through_seq).behind_snapshot)
    copy = Copy(read.headers["stream-next-offset"])
    copy.doc.apply_update(read.content)
    assert copy.text == "b"
    await post(client, typed("c"))
    await copy.read(client)
    assert sorted(copy.text) == ["b", "c"]


async def test_a_snapshot_that_is_none_or_superseded_is_not_found(
    site: Site, client: httpx.AsyncClient, compacted: Compact
) -> None:
    await created(client, typed("a"))
    first = SnapshotAt(Token(1, await compacted()))
    assert (await client.get(path_of(), params={"offset": str(first)})).status_code == 200
    await post(client, typed("b"))
    second = SnapshotAt(Token(1, await compacted()))
    assert (await client.get(path_of(), params={"offset": str(second)})).status_code == 200
    for gone in (first, SnapshotAt(Token(1, 7)), SnapshotAt(Token(2, 2)), SnapshotAt(Token(10**16 - 1, 0))):
        refused = await client.get(path_of(), params={"offset": str(gone)})
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "SNAPSHOT_NOT_FOUND")


async def test_a_reader_from_before_five_compactions_gets_the_snapshot_and_then_the_tail(
    site: Site, client: httpx.AsyncClient, compacted: Compact
) -> None:
    await created(client, typed("0"))
    old, kept = Copy(), Copy()
    await old.read(client)
    for number in range(1, 6):
        await post(client, typed(str(number)))
        await compacted()
        await kept.read(client)
    await post(client, typed("6"))
    site.room("notes").cache.clear()
    answer = await old.read(client)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert old.offset == str(Token(1, 7))
    await kept.read(client)
    assert sorted(old.text) == sorted(kept.text) == list("0123456")


async def test_a_read_that_changed_nothing_is_answered_without_a_body(
    site: Site, client: httpx.AsyncClient, compacted: Compact
) -> None:
    await created(client, typed("a"))
    snapshot = str(SnapshotAt(Token(1, 1)))
    for offset in ("-1", snapshot):
        if offset == snapshot:
            await compacted()
        first = await client.get(path_of(), params={"offset": offset})
        assert first.status_code == 200
        held = {"If-None-Match": f'"other", {first.headers["etag"]}'}
        again = await client.get(path_of(), params={"offset": offset}, headers=held)
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["stream-next-offset"] == first.headers["stream-next-offset"]
    await post(client, typed("b"))
    changed = await client.get(path_of(), headers=held)
    assert changed.status_code == 200


async def test_now_is_the_end_and_brings_nothing(site: Site, client: httpx.AsyncClient) -> None:
    await created(client, typed("a"))
    now = await client.get(path_of(), params={"offset": "now"})
    assert (now.status_code, now.content, now.headers["stream-next-offset"]) == (200, b"", str(Token(1, 1)))
    assert now.headers["cache-control"] == "no-store"


async def test_an_offset_that_another_node_gave_is_read_though_this_one_is_behind(
    site: Site, client: httpx.AsyncClient, database_url: str
) -> None:
    await created(client, typed("a"))
    copy = Copy()
    await copy.read(client)
    room = site.room("notes")
    assert room.document_id is not None
    # Neither hints nor polls find it.
    del site.service.rooms.by_document_id[room.document_id]
    async with running_site(database_url) as elsewhere, elsewhere.client() as other:
        posted = await post(other, typed("b"))
    assert (posted.headers["stream-next-offset"], room.head) == (str(Token(1, 2)), 1)
    for params in ({}, {"live": "long-poll"}):
        ahead = Copy(posted.headers["stream-next-offset"])
        reading = asyncio.create_task(ahead.read(client, **params))
        await until(lambda: room.head == 2)
        if params:
            await post(client, typed("c"))
        await reading
    assert ahead.offset == str(Token(1, 3))


# Epochs


async def test_a_deleted_document_is_gone_until_a_put_begins_it_anew(site: Site, client: httpx.AsyncClient) -> None:
    await created(client, typed("old"))
    old = Copy()
    await old.read(client)
    assert (await client.delete(path_of())).status_code == 204
    for answer in (
        await client.get(path_of()),
        await client.head(path_of()),
        await post(client, typed("x")),
        await client.delete(path_of()),
    ):
        assert answer.status_code == 404
    anew = await client.put(path_of())
    assert (anew.status_code, anew.headers["stream-next-offset"]) == (201, str(Token(2, 0)))
    refused = await client.get(path_of(), params={"offset": old.offset})
    assert (refused.status_code, refused.json()["error"]["reason"]) == (404, "epoch_changed")
    await post(client, typed("new"))
    copy = Copy()
    await copy.read(client)
    assert (copy.text, copy.offset) == ("new", str(Token(2, 1)))


async def test_an_editor_of_the_old_history_is_sent_away_and_a_reader_finds_nothing_of_it(
    site: Site, client: httpx.AsyncClient
) -> None:
    """I10."""
    await created(client, typed("old"))
    ann = await Editor.open_synced(site.url("notes"))
    await client.delete(path_of())
    assert (await ann.closed())[0] == 4404
    await client.put(path_of())
    back = await Editor.open(site.url("notes"), ann.doc)
    assert (await back.closed())[0] == 4409


async def test_a_token_that_is_ahead_of_the_log_is_of_another_history(site: Site, client: httpx.AsyncClient) -> None:
    await created(client, typed("a"))
    for params in ({}, {"live": "long-poll"}, {"live": "sse"}):
        refused = await client.get(path_of(), params={"offset": str(Token(1, 99)), **params})
        assert (refused.status_code, refused.json()["error"]["reason"]) == (404, "epoch_changed")


# What is refused

BAD_PATHS: Sequence[str] = (
    "a.b",
    "a/../b",
    "%2e%2e/b",
    "a%2F..%2Fb",
    "a%2F.%2Fb",
    "..%2f",
    "a%20b",
    "%ff",
    "a%00",
    "\u00e9",
    "x" * 257,
    "/",
    "a/",
)


async def asked(site: Site, method: str, target: str) -> tuple[int, bytes]:
    """Status and body of a request whose target nobody tidies up before it is sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    head = f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    writer.write(head.encode())
    answer = await reader.read()
    writer.close()
    return int(answer.split()[1]), answer.partition(b"\r\n\r\n")[2]


async def test_a_path_that_is_none_is_refused_and_nothing_is_stored(site: Site) -> None:
    for path in BAD_PATHS:
        for method in ("GET", "PUT", "POST", "HEAD", "DELETE"):
            status, body = await asked(site, method, path_of(path))
            assert status == 400, (method, path)
            if method != "HEAD" and path.isascii():
                assert orjson.loads(body)["error"]["code"] == "INVALID_REQUEST", (method, path)
    async with site.database.acquire() as connection:
        assert await connection.fetchval("SELECT count(*) FROM ydoc.documents") == 0


async def test_a_path_of_slashes_is_the_documents_one_name(site: Site, client: httpx.AsyncClient) -> None:
    await created(client, typed("hello"), name="project/chapter-1/section_a")
    ann = await Editor.open_synced(site.url("project/chapter-1/section_a"))
    await ann.shows("hello")
    for alias in ("project//chapter-1///section_a", "project%2Fchapter-1%2fsection_a", "projec%74/chapter-1/section_a"):
        assert (await client.head(path_of(alias))).status_code == 200, alias


BAD_PARAMETERS: Sequence[str] = (
    "offset=",
    "offset=0",
    "offset=yesterday",
    "offset=-1_snapshot",
    "live=sse",
    "live=long-poll",
    "offset=-1&live=carrier-pigeon",
    "offset=snapshot&live=sse",
    f"offset={SnapshotAt(Token(1, 1))}&live=long-poll",
    "offset=-1&cursor=x",
    "offset=-1&offset=now",
    "awareness=",
    "awareness=a/b",
    "awareness=..",
    "awareness=default&awareness=other",
    "awareness=default&offset=snapshot",
)


async def test_parameters_that_are_none_are_refused(site: Site, client: httpx.AsyncClient) -> None:
    await created(client)
    for parameters in BAD_PARAMETERS:
        refused = await client.get(f"{path_of()}?{parameters}")
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "INVALID_REQUEST"), parameters


UPDATE = typed("x")


BAD_BODIES: Sequence[tuple[bytes, int]] = (
    (b"", 400),
    (b"\x05abc", 400),
    (b"\xff" * 12, 400),
    (join_frames([b""]), 400),
    (join_frames([b"not an update"]), 400),
    (join_frames([UPDATE, b"\x00"]), 400),
    (join_frames([UPDATE]) + b"\x01", 400),
    (join_frames([UPDATE] * 10_001), 413),
    (UPDATE, 400),
    (join_frames([marker_update(RESERVED_CLIENT_ID_MIN + 5)]), 404),
    (b"\x81\x80\x80\x08" + b"x" * 2_000_000, 413),
)


async def test_a_body_that_is_none_is_refused_whole(database_url: str) -> None:
    async with running_site(database_url, update_bytes_max=1_000_000) as site, site.client() as client:
        await created(client)
        for body, status in BAD_BODIES:
            refused = await client.post(path_of(), content=body)
            assert refused.status_code == status, (body[:20], refused.text)
            assert refused.json()["error"]["message"]
        assert await count_stored(site.database, "notes") == 0
        assert (await post(client, UPDATE)).status_code == 204


# Longer than what is read without being counted.
HALF_A_BODY = f"POST {path_of()} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n\r\nhalf of it".encode()


async def test_a_body_whose_rest_does_not_come_is_given_up(database_url: str) -> None:
    async with running_site(database_url, slow_member_s=0.2) as site, site.client() as client:
        await created(client)
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        with contextlib.closing(writer):
            writer.write(HALF_A_BODY)
            assert (await reader.readline()).startswith(b"HTTP/1.1 408")
        assert site.service.rooms.incoming.partial_bytes == 0
        assert await count_stored(site.database, "notes") == 0


async def test_half_a_body_counts_among_what_came_in_until_its_sender_is_gone(
    site: Site, client: httpx.AsyncClient
) -> None:
    await created(client)
    _reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    with contextlib.closing(writer):
        writer.write(HALF_A_BODY)
        await until(lambda: site.service.rooms.incoming.partial_bytes == 10)
    await until(lambda: site.service.rooms.incoming.partial_bytes == 0)
    assert await count_stored(site.database, "notes") == 0


async def test_what_else_a_request_may_not_say(site: Site, client: httpx.AsyncClient) -> None:
    await created(client)
    wrong_type = await client.post(path_of(), content=b"{}", headers={"Content-Type": "application/json"})
    assert wrong_type.status_code == 400
    assert (await post(client, UPDATE, headers={"Stream-Seq": "1"})).status_code == 400
    for headers in ({"Stream-TTL": "60"}, {"Stream-Expires-At": "2030-01-01T00:00:00Z"}):
        assert (await client.put(path_of("other"), headers=headers)).status_code == 400
    assert (await client.put(path_of("other"), content=b"x")).status_code == 400
    assert (await client.put(path_of("other"), headers={"Stream-Forked-From": "notes"})).status_code == 501
    assert (await client.head(path_of("other"))).status_code == 404
    for method in ("PATCH", "OPTIONS"):
        refused = await client.request(method, path_of())
        assert (refused.status_code, refused.json()["error"]["code"]) == (405, "INVALID_REQUEST")
        assert "PUT" in refused.headers["allow"]
    for path in ("/v1/yjs/default", "/v1/yjs/default/docs", "/v1/yjs/default/docs/", "/v1/yjs//docs/a"):
        refused = await client.get(path)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "INVALID_REQUEST"), path


async def test_a_server_that_may_only_read_says_so_and_stores_nothing(
    site: Site, client: httpx.AsyncClient, database_url: str
) -> None:
    await created(client, typed("hello"))
    async with running_site(database_url, read_only=True) as standby, standby.client() as reader:
        copy = Copy()
        await copy.read(reader)
        assert copy.text == "hello"
        assert (await reader.put(path_of())).status_code == 200
        for refused in (
            await reader.put(path_of("other")),
            await post(reader, typed("x")),
            await reader.delete(path_of()),
        ):
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "UNAVAILABLE")
    assert await count_stored(site.database, "notes") == 1
