"""What must hold, judged at the moment at which it could break: at every edit, commit, frame in and frame out.

The oracle keeps sets of single units, (client id, clock), and none of the product's range arithmetic; only the
walker tells it what an update brings. A broken promise is noted with its number and time and fails the run, since
an exception raised here would be taken for trouble of the product's. What must hold at the end is in `ending`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tests.simulation.postgres import Document
from ydoc_store.yjs.messages import SyncStep1, SyncStep2, Update, decode_message
from ydoc_store.yjs.ranges import decode_state_vector
from ydoc_store.yjs.walker import RESERVED_CLIENT_ID_MIN, walk

if TYPE_CHECKING:
    from tests.simulation.network import Socket

ACK = b"\x7f\x01"
NACK = b"\x7f\x00"

Unit = tuple[int, int]


def units(ranges: Sequence[tuple[int, int, int]]) -> Iterator[Unit]:
    for client, start, end in ranges:
        for clock in range(start, end):
            yield client, clock


class Log:
    """What of one document was committed; `clocks` is what is stored of it now, after a failover too."""

    def __init__(self) -> None:
        self.stored: set[Unit] = set()
        self.deleted: set[Unit] = set()
        # The next clock of each client; there are no gaps, or the oracle has complained.
        self.clocks: dict[int, int] = {}

    def holds(self, update: bytes) -> bool:
        walked = walk(update)
        return self.stored.issuperset(units(walked.structs)) and self.deleted.issuperset(units(walked.deletes))


class Oracle:
    """Notes what breaks a promise. It is the database's `Witness` too."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self.broken: list[str] = []
        self.logs: dict[int, Log] = {}
        # Who wrote a unit under which marker; None before the writer's first sync.
        self.attempted: dict[Unit, int | None] = {}
        self.attempted_deletes: set[Unit] = set()
        self.acks = self.commits = self.frames = 0
        self._now_s = now_s

    def breaks(self, promise: str, words: str) -> None:
        self.broken.append(f"{promise} at {self._now_s():.3f} s: {words}")

    def edited(self, update: bytes, marker: int | None) -> None:
        """An editor has just made this."""
        walked = walk(update)
        for unit in units(walked.structs):
            self.attempted.setdefault(unit, marker)
        self.attempted_deletes.update(units(walked.deletes))

    # Commits

    def created(self, document: Document) -> None:
        log = self.logs[document.id] = Log()
        # The marker is a GC struct, and delete sets hold those.
        marker = (document.marker, 0)
        log.stored.add(marker)
        log.deleted.add(marker)
        log.clocks[document.marker] = 1
        self.attempted[marker] = document.marker
        self.attempted_deletes.add(marker)

    def committed(self, document: Document, updates: Sequence[bytes]) -> None:
        self.commits += 1
        log = self.logs[document.id]
        if document.deleted or document.replaced:
            self.breaks("I12", f"document {document.id} was appended to after its end")
        if document.head != len(document.history):
            self.breaks("I3", f"the head of document {document.id} is {document.head} of {len(document.history)}")
        for update in updates:
            walked = walk(update)
            for client, start, end in walked.structs:
                if start > log.clocks.get(client, 0):
                    self.breaks("I4", f"client {client}: {start} is stored without {log.clocks.get(client, 0)}")
                log.clocks[client] = max(end, log.clocks.get(client, 0))
            for unit in units(walked.structs):
                if self.attempted.get(unit, -1) not in (None, document.marker):
                    self.breaks("I10", f"{unit} of another history, or of nobody, is in document {document.id}")
                log.stored.add(unit)
            for unit in units(walked.deletes):
                if unit not in log.stored or unit not in self.attempted_deletes:
                    self.breaks("I4", f"the delete of {unit} is stored, which never was")
                log.deleted.add(unit)

    def went_back(self, document: Document) -> None:
        """A failover lost what its standby lacked; editors bring back what they have."""
        clocks = {document.marker: 1}
        for update in document.history:
            for client, _, end in walk(update).structs:
                clocks[client] = max(end, clocks.get(client, 0))
        self.logs[document.id].clocks = clocks

    # Frames

    def proof_for(self, socket: Socket) -> Proof:
        return Proof(self, socket)

    def log_of(self, socket: Socket) -> Log | None:
        session = socket.session
        document_id = None if session is None else session.member.room.document_id
        return None if document_id is None else self.logs.get(document_id)

    def written(self, socket: Socket, frame: bytes) -> None:
        """The node shows this to somebody."""
        self.frames += 1
        if frame == ACK:
            self.acks += 1
            socket.proof.acked()
            return
        message = decode_message(frame)
        log = self.log_of(socket)
        if isinstance(message, Update | SyncStep2):
            walked = walk(message.update)
            if not walked.is_empty and (log is None or not log.holds(message.update)):
                self.breaks("I2", f"{socket.id} is shown what is not committed: {walked.structs} {walked.deletes}")
        elif isinstance(message, SyncStep1):
            for client, clock in decode_state_vector(message.state_vector, clients_max=10_000).items():
                if log is None or (client, clock - 1) not in log.stored:
                    self.breaks("I1", f"{socket.id} is told that {client} is stored up to {clock}")

    def applied(self, who: object, update: bytes, state: dict[int, int]) -> None:
        """An editor has taken an update in; `state` is its state vector now. Nothing waits for what it was not sent."""
        for client, _, end in walk(update).structs:
            if state.get(client, 0) < end:
                self.breaks("I5", f"{who} has {client} up to {state.get(client, 0)} and was sent {end}")


class Proof:
    """Of one connection: no more acks than updates of its own that are committed, deletes included (I1)."""

    def __init__(self, oracle: Oracle, socket: Any) -> None:
        self._oracle = oracle
        self._socket = socket
        self._unproven: list[bytes] = []
        self._proven = 0
        self._acks = 0

    def handed_over(self, frame: bytes) -> None:
        message = decode_message(frame)
        if isinstance(message, Update | SyncStep2):
            self._unproven.append(message.update)

    def acked(self) -> None:
        self._acks += 1
        if self._acks > self._proven:
            log = self._oracle.log_of(self._socket)
            still = [] if log is None else [update for update in self._unproven if not log.holds(update)]
            if log is None:
                # Of a document that does not exist: an update that holds nothing.
                still = [update for update in self._unproven if not walk(update).is_empty]
            self._proven += len(self._unproven) - len(still)
            self._unproven = still
        if self._acks > self._proven:
            self._oracle.breaks("I1", f"{self._socket.id} got {self._acks} acks, {self._proven} of it are committed")


def marker_in(state: dict[int, int]) -> int | None:
    """The epoch's marker in an editor's state vector."""
    return next((client for client in state if client >= RESERVED_CLIENT_ID_MIN), None)
