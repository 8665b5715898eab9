"""The walker's short cut for the two updates that typing is made of: a typed string, and an erased range.

One compiled pattern each, and nothing else: whatever else comes, malformed bytes included, is left to the full
parser of walker.py, which gives the same answer for these two as well (a property test compares them).
"""

from __future__ import annotations

import re
from functools import lru_cache

from ydoc_store.yjs.walked import Walked

# The two updates that typing is made of. Only canonical varints match, client ids below 2**49 and clocks below
# 2**28; whatever does not match, or is not plausible, is for the full parser to judge.
_ID = rb"((?:[\x80-\xff]{1,6}[\x01-\x7f]|[\x00-\x7f]))"
_CLOCK = rb"((?:[\x80-\xff]{1,3}[\x01-\x7f]|[\x00-\x7f]))"
_TYPED = re.compile(
    rb"\x01\x01" + _ID + _CLOCK  # one client, one struct: its id
    + rb"(?:[\x84\x44]|\xc4" + _ID + _CLOCK + rb")" + _ID + _CLOCK  # a string with an origin, a right one, or both
    + rb"([\x01-\x7f])([\x00-\x7f]{1,127})\x00",  # ASCII, so that bytes are UTF-16 units; no deletes
    re.DOTALL,
)  # fmt: skip
_ERASED = re.compile(rb"\x00\x01" + _ID + rb"\x01" + _CLOCK + _CLOCK, re.DOTALL)  # no structs, one deleted range


def _uint(encoded: bytes) -> int:
    value = 0
    for byte in reversed(encoded):
        value = value << 7 | byte & 0x7F
    return value


_client_id = lru_cache(4096)(_uint)


def walk_typed(update: bytes) -> Walked | None:
    """The whole answer where `update` is one typed ASCII string or one deleted range; None for all others."""
    match = _TYPED.fullmatch(update)
    if match is not None:
        client, clock, origin_client, origin_clock, last_client, last_clock, length, text = match.groups()
        units = len(text)
        if units != length[0]:
            return None
        start = _uint(clock)
        if last_client == client and _uint(last_clock) >= start:
            return None
        if origin_client == client and _uint(origin_clock) >= start:
            return None
        return Walked([(_client_id(client), start, start + units)], [], 1, 1, 0)
    match = _ERASED.fullmatch(update)
    if match is not None:
        client, clock, length = match.groups()
        units = _uint(length)
        if units == 0:
            return None
        start = _uint(clock)
        return Walked([], [(_client_id(client), start, start + units)], 0, 1, 1)
    return None


def is_typed(update: bytes) -> bool:
    """Whether `update` has the form of one of the two, as bytes: enough to know that no other content is in it."""
    return _TYPED.fullmatch(update) is not None or _ERASED.fullmatch(update) is not None
