"""Content from outside that has no place in a document is refused, with the path to it; depth is bounded."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from ydoc_store.errors import ClientFault, InvalidRequest, InvalidUpdate, TooLarge, WrongState
from ydoc_store.yjs.content import kind_of, to_json, to_text, to_xml
from ydoc_store.yjs.drafting import As, draft
from ydoc_store.yjs.lib0 import encode_string
from ydoc_store.yjs.prosemirror import mark_name, to_prosemirror
from ydoc_store.yjs.runs import to_delta
from ydoc_store.yjs.structs import Struct, write_update
from ydoc_store.yjs.tree import LEVELS_MAX, MAP, Tree
from ydoc_store.yjs.walker import TYPE, UpdateLimits, walk
from ydoc_store.yjs.xml_reading import check_xml

PARAGRAPH = {"type": "paragraph", "content": [{"type": "text", "text": "x"}]}


def nested(levels: int, inner: Any) -> Any:
    for _ in range(levels):
        inner = {"type": "blockquote", "content": [inner]}
    return {"type": "doc", "content": [inner]}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ([], "no ProseMirror document"),
        ({"type": "paragraph"}, "no ProseMirror document"),
        ({"type": "doc", "marks": []}, 'a "doc" has "type" and "content"'),
        ({"type": "doc", "attrs": {"a": 1}}, '"attrs": a document has no place'),
        ({"type": "doc", "content": {}}, '"content" is a list'),
        ({"type": "doc", "content": ["x"]}, '"content[0]" is no node'),
        ({"type": "doc", "content": [{"type": ""}]}, '"content[0]" is no node'),
        ({"type": "doc", "content": [PARAGRAPH, {"type": "p", "attrs": []}]}, '"content[1].attrs" is an object'),
        ({"type": "doc", "content": [{"type": "p", "text": "x"}]}, '"content[0]": a node has'),
        ({"type": "doc", "content": [{"type": "p", "content": [[PARAGRAPH]]}]}, '"content[0].content[0]" is no node'),
        ({"type": "doc", "content": [{"type": "text", "text": ""}]}, '"content[0].text" is a string'),
        ({"type": "doc", "content": [{"type": "text", "text": "x", "attrs": {}}]}, '"content[0]": a text has'),
        ({"type": "doc", "content": [{"type": "text", "text": "x", "marks": ["em"]}]}, '"content[0].marks[0]" is no'),
        (
            {"type": "doc", "content": [{"type": "text", "text": "x", "marks": [{"type": "a", "attrs": 1}]}]},
            '"content[0].marks[0].attrs" is an object',
        ),
        ({"type": "doc", "content": [{"type": "p", "attrs": {"n": 2**53 + 1}}]}, '"content[0].attrs.n" is an integer'),
        (nested(300, PARAGRAPH), f"nest more than {LEVELS_MAX} deep"),
    ],
)
def test_what_is_no_prosemirror_document_is_refused_with_its_place(content: Any, told: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        draft(content, "prosemirror", "default")
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"ops": []}, "the body is no delta"),
        (["x"], '"[0]" is no run'),
        ([{"insert": "x"}, {"retain": 1}], '"[1]" is no run'),
        ([{"insert": ""}], '"[0].insert" is a string, or an object'),
        ([{"insert": {}}], '"[0].insert" is a string, or an object'),
        ([{"insert": 1}], '"[0].insert" is a string, or an object'),
        ([{"attributes": {}}], '"[0].insert" is a string, or an object'),
        ([{"insert": "x", "attributes": []}], '"[0].attributes" is an object'),
        ([{"insert": "x", "attributes": {"n": 2**53 + 1}}], '"[0]" is an integer beyond'),
    ],
)
def test_what_is_no_delta_is_refused_with_its_place(content: Any, told: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        draft(content, "delta", "default")
    assert told in str(refused.value)


def test_only_a_text_is_read_as_a_delta() -> None:
    document = Tree(draft([1, {"b": 1}], "json", "list"))
    assert to_delta(document.root("nothing")) == []
    with pytest.raises(WrongState, match="no text, but of the kind array"):
        to_delta(document.root("list"))


def test_nodes_may_nest_as_deep_as_one_update_may_and_are_read_again() -> None:
    document = nested(LEVELS_MAX - 2, PARAGRAPH)
    update = draft(document, "prosemirror", "default")
    walk(update)
    assert to_prosemirror(Tree(update).root("default")) == document
    assert to_text(Tree(update).root("default")) == "x"
    assert len(to_xml(Tree(update).root("default"))) > LEVELS_MAX


def test_null_attributes_marks_of_other_nodes_and_ychange_are_left_out() -> None:
    document = {
        "type": "doc",
        "attrs": {"align": None},
        "content": [
            {
                "type": "paragraph",
                "attrs": {"align": None, "level": 0, "ychange": {"type": "added"}},
                "content": [
                    {"type": "text", "text": "a", "marks": [{"type": "em"}, {"type": "ychange"}]},
                    {"type": "text", "text": "b", "marks": [{"type": "em", "attrs": {}}]},
                    {"type": "image", "marks": [{"type": "link"}]},
                ],
            }
        ],
    }
    text = {"type": "text", "text": "ab", "marks": [{"type": "em", "attrs": {}}]}
    paragraph = {"type": "paragraph", "attrs": {"level": 0}, "content": [text, {"type": "image"}]}
    update = draft(document, "prosemirror", "default")
    assert to_prosemirror(Tree(update).root("default")) == {"type": "doc", "content": [paragraph]}


def test_text_in_the_root_itself_is_a_list_as_y_prosemirror_tells_it() -> None:
    update = draft({"type": "doc", "content": [{"type": "text", "text": "x"}]}, "prosemirror", "default")
    told = to_prosemirror(Tree(update).root("default"))
    assert told == {"type": "doc", "content": [[{"type": "text", "text": "x"}]]}
    assert to_prosemirror(Tree(draft(told, "prosemirror", "default")).root("default")) == told


@pytest.mark.parametrize("content", [None, 1, "text", True])
def test_json_content_is_an_object_or_an_array(content: Any) -> None:
    with pytest.raises(InvalidRequest):
        draft(content, "json", "root")


def test_json_content_is_bounded_in_depth_and_in_pieces() -> None:
    deep: Any = 1
    for _ in range(66):
        deep = {"a": deep}
    with pytest.raises(InvalidRequest, match="nests more than 64 deep"):
        draft(deep, "json", "root")
    with pytest.raises(TooLarge, match="more than 10 pieces"):
        draft([[]] * 11, "json", "root", structs_max=10)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("<p>", "not XML"),
        ("<p></q>", "not XML"),
        ("</all><all>", "not XML"),
        ("a & b", "not XML"),
        ("\x00", "not XML"),
        ("<p>&xxe;</p>", "not XML"),
        ('<!DOCTYPE p [<!ENTITY a "b">]><p>&a;</p>', "not XML"),
        ("<p><!-- note --></p>", "a comment"),
        ("<p><?php evil ?></p>", "a processing instruction"),
        ("<a>" * 300 + "</a>" * 300, f"nest more than {LEVELS_MAX} deep"),
    ],
)
def test_what_is_no_xml_or_would_be_lost_is_refused(content: str, told: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        draft(content, "xml", "root")
    assert told in str(refused.value)


def test_xml_may_begin_with_a_declaration_and_hold_sections_of_characters() -> None:
    update = draft('<?xml version="1.0" encoding="utf-8"?><p>a<![CDATA[<b>]]></p> tail', "xml", "root")
    assert to_xml(Tree(update).root("root")) == "<p>a&lt;b&gt;</p> tail"


def test_a_root_of_another_kind_is_not_read_as_what_it_is_not() -> None:
    tree = Tree(draft({"a": [1]}, "json", "root"))
    assert kind_of(tree.root("root")) == MAP
    for read in (to_text, to_xml, to_prosemirror):
        with pytest.raises(WrongState, match="as=json"):
            read(tree.root("root"))
    assert to_json(tree) == {"root": {"a": [1]}}
    assert to_json(tree, ["other"]) == {"other": None}


@pytest.mark.parametrize("as_", ["prosemirror", "text", "json", "xml"])
def test_empty_content_is_an_empty_update(as_: As) -> None:
    content: Any = {"prosemirror": {"type": "doc"}, "json": {}}.get(as_, "")
    assert draft(content, as_, "root") == b"\0\0"


def test_types_that_nest_deeper_than_can_be_read_are_told() -> None:
    payload = bytes((MAP,))
    chain = [Struct(0, 1, TYPE, parent="root", parent_key="k", payload=payload)]
    chain += [Struct(at, at + 1, TYPE, parent=(1, at - 1), parent_key="k", payload=payload) for at in range(1, 300)]
    with pytest.raises(InvalidUpdate, match="nest more than 256 deep"):
        Tree(write_update({1: chain}, {}))


def test_an_element_name_that_is_no_xml_is_found() -> None:
    payload = b"\x03" + encode_string("a b<")
    update = write_update({1: [Struct(0, 1, TYPE, parent="root", payload=payload)]}, {})
    with pytest.raises(ClientFault):
        check_xml(to_xml(Tree(update).root("root")))


def test_the_hash_of_a_mark_is_no_part_of_its_name() -> None:
    assert mark_name("comment--aZ09+/=_") == "comment--aZ09+/=_"
    assert mark_name("comment--aZ09+/==") == "comment"
    assert mark_name("--aZ09+/==") == ""
    assert mark_name("a\nb--aZ09+/==") == "b"
    assert mark_name("strong") == "strong"


def test_what_is_drafted_is_within_the_limits_of_an_update() -> None:
    document = {"type": "doc", "content": [PARAGRAPH] * 2_000}
    update = draft(orjson.loads(orjson.dumps(document)), "prosemirror", "default")
    assert walk(update, UpdateLimits()).struct_count == 6_000
