"""What must hold for one update to be accepted, beyond what holds for every update.

A guard is judged on the document's locked head row, in the append's own transaction, so that a retry, a condition
and a close mean the same on every node. Values only here.
"""

from __future__ import annotations

from dataclasses import dataclass

from ydoc_store.errors import YdocError


@dataclass(frozen=True, slots=True)
class Producer:
    """Who numbers what it sends, so that a retry is stored once."""

    id: str
    epoch: int
    seq: int


@dataclass(frozen=True, slots=True)
class Guard:
    """Every part that is given must hold. `head_is` 0: nothing was ever accepted."""

    producer: Producer | None = None
    head_is: int | None = None
    epoch_is: int | None = None
    stream_seq: str | None = None
    closes: bool = False


@dataclass(frozen=True, slots=True)
class Duplicate:
    """This producer's update was accepted before: `producer_seq` is its last one, `head` the document's."""

    producer_seq: int
    head: int


Verdict = Duplicate | YdocError
