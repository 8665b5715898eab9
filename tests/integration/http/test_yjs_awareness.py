"""Who is here, over Durable Streams: the room's own presence, and streams of other names."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from tests.integration.http.stream_copies import WAIT_S, Events, created, path_of, streaming
from tests.nodes import Editor
from tests.sites import Site, running_site
from tests.tokens import SECRET, token
from tests.waiting import until
from ydoc_store.http.yjs_awareness import FRAMES_MAX
from ydoc_store.rooms.named_presence import STREAMS_OF_A_DOCUMENT_MAX
from ydoc_store.yjs.awareness import AwarenessEntry, decode_awareness, encode_awareness_entries
from ydoc_store.yjs.lib0 import frames, join_frames


def state(name: str) -> str:
    return json.dumps({"user": {"name": name}})


def shown(body: bytes) -> list[AwarenessEntry]:
    return [
        entry
        for frame in frames(body)
        for entry in decode_awareness(frame, entries_max=100, bytes_max=2**20, json_depth_max=64)
    ]


async def show(
    client: httpx.AsyncClient, *entries: AwarenessEntry, stream: str = "default", name: str = "notes"
) -> httpx.Response:
    body = join_frames([encode_awareness_entries(entries)])
    return await client.post(path_of(name), params={"awareness": stream}, content=body)


class Watcher:
    """What a reader of a stream sees: the last entry of each editor."""

    def __init__(self, events: Events) -> None:
        self.events = events
        self.seen: dict[int, AwarenessEntry] = {}

    async def sees(self, client_id: int, state_json: str | None) -> None:
        async with asyncio.timeout(WAIT_S):
            while client_id not in self.seen or self.seen[client_id].state_json != state_json:
                data, _control = await self.events.next()
                self.seen.update((entry.client_id, entry) for entry in shown(data))


async def test_what_a_socket_shows_a_stream_reader_gets_and_the_other_way_round(
    site: Site, client: httpx.AsyncClient
) -> None:
    await created(client)
    ann = await Editor.open_synced(site.url("notes"))
    await ann.show(1, state("ann"))
    await until(lambda: len(site.room("notes").presence) == 1)
    async with streaming(client, awareness="default", offset="now") as events:
        watcher = Watcher(events)
        await watcher.sees(ann.doc.client_id, state("ann"))
        assert (await show(client, AwarenessEntry(7, 1, state("hal")))).status_code == 204
        await ann.sees(7, state("hal"))
        await watcher.sees(7, state("hal"))
        await ann.leave()
        await watcher.sees(ann.doc.client_id, None)
        assert (await show(client, AwarenessEntry(7, 2, None))).status_code == 204
        await watcher.sees(7, None)


async def test_presence_crosses_nodes_both_ways(site: Site, client: httpx.AsyncClient, database_url: str) -> None:
    await created(client)
    async with (
        running_site(database_url) as elsewhere,
        elsewhere.client() as other,
        streaming(client, awareness="default", offset="now") as here,
        streaming(other, awareness="default", offset="now") as there,
    ):
        for events in (here, there):
            await events.next()
        await show(client, AwarenessEntry(1, 1, state("hal")))
        await Watcher(there).sees(1, state("hal"))
        ann = await Editor.open_synced(elsewhere.url("notes"))
        await ann.show(1, state("ann"))
        await Watcher(here).sees(ann.doc.client_id, state("ann"))
        await ann.sees(1, state("hal"))


async def test_a_node_that_opens_the_document_hears_who_shows_up_over_http_elsewhere(
    site: Site, client: httpx.AsyncClient, database_url: str
) -> None:
    await created(client)
    async with (
        running_site(database_url) as elsewhere,
        streaming(client, awareness="default", offset="now"),
    ):
        await show(client, AwarenessEntry(1, 1, state("hal")))
        ann = await Editor.open_synced(elsewhere.url("notes"))
        await ann.sees(1, state("hal"))


async def test_who_shows_up_over_http_goes_when_it_is_not_renewed(site: Site, client: httpx.AsyncClient) -> None:
    await created(client)
    ann = await Editor.open_synced(site.url("notes"))
    await show(client, AwarenessEntry(1, 1, state("hal")))
    await ann.sees(1, state("hal"))
    now_s = site.service.relay.now_s
    presence = site.room("notes").presence
    assert not presence.expire(now_s, site.settings.awareness_timeout_s)
    site.service.rooms.attendance.expire(now_s + site.settings.awareness_timeout_s + 5)
    await ann.sees(1, None)


async def test_who_was_declared_gone_is_told_so_by_its_own_reader(site: Site, client: httpx.AsyncClient) -> None:
    await created(client)
    async with streaming(client, awareness="default", offset="now") as events:
        watcher = Watcher(events)
        await show(client, AwarenessEntry(1, 5, state("hal")))
        await watcher.sees(1, state("hal"))
        site.service.rooms.attendance.expire(site.service.relay.now_s + 100)
        await watcher.sees(1, None)
        watcher.seen.clear()
        await show(client, AwarenessEntry(1, 5, state("hal")))
        await watcher.sees(1, None)
        assert watcher.seen[1].clock == 6
        await show(client, AwarenessEntry(1, 7, state("hal")))
        await watcher.sees(1, state("hal"))


async def test_polls_bring_changes_and_wait_for_them(database_url: str) -> None:
    async with running_site(database_url, long_poll_timeout_s=0.3) as site, site.client() as client:
        await created(client)
        now = await client.get(path_of(), params={"awareness": "default", "offset": "now"})
        assert (now.status_code, now.content, now.headers["stream-up-to-date"]) == (200, b"", "true")

        async def poll(offset: str) -> httpx.Response:
            params = {"awareness": "default", "offset": offset, "live": "long-poll"}
            return await client.get(path_of(), params=params)

        in_vain = await poll(now.headers["stream-next-offset"])
        assert (in_vain.status_code, in_vain.headers["stream-up-to-date"]) == (204, "true")
        polling = asyncio.create_task(poll(in_vain.headers["stream-next-offset"]))
        await until(lambda: len(site.room("notes").members) == 1)
        await show(client, AwarenessEntry(1, 1, state("hal")))
        answer = await polling
        assert shown(answer.content) == [AwarenessEntry(1, 1, state("hal"))]
        again = await poll(answer.headers["stream-next-offset"])
        assert again.status_code == 204
        # A token of another process stands for nothing, and whoever has it is shown everybody.
        void = await poll("0000000000000001_0000000000000010")
        assert shown(void.content) == [AwarenessEntry(1, 1, state("hal"))]


async def test_streams_of_other_names_are_apart_and_end_with_the_document(
    site: Site, client: httpx.AsyncClient, database_url: str
) -> None:
    async def head(stream: str) -> int:
        return (await client.head(path_of(), params={"awareness": stream})).status_code

    assert (await show(client, AwarenessEntry(1, 1, state("hal")), stream="mods")).status_code == 404
    await created(client)
    missing = await client.get(path_of(), params={"awareness": "mods"})
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "STREAM_NOT_FOUND")
    assert (await client.delete(path_of(), params={"awareness": "mods"})).status_code == 404
    made = [await client.put(path_of(), params={"awareness": name}) for name in ("mods", "mods", "default")]
    assert [answer.status_code for answer in made] == [201, 200, 200]
    async with (
        running_site(database_url) as elsewhere,
        elsewhere.client() as other,
        streaming(client, awareness="mods", offset="now") as events,
    ):
        # Begun there by its first words, and told here.
        assert (await show(other, AwarenessEntry(9, 1, state("eve")), stream="mods")).status_code == 204
        await Watcher(events).sees(9, state("eve"))
        await show(client, AwarenessEntry(1, 1, state("hal")), stream="mods")
        await Watcher(events).sees(1, state("hal"))
        assert len(site.room("notes").presence) == 0
        async with streaming(other, awareness="mods", offset="-1") as there:
            await Watcher(there).sees(1, state("hal"))
        assert (await client.delete(path_of(), params={"awareness": "mods"})).status_code == 204
        await events.ended()
    assert await head("mods") == 404
    await show(client, AwarenessEntry(1, 1, state("hal")), stream="mods")
    assert await head("mods") == 200
    await client.delete(path_of())
    await client.put(path_of())
    assert (await head("mods"), await head("default")) == (404, 200)


async def test_a_document_takes_its_streams_along_and_may_be_begun_anew_often(
    site: Site, client: httpx.AsyncClient
) -> None:
    for _ in range(STREAMS_OF_A_DOCUMENT_MAX + 1):
        await client.put(path_of())
        assert (await client.put(path_of(), params={"awareness": "mods"})).status_code == 201
        assert (await client.delete(path_of())).status_code == 204
    assert (await client.post("/v1/documents/notes/undelete")).status_code == 200
    assert (await client.head(path_of(), params={"awareness": "mods"})).status_code == 404


async def test_a_name_is_forgotten_after_its_hour_and_there_are_not_many(site: Site, client: httpx.AsyncClient) -> None:
    await created(client)
    for number in range(STREAMS_OF_A_DOCUMENT_MAX):
        assert (await client.put(path_of(), params={"awareness": f"role-{number}"})).status_code == 201
    full = await client.put(path_of(), params={"awareness": "one-more"})
    assert (full.status_code, full.json()["error"]["reason"]) == (503, "server_full")
    site.service.rooms.attendance.expire(site.service.relay.now_s + 3_700)
    assert (await client.put(path_of(), params={"awareness": "one-more"})).status_code == 201


async def test_what_guests_show_is_ended_by_a_delete_and_members_stay(site: Site, client: httpx.AsyncClient) -> None:
    await created(client)
    ann = await Editor.open_synced(site.url("notes"))
    await ann.show(1, state("ann"))
    await show(client, AwarenessEntry(1, 1, state("hal")))
    await ann.sees(1, state("hal"))
    assert (await client.delete(path_of(), params={"awareness": "default"})).status_code == 204
    await ann.sees(1, None)
    assert [entry.client_id for entry in site.room("notes").presence.current()] == [ann.doc.client_id]


async def test_a_body_that_shows_nothing_is_refused_whole(site: Site, client: httpx.AsyncClient) -> None:
    await created(client)
    good = encode_awareness_entries([AwarenessEntry(1, 1, state("hal"))])
    for body, status in (
        (b"", 400),
        (good, 400),
        (join_frames([good, b"\x01"]), 400),
        (join_frames([good, encode_awareness_entries([AwarenessEntry(2, 1, "[1]")])]), 400),
        (join_frames([encode_awareness_entries([AwarenessEntry(2, 1, '{"a":NaN}')])]), 400),
        (join_frames([good] * (FRAMES_MAX + 1)), 413),
        (b"x" * (4 * 16 * 1024 + 1), 413),
    ):
        refused = await client.post(path_of(), params={"awareness": "default"}, content=body)
        assert refused.status_code == status, body[:40]
    assert len(site.room("notes").presence) == 0


@pytest.mark.parametrize(("awareness", "statuses"), [("read", (204, 204)), ("write", (403, 204)), ("off", (403, 403))])
async def test_who_may_be_seen_is_seen_with_the_name_of_their_token(
    database_url: str, awareness: str, statuses: tuple[int, int]
) -> None:
    async with running_site(database_url, jwt_secret=SECRET, awareness=awareness) as site:
        async with site.client(token("ann")) as client:
            await created(client)
        for number, access in enumerate(("read", "write")):
            async with site.client(token(f"user-{number}", {"*": access}, name="Nobody")) as client:
                answer = await show(client, AwarenessEntry(number, 1, '{"user":{"id":"root","name":"Root"}}'))
                assert answer.status_code == statuses[number]
        for entry in site.room("notes").presence.current():
            user = json.loads(entry.state_json or "")["user"]
            assert user == {"id": f"user-{entry.client_id}", "name": "Nobody"}


async def test_one_person_shows_no_more_over_http_than_a_socket_may(database_url: str) -> None:
    settings = {"jwt_secret": SECRET, "awareness_entries_max": 3}
    async with running_site(database_url, **settings) as site, site.client(token("ann")) as client:
        await created(client)
        async with streaming(client, awareness="default", offset="now"):
            for client_id in range(10):
                await show(client, AwarenessEntry(client_id, 1, state("ann")))
            assert len(site.room("notes").presence) == 3
