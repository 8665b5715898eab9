"""Row "merge worker out of memory": the document is quarantined with an alarm, and every other is compacted."""

from __future__ import annotations

from pathlib import Path

from tests.faults.journal import Journal
from tests.faults.oracle import Scene, verify
from tests.faults.processes import watch
from tests.faults.test_vacuum import checks
from tests.faults.writing import writing
from tests.interop.editors import Editors
from tests.log_rows import Writer, append, create_document
from tests.nodes import Editor
from tests.service import BUSIEST_COMPACTION, serving
from tests.stored import compactions_of, connecting, head_of
from tests.waiting import until
from ydoc_store.names import DEFAULT_TENANT

TINY = {
    "YDOC_ROOM_IDLE_S": "0",
    "YDOC_COMPACT_WORKER_MEMORY_BYTES_MAX": "64MiB",
    "YDOC_COMPACT_RUN_BYTES_MAX": "64MiB",
    "YDOC_METRICS_REFRESH_INTERVAL_S": "0.1",
    **BUSIEST_COMPACTION,
}
PIECE_BYTES = 8_000_000


async def test_merge_worker_out_of_memory_quarantines_its_document_and_compacts_the_others(
    tmp_path: Path, database_url: str, journal: Journal, editors: Editors
) -> None:
    """I15: the child alone runs out (RLIMIT_AS); after the third time its document is left alone, and is told."""
    async with connecting(database_url) as connection:
        huge = await create_document(connection, "huge", tenant=DEFAULT_TENANT)
        writers = Writer(), Writer(2)
        await append(connection, huge, [writer.type("x" * PIECE_BYTES) for writer in writers for _ in range(2)])
        async with serving(tmp_path, database_url=database_url, environment=TINY) as service:
            watched = await watch(service)

            async def is_quarantined() -> bool:
                verdict, words = (await checks(service))["compactor"]
                return verdict == "degraded" and "1 documents are quarantined" in words

            async with writing(editors, service.url, journal) as live:
                await live.goes_on()
                await until(is_quarantined)
                assert (await service.metrics())["ydoc_quarantined_documents"] == 1
                assert await compactions_of(connection, huge) == {"failed": 3}
                notes = (await head_of(connection, "doc")).document_id
                done = (await compactions_of(connection, notes)).get("done", 0)
                await live.goes_on()

                async def is_compacted_on() -> bool:
                    return (await compactions_of(connection, notes)).get("done", 0) > done

                await until(is_compacted_on)
                # It is read and written as ever.
                reader = await Editor.open_synced(f"{service.url}/huge")
                assert len(reader.text) == 4 * PIECE_BYTES
                await reader.leave()
                assert service.log_text().count("document_quarantined") == 1
                await live.stop()
                await verify(Scene(database_url, journal.known(), live.clients, services=[watched]))
