"""One run: nodes, editors and a database, thrown together by one seed, and everything that happens to them.

`simulate(seed)` returns what happened, or raises `Broken` with the promises that did not hold and the command that
repeats the run. After the storm the weather clears up, and what must hold at the end is asked in `ending`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from random import Random
from typing import Any

from tests.simulation.editor import Editor
from tests.simulation.ending import come_to_rest
from tests.simulation.loop import START_S, SimulatedLoop
from tests.simulation.network import Socket
from tests.simulation.nodes import Node
from tests.simulation.oracle import Oracle
from tests.simulation.postgres import Document, Postgres, Session
from tests.simulation.rigging import Complaints, rigged
from tests.simulation.weather import Storm
from ydoc_store.names import DEFAULT_TENANT
from ydoc_store.settings import Settings
from ydoc_store.yjs.walker import RESERVED_CLIENT_ID_MIN

APPEND_TIMEOUT_S = 2.0


class Broken(AssertionError):
    """Promises that did not hold in a run."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What a run was: enough to tell two runs apart."""

    seed: int
    callbacks: int
    commits: int
    frames: int
    acks: int
    virtual_s: float
    text: str


def _settings(**overrides: Any) -> Settings:
    return Settings.load({"append_timeout_s": APPEND_TIMEOUT_S, "room_idle_s": 2.0, **overrides})


# Made once: reading settings takes longer than a run. Small batches, caches and queues each in some.
SETTINGS = [
    _settings(),
    _settings(append_lanes=2, append_batch_updates_max=2, hint_grace_ms=50),
    _settings(room_cache_bytes_max=150, notify_inline_bytes_max=0),
    _settings(append_batch_documents_max=1, append_batch_updates_max=1, room_idle_s=0.0),
    _settings(append_queue_bytes_max=60, append_lanes=2, poll_interval_s=0.2),
]


class World:
    """Everything that one seed has thrown."""

    def __init__(self, dice: Random, loop: SimulatedLoop) -> None:
        self.dice = dice
        self.loop = loop
        self.oracle = Oracle(loop.time)
        self.postgres = Postgres(self.oracle)
        self.weather = Storm(dice, APPEND_TIMEOUT_S)
        self.settings = dice.choice(SETTINGS)
        self.names = ["one", "two"][: dice.choice((1, 1, 2))]
        self.nodes: list[Node] = []
        self.editors: list[Editor] = []
        self._sockets = 0
        self._ids = dice.randrange(1, 2**30)

    # What nodes and editors ask for

    def new_client_id(self) -> int:
        self._ids += 1
        return self._ids

    def some_node(self) -> Node | None:
        serving = [node for node in self.nodes if node.is_serving]
        return self.dice.choice(serving) if serving else None

    def open_socket(self, node: Node, editor: Editor) -> Socket:
        self._sockets += 1
        return Socket(self._sockets, node, editor, self.oracle)

    def start_node(self) -> Node:
        node = Node(self.loop, self.postgres, self.weather, self.settings)
        self.nodes.append(node)
        return node

    def current_documents(self) -> list[Document]:
        found = (self.postgres.current(DEFAULT_TENANT, name) for name in self.names)
        return [document for document in found if document is not None]

    # The run

    async def run(self) -> None:
        for _ in range(self.dice.choice((1, 2, 2, 3))):
            self.start_node()
        for _ in range(self.dice.randrange(2, 6)):
            editor = Editor(self, self.dice.choice(self.names))
            self.editors.append(editor)
            if self.dice.random() < 0.3:
                editor.type()
            self.loop.call_later(self.dice.random(), editor.connect, context=editor.context)
        actions = Actions(self)
        pace_s = self.dice.choice((0.002, 0.02, 0.2))
        await asyncio.sleep(self.dice.random())
        for _ in range(self.dice.randrange(20, 80)):
            await asyncio.sleep(pace_s * self.dice.random() ** 2)
            actions.throw()
        self.weather.clear_up()
        await come_to_rest(self)


