"""document.py: what a document says, as far as an update can tell."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from pycrdt import Array, Doc, Map, Text, XmlElement, XmlFragment, XmlText

from ydoc_store.commands.transfer import exported
from ydoc_store.errors import InvalidUpdate
from ydoc_store.yjs.document import DECODED_LEVELS_MAX, SHOWN_LEVELS_MAX, Content, decode_check, to_json
from ydoc_store.yjs.fold import fold
from ydoc_store.yjs.join import join
from ydoc_store.yjs.lib0 import encode_uint
from ydoc_store.yjs.structs import Struct, read_update, write_update
from ydoc_store.yjs.walked import UNLIMITED
from ydoc_store.yjs.walker import DELETED, STRING, TYPE, walk_structs


def document() -> Doc[Any]:
    made: Doc[Any] = Doc(client_id=7)
    made["text"] = Text("hello 😀")
    made["text"].format(0, 2, {"bold": True})
    made["array"] = Array([1, 2.5, None, True, "x", b"\x00\xff", Map({"in": Text("t")}), float("nan")])
    made["map"] = Map({"list": Array([1]), "sub": Doc(guid="g")})
    made["xml"] = XmlFragment([XmlElement("p", {"id": "1", "alt": '"&'}, [XmlText("a<b"), XmlElement("br")])])
    return made


def test_each_root_shows_what_stands_in_it() -> None:
    shown = to_json(document().get_update())
    assert shown == {
        "array": [1, 2.5, None, True, "x", {"base64": "AP8="}, {"in": "t"}, None],
        "map": {"list": [1], "sub": {"subdocument": "g"}},
        "text": "hello 😀",
        "xml": '<p alt="&quot;&amp;" id="1">a&lt;b<br></br></p>',
    }
    assert orjson.loads(orjson.dumps(shown)) == shown


def test_a_folded_document_says_the_same() -> None:
    made = document()
    del made["text"][0:3]
    del made["array"][6]
    update = made.get_update()
    assert to_json(fold(update)) == to_json(update)


def test_an_empty_update_has_no_roots() -> None:
    assert to_json(b"\0\0") == {}
    assert decode_check(b"\0\0") == Content(has_pending=False, roots=())


def test_a_map_without_keys_is_a_map_and_what_is_all_deleted_is_nothing() -> None:
    emptied = {
        7: [
            Struct(0, 1, DELETED, parent="map", parent_key="k"),
            Struct(1, 3, DELETED, parent="something"),
        ]
    }
    update = write_update(emptied, {7: [(0, 3)]})
    assert to_json(update) == {"map": {}, "something": None}
    assert decode_check(update) == Content(has_pending=False, roots=("map", "something"))


def test_structs_and_deletes_that_wait_are_pending() -> None:
    late = Struct(2, 3, STRING, (7, 1), payload=b"x")
    assert decode_check(write_update({7: [late]}, {})).has_pending
    assert decode_check(write_update({}, {7: [(0, 1)]})).has_pending
    assert not decode_check(document().get_update()).has_pending


def test_types_nested_as_deep_as_the_walker_allows_are_shown() -> None:
    structs = [Struct(0, 1, TYPE, parent="map", parent_key="k", payload=b"\x01")]
    structs += [Struct(at, at + 1, TYPE, parent=(7, at - 1), parent_key="k", payload=b"\x01") for at in range(1, 256)]
    shown: Any = to_json(write_update({7: structs}, {}))
    depth = 0
    while shown:
        shown = next(iter(shown.values()))
        depth += 1
    assert depth == 257


@pytest.mark.parametrize("bad", [b"", b"\x01", b"\0\0\0"])
def test_bytes_that_are_no_update_are_refused(bad: bytes) -> None:
    with pytest.raises(InvalidUpdate):
        decode_check(bad)
    with pytest.raises(InvalidUpdate):
        to_json(bad)


def nested_one_by_one(levels: int) -> list[bytes]:
    """Arrays, each in the one before, in an update each: no single one nests."""
    inner = [b"\x01\x01\x01" + encode_uint(level) + b"\x07\x00\x01" for level in range(1, levels + 1)]
    nested = [update + encode_uint(level) + b"\x00\x00" for level, update in enumerate(inner)]
    return [bytes.fromhex("01 01 01 00 07 01 0174 00 00"), *nested]


def test_types_that_add_up_too_deep_over_many_updates_never_reach_native_code() -> None:
    """I13: 100,000 levels end a process when their outermost type is deleted, in yrs and in Yjs."""
    delete = b"\x00\x01\x01\x01\x00\x01"
    deep = join([*nested_one_by_one(100_000), delete])
    assert walk_structs(deep, UNLIMITED)
    with pytest.raises(InvalidUpdate, match="nest 100,000 deep"):
        decode_check(deep)
    assert read_update(fold(deep)).deletes == {1: [(0, 100_001)]}


def test_a_document_too_deep_to_be_shown_still_decodes() -> None:
    value = (
        b"\x01\x01\x02\x00\x08\x00\x01" + encode_uint(SHOWN_LEVELS_MAX - 1) + b"\x01" + b"\x75\x01" * 64 + b"\x7f\x00"
    )
    deepest_shown = join([*nested_one_by_one(SHOWN_LEVELS_MAX - 1), value])
    shown = exported([deepest_shown], "json")
    assert json.loads(shown) == to_json(deepest_shown)
    assert shown.count(b"[") == SHOWN_LEVELS_MAX + 1 + 64
    deep = join(nested_one_by_one(DECODED_LEVELS_MAX))
    assert not decode_check(deep).has_pending
    with pytest.raises(InvalidUpdate, match="nest 5,000 deep"):
        to_json(deep)
