"""This side's copy of the document: the pycrdt document, what was edited in it, and what may be applied to it.

Edits are told apart from what was applied here. Bytes from the server pass the walker before native code sees them,
another history is never merged, and an update whose predecessor has not come waits outside of the document: pycrdt
would show it, and not always converge when the predecessor comes. No connection, no clock.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from pycrdt import Doc, TransactionEvent

from ydoc_store.client.errors import EpochChanged, Unreadable
from ydoc_store.errors import InvalidUpdate
from ydoc_store.yjs.join import join
from ydoc_store.yjs.merge import EMPTY_UPDATE, fenced
from ydoc_store.yjs.ranges import decode_state_vector
from ydoc_store.yjs.structs import Struct, StructUpdate, read_update, write_update
from ydoc_store.yjs.walked import RESERVED_CLIENT_ID_MIN, UpdateLimits, Walked
from ydoc_store.yjs.walker import SKIP, walk

# What is stored was within the limits of its day; what nests deeper than this ends a process.
APPLIED_LIMITS = UpdateLimits(update_bytes_max=2**31, nesting_max=100, types_nesting_max=2**31, judges_parents=False)
CLIENTS_MAX = 10_000_000


class Replica:
    """`edited` is called for each edit with its update; `failed` with what an observer of the document raised."""

    def __init__(
        self, ydoc: Doc[Any], edited: Callable[[bytes], None], failed: Callable[[BaseException], None]
    ) -> None:
        self.ydoc = ydoc
        self._edited = edited
        self._failed = failed
        self._is_applying = False
        # How far each client's content has been applied, and what came from beyond that.
        self._ends: dict[int, int] = {}
        self._marker: int | None = None
        for client, end in decode_state_vector(ydoc.get_state(), clients_max=CLIENTS_MAX).items():
            self._reach_to(client, end)
        self._held: list[tuple[bytes, Walked]] = []
        self._subscription = ydoc.observe(self._note)

    def _note(self, event: TransactionEvent) -> None:
        update = event.update
        if not self._is_applying and update != EMPTY_UPDATE:
            with suppress(InvalidUpdate):  # whatever this is, the server has its own judgement
                self._reach(walk(update, APPLIED_LIMITS))
            self._edited(update)

    @property
    def is_in_transaction(self) -> bool:
        """Whether an edit is open: nobody is told of it before its transaction ends."""
        return self.ydoc._txn is not None

    @property
    def has_content(self) -> bool:
        """Whether anything was ever written in it."""
        return bool(self._ends)

    @property
    def held_count(self) -> int:
        """How many updates wait for a predecessor."""
        return len(self._held)

    def state_vector(self) -> bytes:
        """What a Step1 says. Whatever waits is forgotten: the answer holds it."""
        self._held.clear()
        return self.ydoc.get_state()

    def beyond(self, state_vector: bytes) -> bytes:
        """Everything that is here and not there, with the whole delete set."""
        return fenced(self.ydoc.get_update, state_vector)

    def apply(self, update: bytes) -> None:
        """Apply what the server sent, and what waited for it.

        Raises EpochChanged, having applied nothing, for what belongs to another history; Unreadable.
        """
        try:
            walked = walk(update, APPLIED_LIMITS)
            self._judge_history(walked)
            ready = self._ready(update, walked)
            if ready is not None:
                self._apply_now(ready)
        except InvalidUpdate as error:
            raise Unreadable(f"the server sent what cannot be applied: {error}") from error

    def close(self) -> None:
        """Take note of no further edits; the document stays the caller's."""
        self.ydoc.unobserve(self._subscription)

    def _judge_history(self, walked: Walked) -> None:
        if self._marker is not None and walked.reserved_clients() - {self._marker}:
            raise EpochChanged("this document was recreated, repaired or restored: open it anew")

    def _ready(self, update: bytes, walked: Walked) -> bytes | None:
        """What can be applied by now, as one update; the rest is held."""
        if self._lacks(walked):
            before, rest = cut_at_gaps(update, self._ends)
            self._held.append((rest, walk(rest, APPLIED_LIMITS)))
            if before == EMPTY_UPDATE:
                return None
            update, walked = before, walk(before, APPLIED_LIMITS)
        self._reach(walked)
        ready = [update]
        while fitting := [held for held in self._held if not self._lacks(held[1])]:
            self._held = [held for held in self._held if held not in fitting]
            for held, its_ranges in fitting:
                ready.append(held)
                self._reach(its_ranges)
        return join(ready)

    def _lacks(self, walked: Walked) -> bool:
        reached: dict[int, int] = {}
        for client, start, end in walked.structs:
            if start > max(self._ends.get(client, 0), reached.get(client, 0)):
                return True
            reached[client] = end
        return False

    def _reach(self, walked: Walked) -> None:
        for client, _, end in walked.structs:
            self._reach_to(client, end)

    def _reach_to(self, client: int, end: int) -> None:
        if end > self._ends.get(client, 0):
            self._ends[client] = end
            if client >= RESERVED_CLIENT_ID_MIN:
                self._marker = client

    def _apply_now(self, update: bytes) -> None:
        self._is_applying = True
        try:
            self.ydoc.apply_update(update)
        except ExceptionGroup as group:
            # It is applied; somebody's observer failed, and pycrdt tells whoever ended the transaction.
            self._failed(group)
        except (KeyboardInterrupt, SystemExit, MemoryError):
            raise
        except BaseException as fault:
            # A panic of native code is no Exception.
            raise InvalidUpdate(f"not an update that pycrdt can read: {fault}") from fault
        finally:
            self._is_applying = False


def cut_at_gaps(update: bytes, ends: dict[int, int]) -> tuple[bytes, bytes]:
    """What of an update follows what is held up to `ends`, and what lies behind gaps; deletes go with what they delete.

    Either may be the empty update. Raises InvalidUpdate.
    """
    decoded = read_update(update)
    before, behind = StructUpdate({}, {}), StructUpdate({}, {})
    reached: dict[int, int] = {}
    for client, block in decoded.structs.items():
        end = ends.get(client, 0)
        follows: list[Struct] = []
        rest: list[Struct] = []
        for struct in block:
            if not rest and struct.kind != SKIP and struct.clock <= end:
                follows.append(struct)
                end = max(end, struct.end)
            elif rest or struct.kind != SKIP:
                rest.append(struct)
        reached[client] = end
        if follows:
            before.structs[client] = follows
        if rest:
            behind.structs[client] = rest
    for client, ranges in decoded.deletes.items():
        end = max(ends.get(client, 0), reached.get(client, 0))
        here = [(start, min(stop, end)) for start, stop in ranges if start < end]
        later = [(max(start, end), stop) for start, stop in ranges if stop > end]
        if here:
            before.deletes[client] = here
        if later:
            behind.deletes[client] = later
    return write_update(before.structs, before.deletes), write_update(behind.structs, behind.deletes)
