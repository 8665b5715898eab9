"""An answer that its server breaks off ends whole, and the cancellation with it."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest

from ydoc_store.http.broken_off import ending_whole

START = {"type": "http.response.start", "status": 200, "headers": []}
SCOPE = {"type": "http", "method": "GET", "headers": []}


async def nothing() -> MutableMapping[str, Any]:
    await asyncio.sleep(60)
    raise AssertionError


async def broken_off(*messages: MutableMapping[str, Any]) -> list[MutableMapping[str, Any]]:
    """What is sent by an answer that is cancelled behind these messages."""
    sent: list[MutableMapping[str, Any]] = []
    waiting = asyncio.Event()

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)
        waiting.set()
        await asyncio.sleep(60)

    async def keep(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    task = asyncio.create_task(ending_whole(app, SCOPE, nothing, keep))
    await waiting.wait()
    task.cancel()
    await task
    return sent


async def test_a_stream_ends_whole() -> None:
    event = {"type": "http.response.body", "body": b"event", "more_body": True}
    sent = await broken_off(START, event)
    assert sent == [START, event, {"type": "http.response.body", "body": b"", "more_body": False}]


async def test_a_poll_that_has_not_been_answered_is_to_be_asked_again() -> None:
    sent = await broken_off()
    assert (sent[0]["status"], sent[-1].get("more_body", False)) == (503, False)


async def test_an_answer_that_is_whole_stays_as_it_is() -> None:
    body = {"type": "http.response.body", "body": b"all"}
    assert await broken_off(START, body) == [START, body]


async def test_a_connection_that_is_gone_is_no_error() -> None:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send(START)
        await asyncio.sleep(60)

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.body":
            raise OSError("gone")

    task = asyncio.create_task(ending_whole(app, SCOPE, nothing, send))
    await asyncio.sleep(0)
    task.cancel()
    await task


async def test_an_error_is_told() -> None:
    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        raise KeyError("why")

    async def send(_message: MutableMapping[str, Any]) -> None:
        raise AssertionError

    with pytest.raises(KeyError):
        await ending_whole(app, SCOPE, nothing, send)
