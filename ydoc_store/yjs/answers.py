"""What HTTP asks of a document's bytes, each as one call that a worker process can make: bytes in, bytes out.

Reading builds a tree of the whole document, some 4 µs a struct, so the caller hands over what is not small. Bodies are
parsed here too: a large one takes as long. Raises what the caller is told; nothing is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from ydoc_store.errors import InvalidRequest, WrongState
from ydoc_store.yjs.content import shown, to_json, to_text, to_xml
from ydoc_store.yjs.drafting import As, draft
from ydoc_store.yjs.edits import apply_edits, parse_edits
from ydoc_store.yjs.markers import without_markers
from ydoc_store.yjs.prosemirror import to_prosemirror
from ydoc_store.yjs.runs import to_delta
from ydoc_store.yjs.tree import Tree
from ydoc_store.yjs.union import diff_exactly
from ydoc_store.yjs.xml_reading import check_xml

WORK_A_BYTE: Final = 16
"""How much more a byte of a document is here than where bytes are only merged or walked."""

TREE_BYTES_MAX: Final = 16 * 2**20
"""The largest document of which a tree is built: some seconds and a gigabyte, at worst ten seconds and two. A long
novel with all that its editors deleted takes one of these MiB; what is larger is read as a Yjs update."""


def content_of(update: bytes, root: str, as_: As) -> bytes:
    """A root type as UTF-8: JSON, text or XML. Raises WrongState where it is no such thing, InvalidUpdate."""
    branch = Tree(update).root(root)
    if as_ == "prosemirror":
        return orjson.dumps(to_prosemirror(branch))
    if as_ == "json":
        return orjson.dumps(shown(branch))
    if as_ == "delta":
        return orjson.dumps(to_delta(branch))
    if as_ == "text":
        return to_text(branch).encode()
    told = to_xml(branch)
    try:
        check_xml(told)
    except InvalidRequest as error:
        raise WrongState(f"this root type cannot be told as XML, read it as=json: {error}") from error
    return told.encode()


def roots_of(update: bytes, names: Sequence[str] | None) -> bytes:
    """The named root types (None: all) as one JSON object. Raises InvalidUpdate."""
    return orjson.dumps(to_json(Tree(update), None if names is None else list(names)))


def edited(update: bytes, body: bytes, structs_max: int) -> bytes:
    """The update that makes the edits of a JSON body. Raises as `parse_edits` and `apply_edits` do."""
    return apply_edits(update, parse_edits(json_of(body)), structs_max=structs_max)


def drafted(body: bytes, as_: As, root: str, structs_max: int) -> bytes:
    """The update that gives an empty document this content. Raises InvalidRequest, TooLarge."""
    content = text_of(body) if as_ in ("text", "xml") else json_of(body)
    return draft(content, as_, root, structs_max=structs_max)


def lacking(update: bytes, vector: Mapping[int, int]) -> bytes:
    """What a reader lacks who has what the state vector says, with all deletes."""
    return diff_exactly(update, vector)


def copied(update: bytes) -> bytes:
    """The content as another document begins with it."""
    return without_markers(update)


def json_of(body: bytes) -> Any:
    """A body's JSON. Raises InvalidRequest, which tells where it breaks off."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the body is no JSON: {error}") from None


def text_of(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the body is no UTF-8, from byte {error.start} on") from None
