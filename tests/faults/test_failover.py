"""Row "failover to a lagging standby": only what had not been replicated is lost, and nothing is shown twice.

Replication is asynchronous unless a test says otherwise, so that the documented window is what the standby had not
received when the primary died. Who is still connected has that part and brings it back; what nobody has is lost.
"""

from __future__ import annotations

import asyncpg
import pytest

from tests.faults.agents import open_agent
from tests.faults.journal import Journal, Known, marked, markers_in
from tests.faults.oracle import Scene, verify
from tests.faults.standby import DATABASE, STANDBY_NAME, Pair, Switch
from tests.faults.writing import writing
from tests.interop.editors import Editors
from tests.log_rows import text_of
from tests.nodes import Editor, Node, running_node
from tests.stored import connecting, head_of, log_of
from tests.waiting import until
from ydoc_store.client import Unavailable
from ydoc_store.errors import ServerFault


def url_of(node: Node) -> str:
    return node.url("").rstrip("/")


async def has_moved(node: Node) -> None:
    """Returns once the node has looked at the database that its address leads to now."""

    async def has_looked() -> bool:
        try:
            await node.service.rooms.watch.poll()
        except ServerFault:
            return False
        return True

    await until(has_looked)


async def test_failover_to_a_lagging_standby_loses_the_window_alone_and_doubles_nothing(
    pair: Pair, journal: Journal, editors: Editors
) -> None:
    """I1, I10, I11: whoever is open resyncs and brings the window back; a document that nobody has open lost it."""
    async with running_node(pair.switch.url, room_idle_s=0) as node:
        gone = await Editor.open_synced(node.url("gone"))
        await gone.type(marked("gone.0"))
        await gone.until(lambda: gone.marker)
        async with writing(editors, url_of(node), journal, count=2) as live:
            await live.goes_on()
            await pair.caught_up()
            # From here on nothing is replicated: the window.
            pair.line.stall()
            await gone.type(marked("gone.1"))
            await acked(node, "gone", 2)
            await gone.leave()
            await live.goes_on(20)
            await pair.fall_over()
            back_s = await live.goes_on(20)
            assert back_s < 30, f"back after {back_s:.0f} s"
            await live.stop()
            await has_moved(node)
            late = await Editor.open_synced(node.url("gone"))
            assert late.text == marked("gone.0"), "the window was one update"
            clients = {**live.clients, "gone": [late]}
            known = journal.known() | {"gone": Known({"gone.0", "gone.1"}, {"gone.0"})}
            await verify(Scene(pair.standby.url(DATABASE), known, clients, nodes=[node]))


async def test_failover_takes_back_from_a_python_agent_what_it_was_told_is_saved_until_it_has_brought_it(
    pair: Pair,
) -> None:
    """I1, I11: in the window `saved` was true of the primary; behind the failover it is true of the standby."""
    async with running_node(pair.switch.url, room_idle_s=0) as node:
        ann, ben = await open_agent(node, "doc"), await open_agent(node, "doc")
        await ann.type(marked("ann.0"))
        await pair.caught_up()
        pair.line.stall()
        await ann.type(marked("ann.1"))
        # Ben may lose what he has of it with the window, and edits nothing himself.
        await ben.shows(marked("ann.0") + marked("ann.1"))
        connects = ann.connects()
        await pair.take_over()
        async with connecting(pair.standby.url(DATABASE)) as there:
            # Nothing can be stored there yet, and whoever says so errs.
            async with there.transaction():
                await there.execute("SELECT FROM ydoc.documents WHERE name = 'doc' FOR UPDATE")
                pair.switch.to(pair.standby)
                await ann.is_back(connects)
                assert ann.document.has_unsaved
                with pytest.raises(Unavailable):
                    await ann.document.saved(timeout_s=0.2)
            await ann.document.saved(timeout_s=60)
            stored = text_of(await log_of(there, (await head_of(there, "doc")).document_id))
        assert set(markers_in(stored)) == {"ann.0", "ann.1"}
        await ann.type(marked("ann.2"))
        await ben.shows("".join(marked(f"ann.{number}") for number in range(3)))
        markers = {f"ann.{number}" for number in range(3)}
        await verify(Scene(pair.standby.url(DATABASE), {"doc": Known(markers, markers)}, {"doc": [ann, ben]}, [node]))


async def acked(node: Node, name: str, head: int) -> None:
    """Returns once the room shows this head: the commit is known, and everyone was told."""
    await until(lambda: node.room(name).head >= head)


