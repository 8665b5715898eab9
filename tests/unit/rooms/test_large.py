"""Updates that are walked elsewhere and looked through in turns come to what they would come to at once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from pycrdt import Doc, Text

from tests.room import CREATED, Appender, Outlet, empty_room, land, take
from tests.unit.rooms.test_room import DIALECT, Keeper
from ydoc_store.metrics import Metrics
from ydoc_store.rooms import large
from ydoc_store.rooms.admission import RoomLimits
from ydoc_store.rooms.budgets import Incoming
from ydoc_store.rooms.heavy import Heavy
from ydoc_store.rooms.large import submit_large
from ydoc_store.rooms.member import Member
from ydoc_store.yjs.walker import UpdateLimits


@pytest.mark.parametrize("is_in_turns", [False, True], ids=["at once", "in turns"])
async def test_what_is_known_and_was_in_the_step1_is_not_counted_among_the_acks(
    monkeypatch: pytest.MonkeyPatch, *, is_in_turns: bool
) -> None:
    """I1: the client has not counted it, and an ack too many would say "saved" of what it types next."""
    if is_in_turns:
        monkeypatch.setattr(large, "RANGES_A_TURN", 0)
    metrics, appender = Metrics(), Appender()
    room = empty_room("t", "n", appender, RoomLimits(UpdateLimits(), 2**20), metrics, Keeper())
    outlet = Outlet()
    member = Member(room, outlet, DIALECT, metrics.dialect("acking"))
    room.enter(member)
    rooms: Any = SimpleNamespace(incoming=Incoming(appender, 2**20), heavy=Heavy())  # type: ignore[arg-type]
    doc: Doc[Any] = Doc(client_id=1)
    doc.get("text", type=Text).insert(0, "typed offline")
    update = doc.get_update()
    room.submit(member, update)
    take(room)
    land(room, 1, CREATED)
    outlet.sent.clear()
    member.asked({1: len("typed offline")})
    await submit_large(rooms, member, update)
    assert b"ack" not in outlet.sent
    await submit_large(rooms, member, update, answers=True)
    assert outlet.sent == [b"ack"]
