"""When the storm is over: everyone comes back, everything that is stored is shown, and then nothing is left.

Each wait is for a condition, in simulated time, and bounded; what did not come true in time is a broken promise.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pycrdt import Doc, Text

from tests.simulation.postgres import Document
from ydoc_store.names import DEFAULT_TENANT
from ydoc_store.yjs.merge import merge
from ydoc_store.yjs.ranges import decode_state_vector

if TYPE_CHECKING:
    from tests.simulation.editor import Editor
    from tests.simulation.world import World

STEP_S = 0.25
HEALED_WITHIN_S = 60.0
# Everyone was renewed once and everyone else has timed out, on nodes and in editors.
PRESENCE_WITHIN_S = 75.0
# Whoever leaves says so; what another connection or node still answers for goes with its time-out.
GONE_WITHIN_S = 40.0
EMPTY_WITHIN_S = 20.0


async def come_to_rest(world: World) -> None:
    await _holds_within(world, HEALED_WITHIN_S, "I22", lambda: _not_equal(world))
    for document in world.postgres.documents.values():
        _judge_log(world, document)
    if world.dice.random() < 0.2:
        await _holds_within(world, PRESENCE_WITHIN_S, "presence", lambda: _presence_differs(world))
        # A newer clock belongs to the connection that brought it: not to a half-open one, nor to a node that died.
        for editor in world.editors:
            editor.show()
        await asyncio.sleep(1.0)
        world.dice.choice(world.editors).leave(for_good=True)
        await _holds_within(world, GONE_WITHIN_S, "presence", lambda: _presence_differs(world))
    for editor in world.editors:
        editor.leave(for_good=True)
    await _holds_within(world, EMPTY_WITHIN_S, "I15", lambda: _left_over(world))
    for node in world.nodes:
        await node.drain_and_stop()
    for _ in range(100):
        await asyncio.sleep(0.01)
    for node in world.nodes:
        left = world.loop.tasks_of(node)
        if left:
            world.oracle.breaks("I15", f"tasks outlive their node: {[str(task) for task in left]}")


async def _holds_within(world: World, seconds: float, promise: str, what_is_wrong: Callable[[], str]) -> None:
    """Waits until nothing is wrong; at the end of the time it is noted."""
    deadline_s = world.loop.time() + seconds
    while wrong := what_is_wrong():
        if world.loop.time() > deadline_s:
            world.oracle.breaks(promise, wrong)
            return
        _bring_back(world)
        await asyncio.sleep(STEP_S)


def _bring_back(world: World) -> None:
    for editor in world.editors:
        if editor.stopped_by is not None and not _is_deleted(world, editor):
            editor.reload()
            editor.connect()


def _document_of(world: World, editor: Editor) -> Document | None:
    return world.postgres.current(DEFAULT_TENANT, editor.name)


def _is_deleted(world: World, editor: Editor) -> bool:
    document = _document_of(world, editor)
    return document is not None and document.deleted


def _not_equal(world: World) -> str:
    for editor in world.editors:
        document = _document_of(world, editor)
        if editor.socket is None:
            editor.connect()
        if document is not None and document.deleted:
            if editor.stopped_by is None:
                return f"{editor} still edits a deleted document"
            continue
        if not editor.is_synced:
            return f"{editor} is not synced"
        if document is None:
            if editor.text.to_py():
                return f"{editor} shows a text that was never stored"
            continue
        state, text = _stored(document)
        if editor.state != state:
            return f"{editor} has {editor.state}, stored is {state}"
        if str(editor.text) != text:
            return f"{editor} shows {str(editor.text)!r}, stored is {text!r}"
    return ""


def _stored(document: Document) -> tuple[dict[int, int], str]:
    """State vector and text of everything ever accepted, the marker included."""
    doc: Doc[Any] = Doc()
    text = doc.get("text", type=Text)
    if document.history:
        doc.apply_update(merge(document.history))
    state = decode_state_vector(doc.get_state(), clients_max=10_000)
    return {**state, document.marker: 1}, str(text)


def _judge_log(world: World, document: Document) -> None:
    """Snapshot and tail are the history, whole; and nothing of it waits for anything."""
    at = document.snapshot.through_seq if document.snapshot else 0
    for row in document.rows:
        if row.seq - row.count != at:
            world.oracle.breaks(
                "I3", f"row {row.seq} of document {document.id} begins at {row.seq - row.count}, not {at}"
            )
        at = row.seq
    if at != document.head:
        world.oracle.breaks("I3", f"the log of document {document.id} ends at {at}, its head is {document.head}")
    state, _ = _stored(document)
    clocks = world.oracle.logs[document.id].clocks
    if state != clocks:
        world.oracle.breaks("I22", f"something waits in document {document.id}: {state} of {clocks}")


def _presence_differs(world: World) -> str:
    for editor in world.editors:
        if editor.socket is not None:
            others = _present(world, editor.name)
            if editor.awareness.here != others:
                return f"{editor} shows {sorted(editor.awareness.here)}, here are {sorted(others)}"
    for node in world.nodes:
        for (_, name), room in node.service.rooms.rooms.items():
            kept = {entry.client_id for entry in room.presence.current()}
            if room.members and kept != _present(world, name):
                return f"a room keeps {sorted(kept)}, here are {sorted(_present(world, name))}"
    return ""


def _present(world: World, name: str) -> set[int]:
    return {editor.client_id for editor in world.editors if editor.name == name and editor.socket is not None}


def _left_over(world: World) -> str:
    for node in world.nodes:
        rooms, appender = node.service.rooms, node.service.appender
        left: dict[str, object] = {
            "sockets": node.sockets,
            "rooms": rooms.rooms,
            "rooms by id": rooms.by_document_id,
            "absent rooms": rooms.absent,
            "tasks": rooms._tasks,
            "queued bytes": appender.queued_bytes,
            "cached bytes": rooms._budget.used_bytes,
        }
        for name, value in left.items():
            if value:
                return f"a node keeps {name}: {value}"
    return ""
