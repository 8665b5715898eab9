"""I19: nothing crosses tenants, whatever the names of tenants and documents hold.

Every pair of (tenant, document) that a joined string, a decoder or a cache might take for another is open at once;
each has content, presence and a row of its own, and none ever shows another's.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from urllib.parse import quote

import pytest

from tests.nodes import Editor, Node, closed_at_once, running_node
from tests.tokens import SECRET, token

TENANTS = ["a", "a/b", "a%2Fb", "default", "a:b", "a|b", "A", "ä", "a;b", "a\\", "'; --"]
DOCUMENTS = ["b", "b/c", "b%2Fc", "b%252Fc", "c", "a:b", "b|1:1:1", "B", "ä", "a\u0308", ";b", "'; --"]


@pytest.fixture
async def nodes(database_url: str) -> AsyncIterator[tuple[Node, Node]]:
    async with (
        running_node(database_url, jwt_secret=SECRET) as here,
        running_node(database_url, jwt_secret=SECRET) as there,
    ):
        yield here, there


def url(node: Node, document: str, tenant: str, access: str = "write") -> str:
    return f"{node.url(quote(document, safe='/'))}?token={token('ann', {'*': access}, tenant=tenant)}"


async def test_no_content_and_no_presence_crosses_tenants_on_either_node(nodes: tuple[Node, Node]) -> None:
    here, there = nodes
    pairs = list(itertools.product(TENANTS, DOCUMENTS))
    editors = {}
    for pair in pairs:
        editor = editors[pair] = await Editor.open_synced(url(here, pair[1], pair[0]))
        await editor.type(repr(pair))
        await editor.show(1, f'{{"of":{len(editors)}}}')
    for number, pair in enumerate(pairs, 1):
        other = await Editor.open_synced(url(there, pair[1], pair[0]))
        await other.shows(repr(pair))
        await other.sees(editors[pair].doc.client_id, f'{{"of":{number},"user":{{"id":"ann"}}}}')
        assert len(other.presence) == 1
        assert editors[pair].text == repr(pair)
        await other.leave()
    async with here.database.acquire() as connection:
        rows = await connection.fetch("SELECT d.tenant, d.name FROM ydoc.documents AS d")
    assert {tuple(row) for row in rows} == set(pairs)


async def test_a_name_or_a_tenant_with_nul_is_nobodys(nodes: tuple[Node, Node]) -> None:
    here, _ = nodes
    assert (await closed_at_once(url(here, "a\0b", "a")))[0] == 4400
    assert (await closed_at_once(url(here, "b", "a\0")))[0] == 4401


async def test_a_pattern_reaches_into_no_other_tenant(nodes: tuple[Node, Node]) -> None:
    here, _ = nodes
    mine = await Editor.open_synced(url(here, "b", "a"))
    await mine.type("of a")
    other = await Editor.open_synced(url(here, "b", "a/b", "admin"))
    assert other.text == ""
