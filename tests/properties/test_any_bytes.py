"""I13: no bytes lead to anything but a refusal of ours, soon: the parsers, and what works on their results."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.faults.bad_frames import FRAMES
from tests.faults.fuzz_targets import TARGETS
from tests.unit.yjs.corpus import ACCEPTED, REFUSED
from ydoc_store.yjs.lib0 import encode_buf

SEEDS = [
    *(case.update for case in (*ACCEPTED, *REFUSED) if len(case.update) < 2_000),
    *(case.frame for case in FRAMES if isinstance(case.frame, bytes) and len(case.frame) < 2_000),
]


@st.composite
def spliced(draw: st.DrawFn) -> bytes:
    """Pieces of known inputs put together, with bytes changed, put in and taken out."""
    data = bytearray()
    for _ in range(draw(st.integers(1, 3))):
        piece = draw(st.sampled_from(SEEDS))
        at = draw(st.integers(0, len(piece)))
        data += piece[at:] if draw(st.booleans()) else piece[:at]
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 4))] = draw(st.binary(max_size=4))
    return bytes(data)


inputs = st.binary(max_size=200) | st.sampled_from(SEEDS) | spliced()


@pytest.mark.parametrize("target", TARGETS)
@given(inputs)
@settings(max_examples=250, deadline=2_000)
def test_any_bytes_are_taken_or_refused(target: str, data: bytes) -> None:
    TARGETS[target](data)


@given(inputs, st.sampled_from((b"\x00\x00", b"\x00\x01", b"\x00\x02", b"\x01")))
@settings(max_examples=250, deadline=2_000)
def test_any_message_is_taken_or_refused(data: bytes, kind: bytes) -> None:
    TARGETS["frame"](kind + encode_buf(data))
