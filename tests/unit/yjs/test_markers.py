"""Markers planted and taken out: the content around them stays what it was."""

from __future__ import annotations

from pycrdt import Doc, Map, Text

from ydoc_store.yjs.markers import with_marker, without_markers
from ydoc_store.yjs.merge import EMPTY_UPDATE
from ydoc_store.yjs.walked import UNLIMITED
from ydoc_store.yjs.walker import RESERVED_CLIENT_ID_MIN, marker_update, walk

MARKER = RESERVED_CLIENT_ID_MIN + 77


def several_clients() -> bytes:
    doc: Doc[Text | Map[int]] = Doc(client_id=1)
    doc.get("text", type=Text).insert(0, "one")
    other: Doc[Text | Map[int]] = Doc(client_id=2**32 - 1)
    other.apply_update(doc.get_update())
    del other.get("text", type=Text)[0:1]
    other.get("map", type=Map)["a"] = 1
    return other.get_update()


def test_a_planted_marker_is_there_and_nothing_else_changed() -> None:
    update = several_clients()
    planted = with_marker(update, MARKER)
    walked = walk(planted, UNLIMITED)
    assert walked.reserved_clients() == {MARKER}
    assert without_markers(planted) == without_markers(update)
    doc: Doc[Text] = Doc()
    doc.apply_update(planted)
    assert str(doc.get("text", type=Text)) == "ne"


def test_planting_twice_changes_nothing() -> None:
    planted = with_marker(several_clients(), MARKER)
    assert with_marker(planted, MARKER) is planted


def test_an_empty_document_with_its_marker_is_the_marker_alone() -> None:
    assert with_marker(EMPTY_UPDATE, MARKER) == marker_update(MARKER)
