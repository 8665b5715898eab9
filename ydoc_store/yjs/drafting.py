"""Content from outside into an empty root type: ProseMirror's JSON, text, a delta, JSON. XML is xml_reading.py's.

What y-prosemirror, or Yjs, reads from the update equals what came in; input that has no place in a document is refused,
with the path to it. As y-prosemirror does, attributes that are null and marks of nodes that are no text are left out,
and texts that follow one another with equal marks become one.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from ydoc_store.errors import InvalidRequest
from ydoc_store.yjs.lib0 import NESTING_MAX
from ydoc_store.yjs.marks import hashed_name, is_same, write_runs
from ydoc_store.yjs.tree import ARRAY, LEVELS_MAX, MAP, XML_ELEMENT, XML_TEXT, Branch, Item, Tree
from ydoc_store.yjs.values import is_exact
from ydoc_store.yjs.writing import STRUCTS_MAX, Writer
from ydoc_store.yjs.xml_reading import insert_xml

As = Literal["prosemirror", "text", "delta", "json", "xml"]

# Of the editor's own making, for showing who changed what; y-prosemirror never stores it.
_YCHANGE: Final = "ychange"


def draft(content: Any, as_: As, root: str, *, structs_max: int = STRUCTS_MAX) -> bytes:
    """An update that gives an empty document's root type this content: a string for `text` and `xml`, else
    JSON. Raises InvalidRequest, TooLarge."""
    writer = Writer(Tree(b"\0\0"), structs_max)
    branch = writer.tree.root(root)
    if as_ == "prosemirror":
        insert_nodes(writer, branch, None, _nodes_of(content), "")
    elif as_ == "text":
        if content:
            writer.text(branch, None, content)
    elif as_ == "delta":
        write_runs(writer, branch, _runs_of(content))
    elif as_ == "xml":
        insert_xml(writer, branch, None, content)
    elif isinstance(content, dict | list):
        fill(writer, branch, content, "")
    else:
        raise InvalidRequest("the body is a JSON object, for a map, or an array")
    return writer.finish()


# JSON: objects become maps and lists arrays, all the way down


def fill(writer: Writer, branch: Branch, content: dict[str, Any] | list[Any], path: str) -> None:
    """Fills an empty map or array. Recursive, a call a level."""
    if branch.depth >= NESTING_MAX:
        raise InvalidRequest(f"{_at(path)} nests more than {NESTING_MAX} deep")
    if isinstance(content, dict):
        for key, value in content.items():
            if isinstance(value, dict | list):
                item = writer.set_type(branch, key, MAP if isinstance(value, dict) else ARRAY)
                fill(writer, _branch(item), value, f"{path}.{key}")
            else:
                judge_value(value, f"{path}.{key}")
                writer.set_value(branch, key, value)
        return
    left: Item | None = None
    plain: list[Any] = []
    for index, value in enumerate(content):
        if isinstance(value, dict | list):
            left = writer.values(branch, left, plain)
            plain = []
            left = writer.type(branch, left, MAP if isinstance(value, dict) else ARRAY)
            fill(writer, _branch(left), value, f"{path}[{index}]")
        else:
            judge_value(value, f"{path}[{index}]")
            plain.append(value)
    writer.values(branch, left, plain)


def judge_value(value: Any, path: str) -> None:
    """Raises InvalidRequest for a value nested too deep, or an integer that JavaScript would round."""
    waiting = [(value, 0)]
    while waiting:
        found, depth = waiting.pop()
        if isinstance(found, dict | list):
            if depth >= NESTING_MAX:
                raise InvalidRequest(f"{_at(path)} nests more than {NESTING_MAX} deep")
            inner = found.values() if isinstance(found, dict) else found
            waiting += ((one, depth + 1) for one in inner)
        elif isinstance(found, int) and not is_exact(found):
            raise InvalidRequest(f"{_at(path)} is an integer beyond 2^53, which JavaScript would round")


# Delta: text with its formats, and embeds


def _runs_of(content: Any) -> list[tuple[str | dict[str, Any], dict[str, Any]]]:
    if not isinstance(content, list):
        raise InvalidRequest('the body is no delta: [{"insert": "Hello", "attributes": {"bold": true}}, …]')
    runs: list[tuple[str | dict[str, Any], dict[str, Any]]] = []
    for index, run in enumerate(content):
        if not isinstance(run, dict) or run.keys() - {"insert", "attributes"}:
            raise InvalidRequest(f'"[{index}]" is no run: {{"insert": "Hello", "attributes": {{}}}}')
        inserted, formats = run.get("insert"), run.get("attributes", {})
        if not isinstance(inserted, str | dict) or not inserted:
            raise InvalidRequest(f'"[{index}].insert" is a string, or an object, and holds something')
        if not isinstance(formats, dict):
            raise InvalidRequest(f'"[{index}].attributes" is an object')
        judge_value(run, f"[{index}]")
        runs.append((inserted, {key: value for key, value in formats.items() if value is not None}))
    return runs


# ProseMirror


def _nodes_of(content: Any) -> list[Any]:
    if not isinstance(content, dict) or content.get("type") != "doc":
        raise InvalidRequest('the body is no ProseMirror document: {"type": "doc", "content": […]}')
    if content.keys() - {"type", "content", "attrs"}:
        raise InvalidRequest('a "doc" has "type" and "content"')
    if _attributes(content, "") != {}:
        raise InvalidRequest('"attrs": a document has no place for attributes of its root')
    return _list(content, "content", "")


def insert_nodes(writer: Writer, parent: Branch, left: Item | None, nodes: list[Any], path: str) -> Item | None:
    """ProseMirror nodes into XML, behind `left`; texts side by side become one. Returns the last item.

    Raises InvalidRequest, with the path to what is no node.
    """
    flat: list[tuple[Any, str]] = []
    for index, node in enumerate(nodes):
        here = f"{path}content[{index}]"
        # Text in the root itself is a list of its own, as y-prosemirror tells it.
        if isinstance(node, list) and parent.item is None:
            flat += ((inner, f"{here}[{at}]") for at, inner in enumerate(node))
        else:
            flat.append((node, here))
    overlapping = _overlapping_marks(nodes)
    return _insert(writer, parent, left, flat, overlapping)


def _insert(
    writer: Writer, parent: Branch, left: Item | None, nodes: list[tuple[Any, str]], overlapping: set[str]
) -> Item | None:
    """Recursive, a call a level."""
    if parent.depth >= LEVELS_MAX:
        raise InvalidRequest(f"its nodes nest more than {LEVELS_MAX} deep")
    runs: list[tuple[str, dict[str, Any]]] = []
    for node, path in nodes:
        kind = node.get("type") if isinstance(node, dict) else None
        if not isinstance(kind, str) or not kind:
            raise InvalidRequest(f'"{path}" is no node: {{"type": "paragraph", "content": […]}}')
        if kind == "text":
            _add_run(runs, node, path, overlapping)
            continue
        left = _finish_runs(writer, parent, left, runs)
        left = writer.type(parent, left, XML_ELEMENT, kind)
        if node.keys() - {"type", "attrs", "content", "marks"}:
            raise InvalidRequest(f'"{path}": a node has "type", "attrs", "content" and "marks"')
        branch = _branch(left)
        for key, value in _attributes(node, f"{path}.").items():
            judge_value(value, f"{path}.attrs.{key}")
            writer.set_value(branch, key, value)
        inner = enumerate(_list(node, "content", f"{path}."))
        _insert(writer, branch, None, [(one, f"{path}.content[{at}]") for at, one in inner], overlapping)
    return _finish_runs(writer, parent, left, runs)


def _finish_runs(
    writer: Writer, parent: Branch, left: Item | None, runs: list[tuple[str, dict[str, Any]]]
) -> Item | None:
    if runs:
        left = writer.type(parent, left, XML_TEXT)
        write_runs(writer, _branch(left), runs)
        runs.clear()
    return left


def _add_run(runs: list[tuple[str, dict[str, Any]]], node: dict[str, Any], path: str, overlapping: set[str]) -> None:
    text = node.get("text")
    if not isinstance(text, str) or not text:
        raise InvalidRequest(f'"{path}.text" is a string of at least one character')
    if node.keys() - {"type", "text", "marks"}:
        raise InvalidRequest(f'"{path}": a text has "type", "text" and "marks"')
    formats: dict[str, Any] = {}
    for name, attributes in _marks(node, f"{path}."):
        judge_value(attributes, f"{path}.marks")
        formats[hashed_name(name, attributes) if name in overlapping else name] = attributes
    if runs and is_same(runs[-1][1], formats):
        runs[-1] = runs[-1][0] + text, formats
    else:
        runs.append((text, formats))


def _marks(node: dict[str, Any], path: str) -> list[tuple[str, dict[str, Any]]]:
    found: list[tuple[str, dict[str, Any]]] = []
    for index, mark in enumerate(_list(node, "marks", path)):
        name = mark.get("type") if isinstance(mark, dict) else None
        if not isinstance(name, str) or not name or mark.keys() - {"type", "attrs"}:
            raise InvalidRequest(f'"{path}marks[{index}]" is no mark: {{"type": "strong", "attrs": {{}}}}')
        attributes = mark.get("attrs")
        if not isinstance(attributes, dict | None):
            raise InvalidRequest(f'"{path}marks[{index}].attrs" is an object')
        if name != _YCHANGE:
            found.append((name, attributes or {}))
    return found


def _overlapping_marks(nodes: list[Any]) -> set[str]:
    """The marks of which one text has several: their formats' names carry a hash, everywhere in this content."""
    overlapping: set[str] = set()
    waiting = [nodes]
    while waiting:
        for node in waiting.pop():
            if isinstance(node, list):
                waiting.append(node)
            elif isinstance(node, dict):
                if node.get("type") == "text" and isinstance(node.get("marks"), list):
                    marks = [mark for mark in node["marks"] if isinstance(mark, dict)]
                    names = [name for mark in marks if isinstance(name := mark.get("type"), str)]
                    overlapping.update(name for name in names if names.count(name) > 1)
                elif isinstance(node.get("content"), list):
                    waiting.append(node["content"])
    return overlapping


def _attributes(node: dict[str, Any], path: str) -> dict[str, Any]:
    attributes = node.get("attrs")
    if not isinstance(attributes, dict | None):
        raise InvalidRequest(f'"{path}attrs" is an object')
    return {key: value for key, value in (attributes or {}).items() if value is not None and key != _YCHANGE}


def _list(node: dict[str, Any], key: str, path: str) -> list[Any]:
    found = node.get(key)
    if not isinstance(found, list | None):
        raise InvalidRequest(f'"{path}{key}" is a list')
    return found or []


def _branch(item: Item) -> Branch:
    if item.branch is None:
        raise ValueError("this item is no type")
    return item.branch


def _at(path: str) -> str:
    return f'"{path.removeprefix(".")}"' if path else "the value"
