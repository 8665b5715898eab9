"""Producers of a document over Durable Streams: a retry is stored once, and no edit is lost to a reused number."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import httpx

from tests.integration.http.stream_copies import Copy, created, path_of, post, typed
from tests.nodes import count_stored, new_doc
from tests.sites import Site, running_site
from ydoc_store.http.tokens import Token

Connection = asyncpg.Connection  # type: ignore[type-arg] # generic for type checkers only

CUT_ALL = """
SELECT pg_terminate_backend(a.pid)
FROM pg_stat_activity AS a
WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND a.backend_type = 'client backend'
"""


def numbered(seq: int, epoch: int = 0, producer: str = "notes-1") -> dict[str, str]:
    return {"Producer-Id": producer, "Producer-Epoch": str(epoch), "Producer-Seq": str(seq)}


async def typing(client: httpx.AsyncClient, count: int, doc: Any) -> list[bytes]:
    updates = [typed(str(number % 10), doc) for number in range(count)]
    for seq, update in enumerate(updates):
        assert (await post(client, update, headers=numbered(seq))).status_code == 200
    return updates


async def test_a_retry_is_answered_as_one_and_stored_once(site: Site, client: httpx.AsyncClient) -> None:
    await created(client)
    update = typed("hello")
    first = await post(client, update, headers=numbered(0))
    assert (first.status_code, first.headers["stream-next-offset"]) == (200, str(Token(1, 1)))
    assert (first.headers["producer-epoch"], first.headers["producer-seq"]) == ("0", "0")
    again = await asyncio.gather(*(post(client, update, headers=numbered(0)) for _ in range(10)))
    assert {answer.status_code for answer in again} == {204}
    assert {answer.headers["producer-seq"] for answer in again} == {"0"}
    assert await count_stored(site.database, "notes") == 1


async def test_a_retry_on_another_node_is_stored_once(site: Site, client: httpx.AsyncClient, database_url: str) -> None:
    await created(client)
    async with running_site(database_url) as elsewhere, elsewhere.client() as other:
        for seq, update in enumerate(typed(word) for word in "abc"):
            answers = await asyncio.gather(*(post(at, update, headers=numbered(seq)) for at in (client, other)))
            assert sorted(answer.status_code for answer in answers) == [200, 204]
    assert await count_stored(site.database, "notes") == 3


async def test_appends_outlive_lost_connections_to_the_database_and_are_stored_once(
    site: Site, client: httpx.AsyncClient, connection: Connection
) -> None:
    """I1: the stock provider forgets an edit that is answered 503."""
    await created(client)
    doc = new_doc()
    for seq in range(30):
        posting = asyncio.create_task(post(client, typed(str(seq % 10), doc), headers=numbered(seq)))
        if seq % 10 == 5:
            await asyncio.sleep(0)
            await connection.execute(CUT_ALL)
        answer = await posting
        assert answer.status_code in (200, 204), (seq, answer.text)
    copy = Copy()
    await copy.read(client)
    assert copy.text == "9876543210" * 3
    assert await count_stored(site.database, "notes") == 30


async def test_what_comes_too_early_is_told_what_is_missing(site: Site, client: httpx.AsyncClient) -> None:
    await created(client)
    await post(client, typed("a"), headers=numbered(0))
    refused = await post(client, typed("c"), headers=numbered(2))
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "PRODUCER_GAP")
    assert (refused.headers["producer-expected-seq"], refused.headers["producer-received-seq"]) == ("1", "2")
    unknown = await post(client, typed("c"), headers=numbered(5, producer="other"))
    assert (unknown.status_code, unknown.headers["producer-expected-seq"]) == (409, "0")
    assert await count_stored(site.database, "notes") == 1


async def test_a_producer_of_an_earlier_epoch_is_told_of_the_later_one(site: Site, client: httpx.AsyncClient) -> None:
    await created(client)
    assert (await post(client, typed("a"), headers=numbered(0, epoch=3))).status_code == 200
    refused = await post(client, typed("b"), headers=numbered(0, epoch=2))
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "PRODUCER_EPOCH_STALE")
    assert refused.headers["producer-epoch"] == "3"


async def test_a_number_that_is_used_again_for_another_edit_loses_no_edit(
    site: Site, client: httpx.AsyncClient
) -> None:
    """A stock provider that comes back begins with the same id and epoch at 0. It takes a new epoch when told so."""
    await created(client)
    doc = new_doc()
    await typing(client, 3, doc)
    update = typed("x", doc)
    refused = await post(client, update, headers=numbered(0))
    assert (refused.status_code, refused.headers["producer-epoch"]) == (403, "0")
    assert (await post(client, update, headers=numbered(0, epoch=1))).status_code == 200
    copy = Copy()
    await copy.read(client)
    assert copy.text == "x210"


async def test_who_says_goodbye_closes_nothing(site: Site, client: httpx.AsyncClient) -> None:
    await created(client, typed("a"))
    closing = {"Stream-Closed": "true"}
    goodbye = await client.post(path_of(), headers={**numbered(7), **closing})
    assert (goodbye.status_code, goodbye.headers["stream-next-offset"]) == (204, str(Token(1, 1)))
    last = await post(client, typed("b"), headers=closing)
    assert last.status_code == 204
    assert "stream-closed" not in last.headers
    assert (await post(client, typed("c"), headers=numbered(0))).status_code == 200
    assert (await client.post(path_of("other"), headers=closing)).status_code == 404
    assert await count_stored(site.database, "notes") == 3


async def test_a_producer_of_a_history_that_is_over_writes_nothing_into_the_next(
    site: Site, client: httpx.AsyncClient
) -> None:
    """I10."""
    await created(client)
    doc = new_doc()
    await typing(client, 2, doc)
    await client.delete(path_of())
    assert (await client.put(path_of())).status_code == 201
    for seq in (0, 2):
        refused = await post(client, typed("x", doc), headers=numbered(seq))
        assert (refused.status_code, refused.json()["error"]["reason"]) == (404, "epoch_changed")
    early = await post(client, typed("x"), headers=numbered(4, producer="notes-2"))
    assert (early.status_code, early.headers["producer-expected-seq"]) == (409, "0")
    assert (await post(client, typed("y"), headers=numbered(0, producer="notes-2"))).status_code == 200
    assert (await post(client, typed("z"), headers=numbered(0, epoch=1))).status_code == 200


async def test_producers_that_are_none_are_refused(site: Site, client: httpx.AsyncClient) -> None:
    await created(client)
    whole = numbered(0)
    bad = [{name: value for name, value in whole.items() if name != left_out} for left_out in whole]
    bad += [{**whole, "Producer-Epoch": text} for text in ("-1", "1.5", "x", "", "9007199254740992")]
    bad += [{**whole, "Producer-Seq": text} for text in ("-1", "1.5", "x", "", "9" * 20)]
    bad += [{**whole, "Producer-Id": ""}, {**whole, "Producer-Id": "x" * 1_025}]
    for headers in bad:
        refused = await post(client, typed("a"), headers=headers)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "INVALID_REQUEST"), headers
    assert await count_stored(site.database, "notes") == 0


async def test_a_provider_of_the_longest_path_is_a_producer(site: Site, client: httpx.AsyncClient) -> None:
    name = "a" * 256
    await created(client, name=name)
    headers = numbered(0, producer=f"{name}-4294967295")
    assert (await post(client, typed("a"), name=name, headers=headers)).status_code == 200
    assert (await post(client, typed("b"), name=name, headers=numbered(0, producer=f"{name}-1"))).status_code == 200
