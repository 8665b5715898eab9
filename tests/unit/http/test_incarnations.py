"""What ETags call a database: another one where two differ in anything that tells them apart."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from ydoc_store.http.document_requests import Version
from ydoc_store.http.incarnations import database_of
from ydoc_store.storage.incarnation import Incarnation


def test_two_databases_are_two() -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    one = Incarnation(1, 1, moment, 1, 1, UUID(int=1), moment)
    other = Incarnation(1, 1, moment, 1, 1, UUID(int=2), moment)
    assert database_of(one) == database_of(one) != database_of(other)
    assert Version(1, 1, database_of(one)).etag.count("-") == 2
