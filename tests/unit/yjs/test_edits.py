"""Edits in JSON: what they do to maps, arrays, texts and XML, and what is refused, with the place."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from ydoc_store.errors import ClientFault, InvalidRequest, TooLarge, WrongState
from ydoc_store.yjs.content import to_json, to_xml
from ydoc_store.yjs.drafting import draft
from ydoc_store.yjs.edits import EDITS_MAX, apply_edits, parse_edits
from ydoc_store.yjs.join import join
from ydoc_store.yjs.merge import EMPTY_UPDATE
from ydoc_store.yjs.prosemirror import text_nodes, to_prosemirror
from ydoc_store.yjs.runs import to_delta
from ydoc_store.yjs.structs import read_update
from ydoc_store.yjs.tree import Tree
from ydoc_store.yjs.walker import walk


def edited(document: bytes, *edits: dict[str, Any]) -> bytes:
    """The document after these edits; the update that makes them passes the walker."""
    update = apply_edits(document, parse_edits({"edits": list(edits)}))
    walk(update)
    return join([document, update])


def shown(document: bytes) -> dict[str, Any]:
    return to_json(Tree(document))


def test_keys_are_set_replaced_and_deleted() -> None:
    document = edited(
        EMPTY_UPDATE,
        {"op": "set", "path": ["meta", "title"], "value": "Draft"},
        {"op": "set", "path": ["meta", "tags"], "value": ["a", {"b": [1.5, None, True]}]},
        {"op": "set", "path": ["meta", "gone"], "value": 1},
    )
    document = edited(
        document,
        {"op": "set", "path": ["meta", "title"], "value": "Report"},
        {"op": "delete", "path": ["meta", "gone"]},
    )
    assert shown(document) == {"meta": {"title": "Report", "tags": ["a", {"b": [1.5, None, True]}]}}


def test_values_of_an_array_are_inserted_appended_replaced_and_deleted() -> None:
    document = edited(EMPTY_UPDATE, {"op": "append", "path": ["list"], "values": [1, 2, 3, 4]})
    document = edited(
        document,
        {"op": "insert", "path": ["list", 1], "value": "one and a half"},
        {"op": "set", "path": ["list", 0], "value": "first"},
        {"op": "delete", "path": ["list", 3], "count": 2},
        {"op": "append", "path": ["list"], "value": [5]},
    )
    assert shown(document) == {"list": ["first", "one and a half", 2, [5]]}


@pytest.mark.parametrize("seed", range(20))
def test_many_edits_of_one_call_find_their_places(seed: int) -> None:
    """A place is found from where the one before was: in front of it, behind it, and after all was deleted."""
    random = Random(seed)
    document = edited(EMPTY_UPDATE, {"op": "append", "path": ["list"], "values": list(range(10))})
    expected: list[Any] = list(range(10))
    edits: list[dict[str, Any]] = []
    for value in range(100, 300):
        at = random.randint(0, len(expected))
        match random.choice(["insert", "append", "set", "delete", "inner"]):
            case "insert":
                values = [value] * random.randint(1, 3)
                edits.append({"op": "insert", "path": ["list", at], "values": values})
                expected[at:at] = values
            case "append":
                edits.append({"op": "append", "path": ["list"], "shared": [value]})
                expected.append([value])
            case "set" if at < len(expected):
                edits.append({"op": "set", "path": ["list", at], "value": value})
                expected[at] = value
            case "delete" if at < len(expected):
                count = random.randint(1, min(5, len(expected) - at))
                edits.append({"op": "delete", "path": ["list", at], "count": count})
                del expected[at : at + count]
            case "inner" if at < len(expected) and isinstance(expected[at], list):
                edits.append({"op": "insert", "path": ["list", at, 0], "value": value})
                expected[at] = [value, *expected[at]]
    assert shown(edited(document, *edits)) == {"list": expected}


def test_shared_content_is_reached_by_later_edits() -> None:
    document = edited(
        EMPTY_UPDATE,
        {"op": "set", "path": ["todo", "items"], "shared": [{"text": "milk", "done": False}]},
        {"op": "set", "path": ["todo", "items", 0, "done"], "value": True},
        {"op": "append", "path": ["todo", "items"], "shared": {"text": "bread"}},
        {"op": "set", "path": ["todo", "note"], "shared": "Hello"},
        {"op": "insert", "path": ["todo", "note", 5], "text": ", all"},
    )
    assert shown(document) == {
        "todo": {"items": [{"text": "milk", "done": True}, {"text": "bread"}], "note": "Hello, all"}
    }


def test_offsets_in_text_are_those_of_javascript() -> None:
    document = edited(EMPTY_UPDATE, {"op": "append", "path": ["body"], "text": "a😀é漢"})
    after_emoji = edited(document, {"op": "insert", "path": ["body", 3], "text": "!"})
    assert shown(after_emoji) == {"body": "a😀!é漢"}
    assert shown(edited(document, {"op": "delete", "path": ["body", 1], "count": 2})) == {"body": "aé漢"}
    for edit in (
        {"op": "insert", "path": ["body", 2], "text": "!"},
        {"op": "delete", "path": ["body", 2]},
        {"op": "delete", "path": ["body", 1]},
    ):
        with pytest.raises(WrongState, match=r'"edits\[0\]": that is between the two halves of a surrogate pair'):
            edited(document, edit)


def test_text_is_inserted_with_formats_and_takes_those_of_its_place_otherwise() -> None:
    document = edited(EMPTY_UPDATE, {"op": "append", "path": ["body"], "text": "bold", "attributes": {"bold": True}})
    document = edited(
        document,
        {"op": "insert", "path": ["body", 2], "text": "und"},
        {"op": "insert", "path": ["body", 2], "text": "plain", "attributes": {}},
        {"op": "append", "path": ["body"], "text": " link", "attributes": {"link": {"href": "x"}}},
    )
    told = [
        (node["text"], [mark["type"] for mark in node.get("marks", [])])
        for node in text_nodes(Tree(document).root("body"))
    ]
    assert told == [("bo", ["bold"]), ("plain", []), ("undld", ["bold"]), (" link", ["link"])]


def test_a_range_is_formatted_and_keeps_its_other_formats() -> None:
    document = edited(
        EMPTY_UPDATE,
        {"op": "append", "path": ["body"], "text": "one two"},
        {"op": "format", "path": ["body", 0], "count": 3, "attributes": {"bold": True}},
        {"op": "format", "path": ["body", 2], "count": 3, "attributes": {"link": {"href": "x"}}},
        {"op": "format", "path": ["body", 1], "attributes": {"bold": None}},
    )
    bold, link = {"bold": True}, {"link": {"href": "x"}}
    assert to_delta(Tree(document).root("body")) == [
        {"insert": "o", "attributes": bold},
        {"insert": "n"},
        {"insert": "e", "attributes": bold | link},
        {"insert": " t", "attributes": link},
        {"insert": "wo"},
    ]
    none = {"op": "format", "path": ["body", 0], "count": 7, "attributes": {"bold": None, "link": None}}
    assert all("attributes" not in run for run in to_delta(Tree(edited(document, none)).root("body")))
    with pytest.raises(WrongState, match="surrogate pair"):
        edited(
            EMPTY_UPDATE,
            {"op": "append", "path": ["body"], "text": "😀"},
            {"op": "format", "path": ["body", 0], "count": 1, "attributes": bold},
        )


def test_formatting_what_is_formatted_so_already_brings_nothing() -> None:
    document = edited(
        EMPTY_UPDATE,
        {"op": "append", "path": ["body"], "text": "bold", "attributes": {"bold": True}},
        {"op": "append", "path": ["body"], "text": "plain", "attributes": {}},
    )
    for formats in ({"bold": True}, {"italic": None}):
        edit = {"op": "format", "path": ["body", 0], "count": 4, "attributes": formats}
        update = apply_edits(document, parse_edits({"edits": [edit]}))
        assert not read_update(update).structs


def test_an_embed_is_one_unit_of_a_text() -> None:
    document = edited(
        EMPTY_UPDATE,
        {"op": "append", "path": ["body"], "text": "ab", "attributes": {"bold": True}},
        {"op": "insert", "path": ["body", 1], "embed": {"image": "x.png"}},
        {"op": "append", "path": ["body"], "embed": {"break": True}, "attributes": {}},
        {"op": "insert", "path": ["body", 2], "text": "!"},
    )
    bold = {"attributes": {"bold": True}}
    assert to_delta(Tree(document).root("body")) == [
        {"insert": "a", **bold},
        {"insert": {"image": "x.png"}, **bold},
        {"insert": "!b", **bold},
        {"insert": {"break": True}},
    ]
    document = edited(document, {"op": "delete", "path": ["body", 1], "count": 2})
    assert shown(document) == {"body": "ab"}


@pytest.mark.parametrize("seed", range(20))
def test_many_formats_of_one_call_come_to_what_each_of_them_says(seed: int) -> None:
    """What holds at a place is found from where the last edit was: in front of it, behind it, over it."""
    random = Random(seed)
    expected: list[tuple[str, dict[str, Any]]] = [("a", {})]
    edits: list[dict[str, Any]] = [{"op": "append", "path": ["body"], "text": "a"}]
    for number in range(150):
        at = random.randint(0, len(expected))
        count = random.randint(1, min(8, len(expected) - at)) if at < len(expected) else 0
        formats = {random.choice("bi"): random.choice([None, 1, 2])}
        is_set = {key: value for key, value in formats.items() if value}
        match random.choice(["insert", "type", "format", "format", "delete"]):
            case "insert":
                edits.append({"op": "insert", "path": ["body", at], "text": str(number % 10), "attributes": formats})
                expected.insert(at, (str(number % 10), is_set))
            case "type":
                edits.append({"op": "insert", "path": ["body", at], "text": "x"})
                expected.insert(at, ("x", expected[at - 1][1] if at else {}))
            case "format" if count:
                edits.append({"op": "format", "path": ["body", at], "count": count, "attributes": formats})
                for place in range(at, at + count):
                    character, before = expected[place]
                    expected[place] = character, {key: one for key, one in (before | formats).items() if one}
            case "delete" if count and count < len(expected):
                edits.append({"op": "delete", "path": ["body", at], "count": count})
                del expected[at : at + count]
    delta = to_delta(Tree(edited(EMPTY_UPDATE, *edits)).root("body"))
    assert [(one, run.get("attributes", {})) for run in delta for one in run["insert"]] == expected


def test_xml_takes_nodes_attributes_and_text() -> None:
    document = draft({"type": "doc", "content": [{"type": "paragraph"}]}, "prosemirror", "default")
    heading = {"type": "heading", "attrs": {"level": 2}, "content": [{"type": "text", "text": "Title"}]}
    document = edited(
        document,
        {"op": "insert", "path": ["default", 0], "prosemirror": heading},
        {"op": "append", "path": ["default", 1], "xml": "text<br/>"},
        {"op": "insert", "path": ["default", 1, 0, 4], "text": "!"},
        {"op": "set", "path": ["default", 0, "level"], "value": 3},
        {"op": "append", "path": ["default"], "prosemirror": [{"type": "rule"}, {"type": "rule"}]},
        {"op": "delete", "path": ["default", 3]},
    )
    assert to_xml(Tree(document).root("default")) == (
        '<heading level="3">Title</heading><paragraph>text!<br></br></paragraph><rule></rule>'
    )
    assert to_prosemirror(Tree(document).root("default"))["content"][0] == heading | {"attrs": {"level": 3}}


def test_a_deleted_type_is_deleted_with_all_that_is_in_it() -> None:
    document = edited(EMPTY_UPDATE, {"op": "set", "path": ["m", "a"], "shared": {"b": [1, {"c": "text"}]}})
    update = apply_edits(document, parse_edits({"edits": [{"op": "delete", "path": ["m", "a"]}]}))
    everything = {client: [(0, block[-1].end)] for client, block in read_update(document).structs.items()}
    assert read_update(update).deletes == everything


def test_what_waits_for_a_predecessor_is_neither_seen_nor_lost() -> None:
    first = edited(EMPTY_UPDATE, {"op": "append", "path": ["body"], "text": "ab"})
    behind = apply_edits(first, parse_edits({"edits": [{"op": "append", "path": ["body"], "text": "cd"}]}))
    update = apply_edits(behind, parse_edits({"edits": [{"op": "append", "path": ["body"], "text": "!"}]}))
    assert shown(join([behind, update])) == {"body": "!"}
    assert sorted(shown(join([behind, update, first]))["body"]) == sorted("abcd!")


def test_one_bad_edit_and_nothing_is_done() -> None:
    document = edited(EMPTY_UPDATE, {"op": "append", "path": ["list"], "values": [1]})
    edits = parse_edits(
        {"edits": [{"op": "append", "path": ["list"], "value": 2}, {"op": "delete", "path": ["list", 7]}]}
    )
    with pytest.raises(WrongState, match=r'"edits\[1\]": 7 is past its end, which is 2'):
        apply_edits(document, edits)


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        ({"op": "move", "path": ["a", 0]}, '"edits[0].op" is one of'),
        ({"op": "set", "value": 1}, '"edits[0].path" is a list'),
        ({"op": "set", "path": [], "value": 1}, '"edits[0].path" is a list'),
        ({"op": "set", "path": [1, "a"], "value": 1}, '"edits[0].path" is a list'),
        ({"op": "set", "path": ["a"], "value": 1}, '"edits[0].path" names a root type'),
        ({"op": "set", "path": ["a", True], "value": 1}, '"edits[0].path[1]" is neither'),
        ({"op": "set", "path": ["a", -1], "value": 1}, '"edits[0].path[1]" is neither'),
        ({"op": "set", "path": ["a", 1.5], "value": 1}, '"edits[0].path[1]" is neither'),
        ({"op": "set", "path": ["a", *[0] * 256], "value": 1}, '"edits[0].path" has more than 256 steps'),
        ({"op": "insert", "path": ["a", "b"], "value": 1}, '"edits[0].path" ends with an index'),
        ({"op": "set", "path": ["a", "b"]}, '"edits[0]" has one of'),
        ({"op": "set", "path": ["a", "b"], "value": 1, "shared": {}}, '"edits[0]" has one of'),
        ({"op": "set", "path": ["a", "b"], "values": [1]}, '"edits[0]": a set takes a value'),
        ({"op": "set", "path": ["a", "b"], "value": 1, "more": 1}, '"edits[0].more"'),
        ({"op": "set", "path": ["a", "b"], "value": 1, "attributes": {}}, '"edits[0].attributes"'),
        ({"op": "delete", "path": ["a", "b"], "value": 1}, '"edits[0]": a delete takes no "value"'),
        ({"op": "delete", "path": ["a", 0], "count": 0}, '"edits[0].count" is a number from 1'),
        ({"op": "delete", "path": ["a", 0], "count": True}, '"edits[0].count" is a number from 1'),
        ({"op": "delete", "path": ["a", "b"], "count": 1}, '"edits[0].count": a key is one'),
        ({"op": "append", "path": ["a"], "text": ""}, '"edits[0].text" is a string'),
        ({"op": "append", "path": ["a"], "text": "x", "attributes": []}, '"edits[0].attributes" is an object'),
        ({"op": "append", "path": ["a"], "embed": "x"}, '"edits[0].embed" is an object'),
        ({"op": "append", "path": ["a"], "embed": {}}, '"edits[0].embed" is an object'),
        ({"op": "set", "path": ["a", 0], "embed": {"a": 1}}, '"edits[0]": a set takes a value'),
        ({"op": "append", "path": ["a"], "value": 1, "count": 1}, '"edits[0].count"'),
        ({"op": "format", "path": ["a", 0]}, '"edits[0].attributes" holds at least one'),
        ({"op": "format", "path": ["a", 0], "attributes": {}}, '"edits[0].attributes" holds at least one'),
        (
            {"op": "format", "path": ["a", 0], "attributes": {"b": 1}, "text": "x"},
            '"edits[0]": a format takes no "text"',
        ),
        ({"op": "format", "path": ["a"], "attributes": {"b": 1}}, '"edits[0].path" names a root type'),
        ({"op": "format", "path": ["a", "b"], "attributes": {"b": 1}}, '"edits[0].path" ends with an index'),
        ({"op": "append", "path": ["a"], "values": []}, '"edits[0].values" is a list'),
        ({"op": "append", "path": ["a"], "shared": 1}, '"edits[0].shared" is an object'),
        ({"op": "append", "path": ["a"], "value": 2**53 + 1}, '"edits[0].value" is an integer beyond'),
        ({"op": "append", "path": ["a"], "prosemirror": "p"}, '"edits[0].prosemirror" is a node'),
        ("set", '"edits[0]" is no object'),
    ],
)
def test_what_is_no_edit_is_refused_with_its_place(edit: Any, told: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_edits({"edits": [edit]})
    assert told in str(refused.value)


@pytest.mark.parametrize("body", [None, [], {}, {"edits": {}}, {"edits": []}, {"edits": [], "more": 1}])
def test_a_body_without_edits_is_refused(body: Any) -> None:
    with pytest.raises(InvalidRequest):
        parse_edits(body)


def test_edits_are_bounded_in_number_and_in_what_they_bring() -> None:
    edit = {"op": "append", "path": ["a"], "value": 1}
    with pytest.raises(TooLarge, match="at most 1,000"):
        parse_edits({"edits": [edit] * (EDITS_MAX + 1)})
    with pytest.raises(TooLarge, match=r'"edits\[2\]": this brings more than 2 pieces'):
        apply_edits(EMPTY_UPDATE, parse_edits({"edits": [edit] * 3}), structs_max=2)


def test_values_nested_too_deep_are_refused() -> None:
    value: Any = 1
    for _ in range(65):
        value = [value]
    for content in ("value", "shared"):
        with pytest.raises(InvalidRequest, match="nests more than 64 deep"):
            edited(EMPTY_UPDATE, {"op": "append", "path": ["a"], content: value})
    edited(EMPTY_UPDATE, {"op": "append", "path": ["a"], "value": value[0]})


DOCUMENT = [
    {"op": "append", "path": ["list"], "values": [1, 2]},
    {"op": "append", "path": ["text"], "text": "abc"},
    {"op": "set", "path": ["map", "key"], "value": {"inner": 1}},
    {"op": "append", "path": ["xml"], "xml": "<p>abc</p>"},
]


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        ({"op": "set", "path": ["list", "key"], "value": 1}, "leads into an array"),
        ({"op": "set", "path": ["text", "key"], "value": 1}, "leads into a text"),
        ({"op": "set", "path": ["xml", "key"], "value": 1}, "leads into an XML fragment"),
        ({"op": "append", "path": ["map"], "value": 1}, "leads into a map"),
        ({"op": "delete", "path": ["map", 0]}, "leads into a map"),
        ({"op": "append", "path": ["list"], "text": "x"}, "takes value or values or shared, not text"),
        ({"op": "append", "path": ["text"], "value": 1}, "takes text or embed, not value"),
        ({"op": "set", "path": ["text", 0], "value": 1}, "takes text or embed, not value"),
        ({"op": "format", "path": ["text", 1], "count": 3, "attributes": {"b": 1}}, "3 from 1 on is past its end"),
        ({"op": "format", "path": ["list", 0], "attributes": {"b": 1}}, "leads into an array, which has no formats"),
        ({"op": "format", "path": ["xml", 0], "attributes": {"b": 1}}, "an XML fragment, which has no formats"),
        ({"op": "append", "path": ["list"], "embed": {"a": 1}}, "takes value or values or shared, not embed"),
        ({"op": "append", "path": ["xml"], "value": 1}, "takes prosemirror or xml, not value"),
        ({"op": "set", "path": ["xml", 0, "id"], "shared": {}}, "takes value, not shared"),
        ({"op": "insert", "path": ["list", 3], "value": 1}, "3 is past its end, which is 2"),
        ({"op": "set", "path": ["list", 2], "value": 1}, "1 from 2 on is past its end, which is 2"),
        ({"op": "delete", "path": ["text", 1], "count": 3}, "3 from 1 on is past its end, which is 3"),
        ({"op": "delete", "path": ["map", "none"]}, 'a key that is not there: "none"'),
        ({"op": "set", "path": ["map", "key", "inner"], "value": 2}, '"path[1]" leads to no shared type'),
        ({"op": "append", "path": ["list", 0], "value": 2}, '"path[1]" leads to no shared type'),
        ({"op": "append", "path": ["xml", 0, 0, 5], "text": "x"}, '"path[3]" leads to no shared type'),
        ({"op": "append", "path": ["xml"], "xml": "<p>"}, "not XML"),
        ({"op": "append", "path": ["xml"], "prosemirror": {"type": "text"}}, '"content[0].text" is a string'),
    ],
)
def test_an_edit_that_does_not_fit_what_is_there_is_refused(edit: dict[str, Any], told: str) -> None:
    document = edited(EMPTY_UPDATE, *DOCUMENT)
    with pytest.raises(ClientFault) as refused:
        edited(document, edit)
    assert str(refused.value).startswith('"edits[0]": ')
    assert told in str(refused.value)