async def test_failover_with_another_history_written_over_the_window_shows_one_of_them(
    pair: Pair, journal: Journal
) -> None:
    """I3, I11: the seqs of the window are used again for other updates, and no room believes that it has them."""
    async with running_node(pair.switch.url, room_idle_s=0) as node:
        ann = await Editor.open_synced(node.url("doc"))
        await ann.type(marked("ann.0"))
        await acked(node, "doc", 1)
        await pair.caught_up()
        pair.line.stall()
        for number in range(1, 6):
            await ann.type(marked(f"ann.{number}"))
        await acked(node, "doc", 6)
        room = node.room("doc")
        await pair.fall_over()
        code, reason = await ann.closed()
        assert code == 1012, reason
        await node.room_closed(room)
        await has_moved(node)
        # Before Ann is back, Ben writes over her seqs.
        ben = await Editor.open_synced(node.url("doc"))
        assert ben.text == marked("ann.0")
        for number in range(8):
            await ben.type(marked(f"ben.{number}"))
        await acked(node, "doc", 9)
        again = await Editor.open_synced(node.url("doc"), ann.doc)
        markers = {f"ann.{number}" for number in range(6)} | {f"ben.{number}" for number in range(8)}
        for editor in (again, ben):
            await editor.until(lambda editor=editor: set(markers_in(editor.text)) == markers)
        known = {"doc": Known(markers, markers)}
        await verify(Scene(pair.standby.url(DATABASE), known, {"doc": [again, ben]}, nodes=[node]))


async def test_failover_while_the_old_primary_lives_on_never_mixes_the_two_databases(
    pair: Pair, journal: Journal
) -> None:
    """I11: one node is moved to the promoted standby before the other; each shows one database, then both the same."""
    async with (
        Switch(pair.primary.url(DATABASE)) as other_switch,
        running_node(pair.switch.url, room_idle_s=0) as moved,
        running_node(other_switch.url, room_idle_s=0) as stays,
    ):
        ann, ben = await Editor.open_synced(moved.url("doc")), await Editor.open_synced(stays.url("doc"))
        await ann.type(marked("ann.0"))
        await ben.shows(marked("ann.0"))
        await pair.caught_up()
        pair.line.stall()
        await ben.type(marked("ben.0"))
        await ann.shows(marked("ann.0") + marked("ben.0"))
        await pair.standby.promote()
        pair.switch.to(pair.standby)
        assert (await ann.closed())[0] == 1012
        await has_moved(moved)
        cid = await Editor.open_synced(moved.url("doc"))
        await cid.type(marked("cid.0"))
        await acked(moved, "doc", 2)
        await ben.type(marked("ben.1"))
        await acked(stays, "doc", 3)
        assert (cid.text, ben.text) == (
            marked("ann.0") + marked("cid.0"),
            marked("ann.0") + marked("ben.0") + marked("ben.1"),
        )
        other_switch.to(pair.standby)
        assert (await ben.closed())[0] == 1012
        await has_moved(stays)
        back = [
            await Editor.open_synced(moved.url("doc"), ann.doc),
            await Editor.open_synced(stays.url("doc"), ben.doc),
        ]
        markers = {"ann.0", "ben.0", "ben.1", "cid.0"}
        for editor in (*back, cid):
            await editor.until(lambda editor=editor: set(markers_in(editor.text)) == markers)
        known = {"doc": Known(markers, markers)}
        await verify(Scene(pair.standby.url(DATABASE), known, {"doc": [*back, cid]}, nodes=[moved, stays]))


async def test_failover_to_a_synchronous_standby_loses_nothing_at_all(
    pair: Pair, journal: Journal, editors: Editors
) -> None:
    """I1: with `synchronous_standby_names` every ack waited for the standby, so its promotion has all of them."""
    async with running_node(pair.switch.url, room_idle_s=0) as node:
        gone = await Editor.open_synced(node.url("gone"))
        async with connecting(pair.primary.url()) as operator:
            await operator.execute("SET synchronous_commit = local")
            await operator.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{STANDBY_NAME}'")
            await operator.execute("SELECT pg_reload_conf()")
            await until(lambda: is_synchronous(operator))
        async with writing(editors, url_of(node), journal, count=2) as live:
            await live.goes_on(20)
            seer = await Editor.open_synced(node.url("gone"))
            for number in range(5):
                journal.attempted("gone", f"gone.{number}")
                await gone.type(marked(f"gone.{number}"))
            await seer.until(lambda: len(list(markers_in(seer.text))) == 5)
            journal.seen("gone", seer.text)
            await gone.leave()
            await seer.leave()
            # What waits for the standby now is acked to nobody.
            pair.line.stall()
            async with connecting(pair.primary.url()) as operator:
                await until(lambda: is_waiting(operator))
            await pair.take_over()
            seen = live.known().acked
            async with connecting(pair.standby.url(DATABASE)) as there:
                document_id = (await head_of(there, "doc")).document_id
                stored = text_of(await log_of(there, document_id))
            assert seen <= set(markers_in(stored)), "somebody was shown what the standby does not have"
            pair.switch.to(pair.standby)
            await live.goes_on(20)
            await live.stop()
            await verify(Scene(pair.standby.url(DATABASE), journal.known(), live.clients, nodes=[node]))


async def is_synchronous(connection: asyncpg.Connection) -> bool:
    return await connection.fetchval("SELECT sync_state FROM pg_stat_replication") == "sync"


async def is_waiting(connection: asyncpg.Connection) -> bool:
    return bool(await connection.fetchval("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"))
