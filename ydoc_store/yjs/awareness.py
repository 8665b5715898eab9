"""The payload of an awareness message: who is here, and what they show of themselves.

Decodes and encodes entries, strictly and within limits. Which entry is newer, whose it is and who hears of it is
for the room; nothing here is ever stored.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import NamedTuple, NoReturn

from ydoc_store.errors import InvalidFrame
from ydoc_store.yjs.lib0 import Malformed, Reader, encode_string, encode_uint, json_nesting

_CLOCK_MAX = 2**31 - 1
"""A clock rises by one every 15 s or with a change; a greater one is sent to shut a client out for good."""


class AwarenessEntry(NamedTuple):
    """What one editor shows at one clock: `state_json` is its JSON object as sent, or None where it is gone."""

    client_id: int
    clock: int
    state_json: str | None


def decode_awareness(payload: bytes, *, entries_max: int, bytes_max: int, json_depth_max: int) -> list[AwarenessEntry]:
    """The entries of an awareness payload, in order; the JSON text is passed on as it was written.

    Raises `InvalidFrame` for one that is malformed, over `bytes_max` or `entries_max`, or names an editor twice;
    for a clock of 2**31 and more, and for JSON that is neither null nor an object, or nested too deep.
    """
    if len(payload) > bytes_max:
        raise InvalidFrame(f"awareness of {len(payload)} bytes, at most {bytes_max}")
    reader = Reader(payload)
    try:
        count = reader.uint()
        if count > entries_max:
            raise InvalidFrame(f"awareness of {count} editors, at most {entries_max}")
        entries = [_read_entry(reader, json_depth_max) for _ in range(count)]
    except Malformed as error:
        raise InvalidFrame(f"not an awareness message: {error}") from error
    if not reader.done:
        raise InvalidFrame(f"bytes behind the awareness entries at offset {reader.at}")
    if len({entry.client_id for entry in entries}) < count:
        raise InvalidFrame("awareness of one editor twice")
    return entries


def _read_entry(reader: Reader, json_depth_max: int) -> AwarenessEntry:
    client_id = reader.uint()
    clock = reader.uint()
    if clock > _CLOCK_MAX:
        raise Malformed(f"a clock too large at offset {reader.at}")
    text = reader.string()
    if text == "null":
        return AwarenessEntry(client_id, clock, None)
    if text.count("[") + text.count("{") > json_depth_max and json_nesting(text) > json_depth_max:
        raise Malformed(f"JSON nested deeper than {json_depth_max}")
    try:
        # The json module and not orjson: JSON.stringify escapes a name cut inside an emoji as a lone surrogate.
        state = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except ValueError as error:
        raise Malformed("invalid JSON") from error
    if state is None:
        return AwarenessEntry(client_id, clock, None)
    if not isinstance(state, dict):
        raise Malformed("a state that is neither null nor an object")
    return AwarenessEntry(client_id, clock, text)


def _finite(text: str) -> float:
    """Written again by `stamp`, what is too large for a float would be `Infinity`, at which every browser throws."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is no number")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def stamp(entry: AwarenessEntry, user_id: str | None, user_name: str | None) -> AwarenessEntry:
    """The entry with `user.id` as given (none where None), `user.name` where one is given, and all else as it was."""
    if entry.state_json is None:
        return entry
    state = json.loads(entry.state_json)
    user = state.get("user")
    user = dict(user) if isinstance(user, dict) else {}
    user.pop("id", None)
    if user_id is not None:
        user["id"] = user_id
    if user_name is not None:
        user["name"] = user_name
    return entry._replace(state_json=json.dumps({**state, "user": user}, separators=(",", ":")))


def stamped_id(entry: AwarenessEntry) -> str | None:
    """Whose entry this is, by its stamp."""
    user = json.loads(entry.state_json).get("user") if entry.state_json is not None else None
    found = user.get("id") if isinstance(user, dict) else None
    return found if isinstance(found, str) else None


def encode_awareness_entries(entries: Iterable[AwarenessEntry]) -> bytes:
    """The payload that holds the entries, in their order."""
    count = 0
    parts: list[bytes] = []
    for client_id, clock, state_json in entries:
        count += 1
        parts += (encode_uint(client_id), encode_uint(clock), encode_string(state_json or "null"))
    return encode_uint(count) + b"".join(parts)
