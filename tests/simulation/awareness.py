"""Presence as a stock client keeps it: what y-protocols' `Awareness` and y-websocket do with it, rule by rule.

A newer clock wins, an equal one only with null; nobody else can end one's own state; own state is renewed every
15 s and others' forgotten after 30 s; every change, a heard one too, is sent to the server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ydoc_store.yjs.awareness import AwarenessEntry

RENEWED_AFTER_S = 15.0
OUTDATED_AFTER_S = 30.0


@dataclass(slots=True)
class Seen:
    clock: int
    state_json: str | None
    heard_at_s: float


class StockAwareness:
    """`tell` sends entries to the server, or drops them where there is no connection."""

    def __init__(self, client_id: int, tell: Callable[[list[AwarenessEntry]], None], now_s: float) -> None:
        self.client_id = client_id
        self.seen: dict[int, Seen] = {client_id: Seen(0, "{}", now_s)}
        self._tell = tell

    @property
    def here(self) -> set[int]:
        """Whom this editor shows, itself included."""
        return {client_id for client_id, seen in self.seen.items() if seen.state_json is not None}

    def show(self, state_json: str, now_s: float) -> None:
        own = self.seen[self.client_id]
        self.seen[self.client_id] = Seen(own.clock + 1, state_json, now_s)
        self._tell_of([self.client_id])

    def connected(self) -> None:
        self._tell_of([self.client_id])

    def disconnected(self) -> None:
        for client_id, seen in self.seen.items():
            if client_id != self.client_id:
                seen.state_json = None

    def tick(self, now_s: float) -> None:
        own = self.seen[self.client_id]
        if now_s - own.heard_at_s >= RENEWED_AFTER_S:
            self.show(own.state_json or "{}", now_s)
        late = [i for i in self.here if i != self.client_id and now_s - self.seen[i].heard_at_s >= OUTDATED_AFTER_S]
        for client_id in late:
            self.seen[client_id].state_json = None
        if late:
            self._tell_of(sorted(late))

    def hear(self, entries: Iterable[AwarenessEntry], now_s: float) -> None:
        changed = []
        for client_id, clock, state_json in entries:
            seen = self.seen.get(client_id)
            ends = seen is not None and seen.state_json is not None and state_json is None and seen.clock == clock
            if seen is None or seen.clock < clock or ends:
                if state_json is None and client_id == self.client_id:
                    clock, state_json = clock + 1, self.seen[client_id].state_json
                if seen is not None or state_json is not None:
                    changed.append(client_id)
                self.seen[client_id] = Seen(clock, state_json, now_s)
        if changed:
            self._tell_of(changed)

    def _tell_of(self, client_ids: Iterable[int]) -> None:
        self._tell([AwarenessEntry(i, self.seen[i].clock, self.seen[i].state_json) for i in client_ids])
