"""I13: any bytes on a socket affect that connection alone. Every row of the bad-input table, on the running server.

One `ydoc-store serve` takes all of it. In its document a pycrdt editor and a stock y-websocket editor are at work the
whole time: after each input they still see each other's next edit, the process is the same, the sender was told what
README promises, and neither the database nor the log holds anything of what was refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import random
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from websockets.exceptions import ConnectionClosed

from tests.faults.bad_frames import FRAMES, NOBODY, SECRET, Frame
from tests.interop.editors import Editor as StockEditor
from tests.interop.editors import Editors, editing
from tests.nodes import WAIT_TIMEOUT_S, Editor, closed_at_once, connect_raw
from tests.service import STORE, Service, run, serving, verify
from tests.stored import connecting
from tests.unit.yjs.corpus import ACCEPTED, REFUSED, Refused
from ydoc_store.yjs.awareness import AwarenessEntry, encode_awareness_entries
from ydoc_store.yjs.lib0 import encode_buf, encode_string, encode_uint
from ydoc_store.yjs.messages import (
    Awareness,
    SyncStep2,
    Update,
    decode_message,
    encode_awareness,
    encode_sync_step1,
    encode_sync_step2,
    encode_update,
)
from ydoc_store.yjs.walker import walk

if TYPE_CHECKING:
    from tests.stored import Connection

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOM = "notes/ä"
HANDSHAKE_TIMEOUT_S = 1.0
QUESTION = b"\x03"
FUZZ_MINUTES = float(os.environ.get("YDOC_TEST_FUZZ_MINUTES", "5"))
numbers = itertools.count(1)


@dataclass
class Scene:
    """The service, and who is at work in its document."""

    service: Service
    stored: Connection
    ann: Editor
    ben: StockEditor
    pid: int

    def url(self, name: str = ROOM) -> str:
        return f"{self.service.url}/{name}"

    async def head(self) -> int:
        head = await self.stored.fetchval("SELECT head FROM ydoc.documents WHERE name = $1", ROOM)
        return int(head or 0)

    async def counted(self, sample: str) -> float:
        return (await self.service.metrics()).get(sample, 0.0)

    async def work_goes_on(self) -> None:
        """The two still see each other's edits, in the same process."""
        assert self.service.is_running
        assert self.service.pid == self.pid
        await self.ann.type(f"a{next(numbers)} ")
        await self.ben.shows(self.ann.text)
        await self.ben.type(f"b{next(numbers)} ")
        expected = await self.ben.text()
        await self.ann.until(lambda: self.ann.text == expected)

    async def nothing_is_kept_of(self, *words: str) -> None:
        """Neither the rows nor the log hold one of the words, in any case or as hex."""
        log = self.service.log_text()
        for word in words:
            assert word not in log
            assert word.encode().hex() not in log
            held = await self.stored.fetchval(
                "SELECT count(*) FROM ydoc.updates WHERE position($1::bytea IN frames) > 0", word.encode()
            )
            assert held == 0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    settings = {
        "YDOC_UPDATE_BYTES_MAX": "1MiB",
        "YDOC_DOCUMENT_PENDING_UNITS_MAX": "1000",
        "YDOC_HANDSHAKE_TIMEOUT_S": str(HANDSHAKE_TIMEOUT_S),
        "YDOC_LOG_FORMAT": "json",
        "YDOC_LOG_LEVEL": "debug",
    }
    folder = tmp_path_factory.mktemp("bad-input")
    async with (
        serving(folder, database_url=module_database_url, environment=settings) as service,
        connecting(module_database_url) as stored,
        editing() as editors,
    ):
        ann = await Editor.open_synced(f"{service.url}/{ROOM}")
        ben = await _stock_editor(editors, service)
        yield Scene(service, stored, ann, ben, service.pid)
        await ann.leave()


async def _stock_editor(editors: Editors, service: Service) -> StockEditor:
    ben = await editors.open_synced(service.url, ROOM)
    await ben.ask("setPresence", presence={"name": "Ben"})
    return ben


