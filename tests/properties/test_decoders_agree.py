"""I14: what the walker accepts, Yjs and yrs both read, and read alike.

Whole documents are changed in their bytes, or struct by struct, as somebody would who knows the encoding. yrs runs in
a process of its own, since a wrong answer of the walker can end that process. Where an item was given other neighbours,
which may stand elsewhere or the wrong way round, the two decoders put it in different places (no editor does that, and
one update seldom shows it): then only that both read it is asked.
"""

from __future__ import annotations

import random
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pycrdt import Array, Doc, Map, Text, XmlElement, XmlFragment, XmlText

from tests.interop.yjs_judge import shared_judge
from ydoc_store.errors import YdocError
from ydoc_store.yjs.lineage import Lineage
from ydoc_store.yjs.structs import Id, Struct, StructUpdate, read_update, write_update
from ydoc_store.yjs.walker import ANY, BINARY, DELETED, DOCUMENT, GC, SKIP, TYPE, walk

CLIENTS = (1, 2, 300, 70_000, 2**32 - 5, 2**53 - 2**24 - 1)
ROOTS = ("text", "map", "array", "xml", "another")

YRS = """
import struct, sys
from pycrdt import Doc
while header := sys.stdin.buffer.read(4):
    update = sys.stdin.buffer.read(struct.unpack(">I", header)[0])
    try:
        doc = Doc()
        doc.apply_update(update)
        answer = doc.get_update().hex()
    except BaseException as error:
        answer = f"refused: {type(error).__name__} {str(error)[:100]!r}"
    print(answer, flush=True)
"""


