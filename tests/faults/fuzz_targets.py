"""What arbitrary bytes are given to, without a socket: each target returns, or raises what nobody may see.

Shared by the properties (Hypothesis, in every run) and by the coverage-guided fuzzer (atheris, in the long run). A
target swallows our own refusals only: any other exception, a recursion, a hang or a dead process is a finding.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final

from ydoc_store.errors import YdocError
from ydoc_store.yjs.awareness import decode_awareness, encode_awareness_entries
from ydoc_store.yjs.checker import check_fold
from ydoc_store.yjs.fold import fold
from ydoc_store.yjs.join import join
from ydoc_store.yjs.lib0 import Malformed, frames, json_nesting
from ydoc_store.yjs.messages import Awareness, SyncStep1, SyncStep2, Update, decode_message, encode_update
from ydoc_store.yjs.ranges import Knowledge, decode_state_vector, encode_state_vector
from ydoc_store.yjs.split import split
from ydoc_store.yjs.structs import read_update
from ydoc_store.yjs.walker import UpdateLimits, Walked, walk, walk_structs

PIECE_BYTES: Final = 64


def frame(data: bytes) -> None:
    """A frame of a socket, and what is in it."""
    with suppress(YdocError):
        message = decode_message(data)
        if isinstance(message, Update | SyncStep2):
            update(message.update)
        elif isinstance(message, Awareness):
            awareness(message.payload)
        elif isinstance(message, SyncStep1):
            vector(message.state_vector)


def update(data: bytes) -> None:
    """An update: refused by the walker, or read by everything that works on what the walker accepted."""
    try:
        walked = walk(data)
    except YdocError:
        _read_unwalked(data)
        return
    assert walked == walk_structs(data, UpdateLimits())
    knowledge = _known(walked)
    assert knowledge.covers(walked)
    assert not knowledge.news(walked).structs
    folded = fold(data)
    check_fold(data, folded)
    assert fold(folded) == folded
    assert _known(walk_structs(folded)) == knowledge
    pieces = split(data, PIECE_BYTES)
    assert _joined(pieces) == knowledge
    assert _joined([data, data]) == knowledge
    assert decode_message(encode_update(data)) == Update(data)


def _read_unwalked(data: bytes) -> None:
    # What stands in a log was walked; nothing here relies on it.
    for work in (read_update, fold, lambda data: split(data, PIECE_BYTES), lambda data: list(frames(data))):
        with suppress(YdocError, Malformed):
            work(data)


def _known(walked: Walked) -> Knowledge:
    knowledge = Knowledge()
    knowledge.add(walked)
    return knowledge


def _joined(updates: list[bytes]) -> Knowledge:
    return _known(walk_structs(join(updates)))


def awareness(data: bytes) -> None:
    """The payload of an awareness message."""
    with suppress(YdocError):
        entries = decode_awareness(data, entries_max=100, bytes_max=16 * 1024, json_depth_max=64)
        encoded = encode_awareness_entries(entries)
        assert decode_awareness(encoded, entries_max=100, bytes_max=2**20, json_depth_max=64) == entries


def vector(data: bytes) -> None:
    """A state vector of a peer."""
    with suppress(YdocError):
        decoded = decode_state_vector(data, clients_max=1_000)
        assert decode_state_vector(encode_state_vector(decoded), clients_max=1_000) == decoded


def stored(data: bytes) -> None:
    """A state vector and a delete set as a snapshot's row holds them."""
    at = data[0] % len(data) if data else 0
    with suppress(Malformed):
        knowledge = Knowledge.decode(data[:at], data[at:])
        again = Knowledge.decode(knowledge.encode_state_vector(), knowledge.encode_delete_set())
        assert again.deletes.keys() >= {client for client, held in knowledge.deletes.items() if len(held)}
    json_nesting(data.decode(errors="surrogateescape"))


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    target.__name__: target for target in (frame, update, awareness, vector, stored)
}
