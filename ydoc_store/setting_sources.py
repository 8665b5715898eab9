"""Where a setting's value comes from: its flag, its variable, or, for a secret, the file that `…_FILE` names.

Texts in, texts out: the environment itself is read by `settings` alone. A name that is none of ours is refused, with
the nearest one named, and no secret's value appears in any message.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from ydoc_store.errors import SettingInvalid

PREFIX = "YDOC_"
EXEMPT_PREFIX = "YDOC_TEST_"
SECRETS = frozenset({"database_url", "jwt_secret", "jwt_public_key", "authorize_secret"})

Source = Literal["default", "environment", "file", "flag"]


def variable_of(name: str) -> str:
    return PREFIX + name.upper()


def _flag_of(name: str) -> str:
    return "--" + name.replace("_", "-")


def refuse_empty(flags: Mapping[str, object]) -> None:
    # mostly a shell's variable that is not set; what would be used instead is not what was asked for
    empty = [_flag_of(name) for name, value in flags.items() if isinstance(value, str) and not value.strip()]
    if empty:
        raise SettingInvalid("\n".join(f"{flag} is empty: give it a value, or leave it out" for flag in empty))


def refuse_unknown(variables: Mapping[str, str], fields: Collection[str]) -> None:
    known = {variable_of(name) for name in fields}
    known |= {variable_of(name) + "_FILE" for name in SECRETS}
    unknown = sorted(name for name in variables if name not in known and not name.startswith(EXEMPT_PREFIX))
    if not unknown:
        return
    lines = []
    for name in unknown:
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
        lines.append(f"{name} is no setting; the nearest is {nearest}")
    raise SettingInvalid("\n".join(lines) + "\nonce that is unset, `ydoc-store settings` lists them all")


def read_secret_files(variables: Mapping[str, str]) -> dict[str, str]:
    values = {}
    for name in sorted(SECRETS):
        variable = variable_of(name)
        path = variables.get(variable + "_FILE")
        if not path:
            continue
        if variables.get(variable):
            raise SettingInvalid(f"both {variable} and {variable}_FILE are set; leave one out")
        try:
            values[name] = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
            raise SettingInvalid(f"{variable}_FILE: cannot read {path}: {reason}") from None
        if not values[name]:
            raise SettingInvalid(f"{variable}_FILE: {path} is empty")
    return values


def explain(error: ValidationError, flags: Mapping[str, object], fields: Collection[str]) -> str:
    lines = []
    for entry in error.errors(include_url=False, include_context=False, include_input=True):
        reason = entry["msg"].removeprefix("Value error, ")
        name = str(entry["loc"][0]) if entry["loc"] else ""
        if name not in fields:
            lines.append(f"{name} is no setting" if name else reason)
            continue
        told = _flag_of(name) if name in flags else variable_of(name)
        given = "" if name in SECRETS else f" is {str(entry['input'])[:100]!r}"
        lines.append(f"{told}{given}: {reason[0].lower()}{reason[1:]}")
    return "\n".join(lines)