class Yrs:
    """yrs, asked for how it encodes a document that has applied an update."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] = subprocess.Popen(
            [sys.executable, "-c", YRS], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def read(self, update: bytes) -> bytes:
        pipes: Any = self.process
        pipes.stdin.write(struct.pack(">I", len(update)) + update)
        pipes.stdin.flush()
        answer = pipes.stdout.readline().decode().strip()
        assert answer, f"yrs died of {update.hex()}"
        assert not answer.startswith("refused"), f"{answer}: {update.hex()}"
        return bytes.fromhex(answer)

    def close(self) -> None:
        with suppress(BrokenPipeError):
            self.process.communicate(timeout=10)


@pytest.fixture(scope="module")
def yrs() -> Iterator[Yrs]:
    process = Yrs()
    yield process
    process.close()


def document(rng: random.Random, edits: int) -> bytes:
    """What two editors made of all shared types."""
    docs: list[Doc[Any]] = [Doc(client_id=client) for client in rng.sample(CLIENTS, 2)]
    for _ in range(edits):
        one, other = rng.sample(docs, 2)
        if rng.randrange(8) == 0:
            one.apply_update(other.get_update(one.get_state()))
        else:
            _edit(one, rng)
    docs[0].apply_update(docs[1].get_update(docs[0].get_state()))
    return docs[0].get_update()


def _edit(doc: Doc[Any], rng: random.Random) -> None:
    text = doc.get("text", type=Text)
    array = doc.get("array", type=Array)
    children = doc.get("xml", type=XmlFragment).children
    match rng.randrange(10):
        case 0 | 1 | 2:
            text.insert(rng.randrange(len(text) + 1), rng.choice(("a", "bc", "def")))
        case 3 if len(text):
            at = rng.randrange(len(text))
            del text[at : min(len(text), at + rng.randrange(1, 4))]
        case 4 if len(text):
            at = rng.randrange(len(text))
            text.format(at, at + 1, {"b": rng.choice((True, None))})
        case 5:
            value = rng.choice((1, "x", [1, {"a": None}], b"\1", Map({"n": 1}), Array([1])))
            doc.get("map", type=Map)[rng.choice("kl")] = value
        case 6 if len(array):
            del array[rng.randrange(len(array))]
        case 7 | 8:
            array.insert(rng.randrange(len(array) + 1), rng.choice((1.5, "y", True, Text("in"), Map({"q": 2}))))
        case _:
            children.insert(rng.randrange(len(children) + 1), rng.choice((XmlText("xt"), XmlElement("p", {"i": "1"}))))


def bytes_changed(update: bytes, rng: random.Random) -> bytes:
    changed = bytearray(update)
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(changed))
        match rng.randrange(4):
            case 0:
                changed[at] = rng.choice((0, 1, 2, 4, 7, 0x7F, 0x80, 0x84, 0xC4, 0xFF, rng.randrange(256)))
            case 1:
                changed[at:at] = rng.randbytes(rng.randrange(1, 4))
            case 2:
                del changed[at : at + rng.randrange(1, 4)]
            case _:
                changed[at:at] = changed[max(0, at - 8) : at]
        if not changed:
            break
    return bytes(changed)


def structs_changed(update: bytes, rng: random.Random) -> bytes:
    decoded = read_update(update)
    for _ in range(rng.choice((1, 1, 2, 4)) if decoded.structs else 0):
        client = rng.choice(list(decoded.structs))
        block = decoded.structs[client]
        at = rng.randrange(len(block))
        block[at] = _changed(block[at], decoded, client, rng)
    return write_update(decoded.structs, decoded.deletes)


def _changed(old: Struct, decoded: StructUpdate, client: int, rng: random.Random) -> Struct:
    def some_id() -> Id:
        other = rng.choice(list(decoded.structs))
        return other, rng.randrange(decoded.structs[other][-1].end + 2)

    kind, origin, right_origin, payload = old.kind, old.origin, old.right_origin, old.payload
    parent, parent_key = old.parent, old.parent_key
    match rng.randrange(8):
        case 0:
            origin = some_id()
        case 1:
            right_origin = some_id()
        case 2:
            origin, right_origin, parent = None, None, rng.choice((some_id(), *ROOTS))
        case 3:
            parent_key = rng.choice((None, "k", "q"))
        case 4:
            kind, payload = rng.choice((GC, DELETED)), b""
        case 5:
            other = rng.choice(decoded.structs[rng.choice(list(decoded.structs))])
            if other.end - other.clock == old.end - old.clock:
                kind, payload = other.kind, other.payload
        case 6:
            start = rng.randrange(old.clock, old.end)
            decoded.deletes.setdefault(client, []).append((start, rng.randrange(start, old.end + 3) + 1))
        case _:
            origin = right_origin = None
    if kind in (GC, SKIP):
        return Struct(old.clock, old.end, kind)
    if origin is not None or right_origin is not None:
        return Struct(old.clock, old.end, kind, origin, right_origin, payload=payload)
    return Struct(old.clock, old.end, kind, parent=parent or "text", parent_key=parent_key, payload=payload)


def stands_as(update: bytes, original: bytes) -> bool:
    """Whether every item stands where it stands in the original, and entries of maps are such as editors write."""
    structs = read_update(update).structs
    lineage = Lineage(structs)
    places = _places(read_update(original).structs)
    for client, clock, *place in _items(structs):
        if places.get((client, clock)) != place:
            return False
    for block in structs.values():
        for found in block:
            place_now = lineage.place(found) if found.kind not in (GC, SKIP) else None
            is_entry = found.kind == DELETED or (
                found.kind in (ANY, BINARY, DOCUMENT, TYPE) and found.end - found.clock == 1
            )
            if place_now is not None and place_now.key is not None and not is_entry:
                return False
    return True


def _items(structs: dict[int, list[Struct]]) -> Iterator[Any]:
    for client, block in structs.items():
        for found in block:
            if found.kind not in (GC, SKIP):
                yield client, found.clock, found.end, found.origin, found.right_origin, found.parent, found.parent_key


def _places(structs: dict[int, list[Struct]]) -> dict[Id, list[Any]]:
    return {(client, clock): place for client, clock, *place in _items(structs)}


def assert_read_alike(yrs: Yrs, update: bytes, original: bytes) -> None:
    try:
        walk(update)
    except YdocError:
        return
    judge = shared_judge()
    by_yjs = judge.describe([update])
    encoded_by_yrs = yrs.read(update)
    if by_yjs["waiting"] or by_yjs["pendingDeletes"] or not stands_as(update, original):
        return
    by_yrs = judge.describe([encoded_by_yrs])
    for part in ("vector", "deleted"):
        assert by_yrs[part] == by_yjs[part], f"{part}: {update.hex()}"
    assert _with_content(by_yrs) == _with_content(by_yjs), update.hex()


def _with_content(described: dict[str, Any]) -> dict[str, Any]:
    return {name: root for name, root in described["shared"].items() if root["units"] or root["entries"]}


seeds = st.integers(0, 2**64 - 1)


@given(seeds)
@settings(max_examples=60, deadline=None)
def test_an_honest_document_is_read_alike(yrs: Yrs, seed: int) -> None:
    """Without this the tests below would say nothing."""
    rng = random.Random(seed)
    update = document(rng, rng.randrange(5, 40))
    walk(update)
    assert stands_as(update, update)
    assert_read_alike(yrs, update, update)


@given(seeds)
@example(1628285)
@settings(max_examples=250, deadline=None)
def test_what_is_accepted_of_a_changed_document_is_read_alike(yrs: Yrs, seed: int) -> None:
    _read_a_changed_one(yrs, seed)


@pytest.mark.long
@pytest.mark.timeout(3_600)
@given(seeds)
@settings(max_examples=50_000, deadline=None)
def test_what_is_accepted_of_many_changed_documents_is_read_alike(yrs: Yrs, seed: int) -> None:
    _read_a_changed_one(yrs, seed)


def _read_a_changed_one(yrs: Yrs, seed: int) -> None:
    rng = random.Random(seed)
    change = rng.choice((bytes_changed, structs_changed, structs_changed))
    original = document(rng, rng.randrange(1, 40))
    try:
        assert_read_alike(yrs, change(original, rng), original)
    except RuntimeError as error:
        # A known gap of I14: a map entry of several units in a deleted type is stored, and Yjs throws as it collects
        # what that type held. One update does not tell: an entry with an origin names no key, and what an editor with
        # `gc: false` has replaced comes joined as well. Everything else that Yjs throws fails.
        if "at Item.gc" not in str(error):
            raise
