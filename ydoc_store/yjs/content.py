"""What a document says, out of its tree: a root type as JSON, as text, as XML.

An update names its root types but not their kinds; where a reader has none in mind they are told from what stands in
them, deleted content excepted, so that a compaction changes no answer. ProseMirror's JSON is prosemirror.py's.
"""

from __future__ import annotations

from typing import Any, Final
from xml.sax.saxutils import escape

import orjson

from ydoc_store.errors import WrongState
from ydoc_store.yjs.lib0 import Reader
from ydoc_store.yjs.tree import (
    ARRAY,
    MAP,
    TEXT,
    XML_ELEMENT,
    XML_FRAGMENT,
    XML_HOOK,
    XML_TEXT,
    Branch,
    Item,
    Tree,
)
from ydoc_store.yjs.values import read_json, read_values
from ydoc_store.yjs.walker import ANY, BINARY, DOCUMENT, EMBED, FORMAT, STRING, TYPE

TEXTS: Final = (TEXT, XML_TEXT)
XML: Final = (XML_ELEMENT, XML_FRAGMENT, XML_HOOK)
KIND_NAMES: Final = {
    ARRAY: "array",
    MAP: "map",
    TEXT: "text",
    XML_ELEMENT: "XML element",
    XML_FRAGMENT: "XML fragment",
    XML_HOOK: "XML hook",
    XML_TEXT: "XML text",
}
_ROOT_KINDS: Final = (ARRAY, MAP, TEXT, XML_FRAGMENT)

# What parsers of XML would turn into a line feed, or into a space.
_KEPT: Final = {"\r": "&#13;"}
_KEPT_IN_ATTRIBUTES: Final = _KEPT | {"\n": "&#10;", "\t": "&#9;", '"': "&quot;"}


def may_be(branch: Branch) -> tuple[int, ...]:
    """What a root type may be, as far as what stands in it tells: the likeliest first, all of them where nothing does.

    Texts may have attributes beside their sequence, and embed types.
    """
    inner: set[bool] = set()
    for item in branch.sequence():
        if item.branch is None:
            return (TEXT,) if item.struct.kind in (STRING, FORMAT, EMBED) else (ARRAY,)
        inner.add(item.branch.kind in (*XML, XML_TEXT))
    if inner:
        # An array of nothing but XML cannot be told from an editor's root, which is far more common.
        return (XML_FRAGMENT,) if inner == {True} else (ARRAY, TEXT)
    return (MAP, TEXT) if branch.entries else _ROOT_KINDS


def kind_of(branch: Branch) -> int | None:
    """What a type is; of a root type, what it likely is. None where nothing tells, its content being deleted."""
    if branch.kind is not None:
        return branch.kind
    likely = may_be(branch)
    return likely[0] if len(likely) < len(_ROOT_KINDS) else None


def to_json(tree: Tree, names: list[str] | None = None) -> dict[str, Any]:
    """The named root types (None: all of the document's), each as JSON: text a string without its formats, XML a
    string of elements, an empty root whose kind nothing tells None."""
    found = sorted(tree.roots) if names is None else names
    return {name: shown(tree.root(name)) for name in found}


def shown(branch: Branch) -> Any:
    """A type as JSON. Recursive, two calls a level; how deep types nest is bounded in the tree."""
    kind = kind_of(branch)
    if kind is None:
        return None
    if kind == MAP:
        entries: dict[str, Any] = {}
        for key, item in sorted(branch.visible_entries(), key=lambda entry: entry[0]):
            entries[key] = last_value(item)
        return entries
    if kind == ARRAY:
        values: list[Any] = []
        for item in branch.sequence():
            values += values_of(item)
        return values
    if kind in TEXTS:
        return plain_text(branch)
    return to_xml(branch)


def last_value(item: Item) -> Any:
    """What the entry of a key shows: the last of its values."""
    return values_of(item)[-1]


def values_of(item: Item) -> list[Any]:
    """What one item of an array shows."""
    struct = item.struct
    if struct.kind == ANY:
        return list(read_values(struct.payload))
    if struct.kind == STRING:
        return list(struct.payload.decode())
    reader = Reader(struct.payload)
    if struct.kind == TYPE and item.branch is not None:
        return [shown(item.branch)]
    if struct.kind == EMBED:
        return [read_json(reader)]
    if struct.kind == BINARY:
        return list(read_values(b"\x74" + struct.payload))
    if struct.kind == DOCUMENT:
        return [{"subdocument": reader.string()}]
    return []


def plain_text(branch: Branch) -> str:
    """What a text says, without its formats and embeds."""
    return b"".join(item.struct.payload for item in branch.sequence() if item.struct.kind == STRING).decode()


def to_text(branch: Branch) -> str:
    """The text of a text type; of XML that of all its texts, in order, one a line.

    Raises WrongState for a map or an array.
    """
    kind = kind_of(branch)
    if kind is None:
        return ""
    if kind in TEXTS:
        return plain_text(branch)
    if kind not in XML:
        raise WrongState(f"the root type is {_a(kind)}, which has no plain text: read it as=json")
    texts: list[str] = []
    waiting = [branch]
    while waiting:
        found = waiting.pop()
        if found.kind == XML_TEXT:
            texts.append(plain_text(found))
        else:
            waiting += reversed([item.branch for item in found.sequence() if item.branch is not None])
    return "\n".join(texts)


def to_xml(branch: Branch) -> str:
    """XML as a string of elements and text, escaped, attributes in alphabetical order; text without its formats.

    An attribute that is no string stands as JSON. Raises WrongState for a type that is no XML.
    """
    kind = kind_of(branch)
    if kind is not None and kind not in (*XML, *TEXTS):
        raise WrongState(f"the root type is {_a(kind)}, which is no XML: read it as=json")
    parts: list[str] = []
    _write_xml(branch, parts)
    return "".join(parts)


def _write_xml(branch: Branch, parts: list[str]) -> None:
    """Recursive, a call a level."""
    if branch.kind in TEXTS:
        parts.append(escape(plain_text(branch), _KEPT))
        return
    is_element = branch.kind in (XML_ELEMENT, XML_HOOK)
    if is_element:
        parts.append(f"<{branch.name}")
        for key, item in sorted(branch.visible_entries(), key=lambda entry: entry[0]):
            value = last_value(item)
            told = value if isinstance(value, str) else orjson.dumps(value).decode()
            parts.append(f' {key}="{escape(told, _KEPT_IN_ATTRIBUTES)}"')
        parts.append(">")
    for item in branch.sequence():
        if item.branch is not None:
            _write_xml(item.branch, parts)
        elif item.struct.kind == STRING:
            parts.append(escape(item.struct.payload.decode(), _KEPT))
    if is_element:
        parts.append(f"</{branch.name}>")


def _a(kind: int) -> str:
    name = KIND_NAMES[kind]
    return f"an {name}" if name[0] in "aX" else f"a {name}"
