"""Presence as the client keeps it, beside somebody who follows the same rules."""

from __future__ import annotations

from typing import Any

import pytest

from ydoc_store.client.presence import OUTDATED_AFTER_S, RENEWED_AFTER_S, STATE_BYTES_MAX, Presence
from ydoc_store.yjs.awareness import AwarenessEntry

ANN = {"user": {"name": "Ann"}}


class Watched:
    def __init__(self) -> None:
        self.changes = 0
        self.presence = Presence(1, self._changed)
        self.presence.connected()

    def _changed(self) -> None:
        self.changes += 1

    def hear(self, clock: int, state_json: str | None, now_s: float = 0.0, client_id: int = 2) -> None:
        self.presence.hear([AwarenessEntry(client_id, clock, state_json)], now_s)


def test_what_is_shown_is_told_once_and_renewed() -> None:
    presence = Watched().presence
    assert presence.to_tell(0.0) == []
    presence.show(ANN)
    [told] = presence.to_tell(0.0)
    assert told.state_json == '{"user":{"name":"Ann"}}'
    assert presence.to_tell(RENEWED_AFTER_S - 1) == []
    [renewed] = presence.to_tell(RENEWED_AFTER_S)
    assert renewed.clock > told.clock
    presence.show(dict(ANN))
    assert presence.to_tell(RENEWED_AFTER_S + 1) == []


def test_whoever_shows_nothing_more_says_so_once_and_whoever_never_did_says_nothing() -> None:
    presence = Watched().presence
    presence.show(None)
    assert presence.to_tell(0.0) == []
    presence.show(ANN)
    [told] = presence.to_tell(0.0)
    presence.show(None)
    [gone] = presence.to_tell(1.0)
    assert gone.state_json is None
    assert gone.clock > told.clock
    assert presence.to_tell(100.0) == []


def test_it_is_shown_again_on_a_new_connection_with_a_newer_clock() -> None:
    presence = Watched().presence
    presence.show(ANN)
    [before] = presence.to_tell(0.0)
    presence.disconnected()
    presence.connected()
    [after] = presence.to_tell(1.0)
    # The server has said with the clock after the last that this side is gone.
    assert after.clock > before.clock


def test_whoever_was_taken_for_gone_says_that_it_is_here() -> None:
    watched = Watched()
    watched.presence.show(ANN)
    watched.presence.to_tell(0.0)
    watched.hear(9, None, client_id=1)
    [told] = watched.presence.to_tell(1.0)
    assert told == AwarenessEntry(1, 10, '{"user":{"name":"Ann"}}')
    assert watched.presence.others == {}


def test_a_newer_clock_wins_and_an_equal_one_only_with_null() -> None:
    watched = Watched()
    watched.hear(5, '{"at":1}')
    watched.hear(5, '{"at":2}')
    watched.hear(4, None)
    assert watched.presence.others == {2: {"at": 1}}
    watched.hear(6, '{"at":3}')
    assert watched.presence.others == {2: {"at": 3}}
    watched.hear(6, None)
    assert watched.presence.others == {}
    assert watched.changes == 3


def test_a_renewal_is_no_change() -> None:
    watched = Watched()
    watched.hear(1, '{"at":1}')
    watched.hear(2, '{"at":1}')
    watched.hear(3, None, client_id=3)
    assert watched.changes == 1


def test_others_are_gone_when_they_are_not_renewed_or_the_connection_is() -> None:
    watched = Watched()
    watched.hear(1, '{"at":1}', 0.0)
    watched.hear(1, '{"at":1}', 20.0, client_id=3)
    watched.presence.expire(OUTDATED_AFTER_S + 1)
    assert set(watched.presence.others) == {3}
    watched.presence.disconnected()
    assert watched.presence.others == {}
    # The server says the same on the next one, at the same clocks.
    watched.hear(1, '{"at":1}', 60.0, client_id=3)
    assert set(watched.presence.others) == {3}


def test_observers_are_called_until_they_are_taken_away() -> None:
    watched = Watched()
    called: list[int] = []
    stop = watched.presence.observe(lambda: called.append(1))
    watched.hear(1, '{"at":1}')
    stop()
    stop()
    watched.hear(2, None)
    assert called == [1]


@pytest.mark.parametrize(
    "state",
    [["no mapping"], {"at": float("nan")}, {"at": object()}, {"at": "\ud800"}, {"at": "x" * STATE_BYTES_MAX}],
)
def test_a_state_that_the_server_would_close_for_is_refused_here(state: Any) -> None:
    presence = Watched().presence
    presence.show(ANN)
    with pytest.raises(ValueError, match="presence"):
        presence.show(state)
    assert presence.mine == ANN


def test_a_state_that_nests_too_deep_is_refused_here() -> None:
    deep: dict[str, Any] = {}
    for _ in range(200):
        deep = {"in": deep}
    with pytest.raises(ValueError, match="presence"):
        Watched().presence.show(deep)
