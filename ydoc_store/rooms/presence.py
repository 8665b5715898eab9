"""Who is here: the awareness states of one room, never stored.

A state belongs to the member that introduced it and goes when that member goes. An entry counts only when it is
newer than what is known: stock y-websocket clients send every awareness update that they receive back to the
server, and passing those on would grow traffic with the square of the members (wire protocol, Both). Pure: the
time is a parameter.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass

from ydoc_store.yjs.awareness import AwarenessEntry

# How long a clock is remembered after its owner left, so that a late echo of its last state does not bring it back.
GONE_REMEMBERED_S = 120.0


@dataclass(slots=True)
class _State:
    clock: int
    state_json: str
    owner: Hashable
    heard_at_s: float


@dataclass(frozen=True, slots=True)
class Heard:
    """What an awareness message changed: `fresh` goes to the other members, `corrections` back to its sender.

    A correction tells a client that came back with the clock it left with that it was declared gone meanwhile;
    a stock client answers with a newer clock.
    """

    fresh: list[AwarenessEntry]
    corrections: list[AwarenessEntry]


class Presence:
    """The states of one room, by client id. `states_max` bounds them."""

    __slots__ = ("_gone", "_states", "states_max")

    def __init__(self, states_max: int):
        self.states_max = states_max
        self._states: dict[int, _State] = {}
        self._gone: dict[int, tuple[int, float]] = {}

    def hear(self, owner: Hashable, entries: Iterable[AwarenessEntry], now_s: float) -> Heard:
        """Apply the entries that are newer than what is known; an equal clock wins only with null."""
        fresh: list[AwarenessEntry] = []
        corrections: list[AwarenessEntry] = []
        for entry in entries:
            known = self._states.get(entry.client_id)
            if known is not None:
                newer = entry.clock > known.clock or (entry.clock == known.clock and entry.state_json is None)
                if not newer:
                    # Whoever repeats what is known may keep it from timing out, if it is the owner.
                    if owner == known.owner:
                        known.heard_at_s = now_s
                    continue
            else:
                gone = self._gone.get(entry.client_id)
                if gone is not None and entry.clock <= gone[0]:
                    if entry.state_json is not None:
                        corrections.append(AwarenessEntry(entry.client_id, gone[0], None))
                    continue
                if entry.state_json is not None and len(self._states) >= self.states_max:
                    continue
            self._apply(owner, entry, now_s)
            fresh.append(entry)
        return Heard(fresh, corrections)

    def _apply(self, owner: Hashable, entry: AwarenessEntry, now_s: float) -> None:
        if entry.state_json is None:
            self._states.pop(entry.client_id, None)
            self._gone[entry.client_id] = (entry.clock, now_s)
        else:
            self._gone.pop(entry.client_id, None)
            self._states[entry.client_id] = _State(entry.clock, entry.state_json, owner, now_s)

    def leave(self, owner: Hashable, now_s: float) -> list[AwarenessEntry]:
        """The owner is gone: the entries that say so, for the states that it introduced and no others."""
        return self._drop([i for i, state in self._states.items() if state.owner == owner], now_s)

    def expire(self, now_s: float, timeout_s: float) -> list[AwarenessEntry]:
        """Drop what was not renewed in time (its node died, or its socket is half open); the entries that say so."""
        for client_id in [i for i, (_, at_s) in self._gone.items() if now_s - at_s > GONE_REMEMBERED_S]:
            del self._gone[client_id]
        late = [i for i, state in self._states.items() if now_s - state.heard_at_s > timeout_s]
        return self._drop(late, now_s)

    def _drop(self, client_ids: list[int], now_s: float) -> list[AwarenessEntry]:
        gone = [AwarenessEntry(i, self._states.pop(i).clock + 1, None) for i in client_ids]
        for entry in gone:
            self._gone[entry.client_id] = (entry.clock, now_s)
        return gone

    def current(self) -> list[AwarenessEntry]:
        """Everyone who is here, for a joiner."""
        return [AwarenessEntry(i, state.clock, state.state_json) for i, state in self._states.items()]

    def current_of(self, owners: Iterable[Hashable]) -> list[AwarenessEntry]:
        """The states that these owners introduced, for a node that has just opened the room."""
        mine = set(owners)
        return [
            AwarenessEntry(i, state.clock, state.state_json) for i, state in self._states.items() if state.owner in mine
        ]

    def __len__(self) -> int:
        return len(self._states)
