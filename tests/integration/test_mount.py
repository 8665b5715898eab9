"""The service mounted in somebody else's application: paths, refusals, start and end, under two servers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest

from tests.hosts import SERVERS, Host, fastapi_host, hosting, mounted
from tests.nodes import Editor, closed_at_once, connect_raw
from tests.tokens import SECRET, token
from tests.waiting import until
from ydoc_store.errors import SettingInvalid, StorageUnavailable
from ydoc_store.http import create_app
from ydoc_store.mount import Mounted
from ydoc_store.settings import Settings
from ydoc_store.storage.migrate import migrate


@pytest.fixture
def server(request: pytest.FixtureRequest) -> str:
    """uvicorn, unless a test is about what servers do in their own ways."""
    return str(getattr(request, "param", "uvicorn"))


under_both = pytest.mark.parametrize("server", SERVERS, indirect=True)


@pytest.fixture
def app(database_url: str) -> Mounted:
    return mounted(database_url)


@pytest.fixture
async def host(server: str, database_url: str) -> AsyncIterator[Host]:
    async with hosting(server, fastapi_host(mounted(database_url))) as started:
        yield started


def notes(host: Host, name: str = "notes") -> str:
    return host.socket_url(f"/collab/yjs/{name}")


async def migrate_url(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await migrate(connection)
    finally:
        await connection.close()


async def get(host: Host, path: str, **options: Any) -> httpx.Response:
    async with httpx.AsyncClient(timeout=30) as client:
        return await client.get(host.url(path), **options)


@under_both
async def test_two_editors_meet_and_what_they_type_is_stored(host: Host, connection: asyncpg.Connection) -> None:
    ann = await Editor.open_synced(notes(host))
    ben = await Editor.open_synced(notes(host))
    await ann.type("Hello")
    await ben.shows("Hello")
    assert await connection.fetchval("SELECT count(*) FROM ydoc.updates") == 1
    await ben.type(", Ann")
    await ann.shows("Hello, Ann")
    await ann.show(1)
    await ben.sees(ann.doc.client_id, '{"name":"Ann"}')
    await ann.leave()
    await ben.sees(ann.doc.client_id, None)
    await ben.leave()


async def test_every_path_stands_behind_the_mounts(host: Host) -> None:
    for path in ("/collab/health/live", "/collab/health/ready", "/collab/metrics", "/own"):
        assert (await get(host, path)).status_code == 200, path
    overview = (await get(host, "/collab/")).text
    assert f"ws://127.0.0.1:{host.port}/collab/yjs/NAME" in overview
    assert "/collab/health/ready" in overview
    for path, status in (("/collab/nothing", 404), ("/collab/yjs/notes", 426), ("/collab/hocuspocus", 426)):
        answer = await get(host, path)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), path
    assert (await get(host, "/health/live")).status_code == 404


async def test_what_the_http_side_makes_is_told_with_its_place_behind_the_mount(host: Host) -> None:
    made = (
        ("/collab/v1/documents/team%2Fnotes", {"content-type": "application/octet-stream"}, b"\0\0"),
        ("/collab/v1/yjs/default/docs/team/plan", {}, b""),
        ("/collab/v1/stream/logs/one", {"content-type": "text/plain"}, b"line"),
    )
    async with httpx.AsyncClient(base_url=host.url(""), timeout=30) as client:
        for path, headers, body in made:
            answer = await client.put(path, headers=headers, content=body)
            assert answer.status_code == 201, (path, answer.text)
            found = await client.get(answer.headers["location"], follow_redirects=True)
            assert found.status_code == 200, (path, answer.headers["location"], found.text)
            assert str(found.url).startswith(host.url("/collab/v1/")), path
        described = (await client.get("/collab/v1/openapi.json")).json()
        assert described["servers"][0]["url"] == "/collab"


@pytest.mark.parametrize(
    ("room", "name"), [("team/2024/minutes", "team/2024/minutes"), ("a%20b", "a b"), ("50%25", "50%"), ("a%2Fb", "a/b")]
)
async def test_a_document_has_the_name_that_it_has_without_a_mount(
    host: Host, connection: asyncpg.Connection, room: str, name: str
) -> None:
    ann = await Editor.open_synced(notes(host, f"{room}?x=1"))
    ben = await Editor.open_synced(notes(host, room))
    await ann.type("here")
    await ben.shows("here")
    assert await connection.fetchval("SELECT name FROM ydoc.documents") == name


@under_both
async def test_a_refusal_is_a_close_with_its_code_and_a_reason(host: Host) -> None:
    assert (await closed_at_once(notes(host, "a//b")))[0] == 4400
    code, reason = await closed_at_once(host.socket_url("/collab/elsewhere/notes"))
    assert (code, reason) == (
        4404,
        f"nothing is served here: connect to ws://127.0.0.1:{host.port}/collab/yjs/NAME",
    )
    for frame, expected in ((b"", 1008), ("words", 1003), (b"\0" * (16 * 2**20 + 65), 4413)):
        socket = await connect_raw(notes(host))
        await socket.send(frame)
        await socket.wait_closed()
        assert socket.close_code == expected, frame[:10]
        assert socket.close_reason


async def test_an_open_service_answers_this_machine_alone_whoever_hosts_it(host: Host) -> None:
    """Its host may listen anywhere, so each request is judged."""
    for headers in ({"Host": "example.com"}, {"Origin": "https://example.com"}, {"X-Forwarded-For": "10.0.0.1"}):
        assert (await get(host, "/collab/health/live", headers=headers)).status_code == 403
    assert (await closed_at_once(notes(host), origin="https://example.com"))[0] == 4403
    assert (await closed_at_once(notes(host), additional_headers={"X-Forwarded-For": "10.0.0.1"}))[0] == 4403


async def test_tokens_origins_and_subprotocols_are_judged_as_elsewhere(server: str, database_url: str) -> None:
    app = mounted(database_url, jwt_secret=SECRET, origins="https://app.example.com")
    async with hosting(server, fastapi_host(app)) as host:
        assert await closed_at_once(notes(host)) == (4401, "a token is needed")
        allowed = await Editor.open_synced(
            notes(host), subprotocols=["ydoc", f"ydoc.token.{token()}"], origin="https://app.example.com"
        )
        assert allowed.socket.subprotocol == "ydoc"
        by_parameter = await Editor.open_synced(f"{notes(host)}?token={token()}")
        await by_parameter.type("in")
        await allowed.shows("in")
        assert (await closed_at_once(f"{notes(host)}?token={token()}", origin="https://elsewhere.example"))[0] == 4403
        for path in ("/collab/v1/revocations", "/collab/metrics"):
            forwarded = {"X-Forwarded-For": "10.0.0.1"}
            assert (await get(host, path, headers=forwarded)).status_code == 401, path
            admin = forwarded | {"Authorization": f"Bearer {token('root', {'*': 'admin'})}"}
            assert (await get(host, path, headers=admin)).status_code == 200, path


@under_both
async def test_a_host_that_runs_the_lifespan_starts_it_before_the_first_request(server: str, app: Mounted) -> None:
    """Served alone, without a host: under no path."""
    async with hosting(server, app) as host:
        ann = await Editor.open_synced(host.socket_url("/yjs/notes"))
        await ann.type("alone")
        assert (await get(host, "/health/ready")).json()["status"] == "ready"


@under_both
async def test_without_a_lifespan_the_first_request_starts_it_once(server: str, app: Mounted) -> None:
    async def host_without(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "root_path": "/collab"}, receive, send)

    async with hosting(server, host_without, lifespan=False) as host:
        assert (await get(host, "/collab/health/live")).status_code == 200
        assert app._starting is None
        editors = await asyncio.gather(*(Editor.open_synced(notes(host)) for _ in range(8)))
        relay = app._node.relay
        assert relay is not None
        assert len(relay.relay.connections) == 8
        await editors[0].type("lazily")
        await editors[7].shows("lazily")
        await app.stop()
        assert await editors[7].closed() == (1001, "this server is stopping: come back, another one serves you")
        assert await closed_at_once(notes(host)) == (1001, "this server is stopping: come back, another one serves you")
        assert (await get(host, "/collab/health/ready")).status_code == 503


async def test_a_start_that_fails_is_told_and_the_next_request_tries_again(
    server: str, empty_database_url: str
) -> None:
    app = mounted(empty_database_url)
    async with hosting(server, app, lifespan=False) as host:
        code, reason = await closed_at_once(host.socket_url("/yjs/notes"))
        assert code == 1011
        assert reason.startswith("the database lacks migrations of this release")
        assert (await get(host, "/health/ready")).status_code == 503
        await migrate_url(empty_database_url)
        ann = await Editor.open_synced(host.socket_url("/yjs/notes"))
        await ann.type("now")
        assert (await get(host, "/health/ready")).status_code == 200
        await app.stop()


async def test_a_database_that_is_away_ends_a_hosts_start_with_the_reason(database_url: str) -> None:
    app = mounted(database_url.replace("/ydoc-", "/nowhere-"), connect_timeout_s=1)
    said: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "lifespan.startup"}

    async def send(event: Any) -> None:
        said.append(event)

    await app({"type": "lifespan"}, receive, send)
    assert said[0]["type"] == "lifespan.startup.failed"
    with pytest.raises(StorageUnavailable):
        await app.start()


def test_without_a_database_it_says_that_only_serve_brings_one() -> None:
    with pytest.raises(SettingInvalid, match=r"YDOC_DATABASE_URL.*serve"):
        create_app(Settings.load({}))


@under_both
async def test_an_end_that_comes_before_the_servers_says_goodbye_and_leaves_nothing_behind(
    server: str, app: Mounted, connection: asyncpg.Connection
) -> None:
    before = asyncio.all_tasks()
    async with hosting(server, fastapi_host(app)) as host:
        ann, ben = await Editor.open_synced(notes(host)), await Editor.open_synced(notes(host))
        await ann.type("kept")
        await ben.shows("kept")
        await app.stop()
        assert [(await editor.closed())[0] for editor in (ann, ben)] == [1001, 1001]
    assert await connection.fetchval("SELECT count(*) FROM ydoc.updates") == 1
    left = await connection.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    assert left == 0
    assert asyncio.all_tasks() <= before


@under_both
async def test_whoever_streams_when_it_stops_is_let_go(server: str, app: Mounted) -> None:
    async with hosting(server, fastapi_host(app)) as host, httpx.AsyncClient(timeout=30) as client:
        made = await client.put(host.url("/collab/v1/yjs/default/docs/notes"))
        stream = f"{made.headers['location']}?offset=now&live=sse"
        async with client.stream("GET", host.url("") + stream) as answer:
            assert answer.status_code == 200
            began = asyncio.Event()

            async def read() -> None:
                async for _ in answer.aiter_bytes():
                    began.set()

            reading = asyncio.create_task(read())
            await began.wait()
            await app.stop()
            async with asyncio.timeout(60):
                await reading


@under_both
async def test_a_server_that_just_ends_its_sockets_leaves_nothing_behind_either(
    server: str, app: Mounted, connection: asyncpg.Connection
) -> None:
    before = asyncio.all_tasks()
    async with hosting(server, fastapi_host(app)) as host:
        ann, ben = await Editor.open_synced(notes(host)), await Editor.open_synced(notes(host))
        await ann.type("kept")
        await ben.shows("kept")
        await host.stop()
        for editor in (ann, ben):
            await editor.closed()
    assert await connection.fetchval("SELECT count(*) FROM ydoc.updates") == 1
    assert asyncio.all_tasks() <= before


@under_both
async def test_a_peer_that_takes_nothing_costs_its_cap_and_then_goes(server: str, database_url: str) -> None:
    """I15, though the server hides its socket."""
    app = mounted(database_url, outbox_bytes_max="512KiB", sync_piece_bytes_max="64KiB")
    async with hosting(server, fastapi_host(app)) as host:
        ann, frozen, ben = [await Editor.open_synced(notes(host)) for _ in range(3)]
        relay = app._node.relay
        assert relay is not None
        connection = list(relay.relay.connections)[1]
        frozen.socket.transport.pause_reading()
        while not connection.is_closing:
            await ann.type("x" * 100_000)
            await ben.until(lambda: len(ben.root) == len(ann.root))
            assert connection.outbox_bytes < 700_000
        assert 'ydoc_closes_total{code="1013"} 1.0' in app._node.metrics.render().decode()
        # What the close's own time-out does in the end.
        connection.cut()
        await until(lambda: connection not in relay.relay.connections)
        assert not relay.rooms.outboxes.used_bytes
        await ann.type("!")
        await ben.shows(ann.text)
        await frozen.vanish()
        for editor in (ann, ben):
            await editor.leave()


async def test_it_can_be_started_again(app: Mounted) -> None:
    for number in range(2):
        async with hosting("uvicorn", fastapi_host(app)) as host:
            ann = await Editor.open_synced(notes(host))
            await ann.type(str(number))
            await ann.leave()
    async with hosting("uvicorn", fastapi_host(app)) as host:
        assert (await Editor.open_synced(notes(host))).text in ("01", "10")


async def test_two_mounts_in_one_process_do_not_disturb_each_other(
    server: str, database_url: str, empty_database_url: str
) -> None:
    await migrate_url(empty_database_url)
    one, other = mounted(database_url), mounted(empty_database_url, jwt_secret=SECRET)
    host_app = fastapi_host(one, "/one")

    @contextlib.asynccontextmanager
    async def both() -> AsyncIterator[None]:
        async with other.running():
            yield

    host_app.mount("/other", other)
    async with both(), hosting(server, host_app) as host:
        here, there = host.socket_url("/one/yjs/notes"), host.socket_url(f"/other/yjs/notes?token={token()}")
        ann, ben = await Editor.open_synced(here), await Editor.open_synced(there)
        with_ann, with_ben = await Editor.open_synced(here), await Editor.open_synced(there)
        await ann.type("one's")
        await ben.type("the other's")
        await with_ann.shows("one's")
        await with_ben.shows("the other's")
        assert (await closed_at_once(host.socket_url("/other/yjs/notes")))[0] == 4401
        samples = (await get(host, "/other/metrics")).text
        assert 'ydoc_updates_total{dialect="y-websocket",result="accepted"} 1.0' in samples
        await one.stop()
        await ann.closed()
        await ben.type("!")
        await with_ben.shows("the other's!")


@under_both
async def test_behind_a_proxy_that_takes_a_path_away_the_mount_is_still_found(server: str, app: Mounted) -> None:
    """The host is told of the proxy's path, and a mount in it adds its own to that."""
    async with hosting(server, fastapi_host(app), root_path="/api") as host:
        ann = await Editor.open_synced(notes(host, "team/notes"))
        await ann.type("behind")
        assert f"ws://127.0.0.1:{host.port}/api/collab/yjs/NAME" in (await get(host, "/collab/")).text


async def test_a_compactor_inside_is_asked_for(database_url: str, connection: asyncpg.Connection) -> None:
    app = mounted(database_url, with_compactor=True, compact_tail_rows=1, sweep_interval_s=0.05, sweep_jitter_s=0)
    async with hosting("uvicorn", fastapi_host(app)) as host:
        ann = await Editor.open_synced(notes(host))
        await ann.type("merged")
        async with asyncio.timeout(30):
            while not await connection.fetchval("SELECT count(*) FROM ydoc.snapshots"):
                await ann.show(1)
        assert (await Editor.open_synced(notes(host))).text == "merged"
