"""One compaction as its tests look at it: what is done between two of its steps, and what it left in which table."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from compactor.compaction import Terms
from ydoc_store.failpoints import Failpoints

if TYPE_CHECKING:
    from tests.stored import Connection

TABLES = """
SELECT (SELECT count(*) FROM ydoc.updates WHERE document_id = $1) AS updates,
    (SELECT count(*) FROM ydoc.snapshots WHERE document_id = $1) AS snapshots,
    (SELECT count(*) FROM ydoc.segments WHERE document_id = $1) AS segments,
    (SELECT count(*) FROM ydoc.compactions WHERE document_id = $1) AS compactions
"""


def at_step(terms: Terms, step: str, action: Callable[[], Awaitable[None]]) -> Terms:
    """The same terms, under which the compaction waits at this step until the action has ended."""
    return replace(terms, failpoints=Failpoints({f"compaction.{step}": action}))


async def counts(connection: Connection, document_id: int) -> dict[str, int]:
    """How many rows of each table are this document's."""
    row = await connection.fetchrow(TABLES, document_id)
    assert row is not None
    return dict(row)
