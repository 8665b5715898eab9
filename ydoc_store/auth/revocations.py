"""What was taken back, as this process knows it: asked at every door, and of everyone inside when it changes.

Pure but for the one read that fills it. A token counts as revoked when it was issued before the moment that was
set, or when nobody knows when it was issued.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from ydoc_store.auth.access import Granted
from ydoc_store.errors import Unauthenticated
from ydoc_store.storage.revocations import Revocation, list_revocations

if TYPE_CHECKING:
    from ydoc_store.storage.pool import Database


class Revocations:
    """`changed` is called after each read that brought something new."""

    def __init__(self) -> None:
        self.changed: Callable[[], None] = lambda: None
        self._before_s: dict[tuple[str, str, str], float] = {}

    async def refresh(self, database: Database, lifetime_s_max: float) -> None:
        """Read them all. Raises ServerFault; what was known before then stays in force."""
        self.take(await list_revocations(database, lifetime_s_max=lifetime_s_max))

    def take(self, revocations: Iterable[Revocation]) -> None:
        """Replace what is known."""
        before_s: dict[tuple[str, str, str], float] = {}
        for one in revocations:
            key = one.tenant, one.kind, one.value
            before_s[key] = max(one.before.timestamp(), before_s.get(key, 0.0))
        is_news = any(self._before_s.get(key, 0.0) < moment for key, moment in before_s.items())
        self._before_s = before_s
        if is_news:
            self.changed()

    def judge(self, granted: Granted, document: str) -> None:
        """Raises Unauthenticated where what was granted has been taken back."""
        if self._before_s:
            tenant = granted.tenant
            for key in ((tenant, "user", granted.actor or ""), (tenant, "document", document), (tenant, "tenant", "")):
                before_s = self._before_s.get(key)
                if before_s is not None and (granted.issued_at_s is None or granted.issued_at_s < before_s):
                    raise Unauthenticated("this access was revoked")