class Actions:
    """What may happen next, each with a weight that this seed has chosen; half of the rare ones never do."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.dice = world.dice
        common = {self.type: 30, self.burst: 6, self.erase: 10, self.show: 3, self.connect: 4}
        rare = {
            self.whisper: 6,
            self.leave: 2,
            self.vanish: 2,
            self.reload: 1,
            self.ask_again: 2,
            self.kill_node: 1,
            self.restart_node: 1,
            self.cut_database: 1,
            self.lose_database: 1,
            self.hold_head: 1,
            self.fail_over: 0.7,
            self.compact: 4,
            self.delete: 0.3,
            self.recreate: 0.6,
        }
        kept = {action: weight for action, weight in rare.items() if self.dice.random() < 0.5}
        self._actions = [*common, *kept]
        self._weights = [*common.values(), *kept.values()]

    def throw(self) -> None:
        self.dice.choices(self._actions, self._weights)[0]()

    def _editor(self) -> Editor:
        return self.dice.choice(self.world.editors)

    def type(self) -> None:
        self._editor().type()

    def burst(self) -> None:
        editor = self._editor()
        for _ in range(self.dice.randrange(2, 8)):
            self.dice.choice((editor.type, editor.type, editor.erase))()

    def erase(self) -> None:
        self._editor().erase()

    def show(self) -> None:
        self._editor().show()

    def connect(self) -> None:
        self._editor().connect()

    def whisper(self) -> None:
        speaker, listener = self._editor(), self._editor()
        if speaker is not listener and speaker.name == listener.name:
            speaker.type()
            speaker.whisper(listener)

    def leave(self) -> None:
        self._editor().leave()

    def vanish(self) -> None:
        self._editor().vanish()

    def reload(self) -> None:
        editor = self._editor()
        editor.vanish()
        editor.reload()

    def ask_again(self) -> None:
        editor = self._editor()
        if editor.socket is not None:
            editor.say_step1()

    # Nodes and the database

    def kill_node(self) -> None:
        node = self.world.some_node()
        if node is not None:
            self.world.nodes.remove(node)
            node.kill()
            self.world.start_node()

    def restart_node(self) -> None:
        node = self.world.some_node()
        if node is not None:
            self.world.nodes.remove(node)
            self.world.loop.create_task(node.drain_and_stop(), context=node.context)
            self.world.start_node()

    def cut_database(self) -> None:
        self.dice.choice(self.world.nodes).database.cut()

    def lose_database(self) -> None:
        weather = self.world.weather
        weather.is_away = True
        for node in self.world.nodes:
            node.database.cut()

        def back() -> None:
            weather.is_away = False

        self.world.loop.call_later(3 * self.dice.random(), back)

    def fail_over(self) -> None:
        documents = [document for document in self.world.postgres.documents.values() if not document.replaced]
        self.world.postgres.timeline += 1
        for node in self.world.nodes:
            node.database.cut()
        for document in documents:
            if not self.world.postgres.is_held(document):
                self.world.postgres.go_back(document, self.dice.randrange(4))

    def _document(self) -> Document | None:
        documents = self.world.current_documents()
        return self.dice.choice(documents) if documents else None

    def hold_head(self) -> None:
        document, postgres = self._document(), self.world.postgres
        if document is not None and not postgres.is_held(document):
            session = Session(1.0)

            async def hold() -> None:
                await postgres.lock(session, document.id)
                await asyncio.sleep(2 * self.dice.random())
                postgres.roll_back(session)

            self.world.loop.create_task(hold())

    def compact(self) -> None:
        document = self._document()
        if document is not None:
            self.world.postgres.compact(document, self.dice.choice((1, 5, 1_000)))

    def delete(self) -> None:
        document = self._document()
        if document is not None and not self.world.postgres.is_held(document):
            self.world.postgres.delete(document)

    def recreate(self) -> None:
        document = self._document()
        if document is not None and not self.world.postgres.is_held(document):
            marker = self.dice.randrange(RESERVED_CLIENT_ID_MIN, 2**53)
            self.world.postgres.recreate(document, marker)


def simulate(seed: int) -> Ran:
    """Run one seed to its end. Raises `Broken`."""
    dice = Random(seed)
    loop = SimulatedLoop(dice, in_order=dice.random() < 0.2)
    with rigged(loop, dice) as complaints:
        world = World(dice, loop)
        trouble = ""
        try:
            loop.run(world.run())
        except Exception as error:
            trouble = f"{type(error).__name__}: {error}"
            if not isinstance(error, AssertionError):
                raise
    _judge(seed, world, complaints, trouble)
    for editor in world.editors:
        editor.forget()
    text = "/".join(f"{document.id}:{document.head}" for document in world.postgres.documents.values())
    oracle = world.oracle
    return Ran(seed, loop.callbacks_run, oracle.commits, oracle.frames, oracle.acks, loop.now_s - START_S, text)


def _judge(seed: int, world: World, complaints: Complaints, trouble: str) -> None:
    raised = [f"a callback raised: {context!r}" for context in world.loop.troubles if "handle" in context]
    found = [*world.oracle.broken, *complaints.heard, *raised, *([trouble] if trouble else [])]
    if found:
        command = (
            f"YDOC_TEST_SIMULATION_SEED={seed} pytest tests/simulation/test_simulation.py -k no_interleaving_breaks"
        )
        raise Broken("\n".join([f"seed {seed} breaks {len(found)} promises; repeat it with", command, *found[:10]]))
