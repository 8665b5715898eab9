"""The compactor's child: reads jobs from stdin, answers on stdout, knows no database.

A merge holds the interpreter for as long as it takes, and bytes that crash native code take their process along:
both happen here and not in the service. The child ends with its stdin, so it never outlives its parent by more
than one job. Messages are a length, a JSON head that names the blobs' lengths, and the blobs; the parent
(`worker`) uses the same two functions. Nothing the child says is ever executed.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import sys
import time
from collections.abc import Sequence
from typing import Any, BinaryIO, Final

from compactor.fold import fold_document
from ydoc_store.storage.segments import deflate, unpack_updates

HEAD: Final = struct.Struct(">I")
HEAD_BYTES_MAX: Final = 2**20

Message = tuple[dict[str, Any], list[bytes]]


def encode_head(head: dict[str, Any], blobs: Sequence[bytes]) -> bytes:
    """What stands before the blobs of a message."""
    text = json.dumps({**head, "blobs": [len(blob) for blob in blobs]}).encode()
    return HEAD.pack(len(text)) + text


def decode_head(text: bytes) -> tuple[dict[str, Any], list[int]]:
    """The head without its lengths, and the lengths of the blobs that follow."""
    head = json.loads(text)
    lengths = head.pop("blobs")
    return head, lengths


def answer(head: dict[str, Any], blobs: list[bytes]) -> Message:
    """Do one job: merge and fold the packed rows onto the snapshot, and compress them for the history.

    The head of a result has `ok`; with it false, `reason` is the document's own failure.
    """
    started_s = time.process_time()
    snapshot, packed_rows = blobs
    try:
        updates, row_count, through_seq = unpack_updates(packed_rows, head["after_seq"])
        folded = fold_document(snapshot if head["has_snapshot"] else None, updates, head["keep_deleted"])
        segment = deflate(packed_rows) if head["keep_history"] else b""
    except Exception as error:  # whatever it is, it is told, counted and shown; the child goes on
        return {"ok": False, "reason": f"{type(error).__name__}: {error}"[:1_000]}, []
    result = {
        "ok": True,
        "way": folded.way,
        "doubt": folded.doubt,
        "row_count": row_count,
        "through_seq": through_seq,
        "update_bytes": sum(map(len, updates)),
        "cpu_s": time.process_time() - started_s,
    }
    return result, [folded.snapshot, folded.state_vector, folded.delete_set, segment]


def limit_memory(bytes_max: int) -> None:
    """Bound this process's address space where the system can; 0 leaves it unbounded."""
    try:
        import resource  # absent on Windows
    except ImportError:
        return
    if bytes_max:
        resource.setrlimit(resource.RLIMIT_AS, (bytes_max, bytes_max))


def main(memory_bytes_max: int, niceness: int) -> None:
    """Serve jobs until stdin ends."""
    # A Ctrl-C reaches the whole foreground group, a service's end all of its processes: a child that obeyed would
    # count as its document's failure while the parent still drains. It ends with its stdin, or by SIGKILL.
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
    if hasattr(os, "nice"):
        os.nice(niceness)
    limit_memory(memory_bytes_max)
    jobs, results = sys.stdin.buffer, sys.stdout.buffer
    while (message := _read(jobs)) is not None:
        head, blobs = answer(*message)
        del message
        try:
            results.write(encode_head(head, blobs))
            for blob in blobs:
                results.write(blob)
            results.flush()
        except BrokenPipeError:
            # The parent is gone. Leaving in order would try to flush once more, and complain on stderr.
            os._exit(0)


def _read(stream: BinaryIO) -> Message | None:
    prefix = stream.read(HEAD.size)
    if len(prefix) < HEAD.size:
        return None
    head, lengths = decode_head(stream.read(*HEAD.unpack(prefix)))
    blobs = [stream.read(length) for length in lengths]
    return None if list(map(len, blobs)) != lengths else (head, blobs)
