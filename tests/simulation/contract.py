"""What the relay relies on in Postgres, as tests: they run on a real one and on the model of the simulation.

The product's own functions are called on both (`append_batch`, `load`, `read_after`, `read_heads`, `find_created`,
`notify`, a listener), so that what is compared is what the relay sees. Everything else that touches a document, an
operator or a compactor, is a method of `Log`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

import pytest

from tests.appending import Owner
from tests.waiting import until
from ydoc_store.errors import (
    DocumentDeleted,
    EpochChanged,
    RoomDiscarded,
    StorageBusy,
    StorageUnavailable,
    TooLarge,
    YdocError,
)
from ydoc_store.storage.append_batch import (
    BEGIN_CREATING,
    COMMIT_CREATED,
    HINT_CHANNEL,
    Accepted,
    DocumentBatch,
    Result,
    append_batch,
)
from ydoc_store.storage.appender import Appender
from ydoc_store.storage.creating import CREATE_DOCUMENTS
from ydoc_store.storage.heads import find_created, read_heads
from ydoc_store.storage.lane import Lane
from ydoc_store.storage.loader import Absent, StoredDocument, load, read_after
from ydoc_store.storage.notifications import Listener, notify
from ydoc_store.storage.outcomes import find_free_heads
from ydoc_store.yjs.lib0 import frames
from ydoc_store.yjs.walker import RESERVED_CLIENT_ID_MIN

KEEPS_NOTHING = False
MARKER = RESERVED_CLIENT_ID_MIN + 1


class Log(Protocol):
    """A database, and what others do to it."""

    database: Any

    async def delete(self, document_id: int) -> None: ...
    async def recreate(self, document_id: int) -> None: ...
    async def put_snapshot(self, document_id: int, through_seq: int, content: bytes, merged: tuple[int, int]) -> None:
        """A snapshot in place of the rows up to `through_seq`; `merged` are the rows and bytes that it holds."""

    def held(self, document_id: int) -> contextlib.AbstractAsyncContextManager[None]:
        """Somebody's open transaction holds this head."""


class _Hints:
    hint_prefix = "here"
    inline_bytes_max = 100


