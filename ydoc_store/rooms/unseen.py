"""The outlet and the dialect of members that no socket carries: who writes once, and who reads at its own pace.

Nothing is pushed to such a member, so nothing can wait for it. Its end is all that it hears of.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ydoc_store.errors import YdocError


class NoDialect:
    """Says nothing."""

    name: Final = "none"

    def step1(self, _state_vector: bytes) -> bytes:
        return b""

    def step2(self, _update: bytes) -> bytes:
        return b""

    def update(self, _update: bytes) -> bytes:
        return b""

    def awareness(self, _payload: bytes) -> bytes:
        return b""

    def ack(self, *, accepted: bool) -> bytes | None:
        """Members without a socket are told otherwise."""

    def denied(self, _reason: str) -> None:
        """Likewise."""

    def stateless(self, _words: str) -> None:
        """Likewise."""


class EndOutlet:
    """Hears of the member's end alone. `id` is what log lines call it."""

    def __init__(self, identity: str, ended: Callable[[YdocError], None]):
        self.id = identity
        self._ended = ended

    def encode(self, message: bytes) -> bytes:
        return message

    def write(self, encoded: bytes) -> None:
        """It is never live and shows up for no presence, so nothing is written to it."""

    async def write_paced(self, _encoded: bytes) -> bool:
        return False

    def close(self, error: YdocError) -> None:
        self._ended(error)

    def pause_reading(self) -> None:
        """It has sent all that it will."""

    def resume_reading(self) -> None:
        """Likewise."""


NO_DIALECT: Final = NoDialect()
