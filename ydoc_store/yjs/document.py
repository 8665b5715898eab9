"""A document's content for people: does it decode, is anything pending, what does it say.

Builds a native document, so it is for commands and checks, never for the hot path; bytes were walked before. An
update names its root types but does not tell their kinds, which the code of the editors alone knows: they are
inferred here from what stands in them, for reading only.
"""

from __future__ import annotations

import base64
import math
from collections import defaultdict
from dataclasses import dataclass
from html import escape
from typing import Any

from pycrdt import Array, Doc, Map, Text, XmlElement, XmlFragment, XmlText

from ydoc_store.errors import InvalidUpdate
from ydoc_store.yjs.lineage import Lineage
from ydoc_store.yjs.merge import fenced
from ydoc_store.yjs.nesting import Nesting
from ydoc_store.yjs.replay import Replay
from ydoc_store.yjs.structs import StructUpdate, covers, read_update
from ydoc_store.yjs.walker import ANY, BINARY, DOCUMENT, EMBED, FORMAT, GC, SKIP, STRING, TYPE

_XML_TYPES = (3, 4, 5, 6)  # element, fragment, hook and text

# Native code recurses when it deletes types: 100,000 levels end the process, 10,000 do not.
DECODED_LEVELS_MAX = 5_000
# Python recurses too, some three calls a level. As deep as one update may nest.
SHOWN_LEVELS_MAX = 256


@dataclass(frozen=True, slots=True)
class Content:
    """What decoding showed. `has_pending`: structs or deletes wait for predecessors that never came."""

    has_pending: bool
    roots: tuple[str, ...]


def decode_check(update: bytes) -> Content:
    """Decodes the update as a document. Raises InvalidUpdate where that fails. `roots` are in alphabetical order."""
    decoded = read_update(update)
    _judge_levels(decoded, DECODED_LEVELS_MAX)
    _document(update)
    replay = Replay(decoded)
    held = [(client, block[-1].end) for client, block in decoded.structs.items()]
    deleted = [(client, ranges[-1][1]) for client, ranges in decoded.deletes.items() if ranges]
    has_pending = any(end > replay.applied(client) for client, end in (*held, *deleted))
    return Content(has_pending, tuple(sorted(_root_kinds(decoded))))


def to_json(update: bytes) -> dict[str, Any]:
    """The content of each root type by its name, as values that JSON can hold.

    Text is a string without its formats, an array a list, a map an object, XML a string of
    elements and text; a root of which nothing
    tells the kind, everything in it being deleted, is None. Binary values are `{"base64": …}`, subdocuments
    `{"subdocument": guid}`, numbers that JSON lacks None. What waits for a missing predecessor is not shown.
    Raises InvalidUpdate.
    """
    decoded = read_update(update)
    _judge_levels(decoded, SHOWN_LEVELS_MAX)
    kinds = _root_kinds(decoded)
    document = _document(update)
    return {
        name: None if kind is None else _plain(document.get(name, type=kind)) for name, kind in sorted(kinds.items())
    }


def _judge_levels(update: StructUpdate, levels_max: int) -> None:
    """Raises InvalidUpdate where types nest deeper: each update was within a limit, what they add up to may not be."""
    nesting = Nesting()
    for client, block in update.structs.items():
        for struct in block:
            if struct.kind not in (GC, SKIP):
                link = struct.origin or struct.right_origin
                if link is not None:
                    nesting.add(client, struct.clock, (*link, 0))
                elif isinstance(struct.parent, tuple):
                    nesting.add(client, struct.clock, (*struct.parent, 1))
                else:
                    nesting.add(client, struct.clock, None)
    levels = nesting.deepest()
    if levels > levels_max:
        raise InvalidUpdate(f"its types nest {levels:,} deep, at most {levels_max:,} can be decoded here")


def _document(update: bytes) -> Doc[Any]:
    document: Doc[Any] = Doc()
    fenced(document.apply_update, update)
    return document


def _root_kinds(update: StructUpdate) -> dict[str, type[Any] | None]:
    """The root types and what each seems to be, by what stands in it and is not deleted.

    Deleted content tells nothing, so that a fold, which drops it, changes no answer; keys stay and tell a map.
    """
    lineage = Lineage(update.structs)
    evidence: dict[str, set[type[Any]]] = defaultdict(set)
    for client, block in update.structs.items():
        deleted = update.deletes.get(client, [])
        for struct in block:
            place = lineage.place(struct) if struct.kind not in (GC, SKIP) else None
            if place is None or not isinstance(place.parent, str):
                continue
            kinds = evidence[place.parent]
            if place.key is not None:
                kinds.add(Map)
            elif covers(deleted, struct.clock, struct.end):
                continue
            elif struct.kind in (STRING, FORMAT, EMBED):
                kinds.add(Text)
            elif struct.kind in (ANY, BINARY, DOCUMENT):
                kinds.add(Array)
            elif struct.kind == TYPE:
                kinds.add(XmlFragment if struct.payload[0] in _XML_TYPES else Array)
    # Texts and elements may have attributes beside their sequence, texts embed types, arrays hold XML.
    by_weight = (Text, Array, XmlFragment, Map)
    return {name: next((kind for kind in by_weight if kind in kinds), None) for name, kinds in evidence.items()}


def _plain(value: Any) -> Any:
    """A value as JSON has it. Recursive: how deep types and values nest was judged."""
    if isinstance(value, Text):
        return str(value)
    if isinstance(value, XmlFragment | XmlElement | XmlText):
        return _xml(value)
    if isinstance(value, Map | dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, Array | list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, bytes | bytearray):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, Doc):
        return {"subdocument": value.guid}
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        # Whole numbers come back from native code as floats.
        return int(value) if value.is_integer() and abs(value) <= 2**53 else value
    return value


def _xml(node: XmlFragment | XmlElement | XmlText) -> str:
    """A node as XML, escaped, attributes in alphabetical order: native code gives them in a random one."""
    if isinstance(node, XmlText):
        return escape("".join(part for part, _ in node.diff() if isinstance(part, str)), quote=False)
    inside = "".join(_xml(child) for child in node.children)
    if isinstance(node, XmlFragment):
        return inside
    named = dict(node.attributes.__iter__())  # pycrdt types its iterator as an iterable, which iter() refuses
    attributes = "".join(f' {name}="{escape(str(named[name]))}"' for name in sorted(named))
    return f"<{node.tag}{attributes}>{inside}</{node.tag}>"
