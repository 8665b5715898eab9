"""ProseMirror's JSON of a document, as npm y-prosemirror gives it (`yXmlFragmentToProsemirrorJSON`, 1.3).

Elements are nodes, texts are text nodes, formats are marks. A mark that may overlap itself carries a hash in its
format's name, which is no part of the mark's. The other way, from JSON to content, is drafting.py's.
"""

from __future__ import annotations

import re
from typing import Any, Final

from ydoc_store.errors import WrongState
from ydoc_store.yjs.content import XML, kind_of, last_value, values_of
from ydoc_store.yjs.runs import runs_of
from ydoc_store.yjs.tree import XML_ELEMENT, XML_TEXT, Branch, Item

_HASHED_MARK: Final = re.compile("([^\n\r\u2028\u2029]*)--[a-zA-Z0-9+/=]{8}\\Z")
_ARRAY_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,9}")
_ARRAY_INDEX_MAX: Final = 2**32 - 2


def to_prosemirror(root: Branch) -> dict[str, Any]:
    """The root type as a `doc` node. Raises WrongState where it holds what is no node.

    As y-prosemirror has it, text that stands in the root itself, in no element, is a list of its own.
    """
    kind = kind_of(root)
    if kind is not None and kind not in XML:
        raise WrongState("the root type holds no ProseMirror document: read it as=json")
    return {"type": "doc", "content": [_node(item) for item in root.sequence()]}


def _node(item: Item) -> Any:
    """An element's node, or a text's list of them. Recursive, a call a level."""
    branch = item.branch
    if branch is not None and branch.kind == XML_TEXT:
        return text_nodes(branch)
    if branch is None or branch.kind != XML_ELEMENT:
        raise WrongState("the root type holds what is no ProseMirror node: read it as=json")
    node: dict[str, Any] = {"type": branch.name}
    attributes = {key: last_value(item) for key, item in branch.visible_entries()}
    if attributes:
        node["attrs"] = attributes
    content: list[Any] = []
    is_empty = True
    for inner in branch.sequence():
        is_empty = False
        told = _node(inner)
        content += told if isinstance(told, list) else [told]
    if not is_empty:
        node["content"] = content
    return node


def text_nodes(branch: Branch) -> list[dict[str, Any]]:
    """A text's runs, each with its marks in the order in which they began."""
    return [
        _text_node(text, marks)
        for content, marks in runs_of(branch)
        for text in ([content] if isinstance(content, str) else values_of(content))
    ]


def _text_node(text: Any, marks: dict[str, Any]) -> dict[str, Any]:
    node: dict[str, Any] = {"type": "text", "text": text}
    if marks:
        node["marks"] = [{"type": mark_name(key), "attrs": marks[key]} for key in _as_javascript_orders(marks)]
    return node


def mark_name(format_name: str) -> str:
    """A mark's name without the hash of one that may overlap itself."""
    match = _HASHED_MARK.search(format_name)
    return match[1] if match else format_name


def _as_javascript_orders(keys: dict[str, Any]) -> list[str]:
    """Object keys that are array indexes come first, in the order of their numbers."""
    indexes = [key for key in keys if _ARRAY_INDEX.fullmatch(key) and int(key) <= _ARRAY_INDEX_MAX]
    return sorted(indexes, key=int) + [key for key in keys if key not in indexes] if indexes else list(keys)
