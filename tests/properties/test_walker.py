"""The walker against its own short cut, against mutated bytes, and against yrs as the judge of what it accepts.

yrs runs in a process of its own, since a wrong answer of the walker can end that process.
"""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.unit.yjs.corpus import ACCEPTED, REFUSED
from ydoc_store.errors import InvalidUpdate
from ydoc_store.yjs.lib0 import encode_buf, encode_string, encode_uint, utf16_length
from ydoc_store.yjs.ranges import Knowledge, decode_state_vector
from ydoc_store.yjs.typed import walk_typed
from ydoc_store.yjs.walked import UNLIMITED
from ydoc_store.yjs.walker import Walked, walk, walk_structs

CLIENTS = (1, 2, 300, 2**32 - 1, 2**53 - 1)
JSON = ("null", "true", "1.5", '"é"', '{"a":[1,{"b":null}]}', "[]", "-0", "99999999999999999999")

texts = st.text(st.sampled_from("ab é漢😀\0\ufffd"), max_size=4)
numbers = st.integers(-(2**53) + 1, 2**53 - 1)


def encode_int(value: int) -> bytes:
    magnitude = abs(value)
    first = magnitude & 0x3F | (0x40 if value < 0 else 0)
    return bytes((first,)) if magnitude < 0x40 else bytes((first | 0x80,)) + encode_uint(magnitude >> 6)


any_values = st.recursive(
    st.sampled_from((b"\x7f", b"\x7e", b"\x79", b"\x78"))
    | numbers.map(lambda value: b"\x7d" + encode_int(value))
    | st.binary(min_size=4, max_size=4).map(lambda raw: b"\x7c" + raw)
    | st.binary(min_size=8, max_size=8).map(lambda raw: b"\x7b" + raw)
    | st.binary(min_size=8, max_size=8).map(lambda raw: b"\x7a" + raw)
    | texts.map(lambda text: b"\x77" + encode_string(text))
    | st.binary(max_size=3).map(lambda raw: b"\x74" + encode_buf(raw)),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda values: b"\x75" + encode_uint(len(values)) + b"".join(values))
        | st.dictionaries(texts, inner, max_size=3).map(
            lambda entries: (
                b"\x76"
                + encode_uint(len(entries))
                + b"".join(encode_string(key) + value for key, value in entries.items())
            )
        )
    ),
    max_leaves=5,
)


@st.composite
def contents(draw: st.DrawFn) -> tuple[int, bytes, int]:
    """A kind of content, its bytes, its length in clocks."""
    kind = draw(st.sampled_from((1, 3, 4, 4, 4, 5, 6, 7, 8, 9)))
    if kind == 1:
        length = draw(st.integers(1, 300))
        return kind, encode_uint(length), length
    if kind == 3:
        return kind, encode_buf(draw(st.binary(max_size=4))), 1
    if kind == 4:
        text = draw(texts.filter(bool))
        return kind, encode_string(text), utf16_length(text)
    if kind == 5:
        return kind, encode_string(draw(st.sampled_from(JSON))), 1
    if kind == 6:
        return kind, encode_string(draw(texts)) + encode_string(draw(st.sampled_from(JSON))), 1
    if kind == 7:
        shared_type = draw(st.sampled_from((0, 1, 2, 3, 4, 6)))
        return kind, encode_uint(shared_type) + (encode_string("p") if shared_type == 3 else b""), 1
    if kind == 8:
        values = draw(st.lists(any_values, min_size=1, max_size=3))
        return kind, encode_uint(len(values)) + b"".join(values), len(values)
    return kind, encode_string(draw(texts)) + b"\x76\x01" + encode_string("meta") + draw(any_values), 1


