"""Who else is here, and what this side shows of itself. Pure: time is handed in, entries to send are taken out.

As every editor keeps it: a newer clock wins, an equal one only with null; what is not renewed for 30 s is gone, and
so is everybody else while there is no connection. Nothing of this is ever stored.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ydoc_store.yjs.awareness import AwarenessEntry
from ydoc_store.yjs.lib0 import NESTING_MAX, check_json

RENEWED_AFTER_S = 15.0
OUTDATED_AFTER_S = 30.0
# The server takes messages of 16 KiB, in which it adds whose state this is.
STATE_BYTES_MAX = 15 * 1024


@dataclass(slots=True)
class _Seen:
    clock: int
    state: dict[str, Any] | None
    heard_at_s: float


class Presence:
    """What everybody shows. `changed` and other observers are called whenever `others` is not what it was."""

    def __init__(self, client_id: int, changed: Callable[[], None]) -> None:
        self.client_id = client_id
        self._observers: dict[int, Callable[[], None]] = {0: changed}
        self._observed = 0
        self._mine: dict[str, Any] | None = None
        self._mine_json: str | None = None
        self._clock = 0
        self._renewed_at_s = 0.0
        self._was_shown = False
        self._is_to_tell = False
        self._seen: dict[int, _Seen] = {}

    @property
    def mine(self) -> dict[str, Any] | None:
        """What this side shows; None: it is not seen."""
        return self._mine

    @property
    def others(self) -> dict[int, dict[str, Any]]:
        """What the others show, by client id; a copy."""
        return {client_id: seen.state for client_id, seen in self._seen.items() if seen.state is not None}

    def show(self, state: Mapping[str, Any] | None) -> None:
        """Show this from now on, None to be seen no more. ValueError for what is no JSON object, too large or deep."""
        text = None if state is None else _encoded(state)
        if text == self._mine_json:
            return
        self._mine, self._mine_json = (None, None) if text is None else (json.loads(text), text)
        self._clock += 1
        self._is_to_tell = True

    def observe(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Have one more observer; returns what takes it away."""
        self._observed += 1
        number = self._observed
        self._observers[number] = changed
        return lambda: self._observers.pop(number, None) and None

    def _changed(self) -> None:
        for observer in list(self._observers.values()):
            observer()

    # The connection

    def connected(self) -> None:
        """A new connection knows nothing of this side."""
        self._clock += 1
        self._is_to_tell = self._mine_json is not None
        self._was_shown = False

    def disconnected(self) -> None:
        """Nobody is heard any more."""
        had_others = bool(self.others)
        self._seen.clear()
        if had_others:
            self._changed()

    def to_tell(self, now_s: float) -> list[AwarenessEntry]:
        """The entry of this side that is to be sent now, if any: a change, or what must not time out."""
        if self._mine_json is not None and not self._is_to_tell and now_s - self._renewed_at_s >= RENEWED_AFTER_S:
            self._clock += 1
            self._is_to_tell = True
        if not self._is_to_tell or (self._mine_json is None and not self._was_shown):
            self._is_to_tell = False
            return []
        self._is_to_tell = False
        self._was_shown = self._mine_json is not None
        self._renewed_at_s = now_s
        return [AwarenessEntry(self.client_id, self._clock, self._mine_json)]

    def hear(self, entries: Iterable[AwarenessEntry], now_s: float) -> None:
        """What the server says of others, or of this side: that it was taken for gone."""
        is_changed = False
        for client_id, clock, state_json in entries:
            if client_id == self.client_id:
                if state_json is None and clock >= self._clock and self._mine_json is not None:
                    self._clock = clock + 1
                    self._is_to_tell = True
                continue
            seen = self._seen.get(client_id)
            ends = seen is not None and seen.clock == clock and state_json is None
            if seen is None or seen.clock < clock or ends:
                state = None if state_json is None else json.loads(state_json)
                is_changed = is_changed or state != (None if seen is None else seen.state)
                self._seen[client_id] = _Seen(clock, state, now_s)
        if is_changed:
            self._changed()

    def expire(self, now_s: float) -> None:
        """Forget those who did not renew in time."""
        self._gone(
            client_id
            for client_id, seen in self._seen.items()
            if seen.state is not None and now_s - seen.heard_at_s > OUTDATED_AFTER_S
        )
        # A clock that comes late is remembered for a while, not for ever.
        for client_id in [i for i, seen in self._seen.items() if now_s - seen.heard_at_s > 4 * OUTDATED_AFTER_S]:
            del self._seen[client_id]

    def _gone(self, client_ids: Iterable[int]) -> None:
        those = list(client_ids)
        for client_id in those:
            self._seen[client_id].state = None
        if those:
            self._changed()


def _encoded(state: Mapping[str, Any]) -> str:
    if not isinstance(state, Mapping):
        raise ValueError(f"a presence is a mapping, not a {type(state).__name__}")
    try:
        text = json.dumps(dict(state), separators=(",", ":"), allow_nan=False, ensure_ascii=False)
        size = len(text.encode())
        check_json(text, NESTING_MAX - 1)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"a presence is a JSON object: {error}") from error
    if size > STATE_BYTES_MAX:
        raise ValueError(f"a presence of {size} bytes, at most {STATE_BYTES_MAX}")
    return text
