"""A replay of an update's structs in the order in which a document would apply them.

It finds what can be applied at all, and where each applied struct lives, going forwards: a struct's predecessors
are always there before it. The checker and the splitter ask it; it shares no code with lineage.py, which answers the
fold's questions going backwards. No content is looked at.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

from ydoc_store.yjs.structs import Id, Struct, StructUpdate
from ydoc_store.yjs.walker import GC, SKIP


class Home(NamedTuple):
    """A root type's name or a type's id, and the key of a map's entry."""

    parent: str | Id
    key: str | None


class _Client:
    """How far one client's structs have been applied, and the homes of those that were."""

    __slots__ = ("clock", "homes", "number", "starts", "structs", "waits")

    def __init__(self, number: int, structs: list[Struct]) -> None:
        self.number = number
        self.structs = structs
        self.starts = [struct.clock for struct in structs]
        self.homes: list[Home | None] = []
        self.clock = 0
        self.waits = False


class Replay:
    """One update, replayed. Linear, without recursion; a circle of structs that need each other stays unapplied."""

    def __init__(self, update: StructUpdate) -> None:
        self._order: list[tuple[int, Struct]] = []
        self._clients = {client: _Client(client, structs) for client, structs in update.structs.items()}
        for client in self._clients:
            self._apply(client)

    @property
    def order(self) -> list[tuple[int, Struct]]:
        """The applied structs with their clients, each behind all that it needs."""
        return self._order

    def applied(self, client: int) -> int:
        """The clock up to which `client` could be applied; 0 for one that the update does not hold."""
        known = self._clients.get(client)
        return 0 if known is None else known.clock

    def home(self, unit: Id) -> Home | None:
        """Where the applied `unit` lives; None for one that is not applied, is GC or follows something that is."""
        client = self._clients.get(unit[0])
        if client is None or unit[1] >= client.clock:
            return None
        return client.homes[bisect_right(client.starts, unit[1]) - 1]

    def _apply(self, first: int) -> None:
        """Applies what `first` has, and of other clients what that needs."""
        # Each entry is a client and the clock that the entry below it needs of that client. An entry goes when
        # it has got there, or cannot: its next struct needs a gap, or an entry below, which waits for it.
        needs: list[tuple[int, int | None]] = [(first, None)]
        while needs:
            number, need = needs[-1]
            client = self._clients[number]
            blocker = self._advance(client, need)
            if blocker is not None:
                other = self._clients.get(blocker[0])
                if other is not None and other is not client and not other.waits:
                    client.waits = True
                    needs.append(blocker)
                    continue
            client.waits = blocker is not None  # stuck for good, and so is whoever comes to need it
            needs.pop()
            if blocker is None and needs:
                self._clients[needs[-1][0]].waits = False

    def _advance(self, client: _Client, need: int | None) -> Id | None:
        """Applies structs of `client` beyond clock `need` (None: all). Returns the id that the next one lacks."""
        while len(client.homes) < len(client.structs) and (need is None or client.clock <= need):
            struct = client.structs[len(client.homes)]
            if struct.kind == SKIP or struct.clock != client.clock:
                return -1, 0
            for unit in (struct.origin, struct.right_origin, struct.parent):
                if isinstance(unit, tuple):
                    other = self._clients.get(unit[0])
                    if other is None or other.clock <= unit[1]:
                        return unit
            client.homes.append(self._home_of(struct))
            client.clock = struct.end
            self._order.append((client.number, struct))
        return None if need is None or client.clock > need else (-1, 0)

    def _home_of(self, struct: Struct) -> Home | None:
        if struct.kind == GC:
            return None
        neighbour = struct.origin or struct.right_origin
        if neighbour is not None:
            return self.home(neighbour)
        return None if struct.parent is None else Home(struct.parent, struct.parent_key)
