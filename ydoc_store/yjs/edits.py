"""Edits of a document's content in JSON, as a backend writes them: parsed strictly, applied all or not at all.

    {"edits": [{"op": "set", "path": ["meta", "title"], "value": "Report"},
               {"op": "insert", "path": ["body", 0], "text": "Hello ", "attributes": {"bold": true}},
               {"op": "append", "path": ["list"], "values": [1, 2]},
               {"op": "format", "path": ["body", 0], "count": 5, "attributes": {"bold": null, "italic": true}},
               {"op": "delete", "path": ["list", 3], "count": 2}]}

A path leads from a root type's name through keys (strings) and indexes (numbers). Offsets in text count UTF-16 units,
as editors in JavaScript do. Later edits see what earlier ones did. Content is a `value` or `values` (plain JSON,
changed as a whole), `shared` (objects as maps, lists as arrays, a string as a text, which people edit together), `text`
or an `embed` (an object, one unit) into a text, and `prosemirror` (a node, or a list of them) or `xml` into XML.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from ydoc_store.errors import ClientFault, InvalidRequest, TooLarge, WrongState
from ydoc_store.yjs.content import KIND_NAMES, TEXTS, XML, may_be
from ydoc_store.yjs.drafting import fill, insert_nodes, judge_value
from ydoc_store.yjs.marks import format_range, insert_formatted
from ydoc_store.yjs.tree import ARRAY, MAP, TEXT, XML_ELEMENT, XML_FRAGMENT, Branch, Item, Tree
from ydoc_store.yjs.writing import STRUCTS_MAX, Writer
from ydoc_store.yjs.xml_reading import insert_xml

EDITS_MAX: Final = 1_000
"""Edits in one call: a form or a script's step has tens, and all of them wait in one update."""

PATH_STEPS_MAX: Final = 256
"""As deep as types may nest."""

Op = Literal["set", "insert", "append", "delete", "format"]
_OPS: Final[tuple[Op, ...]] = ("set", "insert", "append", "delete", "format")
_CONTENTS: Final = ("value", "values", "shared", "text", "embed", "prosemirror", "xml")
_FORMATTED: Final = ("text", "embed")
_TAKES: Final = {
    ARRAY: ("value", "values", "shared"),
    MAP: ("value", "shared"),
    TEXT: _FORMATTED,
    XML_FRAGMENT: ("prosemirror", "xml"),
}


@dataclass(frozen=True, slots=True)
class Edit:
    """One edit, judged by itself. `steps` lead from the root type on; what is there is judged as it is applied."""

    op: Op
    root: str
    steps: tuple[str | int, ...]
    content: str = ""
    value: Any = None
    attributes: dict[str, Any] | None = None
    count: int = 1


def parse_edits(body: Any) -> list[Edit]:
    """The edits of a body. Raises InvalidRequest, naming the place, such as `"edits[2].path": …`; TooLarge."""
    if not isinstance(body, dict) or body.keys() != {"edits"} or not isinstance(body["edits"], list):
        raise InvalidRequest('the body is {"edits": […]}')
    edits = body["edits"]
    if not edits:
        raise InvalidRequest('"edits" holds at least one')
    if len(edits) > EDITS_MAX:
        raise TooLarge(f'"edits" holds {len(edits):,}, at most {EDITS_MAX:,} come in one call')
    return [_parse(edit, f"edits[{index}]") for index, edit in enumerate(edits)]


def _parse(edit: Any, at: str) -> Edit:
    if not isinstance(edit, dict):
        raise InvalidRequest(f'"{at}" is no object')
    op = edit.get("op")
    if op not in _OPS:
        raise InvalidRequest(f'"{at}.op" is one of {", ".join(_OPS)}')
    root, steps = _path(edit.get("path"), op, at)
    contents = [key for key in _CONTENTS if key in edit]
    allowed = {"op", "path", *contents}
    is_range = op in ("delete", "format")
    if is_range:
        if contents:
            raise InvalidRequest(f'"{at}": a {op} takes no "{contents[0]}"')
        allowed.add("count")
    elif len(contents) != 1:
        raise InvalidRequest(f'"{at}" has one of {", ".join(_CONTENTS)}')
    if op == "format" or any(content in _FORMATTED for content in contents):
        allowed.add("attributes")
    unknown = sorted(edit.keys() - allowed)
    if unknown:
        raise InvalidRequest(f'"{at}.{unknown[0]}": that is nothing which this edit takes')
    formats = _formats(edit, at)
    if is_range:
        if op == "format" and not formats:
            raise InvalidRequest(f'"{at}.attributes" holds at least one, null for one that is taken away')
        return Edit(op, root, steps, attributes=formats, count=_count(edit, steps, at))
    content = contents[0]
    value = edit[content]
    _judge_content(content, value, f"{at}.{content}")
    if op == "set" and content in ("values", *_FORMATTED):
        raise InvalidRequest(f'"{at}": a set takes a value, not "{content}"')
    return Edit(op, root, steps, content, value, formats)