@st.composite
def blocks(draw: st.DrawFn, client: int) -> tuple[bytes, list[tuple[int, int, int]]]:
    """The structs of one client, and the ranges that they are."""
    start = clock = draw(st.sampled_from((0, 0, 1, 127, 2**20)))
    encoded = []
    found: list[tuple[int, int, int]] = []
    for _ in range(draw(st.integers(1, 4))):
        if draw(st.booleans()) and draw(st.booleans()):
            kind, length = draw(st.sampled_from((0, 10))), draw(st.integers(1, 200))
            encoded.append(bytes((kind,)) + encode_uint(length))
        else:
            kind, content, length = draw(contents())
            flags = draw(st.sampled_from((0, 0x80, 0x40, 0xC0))) | draw(st.sampled_from((0, 0x20)))
            encoded.append(bytes((kind | flags,)) + draw(places(client, clock, flags)) + content)
        if kind != 10:
            if found and found[-1][2] == clock:
                found[-1] = (client, found[-1][1], clock + length)
            else:
                found.append((client, clock, clock + length))
        clock += length
    return encode_uint(len(encoded)) + encode_uint(client) + encode_uint(start) + b"".join(encoded), found


@st.composite
def places(draw: st.DrawFn, client: int, clock: int, flags: int) -> bytes:
    def older_id() -> bytes:
        other = draw(st.sampled_from((client, *CLIENTS)) if clock else st.just(9))
        return encode_uint(other) + encode_uint(draw(st.integers(0, clock - 1 if other == client else 200)))

    place = b"".join(older_id() for flag in (0x80, 0x40) if flags & flag)
    if flags & 0xC0:
        return place
    place = draw(st.sampled_from((b"\x01\x01t", b"\x01\x00", b"\x00")))
    if place == b"\x00":
        place += older_id()
    return place + encode_string(draw(texts)) if flags & 0x20 else place


@st.composite
def updates(draw: st.DrawFn) -> tuple[bytes, list[tuple[int, int, int]], list[tuple[int, int, int]]]:
    """A well-formed update, the ranges of its structs, and its delete ranges, unjoined."""
    found: list[tuple[int, int, int]] = []
    clients = draw(st.lists(st.sampled_from(CLIENTS), unique=True, max_size=3))
    encoded = encode_uint(len(clients))
    for client in clients:
        block, structs = draw(blocks(client))
        encoded += block
        found += structs
    deletes: list[tuple[int, int, int]] = []
    clients = draw(st.lists(st.sampled_from(CLIENTS), unique=True, max_size=3))
    encoded += encode_uint(len(clients))
    for client in clients:
        ranges = draw(st.lists(st.tuples(st.integers(0, 300), st.integers(1, 200)), max_size=3))
        encoded += encode_uint(client) + encode_uint(len(ranges))
        encoded += b"".join(encode_uint(clock) + encode_uint(length) for clock, length in ranges)
        deletes += [(client, clock, clock + length) for clock, length in ranges]
    return encoded, found, deletes


@st.composite
def mutated(draw: st.DrawFn, originals: st.SearchStrategy[bytes]) -> bytes:
    """Bytes changed, put in, taken out or repeated at a few places of an update."""
    data = bytearray(draw(originals))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        end = min(len(data), at + draw(st.integers(0, 5)))
        data[at:end] = draw(st.binary(max_size=5) | st.just(bytes(data[max(0, at - 10) : at])))
    return bytes(data)


encoded_updates = updates().map(lambda drawn: drawn[0])
every_case: list[bytes] = [case.update for case in ACCEPTED] + [case.update for case in REFUSED]
corpus = st.sampled_from([update for update in every_case if len(update) < 1000])


def knowledge_of(walked: Walked) -> Knowledge:
    knowledge = Knowledge()
    knowledge.add(walked)
    return knowledge


@given(updates())
def test_a_well_formed_update_is_told_by_its_ranges(
    drawn: tuple[bytes, list[tuple[int, int, int]], list[tuple[int, int, int]]],
) -> None:
    update, structs, deletes = drawn
    # The parents that are drawn need not be types.
    walked = walk(update, UNLIMITED)
    assert walked.structs == structs
    assert knowledge_of(walked) == knowledge_of(Walked(structs, deletes, 0, 0, 0))
    assert walked.delete_count == len(deletes)


@given(encoded_updates, st.data())
def test_an_update_that_is_cut_short_or_longer_is_refused(update: bytes, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(update) - 1))
    for wrong in (update[:cut], update + update[: cut + 1]):
        with pytest.raises(InvalidUpdate):
            walk(wrong)


@given(st.binary(max_size=40) | mutated(encoded_updates) | mutated(corpus))
def test_any_bytes_are_walked_or_refused(update: bytes) -> None:
    with suppress(InvalidUpdate):
        walk(update)


