"""What a connection asks of the session that takes its frames. Which dialects there are is the rooms'."""

from __future__ import annotations

from typing import Protocol


class Session(Protocol):
    """What takes the frames of one connection."""

    def receive(self, frame: bytes) -> None: ...
    def keepalive(self) -> bytes | None:
        """What to send to a peer that would take silence for our death; None where there is nobody to tell."""

    def review(self) -> None:
        """Whether whoever is there still may be."""

    def closed(self) -> None: ...