class Hand:
    """A lane's connection without its lane, and owners that have no room."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.appender = Appender(log.database, timeout_s=5)
        self._lanes: list[Lane] = []

    async def connect(self) -> Any:
        self._lanes.append(Lane(self.appender, len(self._lanes)))
        return await self._lanes[-1].connect()

    async def commit(self, *batches: DocumentBatch, connection: Any = None, hints: Any = None) -> list[Result]:
        connection = connection or await self.connect()
        return await append_batch(connection, list(batches), timeout_s=10, hints=hints, waited_for_standby=lambda: True)

    async def known(self, name: str, *updates: bytes) -> Owner:
        """A document with these updates, one row each."""
        owner = Owner(self.appender, name)
        for update in updates or (b"first",):
            (result,) = await self.commit(owner.batch(update))
            assert isinstance(result, Accepted)
            if result.created is not None:
                owner.queue.document_id = result.created.document_id
        return owner

    async def stop(self) -> None:
        for lane in self._lanes:
            await lane.stop()


def updates_of(stored: StoredDocument) -> list[bytes]:
    return [update for row in stored.tail for update in frames(row.frames)]


async def loaded(log: Log, name: str) -> StoredDocument:
    stored = await load(log.database, "t", name)
    assert isinstance(stored, StoredDocument)
    return stored


class Contract:
    """Each test holds on whatever the fixture `log` gives."""

    @pytest.fixture
    async def hand(self, log: Log) -> AsyncIterator[Hand]:
        hand = Hand(log)
        yield hand
        await hand.stop()

    # Appends

    async def test_an_append_advances_heads_without_a_gap_and_a_load_brings_its_rows(
        self, log: Log, hand: Hand
    ) -> None:
        first, second = await hand.known("a"), await hand.known("b")
        batch = first.batch(b"1", b"2", actor="ann")
        batch.updates += first.batch(b"3", actor="ben").updates
        assert await hand.commit(second.batch(b"x"), batch) == [Accepted(2, None), Accepted(4, None)]
        stored = await loaded(log, "a")
        assert [(row.seq, row.count) for row in stored.tail] == [(1, 1), (3, 2), (4, 1)]
        assert updates_of(stored) == [b"first", b"1", b"2", b"3"]
        assert (stored.head, stored.epoch, stored.accepted_rows, stored.accepted_bytes) == (4, 1, 3, 7)
        assert updates_of(await loaded(log, "b")) == [b"first", b"x"]

    async def test_a_refused_document_is_refused_alone(self, log: Log, hand: Hand) -> None:
        owners = [await hand.known(name) for name in "abcd"]
        gone = Owner(hand.appender, "gone")
        gone.queue.document_id = 999_999
        await log.delete(owners[1].document_id)
        await log.recreate(owners[2].document_id)
        owners[3].queue.bytes_ceiling = len(b"first")
        results = await hand.commit(*(owner.batch(b"u") for owner in (*owners, gone)))
        assert results[0] == Accepted(2, None)
        assert [type(result) for result in results[1:]] == [DocumentDeleted, EpochChanged, TooLarge, RoomDiscarded]
        assert updates_of(await loaded(log, "d")) == [b"first"]

    async def test_two_connections_on_one_document_leave_no_gap(self, log: Log, hand: Hand) -> None:
        owner = await hand.known("a")

        async def write(who: bytes) -> list[bytes]:
            connection = await hand.connect()
            written = [b"%b%d" % (who, number) for number in range(20)]
            for update in written:
                await hand.commit(owner.batch(update), connection=connection)
            return written

        ours, theirs = await asyncio.gather(write(b"x"), write(b"y"))
        stored = updates_of(await loaded(log, "a"))
        assert len(stored) == 41
        assert [update for update in stored if update in ours] == ours
        assert [update for update in stored if update in theirs] == theirs

    async def test_a_head_that_is_held_is_waited_for_and_not_for_ever(self, log: Log, hand: Hand) -> None:
        owner, other = await hand.known("a"), await hand.known("b")
        connection = await hand.connect()
        async with log.held(owner.document_id):
            batches = [owner.batch(b"u"), other.batch(b"v")]
            free = await find_free_heads(connection, [owner.document_id, other.document_id], timeout_s=5)
            assert free == {other.document_id}
            with pytest.raises(StorageBusy):
                await hand.commit(*batches, connection=connection)
            waiting = asyncio.create_task(hand.commit(*batches, connection=connection))
            await asyncio.sleep(0.05)
            assert not waiting.done()
        assert await waiting == [Accepted(2, None), Accepted(2, None)]

    async def test_what_changed_while_an_append_waited_is_what_counts(self, log: Log, hand: Hand) -> None:
        """I12: judged on the row as it is once it is free."""
        owner = await hand.known("a")
        async with log.held(owner.document_id):
            waiting = asyncio.create_task(hand.commit(owner.batch(b"late")))
            await asyncio.sleep(0.05)
            await log.delete(owner.document_id)
        (result,) = await waiting
        assert isinstance(result, DocumentDeleted)

    async def test_an_id_that_means_another_document_than_its_room_means_is_refused(self, log: Log, hand: Hand) -> None:
        owner = await hand.known("a")
        owner.queue.marker = MARKER
        (result,) = await hand.commit(owner.batch(b"u"))
        assert isinstance(result, RoomDiscarded)
        assert updates_of(await loaded(log, "a")) == [b"first"]

    # Creation

    async def test_two_connections_that_create_one_document_share_it(self, log: Log, hand: Hand) -> None:
        ours, theirs = Owner(hand.appender, "a"), Owner(hand.appender, "a")
        results = await asyncio.gather(hand.commit(ours.batch(b"1")), hand.commit(theirs.batch(b"2", b"3")))
        accepted = [result[0] for result in results]
        assert all(isinstance(result, Accepted) for result in accepted)
        assert len({result.created for result in accepted if isinstance(result, Accepted)}) == 1
        stored = await loaded(log, "a")
        assert sorted(updates_of(stored)) == [b"1", b"2", b"3"]

    async def test_nothing_of_a_transaction_is_seen_before_its_commit(self, log: Log, hand: Hand) -> None:
        """I2: neither by a load nor by a look for what was created."""
        connection = await hand.connect()
        await connection.execute(BEGIN_CREATING)
        await connection.execute(CREATE_DOCUMENTS, ["t"], ["a"], [MARKER], KEEPS_NOTHING)
        assert isinstance(await load(log.database, "t", "a"), Absent)
        assert await find_created(log.database, [("t", "a")]) == []
        await connection.execute(COMMIT_CREATED)
        assert (await loaded(log, "a")).marker == MARKER
        assert await find_created(log.database, [("t", "b"), ("t", "a")]) == [1]

    async def test_a_connection_that_ends_in_a_transaction_leaves_nothing_and_holds_nobody_up(
        self, log: Log, hand: Hand
    ) -> None:
        connection = await hand.connect()
        await connection.execute(BEGIN_CREATING)
        await connection.execute(CREATE_DOCUMENTS, ["t"], ["a"], [MARKER], KEEPS_NOTHING)
        connection.terminate()
        owner = await hand.known("a")
        assert (await loaded(log, "a")).marker != MARKER
        assert (await loaded(log, "a")).id == owner.document_id

    async def test_names_are_compared_byte_for_byte_and_tenants_apart(self, log: Log, hand: Hand) -> None:
        await hand.known("a")
        for tenant, name in [("t", "A"), ("t", "a "), ("T", "a"), ("u", "a")]:
            assert await load(log.database, tenant, name) == Absent(tenant, name)

    # Reads

    @pytest.mark.parametrize(
        ("cursor", "has_bytes", "rows"), [(0, True, [3, 4]), (1, True, [3, 4]), (2, False, [3, 4]), (3, False, [4])]
    )
    async def test_a_cursor_behind_the_snapshot_is_given_it_and_any_other_the_tail(
        self, log: Log, hand: Hand, cursor: int, has_bytes: bool, rows: Sequence[int]
    ) -> None:
        owner = await hand.known("a", b"1", b"22", b"3", b"4")
        await log.put_snapshot(owner.document_id, 2, b"snapshot", (2, 3))
        stored = await read_after(log.database, owner.document_id, cursor)
        assert stored.snapshot is not None
        assert stored.snapshot.bytes == (b"snapshot" if has_bytes else None)
        assert (stored.snapshot.through_seq, stored.snapshot.size_bytes) == (2, len(b"snapshot"))
        assert [row.seq for row in stored.tail] == rows
        assert (stored.tail_bytes, stored.size_bytes) == (2, 2 + len(b"snapshot"))
        whole = await loaded(log, "a")
        assert whole.snapshot is not None
        assert (whole.snapshot.bytes, whole.head) == (b"snapshot", 4)

    async def test_heads_tell_sizes_tombstones_and_replaced_epochs(self, log: Log, hand: Hand) -> None:
        owners = [await hand.known(name, b"1", b"22") for name in "abc"]
        await log.put_snapshot(owners[0].document_id, 1, b"snap", (1, 1))
        await log.delete(owners[1].document_id)
        await log.recreate(owners[2].document_id)
        ids = [owner.document_id for owner in owners]
        incarnation, heads = await read_heads(log.database, [*ids, 999_999])
        assert await read_heads(log.database, []) == (incarnation, {})
        assert set(heads) == set(ids)
        assert (heads[ids[0]].seq, heads[ids[0]].tail_bytes, heads[ids[0]].size_bytes) == (2, 2, 6)
        assert [(heads[i].deleted, heads[i].replaced) for i in ids] == [(False, False), (True, False), (False, True)]

    @pytest.mark.parametrize(("what", "error"), [("delete", DocumentDeleted), ("recreate", EpochChanged)])
    async def test_a_reader_of_what_was_deleted_or_replaced_is_told(
        self, log: Log, hand: Hand, what: str, error: type[YdocError]
    ) -> None:
        owner = await hand.known("a")
        await getattr(log, what)(owner.document_id)
        with pytest.raises(error):
            await read_after(log.database, owner.document_id, 0)
        if what == "delete":
            with pytest.raises(DocumentDeleted):
                await load(log.database, "t", "a")
        else:
            new = await loaded(log, "a")
            assert (new.epoch, new.head) == (2, 0)
            assert new.id != owner.document_id
        assert await find_created(log.database, [("t", "a")]) == [0]

    # Notifications

    async def test_a_listener_hears_of_each_commit_and_of_nothing_else(self, log: Log, hand: Hand) -> None:
        heard: list[str] = []
        ready = asyncio.Event()
        listener = Listener(log.database, (HINT_CHANNEL, "other"), lambda _, text: heard.append(text), ready.set)
        listening = asyncio.create_task(listener.run())
        try:
            await asyncio.wait_for(ready.wait(), 60)
            await until(lambda: listener.listeners == 1)
            owner, other = await hand.known("a"), await hand.known("b")
            marker_of_other = (await loaded(log, "b")).marker
            await hand.commit(owner.batch(b"u"), other.batch(b"v" * 200), hints=_Hints())
            await log.delete(other.document_id)
            await hand.commit(other.batch(b"refused"), hints=_Hints())
            await notify(log.database, "other", ["same", "same"])
            await until(lambda: "same" in heard)
            told = [text for text in heard if not text.startswith(";")]
            first, second = (await loaded(log, "a")).marker, marker_of_other
            assert told == [
                f"here;AXU=|{owner.document_id}:1:2:{first}",
                f"here;|{other.document_id}:1:2:{second}",
                "same",
            ]
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def test_a_payload_that_does_not_fit_rolls_back(self, log: Log, hand: Hand) -> None:
        owner = await hand.known("a")

        class Long(_Hints):
            hint_prefix = "x" * 8_000

        with pytest.raises(StorageBusy):
            await hand.commit(owner.batch(b"u"), hints=Long())
        assert (await loaded(log, "a")).head == 1

    # Connections

    async def test_a_connection_that_ended_says_so_and_is_of_no_more_use(self, log: Log, hand: Hand) -> None:
        ended: list[object] = []
        connection = await hand.connect()
        connection.add_termination_listener(ended.append)
        owner = await hand.known("a")
        connection.terminate()
        await until(lambda: bool(ended))
        assert connection.is_closed()
        with pytest.raises((StorageUnavailable, YdocError)):
            await hand.commit(owner.batch(b"u"), connection=connection)
        assert (await loaded(log, "a")).head == 1
