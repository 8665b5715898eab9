"""A journal of every attempt and every ack, kept outside the process under test, in a file.

A line is written by one system call to a file that is open for appending: several processes share one journal, and
a line that was written survives the `kill -9` of whoever wrote it. An attempt is written before the edit leaves, an
ack after it was heard of, so that what the journal knows is never more than what happened: acked ⊆ stored ⊆
attempted is decided on it by `oracle`. `editors.mjs` writes the same lines.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

MARKER = re.compile(r"<([\w-]+\.\d+)>")

Kind = Literal["attempted", "acked"]


def markers_in(text: str) -> Iterator[str]:
    """The markers that a text holds, in its order: `anna.7` for each `<anna.7>`."""
    return (found[1] for found in MARKER.finditer(text))


def marked(marker: str) -> str:
    """A marker as it stands in a document. Whoever types it does so in one insert."""
    return f"<{marker}>"


class Entry(NamedTuple):
    """One line. `at_s` is the system's clock, which the processes of one machine share."""

    kind: Kind
    document: str
    marker: str
    at_s: float


@dataclass(slots=True)
class Known:
    """What is known of one document from outside. An ack without its attempt would be a fault of the test."""

    attempted: set[str] = field(default_factory=set)
    acked: set[str] = field(default_factory=set)


class Journal:
    """Appends to `path`, which is made where it is missing; reads what everyone wrote there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def attempted(self, document: str, marker: str) -> None:
        """Before the edit leaves."""
        self._write("attempted", document, marker)

    def acked(self, document: str, marker: str) -> None:
        """Somebody was told that it is saved, or another client has seen it."""
        self._write("acked", document, marker)

    def seen(self, document: str, text: str) -> None:
        """Everything in this text was shown to somebody who did not write it."""
        for marker in markers_in(text):
            self.acked(document, marker)

    def _write(self, kind: Kind, document: str, marker: str) -> None:
        os.write(self._file, json.dumps([kind, document, marker, time.time()]).encode() + b"\n")

    def entries(self) -> list[Entry]:
        """Every whole line so far. The last may be half written by somebody who is at it."""
        text = self.path.read_text()
        return [Entry(*json.loads(line)) for line in text[: text.rfind("\n") + 1].splitlines()]

    def known(self) -> dict[str, Known]:
        return known_from(self.entries())

    def close(self) -> None:
        os.close(self._file)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def known_from(entries: Iterable[Entry]) -> dict[str, Known]:
    """By document."""
    documents: dict[str, Known] = {}
    for entry in entries:
        known = documents.setdefault(entry.document, Known())
        (known.attempted if entry.kind == "attempted" else known.acked).add(entry.marker)
    return documents