varuints = st.builds(
    lambda value, spoilt: encode_uint(value) if not spoilt else encode_uint(value)[:-1] + b"\x80\x00",
    st.sampled_from((0, 1, 127, 128, 2**14, 2**28 - 1, 2**28, 2**31 - 2, 2**49, 2**53 - 1)) | st.integers(0, 300),
    st.integers(0, 30).map(lambda number: number == 0),
)


@given(
    st.tuples(
        *(st.just(b"\x01\x01"), varuints, varuints, st.sampled_from((b"\x84", b"\x44", b"\xc4", b"\x04", b"\xa4"))),
        *(varuints, varuints, varuints | st.just(b""), varuints | st.just(b"")),
        *(
            st.text("a\0\x7f", max_size=130).map(encode_string) | st.binary(max_size=3).map(encode_buf),
            st.just(b"\x00"),
        ),
    ).map(b"".join)
    | st.tuples(st.just(b"\x00\x01"), varuints, st.just(b"\x01"), varuints, varuints).map(b"".join)
)
@example(b"\x01\x01\x05\x02\x84\x05\x02\x01a\x00")
@example(b"\x01\x01\x05\x02\xc4\x05\x02\x05\x01\x01a\x00")
@example(b"\x01\x01\x05\x02\x84\x06\x02\x00\x00")
@example(b"\x00\x01\x05\x01\x02\x00")
@settings(max_examples=1000)
def test_the_short_cut_for_typing_gives_the_full_parsers_answer(update: bytes) -> None:
    assert_the_short_cut_agrees(update)


@given(mutated(st.sampled_from([b"\x01\x01\x05\x09\x84\x05\x08\x01a\x00", b"\x00\x01\x85\x01\x01\x09\x03"])))
@settings(max_examples=300)
def test_the_short_cut_takes_nothing_that_the_full_parser_refuses(update: bytes) -> None:
    assert_the_short_cut_agrees(update)


def assert_the_short_cut_agrees(update: bytes) -> None:
    short = walk_typed(update)
    if short is not None:
        assert short == walk_structs(update)


JUDGE = """
import struct, sys
from pycrdt import Doc, get_state, merge_updates
while header := sys.stdin.buffer.read(4):
    update = sys.stdin.buffer.read(struct.unpack(">I", header)[0])
    try:
        answer = f"{get_state(update).hex()} {merge_updates(update, bytes(2)).hex()}"
    except BaseException as error:
        answer = f"refused {type(error).__name__}"
    print(answer, flush=True)
"""


class Judge:
    """yrs, asked for the state vector of an update and for its merge with nothing."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] = subprocess.Popen(
            [sys.executable, "-c", JUDGE], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def ask(self, update: bytes) -> tuple[bytes, bytes]:
        pipes: Any = self.process
        pipes.stdin.write(struct.pack(">I", len(update)) + update)
        pipes.stdin.flush()
        answer = pipes.stdout.readline().decode().split()
        assert answer, f"yrs died of {update.hex()}"
        assert answer[0] != "refused", f"yrs refused {update.hex()}: {answer[1]}"
        return bytes.fromhex(answer[0]), bytes.fromhex(answer[1])

    def close(self) -> None:
        with suppress(BrokenPipeError):
            self.process.communicate(timeout=10)


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    process = Judge()
    yield process
    process.close()


@given(encoded_updates | mutated(encoded_updates) | mutated(corpus))
@settings(max_examples=500, deadline=None)
def test_yrs_reads_whatever_the_walker_accepts_as_the_walker_does(judge: Judge, update: bytes) -> None:
    try:
        walked = walk(update)
    except InvalidUpdate:
        return
    state_vector, merged = judge.ask(update)
    knowledge = knowledge_of(walked)
    assert decode_state_vector(state_vector, clients_max=100) == knowledge.state_vector()
    assert knowledge_of(walk(merged)) == knowledge


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case.name)
def test_yrs_reads_every_update_of_the_corpus(judge: Judge, case: Any) -> None:
    state_vector, merged = judge.ask(case.update)
    knowledge = knowledge_of(walk(case.update))
    assert decode_state_vector(state_vector, clients_max=100) == knowledge.state_vector()
    assert knowledge_of(walk(merged)) == knowledge
