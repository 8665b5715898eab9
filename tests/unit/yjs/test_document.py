"""document.py: what a document says, as far as an update can tell."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from pycrdt import Array, Doc, Map, Text, XmlElement, XmlFragment, XmlText

from ydoc_store.errors import InvalidUpdate
from ydoc_store.yjs.document import Content, decode_check, to_json
from ydoc_store.yjs.fold import fold
from ydoc_store.yjs.structs import Struct, write_update
from ydoc_store.yjs.walker import DELETED, STRING, TYPE


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
