"""Who is here: the awareness states of one room, never stored.

A state belongs to the member, or the node, that introduced it and goes when that goes. An entry counts only when it
is newer than what is known: stock y-websocket clients send every awareness update that they receive back to the
server, and passing those on would grow traffic with the square of the members (wire protocol, Both). Pure: the
time is a parameter.
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Iterable
from dataclasses import dataclass

from ydoc_store.yjs.awareness import AwarenessEntry, stamped_id

# How long a clock is remembered after its owner left, so that a late echo of its last state does not bring it back.
GONE_REMEMBERED_S = 120.0
# A client continues from whatever clock it is told of itself, and one of 2**31 closes its connection, for good as it
# comes back with the next one. So whoever did not introduce a state may neither begin nor take over near there, nor
# move its clock on by more than somebody does who types offline for a day.
FOREIGN_CLOCK_MAX = 2**30
FOREIGN_CLOCK_STEP_MAX = 2**16


@dataclass(slots=True)
class _State:
    clock: int
    state_json: str
    owner: Hashable
    principal: str | None
    heard_at_s: float


@dataclass(frozen=True, slots=True)
class Heard:
    """What an awareness message changed: `fresh` goes to the other members, `corrections` back to its sender.

    A correction tells a client that came back with the clock it left with that it was declared gone meanwhile;
    a stock client answers with a newer clock.
    """

    fresh: list[AwarenessEntry]
    corrections: list[AwarenessEntry]


@dataclass(frozen=True, slots=True)
class Guest:
    """Somebody who shows up over HTTP, without a socket that would end: their states go when they are not renewed.

    Where nobody has an identity, each editor is a guest of its own.
    """

    actor: str | None
    client_id: int | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """Another node, as the owner of what its members show."""

    name: str


class Presence:
    """The states of one room, by client id. `states_max` bounds them; `owned_max`, and `owned_bytes_max` in all, those
    of one member."""

    __slots__ = (
        "_changed",
        "_gone",
        "_is_stamped",
        "_owned",
        "_states",
        "incarnation",
        "owned_bytes_max",
        "owned_max",
        "states_max",
        "version",
    )

    def __init__(
        self,
        states_max: int,
        owned_max: int | None = None,
        owned_bytes_max: int = 16 * 1024,
        *,
        is_stamped: bool = False,
    ):
        # Whether states say whose they are, in words that are the server's.
        self._is_stamped = is_stamped
        self.states_max = states_max
        self.owned_max = states_max if owned_max is None else owned_max
        self.owned_bytes_max = owned_bytes_max
        self._states: dict[int, _State] = {}
        self._owned: dict[Hashable, set[int]] = {}
        # Clock and time of those who left, the longest gone first.
        self._gone: dict[int, tuple[int, float]] = {}
        # Rises with every change, and whose the changes were. What a reader was told of another incarnation is void.
        self.version = 0
        self.incarnation = random.getrandbits(49)
        self._changed: dict[int, int] = {}

    def hear(
        self,
        owner: Hashable,
        entries: Iterable[AwarenessEntry],
        now_s: float,
        *,
        is_node: bool = False,
        principal: str | None = None,
    ) -> Heard:
        """Apply the entries that are newer than what is known; an equal clock wins only with null.

        A state that somebody else's socket introduced is taken over by a newer clock of the same `principal` alone:
        that is a client on a new socket, whose old one may be half open. None is everyone, as in open mode.

        A member's null for somebody else's state counts only when it is newer: a client that woke from sleep
        declares everyone gone at their own clocks, and timing out is this server's business. Another node has
        judged that already (`is_node`), and it speaks for any number of members: whose a state is stands in its stamp.
        """
        heard = Heard([], [])
        for entry in entries:
            known = self._states.get(entry.client_id)
            if known is None:
                is_fresh = self._judge_unknown(owner, entry, now_s, heard.corrections, is_node=is_node)
            else:
                may_end = is_node or owner == known.owner
                is_theirs = may_end or known.principal == principal
                is_fresh = (
                    known.clock < entry.clock and (may_end or (is_theirs and _is_modest(entry.clock, known.clock)))
                ) or (entry.clock == known.clock and entry.state_json is None and may_end)
                is_fresh = is_fresh and (is_node or self._fits(owner, entry))
                if owner == known.owner:
                    # Whoever repeats what is known keeps it from timing out.
                    known.heard_at_s = now_s
            if is_fresh:
                whose = stamped_id(entry) if is_node and self._is_stamped else principal
                self._apply(owner, entry, now_s, whose)
                heard.fresh.append(entry)
        return heard

    def _judge_unknown(
        self, owner: Hashable, entry: AwarenessEntry, now_s: float, corrections: list[AwarenessEntry], *, is_node: bool
    ) -> bool:
        """Whether an entry of somebody who is not here brings them in."""
        gone = self._gone.get(entry.client_id)
        if not is_node and not _is_modest(entry.clock, None if gone is None else gone[0]):
            return False
        if entry.state_json is None:
            # Of a node it is remembered though nobody was here: what it showed before may be overtaken on its way.
            if (is_node and gone is None) or (gone is not None and entry.clock > gone[0]):
                self._forget(entry.client_id, entry.clock, now_s)
            return False
        if gone is not None and entry.clock <= gone[0]:
            self._note(entry.client_id)
            corrections.append(AwarenessEntry(entry.client_id, gone[0], None))
            return False
        owned = len(self._owned.get(owner, ()))
        may_own = is_node or (owned < self.owned_max and self._fits(owner, entry))
        return len(self._states) < self.states_max and may_own

    def _fits(self, owner: Hashable, entry: AwarenessEntry) -> bool:
        """Whether a member may show this beside what it shows already: one message of the largest size, in all."""
        if entry.state_json is None:
            return True
        others = [self._states[i].state_json for i in self._owned.get(owner, ()) if i != entry.client_id]
        return len(entry.state_json) + sum(map(len, others)) <= self.owned_bytes_max

    def _apply(self, owner: Hashable, entry: AwarenessEntry, now_s: float, principal: str | None = None) -> None:
        known = self._states.pop(entry.client_id, None)
        if known is not None:
            self._disown(known.owner, entry.client_id)
        if entry.state_json is None:
            self._forget(entry.client_id, entry.clock, now_s)
        else:
            self._gone.pop(entry.client_id, None)
            self._states[entry.client_id] = _State(entry.clock, entry.state_json, owner, principal, now_s)
            self._owned.setdefault(owner, set()).add(entry.client_id)
            self._note(entry.client_id)

    def _note(self, client_id: int) -> None:
        self.version += 1
        self._changed[client_id] = self.version

    def _disown(self, owner: Hashable, client_id: int) -> None:
        owned = self._owned[owner]
        owned.discard(client_id)
        if not owned:
            del self._owned[owner]

    def _forget(self, client_id: int, clock: int, now_s: float) -> None:
        self._gone.pop(client_id, None)
        if len(self._gone) >= self.states_max:
            self._drop_gone(next(iter(self._gone)))
        self._gone[client_id] = (clock, now_s)
        self._note(client_id)

    def _drop_gone(self, client_id: int) -> None:
        del self._gone[client_id]
        self._changed.pop(client_id, None)

    def is_live_elsewhere(self, client_id: int, owner: Hashable) -> bool:
        """Whether this editor is here, and introduced by somebody else than `owner`."""
        state = self._states.get(client_id)
        return state is not None and state.owner != owner

    def leave(self, owner: Hashable, now_s: float) -> list[AwarenessEntry]:
        """The owner is gone: the entries that say so, for the states that it introduced and no others."""
        return self._drop(sorted(self._owned.get(owner, ())), now_s)

    def leave_guests(self, now_s: float) -> list[AwarenessEntry]:
        """All guests are gone: the entries that say so."""
        return self._drop([i for i, state in self._states.items() if isinstance(state.owner, Guest)], now_s)

    def expire(self, now_s: float, timeout_s: float) -> list[AwarenessEntry]:
        """Drop what was not renewed in time (its node died, or its socket is half open); the entries that say so."""
        while self._gone:
            longest_gone = next(iter(self._gone))
            if now_s - self._gone[longest_gone][1] <= GONE_REMEMBERED_S:
                break
            self._drop_gone(longest_gone)
        late = [i for i, state in self._states.items() if now_s - state.heard_at_s > timeout_s]
        return self._drop(late, now_s)

    def _drop(self, client_ids: list[int], now_s: float) -> list[AwarenessEntry]:
        gone = [AwarenessEntry(i, self._states[i].clock + 1, None) for i in client_ids]
        for entry in gone:
            self._apply(None, entry, now_s)
        return gone

    def current(self) -> list[AwarenessEntry]:
        """Everyone who is here, for a joiner."""
        return [AwarenessEntry(i, state.clock, state.state_json) for i, state in self._states.items()]

    def current_here(self) -> list[AwarenessEntry]:
        """The states that this node's members and guests introduced, for a node that has just opened the room."""
        return [
            AwarenessEntry(i, state.clock, state.state_json)
            for i, state in sorted(self._states.items())
            if not isinstance(state.owner, Node)
        ]

    def since(self, version: int) -> list[AwarenessEntry]:
        """What changed behind this version: who is here, and who went as long as that is remembered."""
        changed = [client_id for client_id, at in self._changed.items() if at > version]
        return [self._entry(client_id) for client_id in changed]

    def _entry(self, client_id: int) -> AwarenessEntry:
        state = self._states.get(client_id)
        if state is None:
            return AwarenessEntry(client_id, self._gone[client_id][0], None)
        return AwarenessEntry(client_id, state.clock, state.state_json)

    @property
    def is_empty(self) -> bool:
        """Nobody is here, and nobody who left is still remembered."""
        return not self._states and not self._gone

    def __len__(self) -> int:
        return len(self._states)


def _is_modest(clock: int, known_clock: int | None) -> bool:
    """Whether somebody who did not introduce this state may bring it to `clock`."""
    return clock < FOREIGN_CLOCK_MAX and (known_clock is None or clock <= known_clock + FOREIGN_CLOCK_STEP_MAX)
