"""A text as runs of equal formats, as Yjs's `toDelta` has them: strings and embeds, each with what is set on it.

A format is an invisible item that holds from its place on, until another of its key. Here they are read; how they are
written is marks.py's, what they mean to ProseMirror prosemirror.py's.
"""

from __future__ import annotations

from typing import Any

from ydoc_store.errors import WrongState
from ydoc_store.yjs.content import KIND_NAMES, may_be, values_of
from ydoc_store.yjs.lib0 import Reader
from ydoc_store.yjs.tree import TEXT, Branch, Item
from ydoc_store.yjs.values import read_json
from ydoc_store.yjs.walker import FORMAT, STRING

Format = tuple[str, Any]
"""A key and what it is set to, None where it ends."""


def to_delta(root: Branch) -> list[dict[str, Any]]:
    """A text as a delta, `[{"insert": "Hello", "attributes": {"bold": true}}, …]`. An embed is its object, and a shared
    type `{"shared": …}`.

    Raises WrongState for a root type that is no text.
    """
    possible = may_be(root)
    if TEXT not in possible:
        raise WrongState(f"the root type is no text, but of the kind {KIND_NAMES[possible[0]]}: read it as=json")
    delta: list[dict[str, Any]] = []
    for content, formats in runs_of(root):
        inserts = [content] if isinstance(content, str) else values_of(content)
        if isinstance(content, Item) and content.branch is not None:
            inserts = [{"shared": inserts[0]}]
        delta += [{"insert": inserted} | ({"attributes": formats} if formats else {}) for inserted in inserts]
    return delta


def runs_of(branch: Branch) -> list[tuple[str | Item, dict[str, Any]]]:
    """A text's runs, each with its formats in the order in which they began: a string, or the item of what is none."""
    runs: list[tuple[str | Item, dict[str, Any]]] = []
    formats: dict[str, Any] = {}
    run: list[bytes] = []
    opening: list[Format] | None = []

    def finish_run() -> None:
        if run:
            runs.append((b"".join(run).decode(), formats.copy()))
            run.clear()

    for item in branch.sequence():
        struct = item.struct
        if struct.kind == FORMAT:
            # Also one that changes nothing ends a run.
            finish_run()
            change = read_format(struct.payload)
            if opening is not None:
                opening.append(change)
            else:
                apply_format(change, formats)
            continue
        if opening:
            # In front of the first character Yjs drops, as it loads, what others there overrule.
            last = {key: at for at, (key, _) in enumerate(opening)}
            for at, change in enumerate(opening):
                if last[change[0]] == at:
                    apply_format(change, formats)
        opening = None
        if struct.kind == STRING:
            run.append(struct.payload)
        else:
            finish_run()
            runs.append((item, formats.copy()))
    finish_run()
    return runs


def read_format(payload: bytes) -> Format:
    reader = Reader(payload)
    return reader.string(), read_json(reader)


def apply_format(change: Format, formats: dict[str, Any]) -> None:
    key, value = change
    if value is None:
        formats.pop(key, None)
    else:
        formats[key] = value
