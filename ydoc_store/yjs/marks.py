"""Formats of text as Yjs writes them: what must begin and end around a run, and the names of marks as y-prosemirror's.

A format is an invisible item that holds from its place on, until another of its key. Nothing is known here of nodes.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import Any, Final

import orjson

from ydoc_store.errors import WrongState
from ydoc_store.yjs.runs import apply_format, read_format
from ydoc_store.yjs.tree import Branch, Item
from ydoc_store.yjs.values import encode_any
from ydoc_store.yjs.walker import FORMAT
from ydoc_store.yjs.writing import Writer

_HASH_BYTES: Final = 6


def is_same(left: Any, right: Any) -> bool:
    """Whether two JSON values are: true is no 1, as Python has it."""
    return orjson.dumps(left, option=orjson.OPT_SORT_KEYS) == orjson.dumps(right, option=orjson.OPT_SORT_KEYS)


def insert_formatted(
    writer: Writer, parent: Branch, left: Item | None, content: str | dict[str, Any], formats: dict[str, Any] | None
) -> None:
    """Text, or an embed, at a place, with these formats and no others; None: with those of the place, as typing has
    them."""
    if formats is None:
        _put(writer, parent, left, content)
        return
    current = _formats_at(writer, parent, left)
    wanted = {key: formats.get(key) for key in (*current, *formats)}
    left, before = _begin(writer, parent, left, wanted, current)
    left = _put(writer, parent, left, content)
    _end(writer, parent, left, before)


def format_range(writer: Writer, parent: Branch, index: int, count: int, formats: dict[str, Any]) -> None:
    """Sets these formats on `count` units from `index` on, None taking one away; others stay as they are.

    As Yjs does it: one format in front, one behind, and those of the same keys in between go. Raises WrongState past
    the end.
    """
    left = writer.seek(parent, index)
    left, before = _begin(writer, parent, left, formats, _formats_at(writer, parent, left))
    rest = count
    item = parent.start if left is None else left.right
    while item is not None and (rest > 0 or (before and not item.is_counted)):
        if item.is_counted:
            if rest < item.length:
                writer.cut(item, rest)
            rest -= item.length
        elif not item.deleted:
            key, value = read_format(item.struct.payload)
            if key in formats:
                if is_same(formats[key], value):
                    before.pop(key, None)
                elif rest > 0:
                    before[key] = value
                else:
                    break
                writer.delete(item)
        left, item = item, item.right
    if rest > 0:
        raise WrongState(f"{count} from {index} on is past its end, which is {index + count - rest}")
    _end(writer, parent, left, before)


def _put(writer: Writer, parent: Branch, left: Item | None, content: str | dict[str, Any]) -> Item:
    if isinstance(content, str):
        return writer.text(parent, left, content)
    return writer.embed(parent, left, content)


def _begin(
    writer: Writer, parent: Branch, left: Item | None, wanted: dict[str, Any], current: dict[str, Any]
) -> tuple[Item | None, dict[str, Any]]:
    """Begins what is wanted and not so already; returns the last item, and what has to hold again behind the range."""
    left = _pass(parent, left, wanted, current)
    before: dict[str, Any] = {}
    for key, value in wanted.items():
        if not is_same(current.get(key), value):
            before[key] = current.get(key)
            left = writer.format(parent, left, key, value)
    return left, before


def _end(writer: Writer, parent: Branch, left: Item | None, before: dict[str, Any]) -> None:
    for key, value in before.items():
        left = writer.format(parent, left, key, value)


def _formats_at(writer: Writer, parent: Branch, left: Item | None) -> dict[str, Any]:
    """The formats that hold behind `left`, found from where the last ones were: many edits of a long text would each
    walk through all that is in front."""
    known, formats = writer.formats.pop(parent, (None, {}))
    found: list[Item] = []
    item = left
    while item is not None and item is not known:
        if not item.deleted and item.struct.kind == FORMAT:
            found.append(item)
        item = item.left
    formats = formats.copy() if item is not None else {}
    for change in reversed(found):
        apply_format(read_format(change.struct.payload), formats)
    if left is not None:
        writer.formats[parent] = left, formats
    return formats.copy()


def _pass(parent: Branch, left: Item | None, wanted: dict[str, Any], current: dict[str, Any]) -> Item | None:
    """Steps over what is deleted, and over formats that begin or end as wanted: fewer are written then."""
    item = parent.start if left is None else left.right
    while item is not None:
        if not item.deleted:
            if item.struct.kind != FORMAT:
                break
            key, value = read_format(item.struct.payload)
            if not is_same(wanted.get(key), value):
                break
            apply_format((key, value), current)
        left, item = item, item.right
    return left


def write_runs(writer: Writer, parent: Branch, runs: Sequence[tuple[str | dict[str, Any], dict[str, Any]]]) -> None:
    """Runs of text, and embeds, with their formats into an empty text; behind the last one all formats end."""
    left: Item | None = None
    current: dict[str, Any] = {}
    for content, wanted in [*runs, ("", {})]:
        for key in [key for key in current if key not in wanted]:
            left = writer.format(parent, left, key, None)
            del current[key]
        for key, value in wanted.items():
            if key not in current or not is_same(current[key], value):
                left = writer.format(parent, left, key, value)
                current[key] = value
        if content:
            left = _put(writer, parent, left, content)


def hashed_name(mark: str, attributes: dict[str, Any]) -> str:
    """The format's name of a mark that may overlap itself: one for each of its attributes' values."""
    told = {"type": mark, "attrs": attributes} if attributes else {"type": mark}
    digest = hashlib.sha256(encode_any(told)).digest()
    folded = bytearray(digest[:_HASH_BYTES])
    for at in range(_HASH_BYTES, len(digest)):
        folded[at % _HASH_BYTES] ^= digest[at]
    return f"{mark}--{base64.b64encode(bytes(folded)).decode()}"
