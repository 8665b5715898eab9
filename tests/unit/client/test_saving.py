"""I1 on the client's side: `saved` is never said too early, whatever was lost, refused or reordered, and never hangs.

Sessions talk to the server's real rooms; the dice decide when frames move, commits land and connections end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from random import Random
from typing import Any

import pytest

from tests.unit.client.lives import Life, World, patient_talk
from tests.unit.rooms.test_hocuspocus import ACK, READS
from ydoc_store.client import session
from ydoc_store.client.errors import Refused
from ydoc_store.yjs.lib0 import encode_string

STEPS = 250
LONG_SEEDS = 2_000


@pytest.fixture
async def world() -> AsyncIterator[Callable[..., World]]:
    worlds: list[World] = []

    def make(seed: int = 0, **how: Any) -> World:
        worlds.append(World(patient_talk(), Random(seed), **how))
        return worlds[-1]

    yield make
    for made in worlds:
        made.leave()
        await made.talk.rooms.stop()


Worlds = Callable[..., World]


@pytest.mark.parametrize("seed", range(40))
async def test_nothing_is_called_saved_before_its_commit_and_everything_is_in_the_end(
    world: Worlds, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if seed % 2:
        # A round of many frames, each of which has its own ack.
        monkeypatch.setattr(session, "PIECE_BYTES_MAX", 32)
    scene = world(seed, lives=2 + seed % 2)
    for _ in range(STEPS):
        await scene.step()
    await scene.heal()


@pytest.mark.parametrize("seed", range(100, 120))
async def test_nothing_is_called_saved_that_a_failover_has_lost_and_everything_comes_back(
    world: Worlds, seed: int
) -> None:
    """I1, I11: what a standby lacks is not called saved once it has been heard of, deletes neither."""
    scene = world(seed, lives=2 + seed % 2, fails_over=True)
    for _ in range(STEPS):
        await scene.step()
    await scene.heal()


@pytest.mark.long
@pytest.mark.timeout(3_600)
async def test_nothing_is_called_saved_too_early_in_many_lives(world: Worlds) -> None:
    for seed in range(1_000, 1_000 + LONG_SEEDS):
        scene = world(seed, lives=2 + seed % 3, fails_over=seed % 2 == 1)
        for _ in range(4 * STEPS):
            await scene.step()
        await scene.heal()
        scene.leave()


async def settle(scene: World) -> Life:
    """Both are in sync; the first of them."""
    await scene.heal()
    return scene.lives[0]


async def test_an_ack_for_what_was_known_already_is_not_taken_for_what_waits_for_its_commit(world: Worlds) -> None:
    """The server acks at once what holds nothing new: an erasure of what somebody else has erased."""
    scene = world()
    ann, ben = await settle(scene), scene.lives[1]
    ann.insert(0, "abc")
    await scene.heal()
    ben.erase(0, 1)
    ben.turn()
    ben.carry_up()
    scene.land()
    # Ann has not heard of it: she types, and erases the same.
    ann.insert(3, "d")
    ann.turn()
    ann.erase(0, 1)
    ann.turn()
    ann.carry_up()
    ann.carry_down()
    assert not ann.session.is_saved(2)
    scene.land()
    ann.carry_down()
    assert ann.session.is_saved(2)
    assert not ann.session.is_saved(3)
    await scene.heal()


async def test_an_ack_that_was_not_asked_for_saves_nothing(world: Worlds) -> None:
    scene = world()
    ann = await settle(scene)
    ann.session.receive(encode_string("notes") + ACK, 0.0)
    ann.insert(0, "a")
    assert not ann.session.is_saved(1)
    ann.turn()
    ann.session.receive(encode_string("other") + ACK, 0.0)
    assert not ann.session.is_saved(1)


async def test_an_ack_that_is_lost_with_its_connection_is_asked_for_again(world: Worlds) -> None:
    scene = world()
    ann = await settle(scene)
    ann.insert(0, "a")
    ann.turn()
    ann.carry_up()
    scene.land()
    ann.cut()
    ann.insert(1, "b")
    assert not ann.session.is_saved(1)
    await scene.heal()
    assert str(scene.lives[1].text) == "ab"


async def test_an_erasure_that_a_failover_has_lost_is_not_called_saved_before_it_is_back(world: Worlds) -> None:
    """I1, I11: of what was erased no state vector tells."""
    scene = world()
    ann = await settle(scene)
    ann.insert(0, "abc")
    await scene.heal()
    ann.erase(0, 1)
    await scene.heal()
    assert ann.session.is_saved(2)
    await scene.fail_over(lost=1)
    assert scene.committed
    ann.connect()
    ann.turn()
    ann.carry_up()
    while not ann.session.is_synced:
        await asyncio.sleep(0)
        ann.carry_down()
    assert not ann.session.is_saved(2)
    await scene.heal()
    assert str(scene.lives[1].text) == "bc"


async def test_edits_between_a_connect_and_the_servers_answer_are_in_the_first_round(world: Worlds) -> None:
    scene = world(lives=1)
    ann = scene.lives[0]
    ann.insert(0, "offline ")
    ann.connect()
    ann.insert(8, "and connecting")
    ann.turn()
    assert not ann.session.is_saved(0)
    await scene.heal()
    assert len(scene.room.queue.waiting) == 0
    assert scene.room.head == 1


async def test_what_is_edited_while_a_round_is_on_its_way_goes_as_one_update_behind_it(world: Worlds) -> None:
    scene = world()
    ann = await settle(scene)
    for number in range(50):
        ann.insert(number, "x")
        ann.turn()
    assert len(ann.up) == 1
    ann.carry_up()
    scene.land()
    ann.carry_down()
    ann.turn()
    assert len(ann.up) == 1
    await scene.heal()


async def test_whoever_may_only_read_is_refused_and_hears_the_others_on(world: Worlds) -> None:
    scene = world()
    scene.talk.grants["reads"] = READS
    eve = Life(scene.talk, 9, "reads")
    scene.lives.append(eve)
    await settle(scene)
    assert eve.session.may_write is False
    assert eve.session.is_saved(0)
    eve.insert(0, "mine")
    eve.turn()
    eve.carry_up()
    eve.carry_down()
    with pytest.raises(Refused) as refused:
        eve.session.is_saved(1)
    assert refused.value.code == "read_only"
    scene.lives[0].insert(0, "theirs")
    scene.lives[0].turn()
    scene.lives[0].carry_up()
    scene.land()
    eve.carry_down()
    assert "theirs" in str(eve.text)
    # Allowed to write at last, it brings what was refused.
    eve.cut()
    eve.token = "writes"
    await scene.heal()
    assert "mine" in str(scene.lives[0].text)