@contextlib.asynccontextmanager
async def sender(scene: Scene) -> AsyncIterator[Editor]:
    """A third editor in the document, synced, that will misbehave."""
    editor = await Editor.open_synced(scene.url())
    try:
        yield editor
    finally:
        await editor.leave()


async def heard_out(editor: Editor) -> None:
    """Returns when everything that it said before has been handled."""
    answers = len(editor.received(Awareness))
    await editor.say(QUESTION)
    await editor.until(lambda: len(editor.received(Awareness)) > answers)


async def committed(editor: Editor) -> None:
    """Returns when the first update of the editor's document is in the log: its marker is sent behind the COMMIT."""
    await editor.until(lambda: editor.marker)


# Frames and updates


@pytest.mark.parametrize("case", FRAMES, ids=lambda case: case.name)
async def test_a_bad_frame_harms_its_connection_alone(scene: Scene, case: Frame) -> None:
    before = await scene.head()
    ignored = await scene.counted('ydoc_frames_ignored_total{reason="unknown type"}')
    async with sender(scene) as bad:
        await bad.socket.send(case.frame)
        if case.code is None:
            await heard_out(bad)
            assert await scene.counted('ydoc_frames_ignored_total{reason="unknown type"}') == ignored + 1
        else:
            assert (await bad.closed())[0] == case.code
    assert await scene.head() == before
    await scene.work_goes_on()
    await scene.nothing_is_kept_of(SECRET)


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
async def test_an_update_that_the_walker_refuses_harms_its_connection_alone(scene: Scene, case: Refused) -> None:
    before = await scene.head()
    for encode in (encode_update, encode_sync_step2):
        async with sender(scene) as bad:
            await bad.say(encode(case.update))
            code, reason = await bad.closed()
            assert code == 4400
            assert len(reason.encode()) <= 123
    assert await scene.head() == before
    await scene.work_goes_on()


async def test_every_honest_update_of_the_corpus_is_stored_as_it_came(scene: Scene, module_database_url: str) -> None:
    """Each in a document of its own, and `verify` reads them all."""
    taken = [case.update for case in ACCEPTED if not _is_ahead_or_reserved(case.structs, case.deletes)]
    assert len(taken) > 25
    for number, update in enumerate(taken):
        writer = await Editor.open_synced(scene.url(f"corpus/{number}"))
        await writer.say(encode_update(update))
        await heard_out(writer)
        if not walk(update).is_empty:
            await committed(writer)
        await writer.leave()
    stored = await scene.stored.fetch(
        "SELECT d.name, u.frames FROM ydoc.updates AS u JOIN ydoc.documents AS d ON d.id = u.document_id"
        " WHERE d.name LIKE 'corpus/%'"
    )
    brings_something = {f"corpus/{n}": encode_buf(u) for n, u in enumerate(taken) if not walk(u).is_empty}
    assert dict(map(tuple, stored)) == brings_something
    verified = await verify(module_database_url)
    assert verified.exit_code == 0, verified.output
    await scene.work_goes_on()


def _is_ahead_or_reserved(structs: list[tuple[int, int, int]], deletes: list[tuple[int, int, int]]) -> bool:
    return bool(deletes) or any(client >= 2**53 - 2**24 for client, _, _ in structs)


async def test_what_is_merely_repeated_is_no_too_much(scene: Scene) -> None:
    """Every reconnect of a synced client brings the whole delete set, and may bring every struct."""
    async with sender(scene) as again:
        before = await scene.head()
        for encode in (encode_sync_step2, encode_update):
            await again.say(encode(again.doc.get_update()))
        await heard_out(again)
        assert await scene.head() == before
    await scene.work_goes_on()


