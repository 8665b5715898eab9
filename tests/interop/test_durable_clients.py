"""Stock clients of the base protocol on documents: npm `@durable-streams/client` and PyPI `durable-streams`."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import httpx
import pytest
from durable_streams import AsyncDurableStream, StreamNotFoundError, astream
from pycrdt import Doc, Text

from tests.interop.editors import Editors
from tests.interop.test_durable_streams import streams
from tests.nodes import new_doc
from tests.service import Service
from ydoc_store.yjs.lib0 import frames, join_frames

WAIT_S = 60.0


def text_of(body: bytes) -> str:
    doc = new_doc()
    for update in frames(body):
        doc.apply_update(update)
    return str(doc.get("text", type=Text))


def typed(doc: Doc[Any], text: str) -> bytes:
    before = doc.get_state()
    doc.get("text", type=Text).insert(0, text)
    return join_frames([doc.get_update(before)])


async def test_the_python_client_creates_appends_reads_follows_and_deletes(service: Service) -> None:
    url = f"{streams(service)}/docs/notes"
    # It leaves open what it makes itself.
    async with httpx.AsyncClient(timeout=WAIT_S) as client:
        with pytest.raises(StreamNotFoundError):
            await AsyncDurableStream.connect(url, client=client)
        handle = await AsyncDurableStream.create(url, content_type="application/octet-stream", client=client)
        doc = new_doc()
        first = await handle.append(typed(doc, "a"))
        await handle.append(typed(doc, "b"))
        assert (await handle.head()).content_type == "application/octet-stream"
        async with astream(url, offset="-1", live=False, client=client) as response:
            assert text_of(await response.read_bytes()) == "ba"
            assert response.up_to_date
            end = response.offset
        assert first.next_offset is not None
        async with astream(url, offset=first.next_offset, live="long-poll", client=client) as response:
            chunks = aiter(response)
            body = await anext(chunks)
            appended = await handle.append(typed(doc, "c"))
            async with asyncio.timeout(WAIT_S):
                while len(list(frames(body))) < 3:
                    body += await anext(chunks)
            assert appended.next_offset is not None
            assert end is not None
            assert appended.next_offset > end
        await handle.delete()
        with pytest.raises(StreamNotFoundError):
            await handle.head()


async def test_the_npm_client_reads_and_follows_a_document(service: Service, editors: Editors) -> None:
    url = f"{streams(service)}/docs/notes"
    ann = await editors.open_durable(streams(service), "notes")
    await ann.type("one ")
    await ann.synced()
    read = await editors.ask("readStream", url=url, offset="-1")
    assert (text_of(base64.b64decode(read["body"])), read["upToDate"]) == ("one ", True)
    for live in ("sse", "long-poll"):
        size = len(base64.b64decode((await editors.ask("readStream", url=url, offset="-1"))["body"]))
        following = asyncio.create_task(editors.ask("followStream", url=url, offset="-1", live=live, bytes=size + 10))
        await ann.type("two ")
        assert text_of(base64.b64decode((await following)["body"])) == await ann.text()
