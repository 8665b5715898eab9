"""Who asks for which document, and what they were granted: the words between adapters and whoever decides.

Values and pure rules. Every adapter asks the same function (`Authorize`) before it loads anything; how tokens are
judged and applications are asked lives beside this.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from ydoc_store.names import DEFAULT_TENANT


class Access(IntEnum):
    """What somebody may do to a document; each includes the ones before it."""

    NONE = 0
    READ = 1
    WRITE = 2
    ADMIN = 3

    @classmethod
    def parse(cls, word: object) -> Access | None:
        """`read`, `write` or `admin`; None for anything else, which grants nothing."""
        found = cls.__members__.get(word.upper()) if isinstance(word, str) and word.islower() else None
        return None if found is cls.NONE else found


@dataclass(frozen=True, slots=True)
class Asked:
    """One connection wants one document. What it brought to say who it is: a token, or cookies for the application.

    `address` is the peer's, without its port. None and "" both mean that nothing was brought.
    """

    document: str
    token: str | None = None
    cookie: str | None = None
    origin: str | None = None
    address: str | None = None
    dialect: str = ""


@dataclass(frozen=True, slots=True)
class Granted:
    """What one principal may do to one document of its tenant, and until when.

    `actor` is written beside its updates; `name` is what others are shown, None where the token has none. Times are
    seconds since 1970 by this host's clock; `expires_at_s` None means never, `issued_at_s` None that nobody knows.
    """

    tenant: str
    actor: str | None
    access: Access
    name: str | None = None
    expires_at_s: float | None = None
    issued_at_s: float | None = None
    # What a document that nobody has written to begins with, as a Yjs update.
    initial_update: bytes | None = None
    # Of an answer about `*`: which documents lists show, by pattern; None for what `access` says.
    documents: Mapping[str, Access] | None = field(default=None, hash=False)

    @property
    def may_write(self) -> bool:
        return self.access >= Access.WRITE


@dataclass(frozen=True, slots=True)
class Reach:
    """Which of a tenant's documents one principal may read: what a list shows.

    `grants` None is all of them. What was taken back is left out by `is_revoked`.
    """

    granted: Granted
    grants: Mapping[str, Access] | None = None
    is_revoked: Callable[[str], bool] = lambda _document: False
    # Those of the grants that are no whole name: there may be thousands of names, and each line of a feed is asked for.
    _patterns: Mapping[str, Access] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        wild = {pattern: access for pattern, access in (self.grants or {}).items() if "*" in pattern}
        object.__setattr__(self, "_patterns", wild)

    def covers(self, document: str) -> bool:
        return self._is_granted(document) and not self.is_revoked(document)

    def _is_granted(self, document: str) -> bool:
        if self.grants is None or self.grants.get(document, Access.NONE) >= Access.READ:
            return True
        return strongest(self._patterns, document) >= Access.READ

    @property
    def prefix(self) -> str:
        """What every covered name begins with: a list need not look further."""
        literal = [pattern.partition("*")[0] for pattern in self.grants or ()]
        if not literal:
            return ""
        first, last = min(literal), max(literal)
        differs_at = (at for at, (one, other) in enumerate(zip(first, last, strict=False)) if one != other)
        return first[: next(differs_at, len(first))]


Authorize = Callable[[Asked], Awaitable[Granted]]
"""Grants at least reading. Raises Unauthenticated, Forbidden or another ClientFault for a refusal, and a ServerFault
where it cannot be told now."""


Judge = Callable[[Granted, str], None]
"""Whether what was granted for a document still holds. Raises Unauthenticated where it does not."""


OPEN: Final = Granted(DEFAULT_TENANT, None, Access.ADMIN)
"""Everything, to everyone: for a server without identities, which listens on loopback only."""


def strongest(grants: Mapping[str, Access], document: str) -> Access:
    """The strongest access that any matching pattern gives; NONE where none matches.

    `*` stands for any characters, `/` included, and nothing else is special.
    """
    return max((access for pattern, access in grants.items() if matches(pattern, document)), default=Access.NONE)


def matches(pattern: str, document: str) -> bool:
    """Whether the pattern covers the whole name. Linear in both, whatever a token's maker wrote."""
    if "*" not in pattern:
        return pattern == document
    first, *middle, last = pattern.split("*")
    if len(first) + len(last) > len(document) or not document.startswith(first) or not document.endswith(last):
        return False
    at, end = len(first), len(document) - len(last)
    for piece in middle:
        at = document.find(piece, at, end)
        if at < 0:
            return False
        at += len(piece)
    return True
