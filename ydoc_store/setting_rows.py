"""Settings as `ydoc-store settings` lists them: value, source, unit, default and reason, and no secret.

Which settings there are, and what they may be, is `settings`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from pydantic import SecretStr

from ydoc_store.setting_sources import Source, variable_of
from ydoc_store.settings import Settings
from ydoc_store.units import Unit

MASK = "********"


class SettingRow(NamedTuple):
    """One setting as `ydoc-store settings` lists it; a URL's password is masked."""

    name: str
    variable: str
    value: str | int | float | bool | None
    source: Source
    unit: str | None
    default: str | int | float | bool | None
    reason: str


def describe(settings: Settings) -> list[SettingRow]:
    """Every setting in the order of this module, which groups what belongs together."""
    rows = []
    for name, field in Settings.model_fields.items():
        unit = next((mark.name for mark in field.metadata if isinstance(mark, Unit)), None)
        rows.append(
            SettingRow(
                name=name,
                variable=variable_of(name),
                value=_shown(name, getattr(settings, name)),
                source=settings.sources.get(name, "default"),
                unit=unit,
                default=_shown(name, field.get_default(call_default_factory=True, validated_data={})),
                reason=" ".join((field.description or "").split()),
            )
        )
    return rows


def without_password(url: str) -> str:
    """A database's URL with stars for its passwords; stars alone where it cannot be told what belongs to one."""
    parts = re.fullmatch(r"(\w+://)(?:([^:/?#@]*)(:[^/?#@]*)?@)?([^/?#@]*(?:/[^?#@]*)?)(\?[^#@]*)?", url)
    if parts is None:
        return MASK
    scheme, user, password, place, query = parts.groups(default="")
    pairs = [pair.partition("=") for pair in query.removeprefix("?").split("&")]
    # `password`, `sslpassword`, `passfile`
    told = "&".join(key + eq + (MASK if "pass" in unquote(key).lower() else value) for key, eq, value in pairs)
    account = user + (f":{MASK}" if password else "") + "@" if user or password else ""
    return f"{scheme}{account}{place}{'?' if query else ''}{told}"


def _shown(name: str, value: Any) -> str | int | float | bool | None:
    if isinstance(value, SecretStr):
        return without_password(value.get_secret_value()) if name == "database_url" else MASK
    return str(value) if isinstance(value, Path) else value