async def test_a_delete_whose_content_comes_with_it_is_no_delete_of_what_never_came(scene: Scene) -> None:
    """After the 1012 a stock client syncs again, and its Step2 brings structs and deletes together."""
    async with sender(scene) as honest:
        honest.root.insert(0, "gone")
        del honest.root[0:4]
        honest._waiting.clear()
        await honest.say(encode_sync_step2(honest.doc.get_update()))
        await heard_out(honest)
    await scene.work_goes_on()


async def test_runs_without_content_for_a_live_client_are_accepted_and_audited(scene: Scene) -> None:
    """They are what an editor that loads from IndexedDB sends; the metric and the log say where a repair begins."""
    sample = 'ydoc_updates_audited_total{reason="blank run"}'
    before, head = await scene.counted(sample), await scene.head()
    victim = await Editor.open_synced(scene.url())
    await victim.show(1)
    async with sender(scene) as bad:
        await bad.sees(victim.doc.client_id, '{"name":"Ann"}')
        synced = victim.doc.get_state()
        run = b"\x01\x01" + encode_uint(victim.doc.client_id) + b"\x00\x00\x05\x00"
        await bad.say(encode_update(run))
        await victim.until(lambda: victim.doc.get_state() != synced)
    assert await scene.counted(sample) == before + 1
    lines = [json.loads(line) for line in scene.service.log_text().splitlines() if "to be looked at" in line]
    assert (lines[-1]["what"], lines[-1]["seq"]) == ("blank run", head + 1)
    await victim.leave()
    await scene.work_goes_on()


async def test_what_waits_for_a_predecessor_is_stored_and_shown_up_to_a_cap(
    scene: Scene, module_database_url: str
) -> None:
    """Over it whoever sends more is told to sync again (1012); the predecessor, however late, comes in and resolves."""

    def typed(clock: int, text: str) -> bytes:
        origin = b"\x84" + encode_uint(NOBODY) + encode_uint(clock - 1) if clock else b"\x04\x01\x04text"
        item = origin + encode_string(text)
        return encode_update(b"\x01\x01" + encode_uint(NOBODY) + encode_uint(clock) + item + b"\x00")

    async def is_pending() -> bool:
        options = ("--json", "--database-url", module_database_url)
        shown = await run(*STORE, "documents", "show", "pending", *options)
        return bool(json.loads(shown.output)["pending"])

    url = scene.url("pending")
    watcher = await Editor.open_synced(url)
    rude = await Editor.open_synced(url)
    for clock in (1, 601):
        await rude.say(typed(clock, "x" * 600))
        await watcher.until(lambda clock=clock: _holds(watcher, NOBODY, clock + 600))
    assert await is_pending()
    await rude.say(typed(2_000, "y"))
    assert (await rude.closed())[0] == 1012
    late = await Editor.open_synced(url)
    assert late.text == ""
    await late.say(typed(0, "x"))
    reader = await Editor.open_synced(url)
    await reader.shows("x" * 1_201)
    assert not await is_pending()
    await late.say(typed(2_000, "y"))
    await watcher.until(lambda: _holds(watcher, NOBODY, 2_001))
    assert await scene.stored.fetchval("SELECT head FROM ydoc.documents WHERE name = 'pending'") == 4
    for editor in (late, reader, watcher):
        await editor.leave()
    await scene.work_goes_on()


def _holds(editor: Editor, client: int, end: int) -> bool:
    """Whether it was sent the units of a client up to here, applicable or not."""
    structs = (found for sent in editor.received(Update, SyncStep2) for found in walk(sent.update).structs)
    return any(found[0] == client and found[2] >= end for found in structs)


# Random mutations of real frames


def _mutated(frame: bytes, rng: random.Random) -> bytes:
    changed = bytearray(frame)
    for _ in range(rng.choice((0, 1, 1, 2, 4))):
        at = rng.randrange(len(changed) + 1)
        changed[at : at + rng.randrange(4)] = rng.choice((rng.randbytes(rng.randrange(4)), bytes(changed[:at][-8:])))
    return bytes(changed)


