"""Formats of text as Yjs writes them: what must begin and end around a run, and the names of marks as y-prosemirror's.

A format is an invisible item that holds from its place on, until another of its key. Nothing is known here of nodes.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Any, Final

import orjson

from ydoc_store.yjs.prosemirror import apply_format, read_format
from ydoc_store.yjs.tree import Branch, Item
from ydoc_store.yjs.values import encode_any
from ydoc_store.yjs.walker import FORMAT
from ydoc_store.yjs.writing import Writer

_HASH_BYTES: Final = 6


def is_same(left: Any, right: Any) -> bool:
    """Whether two JSON values are: true is no 1, as Python has it."""
    return orjson.dumps(left, option=orjson.OPT_SORT_KEYS) == orjson.dumps(right, option=orjson.OPT_SORT_KEYS)


def insert_formatted(
    writer: Writer, parent: Branch, left: Item | None, text: str, attributes: dict[str, Any] | None
) -> None:
    """Text at a place, with these formats and no others; None: with those of the place, as typing has them."""
    if attributes is None:
        writer.text(parent, left, text)
        return
    current = _formats_at(parent, left)
    wanted = {key: attributes.get(key) for key in (*current, *attributes)}
    left = _pass(parent, left, wanted, current)
    before: dict[str, Any] = {}
    for key, value in wanted.items():
        if not is_same(current.get(key), value):
            before[key] = current.get(key)
            left = writer.format(parent, left, key, value)
    left = writer.text(parent, left, text)
    for key, value in before.items():
        left = writer.format(parent, left, key, value)


def _formats_at(parent: Branch, left: Item | None) -> dict[str, Any]:
    formats: dict[str, Any] = {}
    item = parent.start if left is not None else None
    while item is not None:
        if not item.deleted and item.struct.kind == FORMAT:
            apply_format(read_format(item.struct.payload), formats)
        item = item.right if item is not left else None
    return formats


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


def write_runs(writer: Writer, parent: Branch, runs: list[tuple[str, dict[str, Any]]]) -> None:
    """Runs of text with their formats into an empty text; behind the last one all formats end."""
    left: Item | None = None
    current: dict[str, Any] = {}
    for text, wanted in [*runs, ("", {})]:
        for key in [key for key in current if key not in wanted]:
            left = writer.format(parent, left, key, None)
            del current[key]
        for key, value in wanted.items():
            if key not in current or not is_same(current[key], value):
                left = writer.format(parent, left, key, value)
                current[key] = value
        if text:
            left = writer.text(parent, left, text)


def hashed_name(mark: str, attributes: dict[str, Any]) -> str:
    """The format's name of a mark that may overlap itself: one for each of its attributes' values."""
    told = {"type": mark, "attrs": attributes} if attributes else {"type": mark}
    digest = hashlib.sha256(encode_any(told)).digest()
    folded = bytearray(digest[:_HASH_BYTES])
    for at in range(_HASH_BYTES, len(digest)):
        folded[at % _HASH_BYTES] ^= digest[at]
    return f"{mark}--{base64.b64encode(bytes(folded)).decode()}"
