"""Who asks for which document, and what they were granted: the words between adapters and whoever decides.

Values only. Deciding lives beside this: today `open_access`, which grants everything to everyone, because an open
server listens on loopback only.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ydoc_store.names import DEFAULT_TENANT


@dataclass(frozen=True, slots=True)
class Asked:
    """One connection wants one document. `token` is what it brought to say who it is, None where it brought none."""

    document: str
    token: str | None
    dialect: str


@dataclass(frozen=True, slots=True)
class Granted:
    """It may read the document, and write it where `may_write`. `actor` is written beside its updates."""

    tenant: str
    actor: str | None
    may_write: bool


Authorize = Callable[[Asked], Awaitable[Granted]]
"""Raises Unauthenticated, Forbidden or another ClientFault for a refusal, a ServerFault where it cannot be told now."""


async def open_access(asked: Asked) -> Granted:
    """Everything, to everyone: for a server without identities."""
    return Granted(DEFAULT_TENANT, None, may_write=True)
