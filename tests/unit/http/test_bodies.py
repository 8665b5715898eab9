"""A body in pieces is the same body, and takes as much memory."""

from __future__ import annotations

import asyncio
import tracemalloc
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from ydoc_store.http.bodies import PIECE_BYTES, in_pieces, read_body

SIZES = st.sampled_from([0, 1, 20, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES])


@given(st.lists(SIZES, max_size=8))
def test_pieces_are_the_parts_and_none_is_long(sizes: list[int]) -> None:
    parts = [bytes([number]) * size for number, size in enumerate(sizes)]
    pieces = list(in_pieces(parts))
    assert b"".join(pieces) == b"".join(parts)
    assert all(0 < len(piece) <= PIECE_BYTES for piece in pieces)
    assert len(pieces) <= sum(map(len, parts)) // PIECE_BYTES * 2 + len(sizes) + 1


def test_typing_is_put_together() -> None:
    assert len(list(in_pieces([b"x"] * 10_000))) == 1


async def test_a_body_in_tiny_pieces_takes_no_more_memory_than_its_bytes() -> None:
    pieces = 20_000
    sent = 0

    async def receive() -> dict[str, object]:
        nonlocal sent
        sent += 1
        if sent % 100 == 0:
            await asyncio.sleep(0)
        # A piece of its own each time, as a connection brings them.
        return {"type": "http.request", "body": b"%02d" % (sent % 100), "more_body": sent < pieces}

    settings = SimpleNamespace(slow_member_s=30.0)
    incoming = SimpleNamespace(partial_bytes=0, is_full=False)
    nobody = SimpleNamespace(find=lambda _client: None)
    proxies = SimpleNamespace(client_address=lambda *_told: None)
    here: Any = SimpleNamespace(
        settings=settings,
        rooms=SimpleNamespace(incoming=incoming),
        authorizer=SimpleNamespace(addresses=nobody, proxies=proxies),
    )
    request = Request({"type": "http", "method": "POST", "path": "/", "headers": []}, receive)
    tracemalloc.start()
    body = await read_body(here, request, 10 * pieces)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(body) == 2 * pieces
    assert peak < 6 * len(body)
    assert incoming.partial_bytes == 0
