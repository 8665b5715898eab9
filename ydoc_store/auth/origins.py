"""Which pages may connect: a browser sends cookies from anywhere, and says from which page it was asked to.

Pure, over a request's Origin and Host. Pages of the same host and of loopback may; others must be named, exactly.
Programs send no Origin, and are judged by their token alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ydoc_store.auth.open_mode import is_loopback_name
from ydoc_store.errors import Forbidden, SettingInvalid

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([^/?#@\s]+)", re.ASCII)


class Origins:
    """The pages that are named in a setting, and the rule for the others."""

    def __init__(self, named: Iterable[str]):
        """Raises SettingInvalid for what is no origin."""
        self._named = frozenset(named)
        for origin in self._named:
            if _ORIGIN.fullmatch(origin) is None:
                raise SettingInvalid(f"YDOC_ORIGINS: {origin!r} is no origin, such as https://app.example.com")

    @classmethod
    def parse(cls, text: str) -> Origins:
        """From a list with commas. Raises SettingInvalid."""
        return cls(part.strip().rstrip("/").lower() for part in text.split(",") if part.strip())

    def judge(self, origin: str | None, host: str | None) -> None:
        """Raises Forbidden where a page asks that may not; `null` and anything odd is such a page."""
        if origin is None:
            return
        found = _ORIGIN.fullmatch(origin.lower())
        if found is not None and (
            origin.lower() in self._named
            or is_loopback_name(found[1])
            or (host is not None and found[1] == host.lower())
        ):
            return
        raise Forbidden("pages of this Origin may not connect: name it in YDOC_ORIGINS")