async def _fuzz(scene: Scene, seed: int, connections: int) -> int:
    """Sends what editors send, changed at random, to a document of its own; returns how many frames."""
    rng = random.Random(seed)
    frames = [case.frame for case in FRAMES if isinstance(case.frame, bytes) and 0 < len(case.frame) < 500]
    frames += [encode(case.update) for case in ACCEPTED for encode in (encode_update, encode_sync_step2)]
    sent = 0
    for _ in range(connections):
        socket = await connect_raw(scene.url(f"fuzzed/{seed}"))
        with contextlib.suppress(ConnectionClosed):
            for _ in range(rng.randrange(1, 30)):
                await socket.send(_mutated(rng.choice(frames), rng))
                sent += 1
        if rng.randrange(2):
            await socket.close()
        else:
            socket.transport.abort()
    return sent


@pytest.mark.parametrize("seed", range(3))
async def test_random_frames_harm_their_connections_alone(scene: Scene, seed: int) -> None:
    assert await _fuzz(scene, seed, connections=40)
    await scene.work_goes_on()


@pytest.mark.long
@pytest.mark.timeout(FUZZ_MINUTES * 60 + 300)
async def test_random_frames_for_minutes_harm_their_connections_alone(scene: Scene) -> None:
    begun_s, sent = time.monotonic(), 0
    while time.monotonic() - begun_s < FUZZ_MINUTES * 60:
        seed = random.randrange(2**32)
        print(f"seed {seed}")
        sent += await _fuzz(scene, seed, connections=100)
        await scene.work_goes_on()
    print(f"{sent} frames in {FUZZ_MINUTES:g} minutes")
    assert sent > 0


# Presence


async def test_what_is_said_of_anothers_presence_does_not_shut_its_owner_out(scene: Scene) -> None:
    """Until identities say whose an id is: a stock editor comes back with its next clock, and is never refused."""
    async with sender(scene) as bad:
        await bad.until(lambda: any(entry.state_json for entry in bad.presence.values()))
        client, entry = next((i, entry) for i, entry in bad.presence.items() if entry.state_json == '{"name":"Ben"}')
        for clock in (2**31 - 1, 2**30, entry.clock + 2**16 + 1, entry.clock + 1):
            gone = AwarenessEntry(client, clock, None)
            await bad.say(encode_awareness(encode_awareness_entries([gone])))
        await bad.until(lambda: bad.presence[client].clock > entry.clock + 1)
        await bad.sees(client, '{"name":"Ben"}')
        assert bad.presence[client].clock < 2**16
    assert (await scene.ben.ask("closes"))["closes"] == []
    await scene.work_goes_on()


async def test_editors_without_end_fill_no_room(scene: Scene) -> None:
    """100,000 ids in frames that are each within the limits: a member introduces as many as one message may hold."""
    async with sender(scene) as bad:
        for hundred in range(1_000):
            entries = [AwarenessEntry(2**40 + hundred * 100 + number, 1, "{}") for number in range(100)]
            await bad.say(encode_awareness(encode_awareness_entries(entries)))
        await heard_out(bad)
        async with sender(scene) as other:
            await other.until(lambda: other.received(Awareness))
            assert 100 <= len(other.presence) <= 110
    await scene.work_goes_on()


# Questions


async def test_a_flood_of_questions_waits_and_delays_nobody(scene: Scene) -> None:
    """20 at once, then two a second: the flood is read no faster, and the others do not notice."""
    bad = await connect_raw(scene.url())
    for _ in range(5_000):
        await bad.send(encode_sync_step1(b"\x00"))
    answers = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(2):
            async for frame in bad:
                answers += isinstance(decode_message(bytes(frame)), SyncStep2)  # type: ignore[arg-type]
    assert 20 <= answers <= 60
    await scene.work_goes_on()
    bad.transport.abort()
    await bad.wait_closed()
    await scene.work_goes_on()


# Names and handshakes


BAD_NAMES = [
    *("", "/", "a//b", "a/", ".", "..", "../notes", "%2e", "%2E%2e/notes", "a%2f..", "%2fa"),
    *("a%00b", "%0a", "%7f", "%c2%85", "%ff", "%ed%a0%80", "x" * 513, "x" * 10_240, "%C3%A4" * 257),
]