def _path(path: Any, op: str, at: str) -> tuple[str, tuple[str | int, ...]]:
    if not isinstance(path, list) or not path or not isinstance(path[0], str):
        raise InvalidRequest(f'"{at}.path" is a list that begins with the name of a root type')
    if len(path) > PATH_STEPS_MAX:
        raise InvalidRequest(f'"{at}.path" has more than {PATH_STEPS_MAX} steps')
    steps = [step if isinstance(step, str) else whole(step) for step in path]
    for index, step in enumerate(steps):
        if step is None or (isinstance(step, int) and step < 0):
            raise InvalidRequest(f'"{at}.path[{index}]" is neither a key nor an index from 0 on')
    if op != "append" and len(path) == 1:
        raise InvalidRequest(f'"{at}.path" names a root type: behind it comes a key or an index in it')
    if op in ("insert", "format") and isinstance(path[-1], str):
        raise InvalidRequest(f'"{at}.path" ends with an index where something is inserted or formatted; a key is set')
    return path[0], tuple(step for step in steps[1:] if step is not None)


def whole(value: Any) -> int | None:
    """A whole number, however JSON writes it; None for anything else."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _count(edit: dict[str, Any], steps: tuple[str | int, ...], at: str) -> int:
    count = whole(edit.get("count", 1))
    if count is None or count < 1:
        raise InvalidRequest(f'"{at}.count" is a number from 1 on')
    if "count" in edit and isinstance(steps[-1], str):
        raise InvalidRequest(f'"{at}.count": a key is one')
    return count


def _formats(edit: dict[str, Any], at: str) -> dict[str, Any] | None:
    formats = edit.get("attributes")
    if "attributes" in edit:
        if not isinstance(formats, dict):
            raise InvalidRequest(f'"{at}.attributes" is an object')
        judge_value(formats, f"{at}.attributes")
    return formats


def _judge_content(content: str, value: Any, at: str) -> None:
    if content in ("text", "xml") and (not isinstance(value, str) or not value):
        raise InvalidRequest(f'"{at}" is a string of at least one character')
    if content == "values" and (not isinstance(value, list) or not value):
        raise InvalidRequest(f'"{at}" is a list of at least one value')
    if content == "embed" and (not isinstance(value, dict) or not value):
        raise InvalidRequest(f'"{at}" is an object of at least one key')
    if content == "shared" and not isinstance(value, dict | list | str):
        raise InvalidRequest(f'"{at}" is an object, a list or a string')
    if content == "prosemirror":
        if not isinstance(value, dict | list) or not value:
            raise InvalidRequest(f'"{at}" is a node, or a list of nodes')
    elif content != "xml":
        judge_value(value, at)


def apply_edits(document: bytes, edits: list[Edit], *, structs_max: int = STRUCTS_MAX) -> bytes:
    """The one update that makes the edits in the document that `document` encodes.

    What waits in it for a predecessor is neither seen nor lost. Raises WrongState where an edit does not fit what is
    there, InvalidRequest, TooLarge, each naming the edit; InvalidUpdate for a document that cannot be read.
    """
    writer = Writer(Tree(document), structs_max)
    for index, edit in enumerate(edits):
        try:
            _apply(writer, edit)
        except ClientFault as error:
            at = f'"edits[{index}]"'
            raise type(error)(f"{at}: {error}") from error
    return writer.finish()


def _apply(writer: Writer, edit: Edit) -> None:
    steps = edit.steps if edit.op == "append" else edit.steps[:-1]
    parent = _container(writer, edit, steps)
    last = edit.steps[-1] if edit.op != "append" else None
    kind = _judge_kind(parent, edit, last)
    if isinstance(last, str):
        _apply_to_key(writer, parent, kind, edit, last)
        return
    if edit.op == "delete":
        writer.delete_range(parent, last or 0, edit.count)
        return
    if edit.op == "format":
        format_range(writer, parent, last or 0, edit.count, edit.attributes or {})
        return
    if edit.op == "append":
        left = writer.end(parent)
    elif edit.op == "set":
        left = writer.delete_range(parent, last or 0, 1)
    else:
        left = writer.seek(parent, last or 0)
    _insert(writer, parent, left, edit)


def _container(writer: Writer, edit: Edit, steps: tuple[str | int, ...]) -> Branch:
    """The type in which the edit happens, or the root type itself."""
    branch = writer.tree.root(edit.root)
    for number, step in enumerate(steps, start=1):
        item = branch.entries.get(step) if isinstance(step, str) else writer.at(branch, step)
        if item is None or item.deleted or item.branch is None:
            raise WrongState(f'"path[{number}]" leads to no shared type that is there')
        branch = item.branch
    return branch


def _judge_kind(parent: Branch, edit: Edit, last: str | int | None) -> int:
    """What the container is; a root type is what the edit takes it for, if it may be that. Raises WrongState."""
    wanted = MAP if isinstance(last, str) else TEXT if edit.op == "format" else _wanted(edit.content)
    kind = parent.kind
    if kind is None:
        possible = may_be(parent)
        kind = wanted if wanted in possible else possible[0]
    if isinstance(last, str):
        if kind not in (MAP, XML_ELEMENT):
            raise WrongState(f'"path" ends with a key, but leads into {_named(kind)}')
    elif kind == MAP:
        raise WrongState(f'"path" leads into {_named(kind)}, whose values have keys and no order')
    family = TEXT if kind in TEXTS else XML_FRAGMENT if kind in XML else kind
    takes = ("value",) if family == XML_FRAGMENT and isinstance(last, str) else _TAKES[family]
    if edit.op == "format":
        if family != TEXT:
            raise WrongState(f'"path" leads into {_named(kind)}, which has no formats')
    elif edit.op != "delete" and edit.content not in takes:
        raise WrongState(f'"path" leads into {_named(kind)}, which takes {" or ".join(takes)}, not {edit.content}')
    return family


def _wanted(content: str) -> int | None:
    return next((family for family in (ARRAY, TEXT, XML_FRAGMENT) if content in _TAKES[family]), None)


def _named(kind: int) -> str:
    name = KIND_NAMES[kind]
    return f"an {name}" if name[0] in "aX" else f"a {name}"


def _apply_to_key(writer: Writer, parent: Branch, kind: int, edit: Edit, key: str) -> None:
    if edit.op == "delete":
        held = parent.entries.get(key)
        if held is None or held.deleted:
            raise WrongState(f'"path" ends with a key that is not there: "{key[:100]}"')
        writer.delete(held)
    elif edit.content == "value" or kind != MAP:
        writer.set_value(parent, key, edit.value)
    else:
        _fill_shared(writer, writer.set_type(parent, key, _shared_kind(edit.value)), edit.value)


def _insert(writer: Writer, parent: Branch, left: Item | None, edit: Edit) -> None:
    if edit.content in _FORMATTED:
        insert_formatted(writer, parent, left, edit.value, edit.attributes)
    elif edit.content == "shared":
        _fill_shared(writer, writer.type(parent, left, _shared_kind(edit.value)), edit.value)
    elif edit.content == "prosemirror":
        insert_nodes(writer, parent, left, edit.value if isinstance(edit.value, list) else [edit.value], "")
    elif edit.content == "xml":
        insert_xml(writer, parent, left, edit.value)
    else:
        writer.values(parent, left, [edit.value] if edit.content == "value" else edit.value)


def _shared_kind(value: Any) -> int:
    return MAP if isinstance(value, dict) else ARRAY if isinstance(value, list) else TEXT


def _fill_shared(writer: Writer, item: Item, value: Any) -> None:
    if item.branch is None:
        raise ValueError("this item is no type")
    if isinstance(value, str):
        if value:
            writer.text(item.branch, None, value)
    else:
        fill(writer, item.branch, value, "")
