"""What is accepted under suspicion is counted each time, and told once an interval."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.room import Appender, Outlet, empty_room
from tests.unit.rooms.test_room import DIALECT, Keeper
from ydoc_store.metrics import Metrics
from ydoc_store.rooms import audits as module
from ydoc_store.rooms.admission import RoomLimits
from ydoc_store.rooms.audits import LINE_INTERVAL_S, Audits
from ydoc_store.rooms.member import Member
from ydoc_store.yjs.walker import UpdateLimits


class Clock:
    now_s = 1_000.0

    def monotonic(self) -> float:
        return self.now_s


def test_a_flood_is_counted_and_does_not_flood_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    metrics = Metrics()
    audits = Audits(metrics)
    room = empty_room("t", "n", Appender(), RoomLimits(UpdateLimits(), 2**20), metrics, Keeper())
    member = Member(room, Outlet(), DIALECT, metrics.dialect("acking"), actor="ann")
    lines: list[Any]
    with capture_logs() as lines:
        for seq in range(1, 6):
            audits.note(room, member, "blank run", seq)
        clock.now_s += LINE_INTERVAL_S
        audits.note(room, member, "delete ahead", None)
    assert [(line["what"], line["seq"], line["left_out"]) for line in lines] == [
        ("blank run", 1, 0),
        ("delete ahead", None, 4),
    ]
    assert {line["actor"] for line in lines} == {"ann"}
    assert b'ydoc_updates_audited_total{reason="blank run"} 5.0' in metrics.render()