@pytest.mark.parametrize("path", BAD_NAMES, ids=lambda path: path[:20])
async def test_a_name_outside_the_rule_is_closed_for_good(scene: Scene, path: str) -> None:
    answer = await asked(scene, f"/yjs/{path}")
    # A head over 8 KiB a line is no WebSocket's: answered before it is one.
    assert answer == (414 if len(path) > 8_192 else 4400)
    await scene.work_goes_on()


async def test_names_that_look_alike_are_different_documents(scene: Scene) -> None:
    """Compared byte for byte behind one decoding; nothing is normalised, so nobody reads another's document."""
    alike = ["%C3%A9", "e%CC%81", "%D0%B5", "e", "E", "%EF%BD%85", "e%20", "%2565"]
    for name in alike:
        editor = await Editor.open_synced(scene.url(name))
        assert editor.text == ""
        await editor.type(name)
        await editor.until(lambda editor=editor: editor.marker)
        await editor.leave()
    for name, same in (("%C3%A9", "é"), ("e", "%65"), ("%2565", "%2565")):
        editor = await Editor.open_synced(scene.url(same))
        assert editor.text == name
        await editor.leave()


@pytest.mark.parametrize(
    "origin", ["https://example.com", "null", "http://127.0.0.1.example.com", "http://localhost@b"]
)
async def test_a_foreign_origin_is_closed_for_good(scene: Scene, origin: str) -> None:
    assert (await closed_at_once(scene.url(), additional_headers={"Origin": origin}))[0] == 4403
    await scene.work_goes_on()


async def test_ten_thousand_headers_are_answered_with_431(scene: Scene) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", scene.service.port)
    head = b"GET /yjs/notes HTTP/1.1\r\nHost: localhost\r\n" + b"".join(b"x-%d: 1\r\n" % n for n in range(10_000))
    writer.write(head + b"\r\n")
    assert (await answered(reader)).startswith(b"HTTP/1.1 431")
    writer.close()
    await scene.work_goes_on()


@pytest.mark.parametrize(
    "said", [b"", b"GET /yjs/notes HTTP/1.1\r\nHost: local", b"GET /yjs/no"], ids=["", "head", "path"]
)
async def test_a_slow_handshake_is_ended_in_time(scene: Scene, said: bytes) -> None:
    """After YDOC_HANDSHAKE_TIMEOUT_S, 10 s unless somebody changes it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", scene.service.port)
    writer.write(said)
    assert (await answered(reader)).startswith(b"HTTP/1.1 408")
    writer.close()
    await scene.work_goes_on()


@pytest.mark.parametrize(
    "said",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        b"GET /yjs/notes HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"\x00" * 70_000,
    ],
    ids=["TLS", "no key", "zeros"],
)
async def test_what_is_no_handshake_is_answered_with_4xx(scene: Scene, said: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", scene.service.port)
    writer.write(said)
    assert (await answered(reader)).startswith(b"HTTP/1.1 4")
    writer.close()
    await scene.work_goes_on()


async def answered(reader: asyncio.StreamReader) -> bytes:
    """All that comes until the other side ends, which it does within a minute."""
    async with asyncio.timeout(60):
        with contextlib.suppress(ConnectionResetError):
            return await reader.read(4096)
    return b""


async def asked(scene: Scene, target: str) -> int:
    """The close code of a WebSocket with this request target, as it stands, or the HTTP status of its refusal."""
    reader, writer = await asyncio.open_connection("127.0.0.1", scene.service.port)
    writer.write(
        f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    async with asyncio.timeout(WAIT_TIMEOUT_S):
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head.split()[1])
        if status == 101:
            frame = await reader.readexactly(4)
            assert frame[0] == 0x88
            status = int.from_bytes(frame[2:], "big")
    writer.transport.abort()
    return status
