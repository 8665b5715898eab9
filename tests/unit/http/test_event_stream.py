"""How events look, and that no payload can look like another event."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ydoc_store.http.bodies import PIECE_BYTES, in_pieces
from ydoc_store.http.event_stream import (
    BINARY_PIECE_BYTES,
    KEPT_ALIVE,
    Schedule,
    encode_binary_events,
    encode_event,
    text_event_parts,
)


def parsed(stream: bytes) -> list[tuple[str, str]]:
    """The events of a stream as a browser reads them."""
    events: list[tuple[str, str]] = []
    name, data = "", []
    for line in stream.decode().replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        if line == "":
            if data:
                events.append((name, "\n".join(data)))
            name, data = "", []
        elif line.startswith("event:"):
            name = line.removeprefix("event:").removeprefix(" ")
        elif line.startswith("data:"):
            data.append(line.removeprefix("data:").removeprefix(" "))
        else:
            assert line.startswith(":"), line
    return events


@given(st.lists(st.text(alphabet=st.sampled_from("ab:\r\n {}edvnt"), max_size=30), max_size=5))
def test_a_text_is_one_event_whatever_it_holds(texts: list[str]) -> None:
    stream = b"".join(encode_event("data", text) for text in texts)
    read = parsed(stream)
    wanted = ["\n".join(text.replace("\r\n", "\n").replace("\r", "\n").split("\n")) for text in texts]
    assert read == [("data", text) for text in wanted]


@given(st.binary(max_size=200), st.integers(0, 3))
def test_a_payload_comes_back_from_its_events(payload: bytes, pieces: int) -> None:
    payload += b"x" * (pieces * BINARY_PIECE_BYTES)
    events = parsed(b"".join(encode_binary_events("data", payload)))
    assert b"".join(base64.b64decode(text, validate=True) for _, text in events) == payload
    assert len(events) == -(-len(payload) // BINARY_PIECE_BYTES)


def test_a_text_of_line_ends_is_made_as_it_is_taken() -> None:
    """It is six times as long, and whoever else is served waits for no more than a piece of it."""
    parts = text_event_parts("data", b"\n" * 2**24)
    pieces = in_pieces(parts)
    assert [PIECE_BYTES - len(next(pieces)) < 100 for _ in range(3)] == [True] * 3
    assert next(parts) == b"data:\n"


def test_a_sign_of_life_is_no_event() -> None:
    assert parsed(KEPT_ALIVE + encode_event("control", "{}") + KEPT_ALIVE) == [("control", "{}")]


def test_a_stream_waits_no_longer_than_its_sign_of_life_or_its_end() -> None:
    schedule = Schedule(15, 60)
    assert not schedule.is_over
    assert schedule.wait_s == 15
    assert 0 < Schedule(15, 2).wait_s <= 2
    over = Schedule(15, 0)
    assert (over.is_over, over.wait_s) == (True, 0)


@pytest.mark.parametrize("close_s", [1, 60])
def test_streams_that_began_together_do_not_end_together(close_s: float) -> None:
    waits = {Schedule(1_000, close_s).wait_s for _ in range(20)}
    assert len(waits) > 10
    assert all(0.85 * close_s <= wait_s <= close_s for wait_s in waits)
