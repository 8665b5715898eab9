"""Two nodes that hear nothing of each other answer about streams as one simple model does, whatever was before."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import httpx
import pytest

from tests.sites import Site, running_site

STEPS = 250
TYPES = ("text/plain", "application/json")
BYTES_MAX = 60


@dataclass
class Model:
    """A stream as it ought to be."""

    media_type: str
    appended: list[bytes] = field(default_factory=list)
    is_closed: bool = False
    stream_seq: str = ""
    producer: dict[str, int] = field(default_factory=dict)

    @property
    def content(self) -> bytes:
        return b"".join(self.appended) if self.media_type == TYPES[0] else b"[" + b",".join(self.appended) + b"]"

    def append(self, body: bytes, headers: dict[str, str]) -> int:
        """The status that is told."""
        closes = "Stream-Closed" in headers
        if body and headers["Content-Type"] != self.media_type and not self.is_closed:
            return 409
        producer, seq = headers.get("Producer-Id"), int(headers.get("Producer-Seq", 0))
        if producer is not None and seq <= self.producer.get(producer, -1):
            return 204
        if self.is_closed:
            return 204 if not body and closes and producer is None else 409
        if producer is not None and seq != self.producer.get(producer, -1) + 1:
            return 409
        if "Stream-Seq" in headers and headers["Stream-Seq"] <= self.stream_seq:
            return 409
        if sum(map(len, self.appended)) + len(body) > BYTES_MAX:
            return 413
        if body:
            self.appended.append(body)
        if producer is not None:
            self.producer[producer] = seq
        self.stream_seq = headers.get("Stream-Seq", self.stream_seq)
        self.is_closed |= closes
        return 200 if producer is not None and body else 204


def any_append(dice: random.Random) -> tuple[bytes, dict[str, str]]:
    headers = {"Content-Type": dice.choice(TYPES)}
    if dice.random() < 0.4:
        headers |= {"Producer-Id": dice.choice("pq"), "Producer-Epoch": "0", "Producer-Seq": str(dice.randrange(4))}
    if dice.random() < 0.2:
        headers["Stream-Seq"] = dice.choice("abc")
    if dice.random() < 0.1:
        headers["Stream-Closed"] = "true"
    body = b"" if "Stream-Closed" in headers and dice.random() < 0.5 else str(dice.randrange(1, 10**6)).encode()
    return body, headers


def deaf(site: Site) -> None:
    site.service.appender.hints_wanted = False
    site.service.fanout._listener.changed = lambda: None


async def step(dice: random.Random, client: httpx.AsyncClient, model: Model | None) -> Model | None:
    kind = dice.random()
    if kind < 0.15:
        media_type = dice.choice(TYPES)
        told = (await client.put("/v1/stream/s", headers={"Content-Type": media_type})).status_code
        if model is None:
            assert told == 201
            return Model(media_type)
        assert told == (200 if model.media_type == media_type and not model.is_closed else 409)
    elif kind < 0.22:
        told = (await client.delete("/v1/stream/s")).status_code
        assert told == (404 if model is None else 204)
        return None
    elif kind < 0.75:
        body, headers = any_append(dice)
        answer = await client.post("/v1/stream/s", content=body, headers=headers)
        expected = 404 if model is None else model.append(body, headers)
        assert answer.status_code == expected, (body, headers, model, answer.text)
    else:
        answer = await client.get("/v1/stream/s")
        assert answer.status_code == (404 if model is None else 200)
        if model is not None:
            assert answer.content == model.content
            assert ("Stream-Closed" in answer.headers) == model.is_closed
    return model


@pytest.mark.parametrize("seed", range(2))
async def test_what_nodes_remember_of_a_stream_is_never_what_decides(database_url: str, seed: int) -> None:
    dice = random.Random(seed)
    async with (
        running_site(database_url, stream_bytes_max=BYTES_MAX) as one,
        running_site(database_url, stream_bytes_max=BYTES_MAX) as two,
        one.client() as here,
        two.client() as there,
    ):
        deaf(one)
        deaf(two)
        model: Model | None = None
        for _ in range(STEPS):
            model = await step(dice, dice.choice((here, there)), model)
