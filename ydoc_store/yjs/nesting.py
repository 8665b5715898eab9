"""How deep the shared types of one update nest.

Yjs and yrs recurse over nested types (10,000 levels end a browser's stack, 100,000 a native one), so the walker
refuses an update that nests deeper than its limit. A struct says where it lives either by naming its parent or by
an origin in the same parent, so depth is found along those links; what an update does not hold counts as depth 0.
"""

from __future__ import annotations

from bisect import bisect_right

_UNKNOWN = -1
_IN_PROGRESS = -2


class Nesting:
    """Collects where the structs of one update live, in the order in which they are encoded."""

    __slots__ = ("_by_client", "_depths", "_links")

    def __init__(self) -> None:
        # Per client, the clocks at which its structs start and the index of each one's link.
        self._by_client: dict[int, tuple[list[int], list[int]]] = {}
        self._links: list[tuple[int, int, int] | None] = []
        self._depths: list[int] = []

    def add(self, client: int, clock: int, link: tuple[int, int, int] | None) -> None:
        """Notes a struct by its first id. `link` is (client, clock, step) of the id it hangs on.

        `step` is 1 where that id is its parent, 0 where it shares that id's parent; None is a root type.
        """
        starts, indexes = self._by_client.setdefault(client, ([], []))
        starts.append(clock)
        indexes.append(len(self._links))
        self._links.append(link)
        self._depths.append(_UNKNOWN)

    def deepest(self) -> int:
        """The greatest number of types around one struct, root types not counted. Linear, not recursive.

        Structs that hang on each other in a circle can never be integrated and count from depth 0.
        """
        return max((self._depth(index) for index in range(len(self._links))), default=0)

    def _depth(self, index: int) -> int:
        path: list[tuple[int, int]] = []
        depth = 0
        at: int | None = index
        while at is not None:
            known = self._depths[at]
            if known != _UNKNOWN:
                depth = max(known, 0)
                break
            link = self._links[at]
            if link is None:
                self._depths[at] = 0
                break
            self._depths[at] = _IN_PROGRESS
            path.append((at, link[2]))
            at = self._holder(link[0], link[1])
        for visited, step in reversed(path):
            depth += step
            self._depths[visited] = depth
        return depth

    def _holder(self, client: int, clock: int) -> int | None:
        starts, indexes = self._by_client.get(client, ((), ()))
        position = bisect_right(starts, clock) - 1
        return indexes[position] if position >= 0 else None
